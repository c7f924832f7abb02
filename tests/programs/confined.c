// SPDX-License-Identifier: MIT
/*
 * confined WHO WITNESS: a thread that may make a few calls, and is killed with the whole process for any other, locks
 * pages, and the first thread locks others. WHO is first: `confined` or `free`. Both, and a third thread, are in
 * epoll_wait(2) meanwhile, which a stop would interrupt. What it returned is the exit status: 0 for a timeout.
 */
#include "secret.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define HALF (SIZE / 2)
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static pthread_barrier_t before, after;
static int confined_first, witness, set;

static void confine(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(mlock), ALLOW(futex), ALLOW(epoll_wait), ALLOW(vmsplice), ALLOW(write), ALLOW(exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(*code), code };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
}

static void lock(char *start)
{
	check(mlock(start, HALF) == 0, "mlock");
	paint(start, HALF);
	show(witness, start, HALF);
}

static void *waits(void *confined)
{
	struct epoll_event event;
	char *pages = mmap(NULL, HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long error;

	if (confined)
		confine();
	if (confined && confined_first)
		lock(pages);
	pthread_barrier_wait(&before);
	error = syscall(SYS_epoll_wait, set, &event, 1, 700) == 0 ? 0 : errno;
	if (confined && !confined_first)
		lock(pages);
	pthread_barrier_wait(&after);
	if (error)
		_exit(error);
	for (;;)
		pthread_barrier_wait(&before);
}

int main(int argc, char **argv)
{
	char *pages = mmap(NULL, HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	check(argc == 3, "usage");
	confined_first = strcmp(argv[1], "confined") == 0;
	witness = atoi(argv[2]);
	set = epoll_create1(0);
	pthread_barrier_init(&before, NULL, 3);
	pthread_barrier_init(&after, NULL, 3);
	pthread_create(&thread, NULL, waits, NULL);
	pthread_create(&thread, NULL, waits, argv);
	pthread_barrier_wait(&before);
	usleep(100000); /* they are in epoll_wait by now */
	lock(pages);
	pthread_barrier_wait(&after);
	usleep(100000);
	_exit(0);
}
