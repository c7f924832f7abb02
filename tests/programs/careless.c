// SPDX-License-Identifier: MIT
/*
 * Programs that handle a secret well or badly, for mlockwipe audit: `careless MISTAKE ...` makes each in turn, and
 * always handles one secret as it should. A test looks for the lines that are marked `here:`.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 4096

static char *room(void)
{
	char *room = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (room == MAP_FAILED)
		exit(2);
	return room;
}

static void fill(char *secret)
{
	memset(secret, 'k', 32);
}

static void careful(void)
{
	char *secret = room();

	if (mlock(secret, SIZE))
		exit(2);
	fill(secret);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
	munmap(secret, SIZE);
}

static void unlocked(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: unlocked, locked */
	fill(secret);
	munlock(secret, SIZE); /* here: unlocked, released */
	explicit_bzero(secret, SIZE);
	munmap(secret, SIZE);
}

static void unmapped(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: unmapped, locked */
	fill(secret);
	munmap(secret, SIZE); /* here: unmapped, released */
}

static void exited(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: exited, locked */
	fill(secret);
}

static void forked(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE); /* here: forked, locked */
	fill(secret);
	child = fork();
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
	munmap(secret, SIZE);
}

static void heap(void)
{
	char *secret = sbrk(0);

	secret += -(unsigned long)secret % SIZE;
	if (brk(secret + SIZE))
		exit(2);
	mlock(secret, SIZE); /* here: heap, locked */
	fill(secret);
	if (brk(secret)) /* here: heap, released */
		exit(2);
}

/* A server that its starter leaves behind with the only copy. */
static void daemon_of_it(void)
{
	pid_t starter = getpid();
	char *secret = room();

	mlock(secret, SIZE); /* here: daemon, locked */
	if (fork()) {
		explicit_bzero(secret, SIZE);
		munlock(secret, SIZE);
		_exit(0);
	}
	fill(secret);
	while (getppid() == starter)
		usleep(10000);
	usleep(200000); /* until its memory is gone too */
	explicit_bzero(secret, SIZE);
}

static void executed(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE);
	fill(secret);
	child = fork();
	if (!child) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
	munmap(secret, SIZE);
}

/* A child that clears its copies, while its parent is there: it did what it could. */
static void child_clears(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE);
	fill(secret);
	child = fork();
	if (!child) {
		explicit_bzero(secret, SIZE);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
}

static void not_for_children(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE);
	madvise(secret, SIZE, MADV_DONTFORK);
	fill(secret);
	child = fork();
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
}

/* The child locks its copy, and then it is as good as any. */
static void child_locks(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE);
	fill(secret);
	child = fork();
	if (!child) {
		mlock(secret, SIZE); /* here: child_locks, locked */
		_exit(0);
	}
	waitpid(child, NULL, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
}

static void refused(void)
{
	struct rlimit none = {0, 0};
	char *secret = room();

	setrlimit(RLIMIT_MEMLOCK, &none);
	mlock(secret, SIZE); /* here: refused, locked */
	fill(secret);
	munmap(secret, SIZE);
}

static void hole(void)
{
	char *secret = room();

	munmap(secret, SIZE);
	mlock(secret, SIZE);
}

static void moved(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: moved, locked */
	fill(secret);
	secret = mremap(secret, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room());
	munmap(secret, SIZE); /* here: moved, released */
}

/* munlock fails at a hole, and has unlocked what lies before. */
static void half_unlocked(void)
{
	char *secret = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(secret + SIZE, SIZE);
	mlock(secret, SIZE); /* here: half_unlocked, locked */
	fill(secret);
	munlock(secret, 2 * SIZE); /* here: half_unlocked, released */
	explicit_bzero(secret, SIZE);
}

