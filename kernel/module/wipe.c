// SPDX-License-Identifier: GPL-2.0-only
/*
 * What decides about a page that was just unmapped, and zeroes it
 *
 * A page is zeroed as soon as nobody can use its contents any more: no page
 * table maps it, no swap entry refers to it, and all references to its folio
 * are known. Whoever finds that others still use the page leaves it to the last
 * of them who unmaps it from a locked VMA. References that are nobody's mapping
 * belong to I/O in flight, whose data must not change, or to a per-CPU batch of
 * the LRU: the page is kept until they are gone.
 *
 * The mapcount is read after the rmap was removed, so of several processes that
 * unmap a page at the same time at least the last one sees that it is.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "wipe.h"

atomic_long_t mlocked_counters[NR_MLOCKED_COUNTERS];

static void zero_pages(struct page *page, unsigned int nr)
{
	long wiped = 0;

	/* No spinlock is held, at most RCU's read lock (khugepaged, Linux 6.12). */
	if (IS_ENABLED(CONFIG_PREEMPT_RCU))
		lockdep_assert_preemption_enabled();

	for (; nr; nr--, page++) {
		if (PageHWPoison(page))
			continue;
		clear_highpage(page);
		wiped++;
	}
	mlocked_count(MLOCKED_WIPED, wiped);
}

bool mlocked_page_mapped(struct folio *folio, struct page *page)
{
	if (folio_test_large(folio) && folio_entire_mapcount(folio))
		return true;
	smp_rmb(); /* a split of the PMD raises _mapcount first */
	return atomic_read(&page->_mapcount) >= 0;
}

/* The folio's lock keeps migration, swap-in and split away. */
static bool page_in_use(struct folio *folio, struct page *page)
{
	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	/* It was KSM's or shmem's that had the swap entry. */
	if (folio->mapping && !mlocked_is_anon(folio))
		return true;
	if (mlocked_page_mapped(folio, page))
		return true;
	return folio_test_swapcache(folio) &&
	       static_call(mlocked_swap_count)(linux_swap_entry(page));
}

/*
 * Are @refs of ours all the references to @folio but those of its mappings and
 * of the swap cache? It is asked again after a page was found unused: that page
 * is not mapped again, and whoever has used it and still refers to it did so
 * before it was unmapped.
 *
 * For a folio that is mapped elsewhere the two counts can't be read at once. A
 * reference is taken before the mapcount is raised and dropped after it was
 * lowered, so in doubt this finds one too many.
 */
static bool only_refs(struct folio *folio, int refs)
{
	int mapcount = linux_folio_mapcount(folio);

	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio) < refs, folio);
	if (folio_test_large(folio) && folio_maybe_dma_pinned(folio))
		return false;
	if (folio_test_swapcache(folio)) {
		if (folio_test_writeback(folio))
			return false;
		refs += folio_nr_pages(folio);
	}
	smp_rmb(); /* the references after the mappings of all and of one ... */
	if (folio_ref_count(folio) != refs + mapcount)
		return false;
	smp_rmb(); /* ... and the mappings again: none has gone in between */
	return linux_folio_mapcount(folio) == mapcount;
}

/*
 * The pages that wait for references of others to go: indexed by pfn, each
 * entry holds a reference to its folio, and one to this module if its value
 * says so, so that it can't be unloaded before they are wiped. Who is asked to
 * wipe a page that waits already, and is being looked at, has it looked at once
 * more.
 */
#define WAITS_COUNTED	BIT(0)
#define WAITS_JUDGED	BIT(1)

static DEFINE_XARRAY(waiting_pages);
static struct workqueue_struct *queue;
static unsigned long retry_delay = 1; /* jiffies */
static bool drain_wanted;

/* Rounds of drain_batches(), and who waits for one */
static unsigned long rounds_begun, rounds_done;
static DECLARE_WAIT_QUEUE_HEAD(round_done);
static unsigned long late_round; /* that an exit waited for in vain */

static void retry_deferred(struct work_struct *work);
static DECLARE_DELAYED_WORK(retry_work, retry_deferred);

/* Have a page that waits looked at once more. Returns whether it waits. */
static bool ask_again(unsigned long pfn)
{
	void *entry = xa_load(&waiting_pages, pfn);
	unsigned long value;

	if (!entry)
		return false;
	value = xa_to_value(entry);
	return !(value & WAITS_JUDGED) ||
	       xa_cmpxchg(&waiting_pages, pfn, entry,
			  xa_mk_value(value & ~WAITS_JUDGED), 0) == entry;
}

