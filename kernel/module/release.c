// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the kernel releases pages of a locked VMA
 *
 * For each such function of the kernel there is what looks at its arguments
 * when it is entered, and, where there may be something to wipe, a wrapper that
 * is called instead of it and calls it.
 *
 * What looks may not sleep. Its answer is whether the wrapper is wanted; some
 * only look.
 */

#include <linux/ftrace.h>
#include <linux/hashtable.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/userfaultfd_k.h>

#include "wipe.h"

/*
 * What a task is in the middle of, for the functions that it calls from there:
 * unmapping from a locked VMA, with an mmu_gather in which there is nothing
 * else; or collapsing small pages to a huge one, or mapping what has migrated,
 * and whether that is of a locked VMA.
 */
struct scope {
	struct hlist_node node;
	struct task_struct *task;
	struct mmu_gather *tlb;
	bool collapse;
	bool migration;
	bool locked;
	bool deferred;
};

#define SCOPE_BITS 6

static DEFINE_RAW_SPINLOCK(scope_lock);
static DEFINE_HASHTABLE(scopes, SCOPE_BITS); /* by task */
static atomic_t nr_scopes;

static void scope_enter(struct scope *scope)
{
	scope->task = current;
	raw_spin_lock(&scope_lock);
	hash_add(scopes, &scope->node, (unsigned long)current);
	raw_spin_unlock(&scope_lock);
	atomic_inc(&nr_scopes);
}

static void scope_leave(struct scope *scope)
{
	atomic_dec(&nr_scopes);
	raw_spin_lock(&scope_lock);
	hash_del(&scope->node);
	raw_spin_unlock(&scope_lock);
}

/* The one that the current task is in. */
static struct scope *scope_now(void)
{
	struct scope *scope, *found = NULL;

	/* RCU frees page tables in a softirq, on whatever task it interrupts. */
	if (!in_task() || !atomic_read(&nr_scopes))
		return NULL;
	raw_spin_lock(&scope_lock);
	hash_for_each_possible(scopes, scope, node, (unsigned long)current) {
		if (scope->task == current) {
			found = scope;
			break;
		}
	}
	raw_spin_unlock(&scope_lock);
	return found;
}

static bool is_locked(const struct vm_area_struct *vma)
{
	return vma->vm_flags & (VM_LOCKED | VM_LOCKEDCOPY);
}

/* unmap_page_range: whatever releases memory comes through here. */

typedef void unmap_fn(struct mmu_gather *tlb, struct vm_area_struct *vma,
		      unsigned long addr, unsigned long end,
		      struct zap_details *details);
DEFINE_STATIC_CALL_NULL(orig_unmap, unmap_fn);

static bool wants_unmap(struct pt_regs *regs)
{
	return mlocked_is_on() && is_locked((void *)regs->si);
}

static void wrap_unmap(struct mmu_gather *tlb, struct vm_area_struct *vma,
		       unsigned long addr, unsigned long end,
		       struct zap_details *details)
{
	struct scope scope = { .tlb = tlb };

	mlocked_count(MLOCKED_CALLS, 1);
	/* What is in there is of VMAs before this one. */
	if (tlb->local.nr)
		static_call(mlocked_tlb_flush_mmu)(tlb);
	VM_WARN_ON_ONCE(tlb->active != &tlb->local || tlb->local.nr);
	scope_enter(&scope);
	static_call(orig_unmap)(tlb, vma, addr, end, details);
	static_call(mlocked_tlb_flush_mmu)(tlb);
	scope_leave(&scope);
	if (scope.deferred && tlb->fullmm)
		mlocked_flush_deferred();
	mlocked_leave();
}

/*
 * free_pages_and_swap_cache: what tlb_flush_mmu() calls for each batch of the
 * mmu_gather. All of them are wiped before the first is freed: a folio may be
 * in two.
 */

typedef void free_pages_fn(void *pages, int nr);
DEFINE_STATIC_CALL_NULL(orig_free_pages, free_pages_fn);

static bool wants_free_pages(struct pt_regs *regs)
{
	struct scope *scope = scope_now();

	return scope && scope->tlb &&
	       (void *)regs->di == linux_gather_start(scope->tlb);
}

