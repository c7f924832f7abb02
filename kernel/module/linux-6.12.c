// SPDX-License-Identifier: GPL-2.0-only
/* What is Linux 6.12's own. */

#include <linux/pagemap.h>

#include "wipe.h"

#define SWAP_ADDRESS_SPACE_SHIFT	14 /* mm/swap.h */
#define SWAP_ADDRESS_SPACE_MASK		(BIT(SWAP_ADDRESS_SPACE_SHIFT) - 1)

const struct linux_function linux_free_pages = {
	"free_pages_and_swap_cache", "void(encoded_page**, int)"
};

const struct linux_function linux_free_swap = {
	"free_swap_and_cache_nr", "void(swp_entry_t, int)"
};

void *linux_gather_start(struct mmu_gather *tlb)
{
	return tlb->local.encoded_pages;
}

bool linux_gather_next(struct gather_iter *iter, struct page **page,
		       unsigned int *nr)
{
	struct encoded_page *entry;

	while (iter->batch && iter->i >= iter->batch->nr) {
		iter->batch = iter->batch->next;
		iter->i = 0;
	}
	if (!iter->batch)
		return false;
	entry = iter->batch->encoded_pages[iter->i++];
	*page = encoded_page_ptr(entry);
	*nr = 1;
	if (encoded_page_flags(entry) & ENCODED_PAGE_BIT_NR_PAGES_NEXT)
		*nr = encoded_nr_pages(iter->batch->encoded_pages[iter->i++]);
	return true;
}

int linux_folio_mapcount(struct folio *folio)
{
	return folio_mapcount(folio);
}

swp_entry_t linux_swap_entry(struct page *page)
{
	return page_swap_entry(page);
}

struct page *linux_swap_cache_page(struct address_space *space,
				   swp_entry_t entry)
{
	pgoff_t offset = swp_offset(entry);
	struct folio *folio;

	space += offset >> SWAP_ADDRESS_SPACE_SHIFT;
	folio = filemap_get_folio(space, offset & SWAP_ADDRESS_SPACE_MASK);
	if (IS_ERR(folio))
		return NULL;
	return folio_file_page(folio, offset);
}

/* The VMA's own lock, for which it would sleep, has no other taker yet. */
void linux_vma_mark(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->vm_mm->mmap_lock);
	vm_flags_init(vma, vma->vm_flags | VM_LOCKEDCOPY);
}

void linux_vma_unmark(struct vm_area_struct *vma)
{
	vm_flags_clear(vma, VM_LOCKEDCOPY);
}

typedef int split_vma_fn(struct vma_iterator *vmi, struct vm_area_struct *vma,
			 unsigned long addr, int new_below); /* mm/vma.h */
DEFINE_STATIC_CALL_NULL(mlocked_split_vma, split_vma_fn);

const struct mlocked_symbol linux_symbols[] = {
	{ "split_vma", &STATIC_CALL_KEY(mlocked_split_vma),
	  STATIC_CALL_TRAMP_ADDR(mlocked_split_vma),
	  "int(vma_iterator*, vm_area_struct*, long unsigned int, int)" },
	{}
};

int linux_split_vma(struct vm_area_struct *vma, unsigned long addr,
		    int new_below)
{
	VMA_ITERATOR(vmi, vma->vm_mm, vma->vm_start);

	return static_call(mlocked_split_vma)(&vmi, vma, addr, new_below);
}

struct pt_regs *linux_ftrace_regs(struct ftrace_regs *fregs)
{
	return &arch_ftrace_regs(fregs)->regs;
}

/* The first member of mm/migrate.c's struct rmap_walk_arg. */
struct folio *linux_migration_source(void *arg)
{
	return *(struct folio **)arg;
}

int linux_nr_swap_entries(int nr)
{
	return nr;
}
