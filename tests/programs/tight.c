// SPDX-License-Identifier: MIT
/*
 * tight LIMIT WITNESS: reach a limit, hard and soft, then lock pages, fork a child that has its own copies, and end.
 * All of these pages are put before the witness.
 *
 * tight children TIMES: fork so often a child that locks pages; it is the supervisor that needs time for that.
 */
#include "secret.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define HALF (SIZE / 2)

static void limit(int resource, rlim_t value)
{
	struct rlimit limit = { value, value };

	check(setrlimit(resource, &limit) == 0, "setrlimit");
}

static rlim_t in_use(void)
{
	unsigned long pages;
	FILE *file = fopen("/proc/self/statm", "r");

	check(file && fscanf(file, "%lu", &pages) == 1, "statm");
	fclose(file);
	return pages * PAGE;
}

static void map_until_refused(void)
{
	for (int i = 0;; i++) /* neighbours of the same protection would become one */
		if (mmap(NULL, PAGE, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
			return;
}

static void use_the_processor(double seconds)
{
	struct rusage usage;

	do
		getrusage(RUSAGE_SELF, &usage);
	while (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6 <
	       seconds);
}

static int have_children(char *start, int times)
{
	check(mlock(start, HALF) == 0, "mlock"); /* from here on it dies with the supervisor */
	for (int i = 0; i < times; i++) {
		if (fork() == 0)
			_exit(mlock(start, HALF) != 0);
		check(wait(NULL) > 0, "wait");
	}
	return 0;
}

int main(int argc, char **argv)
{
	char *start = mmap(NULL, HALF + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t child;
	int status;

	check(argc == 3 && start != MAP_FAILED, "mmap");
	start += PAGE; /* a mapping of its own: to lock it makes no further one */
	check(mprotect(start, HALF, PROT_READ | PROT_WRITE) == 0, "mprotect");
	paint(start, HALF);
	if (strcmp(argv[1], "RLIMIT_AS") == 0)
		limit(RLIMIT_AS, in_use());
	else if (strcmp(argv[1], "RLIMIT_DATA") == 0)
		limit(RLIMIT_DATA, 0);
	else if (strcmp(argv[1], "RLIMIT_NOFILE") == 0)
		limit(RLIMIT_NOFILE, 0);
	else if (strcmp(argv[1], "RLIMIT_FSIZE") == 0)
		limit(RLIMIT_FSIZE, 0);
	else if (strcmp(argv[1], "children") == 0)
		return have_children(start, atoi(argv[2]));
	else if (strcmp(argv[1], "RLIMIT_CPU") == 0) {
		limit(RLIMIT_CPU, 1);
		use_the_processor(0.7);
	} else if (strcmp(argv[1], "max_map_count") == 0)
		map_until_refused();
	else if (strcmp(argv[1], "MCL_FUTURE") == 0) {
		limit(RLIMIT_MEMLOCK, SIZE);
		check(mlockall(MCL_FUTURE) == 0, "mlockall");
	}
	check(mlock(start, HALF) == 0, "mlock");
	child = fork();
	check(child != -1, "fork");
	if (child == 0) {
		paint(start, HALF);
		show(atoi(argv[2]), start, HALF);
		_exit(7);
	}
	check(wait(&status) == child && status == 7 << 8, "wait");
	paint(start, HALF);
	show(atoi(argv[2]), start, HALF);
	return 0;
}