/* Consumes a reference to the folio of @page. May not sleep. */
void mlocked_defer_page(struct page *page)
{
	unsigned long counted = try_module_get(THIS_MODULE) ? WAITS_COUNTED : 0;
	unsigned long pfn = page_to_pfn(page);
	int err;

	VM_WARN_ON_ONCE_PAGE(!page_count(page), page);
	do {
		err = xa_insert(&waiting_pages, pfn, xa_mk_value(counted),
				GFP_ATOMIC | __GFP_NOWARN);
		/* It waits already, for another process, if it still does. */
	} while (err == -EBUSY && !ask_again(pfn));
	if (err) {
		if (err != -EBUSY)
			mlocked_count(MLOCKED_FAILED, 1);
		if (counted)
			module_put(THIS_MODULE);
		put_page(page);
		return;
	}
	mlocked_count(MLOCKED_DEFERRED, 1);
	WRITE_ONCE(drain_wanted, true);
	if (xchg(&retry_delay, 1) == 1)
		queue_delayed_work(queue, &retry_work, 1);
	else
		mod_delayed_work(queue, &retry_work, 1);
}

static void retry_folio(struct folio *folio)
{
	unsigned long pfn, first = folio_pfn(folio);
	unsigned long last = first + folio_nr_pages(folio) - 1;
	int refs = 0, done = 0;
	void *entry;
	bool quiet;

	if (!folio_trylock(folio))
		return;
	static_call(mlocked_folio_free_swap)(folio);

	xa_for_each_range(&waiting_pages, pfn, entry, first, last)
		refs++;
	quiet = only_refs(folio, refs);

	xa_for_each_range(&waiting_pages, pfn, entry, first, last) {
		struct page *page = pfn_to_page(pfn);
		unsigned long counted = xa_to_value(entry) & WAITS_COUNTED;
		void *judged = xa_mk_value(counted | WAITS_JUDGED);

		xa_store(&waiting_pages, pfn, judged, 0);
		if (page_in_use(folio, page))
			mlocked_count(MLOCKED_SHARED, 1);
		else if (quiet && only_refs(folio, refs))
			zero_pages(page, 1);
		else if (!PageHWPoison(page)) /* is referred to for ever */
			continue;
		if (xa_cmpxchg(&waiting_pages, pfn, judged, NULL, 0) != judged)
			continue;
		done++;
		if (counted)
			module_put(THIS_MODULE);
	}
	folio_unlock(folio);
	if (done)
		folio_put_refs(folio, done);
}

static void retry_all(void)
{
	static DEFINE_MUTEX(lock);
	unsigned long pfn;
	void *entry;

	mutex_lock(&lock);
	xa_for_each(&waiting_pages, pfn, entry) {
		struct folio *folio = page_folio(pfn_to_page(pfn));
		unsigned long last = folio_pfn(folio) + folio_nr_pages(folio) - 1;

		retry_folio(folio);
		pfn = last;
		cond_resched();
	}
	mutex_unlock(&lock);
}

/*
 * A CPU that a task of a real-time policy keeps for itself drains nothing, and
 * this waits for it; retry_deferred() does not.
 */
static void drain_batches(struct work_struct *work)
{
	unsigned long round = rounds_begun + 1;

	WRITE_ONCE(drain_wanted, false);
	WRITE_ONCE(rounds_begun, round);
	smp_mb(); /* with mlocked_flush_deferred() */

	retry_all();
	if (!xa_empty(&waiting_pages)) {
		static_call(mlocked_lru_add_drain_all)();
		retry_all();
	}
	WRITE_ONCE(rounds_done, round);
	wake_up_all(&round_done);
}

static DECLARE_WORK(drain_work, drain_batches);

static void retry_deferred(struct work_struct *work)
{
	unsigned long delay = READ_ONCE(retry_delay);

	/* Unless more was deferred meanwhile */
	cmpxchg(&retry_delay, delay, min_t(unsigned long, 2 * delay, HZ));
	retry_all();
	if (xa_empty(&waiting_pages))
		return;
	/*
	 * Most of what is left is referred to by other CPUs' LRU batches, and may
	 * have come there after it was deferred, by writeback or a migration.
	 */
	if (READ_ONCE(drain_wanted) || delay == HZ)
		queue_work(queue, &drain_work);
	queue_delayed_work(queue, &retry_work, delay);
}

static bool round_is_done(unsigned long round)
{
	return (long)(READ_ONCE(rounds_done) - round) >= 0;
}

/*
 * At the end of an address space that had to defer pages: whoever waits for the
 * process finds wiped what only the LRU batches of other CPUs referred to. When
 * a CPU does not drain its own, one exit finds that out, the others do not wait.
 */
void mlocked_flush_deferred(void)
{
	unsigned long next;

	smp_mb(); /* what was deferred before, and what a round begins with */
	next = READ_ONCE(rounds_begun) + 1;
	queue_work(queue, &drain_work);
	if (round_is_done(READ_ONCE(late_round)) &&
	    !wait_event_timeout(round_done, round_is_done(next), HZ / 4))
		WRITE_ONCE(late_round, next);
}

