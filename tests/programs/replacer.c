/* SPDX-License-Identifier: MIT */
/*
 * replacer KIND TIMES: one locked page is replaced again and again by one with the same content, in one call. What
 * another thread reads there is always that content, what a third writes beside it is never lost where the call fails,
 * and threads that sleep are not interrupted. Says how often it was otherwise.
 *
 * KIND: `mmap`, `mmap-locked`, `mremap`, `shmat`, or `refused`, a MAP_FIXED that fails.
 */
#include "secret.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define CONTENT 0xA5

static volatile unsigned char *page;
static volatile int stop, refused;
static volatile unsigned long wrong, lost, interrupted;

static void *reads(void *unused)
{
	while (!stop)
		wrong += *page != CONTENT;
	return unused;
}

static void *writes(void *unused)
{
	volatile unsigned long *counter = (volatile unsigned long *)(page + 64);

	for (unsigned long count = *counter; !stop && refused;) {
		*counter = ++count;
		lost += *counter != count;
	}
	return unused;
}

static void *sleeps_in_epoll(void *unused)
{
	int epoll = epoll_create1(0);
	struct epoll_event event;

	interrupted += epoll_wait(epoll, &event, 1, -1) < 0;
	return unused;
}

static void *sleeps_in_semop(void *unused)
{
	int set = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf take = { 0, -1, 0 };

	semop(set, &take, 1);
	interrupted++;
	return unused;
}

static char *filled(int locked)
{
	char *start = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(start != MAP_FAILED, "mmap");
	memset(start, CONTENT, PAGE);
	if (locked)
		check(mlock(start, PAGE) == 0, "mlock");
	return start;
}

static void replace_by_mapping(int file, int flags)
{
	void *place = (void *)page;

	check(mmap(place, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_POPULATE | flags, file, 0) == place,
	      "mmap");
	if (!flags)
		check(mlock(place, PAGE) == 0, "mlock");
	page[8] = CONTENT; /* a page of its own */
}

static void replace_by_moving(void)
{
	void *place = (void *)page;

	check(mremap(filled(1), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place, "mremap");
}

int main(int argc, char **argv)
{
	const char *kind = argv[1];
	int file = memfd_create("content", 0), segment = shmget(IPC_PRIVATE, PAGE, 0600);
	pthread_t reader, writer, sleeper;
	unsigned char content[PAGE];
	void *attached;

	check(argc == 3, "usage");
	memset(content, CONTENT, PAGE);
	check(write(file, content, PAGE) == (ssize_t)PAGE, "write");
	attached = shmat(segment, NULL, 0);
	check(attached != (void *)-1, "shmat");
	memset(attached, CONTENT, PAGE);
	shmctl(segment, IPC_RMID, NULL);
	page = (unsigned char *)filled(1);
	refused = !strcmp(kind, "refused");
	pthread_create(&reader, NULL, reads, NULL);
	pthread_create(&writer, NULL, writes, NULL);
	pthread_create(&sleeper, NULL, sleeps_in_epoll, NULL);
	pthread_create(&sleeper, NULL, sleeps_in_semop, NULL);
	for (int times = atoi(argv[2]); times; times--) {
		if (!strcmp(kind, "mmap"))
			replace_by_mapping(file, 0);
		else if (!strcmp(kind, "mmap-locked"))
			replace_by_mapping(file, MAP_LOCKED);
		else if (!strcmp(kind, "mremap"))
			replace_by_moving();
		else if (refused)
			check(mmap((void *)page, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, -1, 0) == MAP_FAILED, "no error");
		else {
			check(shmat(segment, (void *)page, SHM_REMAP) == (void *)page, "shmat");
			replace_by_moving();
		}
	}
	stop = 1;
	pthread_join(reader, NULL);
	pthread_join(writer, NULL);
	printf("wrong %lu, lost %lu, interrupted %lu\n", wrong, lost, interrupted);
	return 0;
}