static void wrap_free_pages(void *pages, int nr)
{
	struct scope *scope = scope_now();

	scope->deferred |= mlocked_wipe_gather(scope->tlb);
	static_call(orig_free_pages)(pages, nr);
	mlocked_leave();
}

/*
 * free_swap_and_cache, of several entries from Linux 6.9 on: what of them is in
 * the swap cache waits until it has left it, and what was read ahead in the
 * meantime too. The page table lock keeps swapoff from its end.
 */

typedef int free_swap_fn(swp_entry_t entry, int nr);
DEFINE_STATIC_CALL_NULL(orig_free_swap, free_swap_fn);

static struct page *cached_page(swp_entry_t entry)
{
	struct address_space *space = mlocked_swap_spaces[swp_type(entry)];

	return space ? linux_swap_cache_page(space, entry) : NULL;
}

static bool wants_free_swap(struct pt_regs *regs)
{
	struct scope *scope = scope_now();

	return scope && scope->tlb;
}

static int wrap_free_swap(swp_entry_t entry, int nr)
{
	struct scope *scope = scope_now();
	int result = 0;

	cant_sleep(); /* the page table lock is no argument */
	for (nr = linux_nr_swap_entries(nr); nr > 0; nr--, entry.val++) {
		struct page *page = cached_page(entry);

		result = static_call(orig_free_swap)(entry, 1);
		if (!page)
			page = cached_page(entry);
		if (page) {
			mlocked_defer_page(page);
			scope->deferred = true;
		}
	}
	mlocked_leave();
	return result;
}

/* fork: the copies are not locked, but hold the same secrets. */

static bool look_at_fork(struct pt_regs *regs)
{
	struct vm_area_struct *copy = (void *)regs->di;
	struct vm_area_struct *vma = (void *)regs->si;

	if (mlocked_is_on() && READ_ONCE(mlocked_inherit) && is_locked(vma) &&
	    !(vma->vm_flags & VM_SHARED))
		linux_vma_mark(copy);
	return false;
}

/* munlock and munlockall in a child: it is done with its copies. */

static void unmark(unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma;

	lockdep_assert_held_write(&current->mm->mmap_lock);
	for (; start < end; start = vma->vm_end) {
		vma = find_vma(current->mm, start);
		if (!vma || vma->vm_start >= end)
			return;
		/* What can't be split keeps its mark: it is wiped after all. */
		if (!(vma->vm_flags & VM_LOCKEDCOPY) ||
		    (vma->vm_start < start && linux_split_vma(vma, start, 1)) ||
		    (vma->vm_end > end && linux_split_vma(vma, end, 0)))
			continue;
		linux_vma_unmark(vma);
	}
}

typedef int munlock_fn(unsigned long start, size_t len, vm_flags_t flags);
DEFINE_STATIC_CALL_NULL(orig_munlock, munlock_fn);

static bool wants_munlock(struct pt_regs *regs)
{
	return !(regs->dx & VM_LOCKED);
}

static int wrap_munlock(unsigned long start, size_t len, vm_flags_t flags)
{
	int error = static_call(orig_munlock)(start, len, flags);

	if (!error)
		unmark(start, start + len);
	mlocked_leave();
	return error;
}

typedef int munlockall_fn(int flags);
DEFINE_STATIC_CALL_NULL(orig_munlockall, munlockall_fn);

static bool wants_munlockall(struct pt_regs *regs)
{
	return !(int)regs->di;
}

static int wrap_munlockall(int flags)
{
	int error = static_call(orig_munlockall)(flags);

	unmark(0, TASK_SIZE_MAX);
	mlocked_leave();
	return error;
}

/* do_wp_page: a copy-on-write fault may leave the old page behind with nobody. */

typedef vm_fault_t wp_page_fn(struct vm_fault *vmf);
DEFINE_STATIC_CALL_NULL(orig_wp_page, wp_page_fn);

/* The anonymous page that is likely to be copied. */
static struct page *copied_page(struct vm_fault *vmf)
{
	unsigned long pfn = pte_pfn(vmf->orig_pte);
	struct folio *folio;
	struct page *page;