int mlocked_start(void)
{
	/* What it frees may be what reclaim waits for. */
	queue = alloc_workqueue(KBUILD_MODNAME, WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return queue ? 0 : -ENOMEM;
}

/*
 * The module goes, nothing more is deferred. As long as pages wait it can't be
 * unloaded, but for those that were deferred since that was decided.
 */
void mlocked_stop(void)
{
	unsigned long pfn, left = 0;
	void *entry;

	for (int tries = 0; tries < 100 && !xa_empty(&waiting_pages); tries++) {
		mlocked_flush_deferred();
		msleep(20);
	}
	cancel_delayed_work_sync(&retry_work);
	destroy_workqueue(queue);
	xa_for_each(&waiting_pages, pfn, entry) {
		xa_erase(&waiting_pages, pfn);
		put_page(pfn_to_page(pfn));
		left++;
	}
	VM_WARN_ON_ONCE(!xa_empty(&waiting_pages));
	if (left)
		pr_warn("%lu pages that others still refer to are not wiped\n",
			left);
}

/*
 * Returns whether it is enough to know @refs references to @folio to know what
 * becomes of the pages.
 */
static inline bool wipe_at_once(struct folio *folio, struct page *page,
				unsigned int nr, int refs)
{
	VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio) < refs, folio);
	/* Nobody else knows of it. */
	if (folio_ref_count(folio) == refs) {
		zero_pages(page, nr);
		return true;
	}
	if (!folio_test_large(folio) && folio_mapped(folio)) {
		mlocked_count(MLOCKED_SHARED, 1);
		return true;
	}
	return false;
}

/*
 * Of the @nr pages from @page on, which were just unmapped. @refs: the
 * references to the folio that the caller knows of. @maybe: only the first page
 * is known to be one of them, the others are if nobody uses them. Returns
 * whether a page was deferred.
 */
static bool wipe_pages(struct folio *folio, struct page *page, unsigned int nr,
		       int refs, bool maybe)
{
	bool locked, quiet, deferred = false;

	if (wipe_at_once(folio, page, nr, refs))
		return false;

	non_block_start();
	locked = folio_trylock(folio);
	if (locked)
		static_call(mlocked_folio_free_swap)(folio);
	quiet = locked && only_refs(folio, refs);
	for (unsigned int i = 0; i < nr; i++, page++) {
		if (locked && page_in_use(folio, page)) {
			if (!i || !maybe)
				mlocked_count(MLOCKED_SHARED, 1);
		} else if (quiet && only_refs(folio, refs)) {
			zero_pages(page, 1);
		} else {
			folio_get(folio);
			mlocked_defer_page(page);
			deferred = true;
		}
	}
	if (locked)
		folio_unlock(folio);
	non_block_end();
	return deferred;
}

/* A page whose mapping has just gone, of which the caller holds @refs. */
void mlocked_wipe_page(struct page *page, int refs)
{
	struct folio *folio = page_folio(page);

	/* Not the batches at each page that fork() has left to copy. */
	if (!mlocked_is_anon(folio) || wipe_at_once(folio, page, 1, refs))
		return;
	static_call(mlocked_lru_add_drain)();
	wipe_pages(folio, page, 1, refs, false);
}

/* The entries of one folio from @iter on, @entries of them. */
static bool wipe_run(struct folio *folio, struct gather_iter iter,
		     unsigned int entries, int refs)
{
	bool deferred = false;
	struct page *page;
	unsigned int nr;

	while (entries-- && linux_gather_next(&iter, &page, &nr)) {
		/* One reference to the head may stand for a mapping of it all. */
		bool maybe = refs == 1 && folio_test_pmd_mappable(folio) &&
			     page == folio_page(folio, 0);

		VM_WARN_ON_ONCE_FOLIO(page_folio(page) != folio, folio);
		if (maybe)
			nr = folio_nr_pages(folio);
		deferred |= wipe_pages(folio, page, nr, refs, maybe);
	}
	return deferred;
}

/*
 * The pages of @tlb were unmapped from a locked VMA and flushed from the TLB,
 * and are about to be freed. Returns whether some of them were deferred.
 */
bool mlocked_wipe_gather(struct mmu_gather *tlb)
{
	struct gather_iter iter = gather_begin(tlb), next = iter;
	bool deferred = false;
	struct page *page;
	unsigned int nr;

	VM_WARN_ON_ONCE(tlb->freed_tables || tlb->cleared_ptes ||
			tlb->cleared_pmds || tlb->cleared_puds ||
			tlb->cleared_p4ds);
	static_call(mlocked_lru_add_drain)();
	while (linux_gather_next(&next, &page, &nr)) {
		struct folio *folio = page_folio(page);
		struct gather_iter first = iter;
		unsigned int entries = 0;
		int refs = 0;

		do {
			refs += nr;
			entries++;
			iter = next;
		} while (linux_gather_next(&next, &page, &nr) &&
			 page_folio(page) == folio);
		next = iter;

		if (mlocked_is_anon(folio)) {
			deferred |= wipe_run(folio, first, entries, refs);
			cond_resched();
		}
	}
	return deferred;
}
