// SPDX-License-Identifier: MIT
/* cycle COUNT: map, mlock, clear, munlock and munmap one page, as libraries do for each secret. */
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	unsigned long count;
	uint64_t *times;

	if (argc != 2)
		return 2;
	count = number(argv[1]);
	times = new_times(count);
	for (unsigned long i = 0; i < count; i++) {
		uint64_t start = now();
		char *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED)
			die("mmap");
		if (mlock(page, PAGE_SIZE))
			die("mlock");
		explicit_bzero(page, PAGE_SIZE);
		if (munlock(page, PAGE_SIZE))
			die("munlock");
		if (munmap(page, PAGE_SIZE))
			die("munmap");
		times[i] = now() - start;
	}
	report_calls("cycle", times, count);
	return 0;
}
