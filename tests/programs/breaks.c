/* SPDX-License-Identifier: MIT */
/*
 * breaks KIND WITNESS: the heap shrinks by brk(2) below locked memory that is not of it, which must keep every byte, or
 * down to where it is locked itself, which is released.
 *
 * KIND, what makes the break hard to know: `merged`, the locked neighbour of [heap] has become one mapping with it;
 * `shrunk`, a shrink before that concerned nothing locked; `set`, prctl(PR_SET_MM_BRK); `below`, brk is called with an
 * address below the heap, which does nothing; `regrown`, the heap has grown over what was a neighbour.
 */
#include "secret.h"
#include <sys/prctl.h>
#include <sys/syscall.h>

static char *neighbour(char *at, size_t size)
{
	char *start = mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	check(start == at, "mmap");
	paint(start, size);
	return start;
}

static void set_break(char *to)
{
	check(syscall(SYS_brk, to) == (long)to, "brk");
}

static int whole(const char *at, size_t size)
{
	const uint64_t *words = (const uint64_t *)at;

	for (size_t i = 0; i < size / 8; i += 2)
		if (words[i] != FIRST || words[i + 1] != SECOND)
			return 0;
	return 1;
}

int main(int argc, char **argv)
{
	const char *kind = argv[1];
	int witness, lost = 0;
	char *heap, *kept, line[64];

	check(argc == 3, "usage");
	witness = atoi(argv[2]);
	setvbuf(stdout, NULL, _IONBF, 0); /* nothing of libc's own is to be in the heap */
	heap = (char *)((syscall(SYS_brk, 0) + PAGE - 1) & -PAGE);
	set_break(heap + SIZE);
	paint(heap, SIZE);
	kept = heap + SIZE;
	if (!strcmp(kind, "merged")) {
		neighbour(kept, SIZE);
		check(mlock(heap, 2 * SIZE) == 0, "mlock");
	} else if (!strcmp(kind, "shrunk")) {
		check(mlock(heap, PAGE) == 0, "mlock");
		set_break(heap + SIZE / 2);
		kept = neighbour(heap + SIZE / 2, SIZE / 2);
		check(mlock(heap, SIZE) == 0, "mlock");
	} else if (!strcmp(kind, "set")) {
		check(mlock(heap, PAGE) == 0, "mlock");
		set_break(heap + SIZE / 2);
		neighbour(heap + SIZE / 2, 2 * SIZE);
		kept = heap + SIZE;
		if (prctl(PR_SET_MM, PR_SET_MM_BRK, kept, 0, 0)) {
			puts("refused");
			return 0;
		}
		check(mlock(heap, SIZE / 2 + 2 * SIZE) == 0, "mlock");
	} else if (!strcmp(kind, "below")) {
		check(mlock(heap, SIZE) == 0, "mlock");
		kept = heap;
		syscall(SYS_brk, PAGE);
	} else {
		neighbour(kept, SIZE);
		check(mlock(heap, 2 * SIZE) == 0, "mlock");
		check(munmap(kept, SIZE) == 0, "munmap");
		set_break(heap + SIZE + SIZE / 2);
		paint(kept, SIZE / 2);
		kept = heap + SIZE + SIZE / 2;
		check(mlock(heap, SIZE + SIZE / 2) == 0, "mlock");
		neighbour(kept, SIZE);
		check(mlock(kept, SIZE) == 0, "mlock");
	}
	if (kept != heap) {
		show(witness, kept - PAGE, PAGE); /* of the heap */
		set_break(heap + PAGE);
	}
	lost += !whole(kept, SIZE / 2);
	lost += !whole(heap, PAGE);
	write(1, line, snprintf(line, sizeof line, "lost %d\n", lost));
	_exit(0);
}