	lockdep_assert_held(vmf->ptl);
	if (!pte_present(vmf->orig_pte) || pte_special(vmf->orig_pte) ||
	    is_zero_pfn(pfn) || !pfn_valid(pfn))
		return NULL;
	/* Waits for user space; the fault comes again. */
	if (userfaultfd_pte_wp(vmf->vma, vmf->orig_pte))
		return NULL;
	page = pfn_to_page(pfn);
	folio = page_folio(page);
	if (!mlocked_is_anon(folio) || PageAnonExclusive(page))
		return NULL;
	/* It is used further, but for a page of a large folio (Linux 6.12). */
	if (folio_ref_count(folio) == 1 && !folio_test_large(folio))
		return NULL;
	return page;
}

static bool wants_wp_page(struct pt_regs *regs)
{
	struct vm_fault *vmf = (void *)regs->di;

	return mlocked_is_on() && is_locked(vmf->vma) && copied_page(vmf);
}

static vm_fault_t wrap_wp_page(struct vm_fault *vmf)
{
	struct page *page = copied_page(vmf);
	vm_fault_t fault;

	if (page) /* its other user may have gone since */
		get_page(page);
	fault = static_call(orig_wp_page)(vmf);
	if (page) {
		mlocked_wipe_page(page, 1);
		put_page(page);
	}
	mlocked_leave();
	return fault;
}

/*
 * collapse_huge_page, of khugepaged and MADV_COLLAPSE: it frees the small pages
 * with free_page_and_swap_cache() when it has copied them.
 */

struct collapse_control;
typedef int collapse_fn(struct mm_struct *mm, unsigned long addr,
			int referenced, int unmapped,
			struct collapse_control *cc);
DEFINE_STATIC_CALL_NULL(orig_collapse, collapse_fn);

static bool wants_collapse(struct pt_regs *regs)
{
	return mlocked_is_on();
}

static int wrap_collapse(struct mm_struct *mm, unsigned long addr,
			 int referenced, int unmapped,
			 struct collapse_control *cc)
{
	struct scope scope = { .collapse = true };
	int result;

	scope_enter(&scope);
	result = static_call(orig_collapse)(mm, addr, referenced, unmapped, cc);
	scope_leave(&scope);
	mlocked_leave();
	return result;
}

/* From here on nothing is allocated, so only the small pages are freed. */
static bool look_at_collapse(struct pt_regs *regs)
{
	struct scope *scope = scope_now();

	if (scope && scope->collapse) {
		struct vm_area_struct *vma = (void *)regs->di;

		lockdep_assert_held_write(&vma->vm_mm->mmap_lock);
		scope->locked = is_locked(vma);
	}
	return false;
}

typedef void free_page_fn(struct page *page);
DEFINE_STATIC_CALL_NULL(orig_free_page, free_page_fn);

static bool wants_free_page(struct pt_regs *regs)
{
	struct scope *scope = scope_now();

	return scope && scope->collapse && scope->locked;
}

static void wrap_free_page(struct page *page)
{
	mlocked_wipe_page(page, 1);
	static_call(orig_free_page)(page);
	mlocked_leave();
}

/* KSM: the caller holds a reference to the page that is merged with @kpage. */

typedef int merge_fn(struct vm_area_struct *vma, struct page *page,
		     struct page *kpage);
DEFINE_STATIC_CALL_NULL(orig_merge, merge_fn);

static bool wants_merge(struct pt_regs *regs)
{
	return mlocked_is_on() && is_locked((void *)regs->di) && regs->dx &&
	       regs->dx != regs->si;
}

static int wrap_merge(struct vm_area_struct *vma, struct page *page,
		      struct page *kpage)
{
	int error = static_call(orig_merge)(vma, page, kpage);

	if (!error)
		mlocked_wipe_page(page, 1);
	mlocked_leave();
	return error;
}

/*
 * rmap_walk, when it maps what has migrated to @folio, or was to. Its migration
 * entries may have been released meanwhile, in which nobody sees a page: what is
 * not mapped by now, and was, has been. When a locked VMA maps it by now, what
 * is left in the old folio goes too.
 */

typedef void walk_fn(struct folio *folio, struct rmap_walk_control *rwc);
DEFINE_STATIC_CALL_NULL(orig_walk, walk_fn);

static bool wants_walk(struct pt_regs *regs)
{
	struct folio *folio = (void *)regs->di;
	struct rmap_walk_control *rwc = (void *)regs->si;

	return mlocked_is_on() && rwc->rmap_one == mlocked_migrated_one &&
	       mlocked_is_anon(folio) && !folio_test_hugetlb(folio);
}

