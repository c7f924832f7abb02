/* SPDX-License-Identifier: MIT */
/* family CHILDREN: lock a page and fork so many, each of which locks the same one; say "ready" and wait to be killed. */
#include "secret.h"
#include <signal.h>
#include <sys/prctl.h>

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	char *secret = make_secret(PAGE), byte;
	int ready[2];

	check(argc == 2 && pipe(ready) == 0, "family CHILDREN");
	for (int i = 0; i < atoi(argv[1]); i++) {
		pid_t pid = fork();

		check(pid >= 0, "fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			check(mlock(secret, PAGE) == 0 && write(ready[1], "x", 1) == 1, "mlock in a child");
			sleep_for_ever();
		}
		check(read(ready[0], &byte, 1) == 1, "read");
	}
	puts("ready");
	fflush(stdout);
	sleep_for_ever();
}
