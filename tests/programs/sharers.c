/* SPDX-License-Identifier: MIT */
/*
 * sharers KIND WITNESS: processes that share memory by clone(CLONE_VM), made before anything is locked. One of them locks
 * a secret, shows it and ends; the other then says whether it is whole, and ends too.
 *
 * KIND, who is left: `child` and `grandchild` of the one that locks, `orphan` of a maker that is dead, its `parent`,
 * its `sibling` (CLONE_PARENT), a `thread` of a child whose first thread has ended.
 */
#include "secret.h"
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *secret;
static volatile pid_t locker;
static volatile int made, locked;

static void make(int (*body)(void *), int flags)
{
	char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(stack != MAP_FAILED, "mmap");
	check(clone(body, stack + SIZE - 64, CLONE_VM | flags, NULL) > 0, "clone");
}

static void await(volatile int *what)
{
	while (!*what)
		usleep(1000);
}

static int judge(void)
{
	const uint64_t *words = (const uint64_t *)secret;
	int whole = 1;

	for (size_t i = 0; i < SIZE / 8; i += 2)
		whole &= words[i] == FIRST && words[i + 1] == SECOND;
	if (whole)
		return write(1, "whole\n", 6) < 0;
	return write(1, "wiped\n", 6) < 0;
}

static int outlives(void *unused)
{
	(void)unused;
	made = 1;
	await(&locked);
	for (int i = 0; i < 500 && kill(locker, 0) == 0; i++)
		usleep(1000); /* whoever has to reap it may wait for our output */
	return judge();
}

static int has_a_child(void *unused)
{
	(void)unused;
	make(outlives, SIGCHLD);
	await(&locked);
	syscall(SYS_exit_group, 0);
	return 0;
}

static int leaves_a_child(void *unused)
{
	(void)unused;
	make(outlives, SIGCHLD);
	syscall(SYS_exit_group, 0);
	return 0;
}

static int leaves_a_thread(void *unused)
{
	(void)unused;
	make(outlives, CLONE_THREAD | CLONE_SIGHAND);
	syscall(SYS_exit, 0); /* of this thread alone */
	return 0;
}

static int witness;

static int locks(void *unused)
{
	(void)unused;
	locker = getpid();
	check(mlock(secret, SIZE) == 0, "mlock");
	paint(secret, SIZE);
	show(witness, secret, SIZE);
	locked = 1;
	syscall(SYS_exit_group, 0);
	return 0;
}

int main(int argc, char **argv)
{
	const char *kind = argv[1];

	check(argc == 3, "usage");
	witness = atoi(argv[2]);
	secret = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(secret != MAP_FAILED, "mmap");
	if (!strcmp(kind, "parent")) {
		make(locks, SIGCHLD);
		check(wait(NULL) > 0, "wait");
		return judge();
	}
	if (!strcmp(kind, "child"))
		make(outlives, SIGCHLD);
	else if (!strcmp(kind, "grandchild"))
		make(has_a_child, SIGCHLD);
	else if (!strcmp(kind, "sibling"))
		make(outlives, CLONE_PARENT | SIGCHLD);
	else if (!strcmp(kind, "thread"))
		make(leaves_a_thread, SIGCHLD);
	else {
		make(leaves_a_child, SIGCHLD);
		check(wait(NULL) > 0, "wait");
	}
	await(&made);
	return locks(NULL);
}
