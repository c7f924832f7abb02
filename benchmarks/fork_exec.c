// SPDX-License-Identifier: MIT
/*
 * fork_exec COUNT: fork, execute a program that ends at once, wait; again and again. Nothing is ever locked.
 *
 * The program executed is this one, without arguments.
 */
#include "bench.h"

#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long count;
	uint64_t start;

	if (argc != 2)
		return 0;
	count = number(argv[1]);
	start = now();
	for (unsigned long i = 0; i < count; i++) {
		int status;
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child) {
			execl("/proc/self/exe", "nothing", NULL);
			_exit(1);
		}
		if (waitpid(child, &status, 0) != child || status)
			die("waitpid");
	}
	report("fork_exec", now() - start, count);
	return 0;
}