static void grown(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: grown, locked */
	secret = mremap(secret, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
	fill(secret + SIZE);
	munlock(secret, 2 * SIZE); /* here: grown, released */
	explicit_bzero(secret, 2 * SIZE);
}

/* Shrunk and moved onto another place at once. */
static void shrunk(void)
{
	char *secret = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mlock(secret, 2 * SIZE); /* here: shrunk, locked */
	fill(secret);
	secret = mremap(secret, 2 * SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room());
	munlock(secret, SIZE); /* here: shrunk, released */
	explicit_bzero(secret, SIZE);
}

/* A grandchild that has the copy of a copy, while the process that locked is there. */
static void grandchild(void)
{
	char *secret = room();
	pid_t child;

	mlock(secret, SIZE);
	fill(secret);
	child = fork();
	if (!child) {
		explicit_bzero(secret, SIZE);
		if (!fork())
			usleep(200000);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	usleep(500000);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
}

/* A daemon that has no copy. */
static void daemon_without(void)
{
	char *secret = room();
	pid_t starter = getpid();

	mlock(secret, SIZE);
	madvise(secret, SIZE, MADV_DONTFORK);
	fill(secret);
	if (fork()) {
		explicit_bzero(secret, SIZE);
		munlock(secret, SIZE);
		_exit(0);
	}
	while (getppid() == starter)
		usleep(10000);
	usleep(200000);
}

/* A call that fails, with a vector where none can be. */
static void no_vector(void)
{
	char *secret = room();
	int self = syscall(SYS_pidfd_open, getpid(), 0);

	mlock(secret, SIZE);
	fill(secret);
	syscall(SYS_process_madvise, self, (void *)-4096, 1, MADV_DONTNEED, 0);
	syscall(SYS_process_madvise, self, (void *)8, 1, MADV_DONTNEED, 0);
	explicit_bzero(secret, SIZE);
	munlock(secret, SIZE);
}

/* Two secrets on one page: locks don't nest, so to unlock the one is to unlock both. */
static void neighbour(void)
{
	char *page = room();

	mlock(page, 32); /* here: neighbour, locked */
	fill(page);
	mlock(page + 64, 32);
	fill(page + 64);
	explicit_bzero(page + 64, 32);
	munlock(page + 64, 32); /* here: neighbour, released */
	explicit_bzero(page, 32);
}

/* What was never locked itself may lie beside a secret, and is no affair of it. */
static void beside(void)
{
	char *page = room();

	mlock(page, 32);
	fill(page);
	memset(page + 64, 'u', 64);
	explicit_bzero(page, 32);
	munlock(page, 32);
}

static void *in_thread(void *arg)
{
	unmapped();
	return arg;
}

static void thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, in_thread, NULL);
	pthread_join(thread, NULL);
}

static void killed(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: killed, locked */
	fill(secret);
	raise(SIGKILL);
}

static void all(void)
{
	mlockall(MCL_CURRENT | MCL_FUTURE); /* here: all, locked */
	munmap(room(), SIZE);
}

static void kept(void)
{
	char *secret = room();

	mlock(secret, SIZE); /* here: kept, locked */
	fill(secret);
	explicit_bzero(secret, SIZE);
}

/* Children that share the memory, and lock in it. */
static void vforks(void)
{
	char *secret = room();

	for (volatile int i = 0; i < 60; i++) {
		pid_t child = vfork();

		if (!child) {
			mlock(secret, SIZE);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	if (write(1, "ready\n", 6) != 6)
		exit(2);
}

static void asleep(void)
{
	sleep(300);
}

static const struct {
	const char *name;
	void (*make)(void);
} mistakes[] = {
	{"unlocked", unlocked},
	{"unmapped", unmapped},
	{"exited", exited},
	{"forked", forked},
	{"heap", heap},
	{"daemon", daemon_of_it},
	{"executed", executed},
	{"child_clears", child_clears},
	{"not_for_children", not_for_children},
	{"child_locks", child_locks},
	{"refused", refused},
	{"hole", hole},
	{"moved", moved},
	{"half_unlocked", half_unlocked},
	{"grown", grown},
	{"shrunk", shrunk},
	{"grandchild", grandchild},
	{"daemon_without", daemon_without},
	{"no_vector", no_vector},
	{"neighbour", neighbour},
	{"beside", beside},
	{"thread", thread},
	{"killed", killed},
	{"all", all},
	{"kept", kept},
	{"vforks", vforks},
	{"sleep", asleep},
};

int main(int argc, char **argv)
{
	careful();
	for (int i = 1; i < argc; i++)
		for (size_t j = 0; j < sizeof(mistakes) / sizeof(*mistakes); j++)
			if (!strcmp(argv[i], mistakes[j].name))
				mistakes[j].make();
	return 0;
}
