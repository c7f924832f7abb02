/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Between the parts of the module: wipe.c decides about pages, release.c calls
 * it where the kernel releases them, hooks.c gets release.c called, and one of
 * linux-*.c knows what differs between kernels.
 */

#ifndef INIT_MLOCKED_ON_FREE_WIPE_H
#define INIT_MLOCKED_ON_FREE_WIPE_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/ftrace.h>
#include <linux/mm.h>
#include <linux/static_call.h>
#include <linux/swap.h>
#include <linux/swapops.h>

/* asm/tlbflush.h keeps it from modules; asm/tlb.h has inline users of it. */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start,
			unsigned long end, unsigned int stride_shift,
			bool freed_tables);
#include <asm/tlb.h>

/*
 * A VMA flag that no kernel of those supported uses: the copy by fork of a
 * locked VMA.
 */
#define VM_LOCKEDCOPY	BIT(41)

/* A function of the kernel that it does not export, found by its name. */
struct mlocked_symbol {
	const char *name;
	struct static_call_key *key;
	void *tramp;
	const char *prototype; /* where no header of the kernel declares it */
};

DECLARE_STATIC_CALL(mlocked_tlb_flush_mmu, tlb_flush_mmu);
DECLARE_STATIC_CALL(mlocked_lru_add_drain, lru_add_drain);
DECLARE_STATIC_CALL(mlocked_lru_add_drain_all, lru_add_drain_all);
DECLARE_STATIC_CALL(mlocked_folio_free_swap, folio_free_swap);
DECLARE_STATIC_CALL(mlocked_swap_count, __swap_count);

/* wipe.c */

enum mlocked_counter {
	MLOCKED_CALLS,
	MLOCKED_WIPED,
	MLOCKED_DEFERRED,
	MLOCKED_SHARED,
	MLOCKED_FAILED,
	NR_MLOCKED_COUNTERS,
};

extern atomic_long_t mlocked_counters[NR_MLOCKED_COUNTERS];

static inline void mlocked_count(enum mlocked_counter counter, long nr)
{
	atomic_long_add(nr, &mlocked_counters[counter]);
}

void mlocked_wipe_page(struct page *page, int refs);
bool mlocked_wipe_gather(struct mmu_gather *tlb);
void mlocked_defer_page(struct page *page);
bool mlocked_page_mapped(struct folio *folio, struct page *page);
void mlocked_flush_deferred(void);
int mlocked_start(void);
void mlocked_stop(void);

/*
 * Is the folio's memory one that is wiped? Not KSM pages, which others share by
 * their contents.
 */
static inline bool mlocked_is_anon(struct folio *folio)
{
	return folio_test_anon(folio) && !folio_test_ksm(folio) &&
	       !folio_is_device_private(folio);
}

/* release.c */

/* "int(page*, size_t)": see prototype.c. */
struct linux_function {
	const char *name;
	const char *prototype;
};

struct mlocked_hook {
	struct linux_function function;
	const struct linux_function *own; /* it, where each kernel has its own */
	bool (*wants)(struct pt_regs *regs);
	void *wrapper;
	struct static_call_key *key; /* of the function, for the wrapper */
	void *tramp;
	unsigned long location;
};

extern struct mlocked_hook mlocked_hooks[];
extern const int nr_mlocked_hooks;

/* prototype.c */

extern const struct mlocked_symbol mlocked_btf_symbols[];

int mlocked_check_prototype(const char *name, const char *prototype);

/* hooks.c */

extern bool mlocked_inherit;
extern struct address_space **mlocked_swap_spaces; /* swapper_spaces */
extern void *mlocked_migrated_one; /* remove_migration_pte */

bool mlocked_is_on(void);
void mlocked_leave(void); /* what every wrapper ends with */

/* linux-*.c */

extern const struct linux_function linux_free_pages, linux_free_swap;

extern const struct mlocked_symbol linux_symbols[]; /* the last has no name */

/* The entries of an mmu_gather, one after the other. */
struct gather_iter {
	struct mmu_gather_batch *batch;
	unsigned int i;
};

static inline struct gather_iter gather_begin(struct mmu_gather *tlb)
{
	return (struct gather_iter){ .batch = &tlb->local };
}

void *linux_gather_start(struct mmu_gather *tlb);
bool linux_gather_next(struct gather_iter *iter, struct page **page,
		       unsigned int *nr);

int linux_folio_mapcount(struct folio *folio);
swp_entry_t linux_swap_entry(struct page *page);
struct page *linux_swap_cache_page(struct address_space *space,
				   swp_entry_t entry);

void linux_vma_mark(struct vm_area_struct *vma);
void linux_vma_unmark(struct vm_area_struct *vma);
int linux_split_vma(struct vm_area_struct *vma, unsigned long addr,
		    int new_below);

struct pt_regs *linux_ftrace_regs(struct ftrace_regs *fregs);
struct folio *linux_migration_source(void *arg);
int linux_nr_swap_entries(int nr);

#endif
