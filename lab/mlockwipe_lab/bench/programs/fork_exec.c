// SPDX-License-Identifier: MIT
/*
 * fork_exec COUNT: fork, execute a program that ends at once, wait; again and again. Nothing is ever locked.
 *
 * The program executed is this one, without arguments. A pause comes first: whoever started us may have work left
 * to do of its own start, which is measured elsewhere.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <sys/wait.h>
#include <unistd.h>

#define SETTLE	100000	/* microseconds */

int main(int argc, char **argv)
{
	unsigned long count;
	uint64_t *times;

	if (argc != 2)
		return 0;
	count = number(argv[1]);
	times = new_times(count);
	usleep(SETTLE);
	for (unsigned long i = 0; i < count; i++) {
		int status;
		uint64_t start = now();
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child) {
			execl("/proc/self/exe", "nothing", NULL);
			_exit(1);
		}
		if (waitpid(child, &status, 0) != child || status)
			die("waitpid");
		times[i] = now() - start;
	}
	report_calls("fork_exec", times, count);
	return 0;
}
