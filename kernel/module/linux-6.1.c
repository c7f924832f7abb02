// SPDX-License-Identifier: GPL-2.0-only
/* What is Linux 6.1's own. */

#include <linux/pagemap.h>

#include "wipe.h"

#define SWAP_ADDRESS_SPACE_SHIFT	14 /* mm/swap.h */

const struct linux_function linux_free_pages = {
	"free_pages_and_swap_cache", "void(page**, int)"
};

const struct linux_function linux_free_swap = {
	"free_swap_and_cache", "int(swp_entry_t)"
};

void *linux_gather_start(struct mmu_gather *tlb)
{
	return tlb->local.pages;
}

bool linux_gather_next(struct gather_iter *iter, struct page **page,
		       unsigned int *nr)
{
	while (iter->batch && iter->i >= iter->batch->nr) {
		iter->batch = iter->batch->next;
		iter->i = 0;
	}
	if (!iter->batch)
		return false;
	*page = iter->batch->pages[iter->i++];
	*nr = 1;
	return true;
}

/* Of an anonymous folio. A double map counts each page once more. */
int linux_folio_mapcount(struct folio *folio)
{
	long nr = folio_nr_pages(folio);
	int mapcount;

	if (!folio_test_large(folio))
		return atomic_read(&folio->_mapcount) + 1;
	mapcount = folio_entire_mapcount(folio);
	for (long i = 0; i < nr; i++)
		mapcount += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
	if (folio_test_double_map(folio))
		mapcount -= nr;
	return mapcount;
}

swp_entry_t linux_swap_entry(struct page *page)
{
	return (swp_entry_t){ .val = page_private(page) };
}

struct page *linux_swap_cache_page(struct address_space *space,
				   swp_entry_t entry)
{
	pgoff_t offset = swp_offset(entry);

	space += offset >> SWAP_ADDRESS_SPACE_SHIFT;
	return find_get_page(space, offset);
}

void linux_vma_mark(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->vm_mm->mmap_lock);
	vma->vm_flags |= VM_LOCKEDCOPY;
}

void linux_vma_unmark(struct vm_area_struct *vma)
{
	vma->vm_flags &= ~VM_LOCKEDCOPY;
}

DEFINE_STATIC_CALL_NULL(mlocked_split_vma, split_vma);

const struct mlocked_symbol linux_symbols[] = {
	{ "split_vma", &STATIC_CALL_KEY(mlocked_split_vma),
	  STATIC_CALL_TRAMP_ADDR(mlocked_split_vma) },
	{}
};

int linux_split_vma(struct vm_area_struct *vma, unsigned long addr,
		    int new_below)
{
	return static_call(mlocked_split_vma)(vma->vm_mm, vma, addr, new_below);
}

struct pt_regs *linux_ftrace_regs(struct ftrace_regs *fregs)
{
	return &fregs->regs;
}

struct folio *linux_migration_source(void *arg)
{
	return arg;
}

int linux_nr_swap_entries(int nr)
{
	return 1; /* it has no second argument */
}
