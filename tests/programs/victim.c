/* SPDX-License-Identifier: MIT */
/*
 * victim SITUATION THREADS WITNESS READY PROTECTION: lock a secret, show it, say so, and go on as the situation says.
 *
 * A byte is written to READY when the situation has begun. The process never ends by itself, but in 'exit' and
 * 'exec'.
 */
#include "secret.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *secret, *inherited;
static int ready, witness;

static void *spins(void *unused)
{
	for (volatile unsigned long i = 0;; i++)
		;
	return unused;
}

static void *sleeps(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void *unmaps(void *unused)
{
	for (;;)
		check(munmap(make_secret(PAGE), PAGE) == 0, "munmap");
	return unused;
}

/*
 * The witness's own reference makes the next write to a page that is shared with a child go to a copy, so what is
 * shown is never shared: the secret is withheld from the children, and each shows a page that it has made its own.
 */
static void *forks(void *unused)
{
	for (;;) {
		pid_t pid = fork();

		check(pid >= 0, "fork");
		if (pid == 0) {
			struct iovec page = { inherited, PAGE };

			paint(inherited, PAGE);
			vmsplice(witness, &page, 1, SPLICE_F_NONBLOCK); /* until it is full */
			_exit(0);
		}
		check(waitpid(pid, NULL, 0) == pid, "waitpid");
	}
	return unused;
}

static void *returns(void *unused)
{
	return unused;
}

static void *clones(void *unused)
{
	for (;;) {
		pthread_t thread;

		check(pthread_create(&thread, NULL, returns, NULL) == 0, "pthread_create");
		check(pthread_join(thread, NULL) == 0, "pthread_join");
	}
	return unused;
}

static void say_ready(void)
{
	check(write(ready, "", 1) == 1, "write");
}

static void *unmaps_the_secret(void *unused)
{
	say_ready();
	munmap(secret, SIZE);
	return sleeps(unused);
}

static void *exits(void *unused)
{
	say_ready();
	syscall(SYS_exit_group, 0);
	return unused;
}

static void *execs(void *unused)
{
	say_ready();
	execl("/bin/sleep", "sleep", "1000000", NULL);
	return unused;
}

static const struct {
	const char *name;
	void *(*action)(void *);
	int says_itself;
} situations[] = {
	{ "sleeps", sleeps, 0 }, { "spins", spins, 0 }, { "unmaps", unmaps, 0 }, { "forks", forks, 0 },
	{ "clones", clones, 0 }, { "unmaps-the-secret", unmaps_the_secret, 1 }, { "exits", exits, 1 },
	{ "execs", execs, 1 },
};

int main(int argc, char **argv)
{
	static const int protections[] = { PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ };
	int threads;

	if (argc != 6)
		return 2;
	threads = atoi(argv[2]);
	witness = atoi(argv[3]);
	ready = atoi(argv[4]);
	for (size_t i = 0; i < sizeof(situations) / sizeof(situations[0]); i++) {
		if (strcmp(situations[i].name, argv[1]))
			continue;
		secret = make_secret(SIZE);
		if (situations[i].action == forks) {
			check(fcntl(witness, F_SETPIPE_SZ, 256 * PAGE) > 0, "F_SETPIPE_SZ");
			check(madvise(secret, SIZE, MADV_DONTFORK) == 0, "madvise");
			inherited = make_secret(PAGE);
		}
		show(witness, secret, SIZE);
		check(mprotect(secret, SIZE, protections[atoi(argv[5]) % 3]) == 0, "mprotect");
		for (int other = 1; other < threads; other++) {
			pthread_t thread;
			void *(*action)(void *) = situations[i].says_itself ? spins : situations[i].action;

			check(pthread_create(&thread, NULL, action, NULL) == 0, "pthread_create");
		}
		if (!situations[i].says_itself)
			say_ready();
		situations[i].action(NULL);
	}
	return 2;
}
