// SPDX-License-Identifier: MIT
/*
 * unmap locked|unlocked COUNT [PAUSE_US]: munmap of single written pages in a process that has locked memory.
 *
 * Only munmap is timed. With a pause the program computes for that long before each call, so that the calls do not
 * come in a burst.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

#define BATCH	64UL

static void *map_written(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	memset(memory, 0xA5, length);
	return memory;
}

static void lock(void *memory, size_t length)
{
	if (mlock(memory, length))
		die("mlock");
}

static void compute_until(uint64_t time)
{
	while (now() < time)
		;
}

int main(int argc, char **argv)
{
	unsigned long count, pause;
	uint64_t *times;
	int locked;

	if (argc < 3)
		return 2;
	locked = !strcmp(argv[1], "locked");
	count = (number(argv[2]) + BATCH - 1) / BATCH * BATCH;
	pause = argc > 3 ? number(argv[3]) * 1000 : 0;
	times = new_times(count);
	lock(map_written(PAGE_SIZE), PAGE_SIZE);

	for (unsigned long done = 0; done < count; done += BATCH) {
		char *pages = map_written(BATCH * PAGE_SIZE);

		if (locked)
			lock(pages, BATCH * PAGE_SIZE);
		for (unsigned long i = 0; i < BATCH; i++) {
			uint64_t start;

			if (pause)
				compute_until(now() + pause);
			start = now();
			if (munmap(pages + i * PAGE_SIZE, PAGE_SIZE))
				die("munmap");
			times[done + i] = now() - start;
		}
	}
	report_calls("munmap", times, count);
	report_each("munmap_each", times, count);
	return 0;
}
