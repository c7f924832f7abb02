// SPDX-License-Identifier: MIT
/*
 * first_lock COUNT: the first mlock of COUNT fresh processes, one after the other.
 *
 * The very first comes apart: what a supervisor prepares once for all is in it.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void lock_once(const char *name)
{
	uint64_t start;
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		die("mmap");
	memset(page, 0xA5, PAGE_SIZE);
	start = now();
	if (mlock(page, PAGE_SIZE))
		die("mlock");
	report(name, now() - start, 1);
}

int main(int argc, char **argv)
{
	unsigned long count;

	if (argc == 3) {
		lock_once(argv[2]);
		return 0;
	}
	if (argc != 2)
		return 2;
	count = number(argv[1]);
	for (unsigned long i = 0; i <= count; i++) {
		int status;
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child) {
			execl("/proc/self/exe", "first_lock", "-", i ? "mlock" : "mlock_first_of_all", NULL);
			_exit(1);
		}
		if (waitpid(child, &status, 0) != child || status)
			die("waitpid");
	}
	return 0;
}
