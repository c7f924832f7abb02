// SPDX-License-Identifier: MIT
/* fork locked|unlocked COUNT: fork and wait for a child that ends at once; the parent has 16 locked pages or none. */
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH	(16 * PAGE_SIZE)

int main(int argc, char **argv)
{
	unsigned long count;
	uint64_t *times;
	void *memory;

	if (argc != 3)
		return 2;
	count = number(argv[2]);
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	memset(memory, 0xA5, LENGTH);
	if (!strcmp(argv[1], "locked") && mlock(memory, LENGTH))
		die("mlock");

	times = new_times(count);
	for (unsigned long i = 0; i < count; i++) {
		int status;
		uint64_t start = now();
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child)
			_exit(0);
		if (waitpid(child, &status, 0) != child || status)
			die("waitpid");
		times[i] = now() - start;
	}
	report_calls("fork", times, count);
	return 0;
}
