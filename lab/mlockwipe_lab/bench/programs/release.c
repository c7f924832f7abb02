// SPDX-License-Identifier: MIT
/*
 * release rw|read|huge locked|unlocked KIBIBYTES COUNT: how long a killed process takes until its parent sees it gone.
 *
 * Each of COUNT children fills the memory, locks it or, for `unlocked`, only another page, times one memset of it, now
 * that it is resident, and is killed. `read`: the memory is PROT_READ by then. `huge`: it is made of transparent huge
 * pages, otherwise of none.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_SIZE	(1UL << 21)

static void hold(const char *kind, size_t length, int locked, int ready)
{
	uint64_t start, time;
	char *memory = mmap(NULL, length + HUGE_SIZE + PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	memory = (char *)(((uintptr_t)memory + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
	if (madvise(memory, length, strcmp(kind, "huge") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
		die("madvise");
	memset(memory, 0xA5, length);
	if (locked ? mlock(memory, length) : mlock(memory + length, PAGE_SIZE))
		die("mlock");
	start = now();
	memset(memory, 0x5A, length);
	time = now() - start;
	if (!strcmp(kind, "read") && mprotect(memory, length, PROT_READ))
		die("mprotect");
	if (write(ready, &time, sizeof(time)) != sizeof(time))
		die("write");
	for (;;)
		pause();
}

static void hold_and_kill(const char *kind, size_t length, int locked)
{
	uint64_t start, memset_time;
	int ready[2];
	pid_t child;

	if (pipe(ready))
		die("pipe");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		close(ready[0]);
		hold(kind, length, locked, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &memset_time, sizeof(memset_time)) != sizeof(memset_time))
		exit(1);
	close(ready[0]);
	start = now();
	if (kill(child, SIGKILL) || waitpid(child, NULL, 0) != child)
		die("kill");
	report("release", now() - start, 1);
	report("memset", memset_time, 1);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	for (unsigned long left = number(argv[4]); left; left--)
		hold_and_kill(argv[1], number(argv[3]) << 10, !strcmp(argv[2], "locked"));
	return 0;
}