static void wrap_walk(struct folio *folio, struct rmap_walk_control *rwc)
{
	struct folio *source = linux_migration_source(rwc->arg);
	struct scope scope = { .migration = true };

	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(source), source);
	scope_enter(&scope);
	static_call(orig_walk)(folio, rwc);
	scope_leave(&scope);
	for (long i = 0; i < folio_nr_pages(folio); i++) {
		struct page *page = folio_page(folio, i);
		bool gone = !mlocked_page_mapped(folio, page);

		if (gone)
			mlocked_wipe_page(page, 1);
		if (source != folio && (gone || scope.locked))
			mlocked_wipe_page(folio_page(source, i), 1);
	}
	mlocked_leave();
}

static bool look_at_migration(struct pt_regs *regs)
{
	struct scope *scope = scope_now();

	if (scope && scope->migration && is_locked((void *)regs->si))
		scope->locked = true;
	return false;
}

struct mlocked_hook mlocked_hooks[] = {
	{
		.own = &linux_free_pages,
		.wants = wants_free_pages,
		.wrapper = wrap_free_pages,
		.key = &STATIC_CALL_KEY(orig_free_pages),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_free_pages),
	},
	{
		.function = { "free_page_and_swap_cache", "void(page*)" },
		.wants = wants_free_page,
		.wrapper = wrap_free_page,
		.key = &STATIC_CALL_KEY(orig_free_page),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_free_page),
	},
	{
		.own = &linux_free_swap,
		.wants = wants_free_swap,
		.wrapper = wrap_free_swap,
		.key = &STATIC_CALL_KEY(orig_free_swap),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_free_swap),
	},
	{
		.function = { "rmap_walk", "void(folio*, rmap_walk_control*)" },
		.wants = wants_walk,
		.wrapper = wrap_walk,
		.key = &STATIC_CALL_KEY(orig_walk),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_walk),
	},
	{
		.function = {
			"remove_migration_pte",
			"bool(folio*, vm_area_struct*, long unsigned int, void*)"
		},
		.wants = look_at_migration,
	},
	{
		.function = {
			"pmdp_collapse_flush",
			"pmd_t(vm_area_struct*, long unsigned int, pmd_t*)"
		},
		.wants = look_at_collapse,
	},
	{
		.function = {
			"apply_vma_lock_flags",
			"int(long unsigned int, size_t, vm_flags_t)"
		},
		.wants = wants_munlock,
		.wrapper = wrap_munlock,
		.key = &STATIC_CALL_KEY(orig_munlock),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_munlock),
	},
	{
		.function = { "apply_mlockall_flags", "int(int)" },
		.wants = wants_munlockall,
		.wrapper = wrap_munlockall,
		.key = &STATIC_CALL_KEY(orig_munlockall),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_munlockall),
	},
	{
		.function = { "try_to_merge_one_page", "int(vm_area_struct*, page*, page*)" },
		.wants = wants_merge,
		.wrapper = wrap_merge,
		.key = &STATIC_CALL_KEY(orig_merge),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_merge),
	},
	{
		.function = {
			"collapse_huge_page",
			"int(mm_struct*, long unsigned int, int, int, collapse_control*)"
		},
		.wants = wants_collapse,
		.wrapper = wrap_collapse,
		.key = &STATIC_CALL_KEY(orig_collapse),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_collapse),
	},
	{
		.function = { "do_wp_page", "vm_fault_t(vm_fault*)" },
		.wants = wants_wp_page,
		.wrapper = wrap_wp_page,
		.key = &STATIC_CALL_KEY(orig_wp_page),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_wp_page),
	},
	{
		.function = {
			"unmap_page_range",
			"void(mmu_gather*, vm_area_struct*, long unsigned int, long unsigned int, zap_details*)"
		},
		.wants = wants_unmap,
		.wrapper = wrap_unmap,
		.key = &STATIC_CALL_KEY(orig_unmap),
		.tramp = STATIC_CALL_TRAMP_ADDR(orig_unmap),
	},
	{
		.function = { "copy_page_range", "int(vm_area_struct*, vm_area_struct*)" },
		.wants = look_at_fork,
	},
};

const int nr_mlocked_hooks = ARRAY_SIZE(mlocked_hooks);
