// SPDX-License-Identifier: MIT
/* lock COUNT: mlock of one written page after the other, in a process that has locked memory already. */
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	unsigned long count;
	uint64_t *times;
	char *pages;

	if (argc != 2)
		return 2;
	count = number(argv[1]);
	pages = mmap(NULL, (count + 1) * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		die("mmap");
	memset(pages, 0xA5, (count + 1) * PAGE_SIZE);
	if (mlock(pages, PAGE_SIZE))
		die("mlock");

	times = new_times(count);
	for (unsigned long i = 0; i < count; i++) {
		uint64_t start = now();

		if (mlock(pages + (i + 1) * PAGE_SIZE, PAGE_SIZE))
			die("mlock");
		times[i] = now() - start;
	}
	report_calls("mlock", times, count);
	report_each("mlock_each", times, count);
	return 0;
}
