// SPDX-License-Identifier: MIT
/*
 * execs lock|fork TIMES: execute this program anew, again and again, while another thread is at work.
 *
 * lock: the first thread locks a page for the first time, and another thread executes.
 * fork: the first thread executes, and another one forks. Children that nobody lets go on show as a hang: the next
 * program waits for all of them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char page[4096] __attribute__((aligned(4096)));
static char **arguments;

static void execute_anew(void)
{
	char times[20];

	snprintf(times, sizeof(times), "%d", atoi(arguments[2]) - 1);
	execv(arguments[0], (char *[]){ arguments[0], arguments[1], times, NULL });
	perror("execv");
	_exit(1);
}

static long microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void *executes_soon(void *unused)
{
	long due = microseconds() + rand() % 1500;

	while (microseconds() < due)
		;
	execute_anew();
	return unused;
}

static void *forks(void *unused)
{
	for (;;) {
		long child = syscall(SYS_fork);

		if (child == 0)
			syscall(SYS_exit_group, 0);
		syscall(SYS_wait4, child, NULL, 0, NULL);
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t other;

	(void)argc;
	arguments = argv;
	srand(microseconds());
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (atoi(argv[2]) == 0) {
		puts("done");
		return 0;
	}
	if (strcmp(argv[1], "lock") == 0) {
		pthread_create(&other, NULL, executes_soon, NULL);
		usleep(100);
		mlock(page, sizeof(page));
		page[0] = 1;
		pthread_join(other, NULL);
	} else {
		mlock(page, sizeof(page));
		pthread_create(&other, NULL, forks, NULL);
		usleep(3000 + rand() % 10000);
		execute_anew();
	}
	return 1;
}
