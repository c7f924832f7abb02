/* SPDX-License-Identifier: MIT */
/*
 * A secret: locked pages full of two alternating 64-bit words, and the witness, a pipe that keeps
 * the physical pages past their release. src/mlockwipe/contract/witness.py says what it can't tell.
 */
#ifndef SECRET_H
#define SECRET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 16UL /* what a pipe holds */
#define SIZE (PAGES * PAGE)
#define FIRST 0x5EC7E70F6D6C6F63ULL
#define SECOND 0x6B77697065A5C396ULL

static inline void check(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		_exit(99);
	}
}

static inline void paint(void *start, size_t size)
{
	volatile uint64_t *words = start;

	for (size_t i = 0; i < size / 8; i += 2) {
		words[i] = FIRST;
		words[i + 1] = SECOND;
	}
}

/* Painted, locked pages. */
static inline char *make_secret(size_t size)
{
	char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(start != MAP_FAILED, "mmap");
	check(mlock(start, size) == 0, "mlock");
	paint(start, size);
	return start;
}

/* Put pages before the witness. */
static inline void show(int witness, void *start, size_t size)
{
	struct iovec pages = { start, size };

	check(vmsplice(witness, &pages, 1, SPLICE_F_NONBLOCK) == (ssize_t)size, "vmsplice");
}

/* The pages that the witness (its read end does not block) has seen, and how many still hold the secret. */
struct seen {
	unsigned long pages, dirty;
};

static inline struct seen look(int witness)
{
	static uint64_t page[PAGE / 8];
	struct seen seen = { 0, 0 };

	while (read(witness, page, PAGE) == (ssize_t)PAGE) {
		int dirty = 0;

		for (size_t i = 0; i < PAGE / 8; i++)
			dirty |= page[i] == FIRST || page[i] == SECOND;
		seen.pages++;
		seen.dirty += dirty;
	}
	return seen;
}

#endif
