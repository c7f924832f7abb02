// SPDX-License-Identifier: MIT
/*
 * Locked memory under everything that the kernel does to memory, at once, with
 * every surviving page checked: fork, copy-on-write, huge pages and their
 * parts, KSM, swap, compaction, memory pressure, the OOM killer, pipes, direct
 * I/O, truncation, mremap.
 *
 * mm_stress SECONDS WORKERS SEED SECOND [exact]
 *
 * A page that holds the value V has FIRST and SECOND as its first two words,
 * and V + j * STEP as each word j after them; the value 0 is a page of zeros.
 * SECOND is hexadecimal, and a search of all memory for the two words finds
 * what is left of the pages.
 *
 * With `exact` nothing happens after which a page may be left behind: all
 * memory is locked before it is written to and never unlocked, and nothing is
 * merged or swapped out by it; the kernel's own settings are the caller's.
 *
 * Prints one JSON object. The status is 1 when a page was not as it must be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define WORDS (PAGE / 8)
#define HUGE (2L << 20)
#define MOST 1024 /* pages of an area: two huge ones */
#define AREAS 6
#define CHILDREN 3
#define STEP 0x9e3779b97f4a7c15u
#define FIRST_INVERTED (~0x5ec7e70f6d6c6f63u) /* never in memory beside the second but in a page */
#define FILE_PAGES 64

#define MADV_DONTNEED_LOCKED_ 24
#define MADV_COLLAPSE_ 25
#define MLOCK_ONFAULT_ 1

enum { MAP, FILL, UNMAP, UNLOCK, MOVE, DROP, FORK, RACE, MERGE, PAGEOUT, COLLAPSE, PIPE, DIRECT, TRUNCATE, HIDE, OPS };

static const char *const names[OPS] = {
	"map", "fill", "unmap", "unlock", "move", "drop", "fork", "race", "merge", "pageout", "collapse", "pipe",
	"direct", "truncate", "hide",
};

static struct shared {
	unsigned long done[OPS], checked, corrupt, oom, children;
	char first[256]; /* what was wrong first */
} *shared;

struct area {
	char *at; /* NULL: none */
	int pages;
	bool there[MOST];
	uint64_t value[MOST];
};

static struct area areas[AREAS];
static pid_t children[CHILDREN];
static char *scratch; /* locked: what is read back */
static uint64_t second_inverted;
static uint64_t state; /* of the random numbers */
static bool exact;
static int number; /* of the worker */

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int below(int limit)
{
	return draw() % limit;
}

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!__atomic_fetch_add(&shared->corrupt, 1, __ATOMIC_SEQ_CST))
		vsnprintf(shared->first, sizeof(shared->first), format, args);
	va_end(args);
}

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "mm_stress: %s: %s\n", what, strerror(errno));
	_exit(2);
}

/* Content */

static void fill(char *at, uint64_t value)
{
	volatile uint64_t *words = (volatile uint64_t *)at;

	if (!value) {
		memset(at, 0, PAGE);
		return;
	}
	words[0] = ~FIRST_INVERTED;
	for (int j = 2; j < WORDS; j++)
		words[j] = value + j * STEP;
	words[1] = ~second_inverted;
}

static bool holds(const char *at, uint64_t value)
{
	const volatile uint64_t *words = (const volatile uint64_t *)at;

	__atomic_fetch_add(&shared->checked, 1, __ATOMIC_RELAXED);
	if (value && (~words[0] != FIRST_INVERTED || ~words[1] != second_inverted))
		return false;
	for (int j = value ? 2 : 0; j < WORDS; j++)
		if (words[j] != (value ? value + j * STEP : 0))
			return false;
	return true;
}

static void check(const struct area *area, int page, const char *when)
{
	const uint64_t *words = (const uint64_t *)(area->at + page * PAGE);

	if (area->there[page] && !holds(area->at + page * PAGE, area->value[page]))
		wrong("%s: page %d of %d, value %#lx, word 2 is %#lx", when, page, area->pages,
		      (unsigned long)area->value[page], (unsigned long)words[2]);
}

static void check_all(const struct area *area, const char *when)
{
	for (int page = 0; area->at && page < area->pages; page++)
		check(area, page, when);
}

/* A few pages, here and there: all of them take long. */
static void check_some(const char *when)
{
	for (int i = 0; i < AREAS; i++)
		for (int tries = areas[i].at ? 8 : 0; tries; tries--)
			check(&areas[i], below(areas[i].pages), when);
}

/* Areas */

static struct area *any(bool used)
{
	int start = below(AREAS);

	for (int i = 0; i < AREAS; i++) {
		struct area *area = &areas[(start + i) % AREAS];

		if (used == (area->at != NULL))
			return area;
	}
	return NULL;
}

/* A run of pages that are there. Returns how many. */
static int run(const struct area *area, int most, int *first)
{
	int count = 0, limit = 1 + below(most);

	*first = below(area->pages);
	while (*first + count < area->pages && count < limit && area->there[*first + count])
		count++;
	return count;
}

static void gone(struct area *area, int first, int count)
{
	memset(area->there + first, 0, count);
	for (int page = 0; page < area->pages; page++)
		if (area->there[page])
			return;
	area->at = NULL;
}

static char *reserve(long pages)
{
	char *at = mmap(NULL, pages * PAGE + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start;

	if (at == MAP_FAILED)
		return NULL;
	start = (char *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
	if (start != at)
		munmap(at, start - at);
	if (at + HUGE != start)
		munmap(start + pages * PAGE, at + HUGE - start);
	return start;
}

static void op_map(void)
{
	struct area *area = any(false);
	int how = below(4);
	bool huge = how < 2;
	int pages = huge ? MOST / (1 + how) : 1 + below(MOST / 4);
	char *at = area ? reserve(pages) : NULL;
	int locked = exact ? pages : below(4) ? pages : 1 + below(pages);
	int fill_later = below(8) == 0;

	if (!at)
		return;
	mprotect(at, pages * PAGE, PROT_READ | PROT_WRITE);
	madvise(at, pages * PAGE, huge ? MADV_HUGEPAGE : below(2) ? MADV_NOHUGEPAGE : MADV_NORMAL);
	if (syscall(SYS_mlock2, at, locked * PAGE, below(2) ? MLOCK_ONFAULT_ : 0)) {
		munmap(at, pages * PAGE);
		return;
	}
	area->pages = pages;
	for (int page = 0; page < pages; page++) {
		area->there[page] = true;
		area->value[page] = fill_later ? 0 : draw() | 1;
		if (!fill_later)
			fill(at + page * PAGE, area->value[page]);
	}
	area->at = at;
}

static void op_fill(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 64, &first) : 0;

	for (int page = first; page < first + count; page++) {
		check(area, page, "before a write");
		area->value[page] = draw() | 1;
		fill(area->at + page * PAGE, area->value[page]);
	}
}

static void op_unmap(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, below(8) ? 64 : MOST, &first) : 0;

	if (count && !munmap(area->at + first * PAGE, count * PAGE))
		gone(area, first, count);
}

static void op_unlock(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 256, &first) : 0;

	if (count)
		munlock(area->at + first * PAGE, count * PAGE);
}

static void op_move(void)
{
	struct area *from = any(true), *to = any(false);
	int first, count = from && to ? run(from, below(8) ? 64 : MOST, &first) : 0;
	char *at = count ? reserve(count) : NULL;

	if (!at)
		return;
	if (mremap(from->at + first * PAGE, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at) {
		munmap(at, count * PAGE); /* it spans several VMAs */
		return;
	}
	to->pages = count;
	for (int page = 0; page < count; page++) {
		to->there[page] = true;
		to->value[page] = from->value[first + page];
	}
	to->at = at;
	gone(from, first, count);
	check_all(to, "after a move");
}

static void op_drop(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 64, &first) : 0;

	if (count && !madvise(area->at + first * PAGE, count * PAGE, MADV_DONTNEED_LOCKED_))
		memset(area->value + first, 0, count * sizeof(uint64_t));
}

static void op_merge(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 64, &first) : 0;
	uint64_t value = 1 + 2 * below(4);

	if (!count || madvise(area->at + first * PAGE, count * PAGE, MADV_MERGEABLE))
		return;
	for (int page = first; page < first + count; page++) {
		area->value[page] = value; /* as others have, in other workers too */
		fill(area->at + page * PAGE, value);
	}
}

static void op_pageout(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 256, &first) : 0;

	if (count)
		madvise(area->at + first * PAGE, count * PAGE, MADV_PAGEOUT);
}

static void op_collapse(void)
{
	struct area *area = any(true);

	if (area)
		madvise(area->at, area->pages * PAGE, MADV_COLLAPSE_);
}

static void op_hide(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 64, &first) : 0;

	if (!count || mprotect(area->at + first * PAGE, count * PAGE, PROT_NONE))
		return;
	if (below(2) && !munmap(area->at + first * PAGE, count * PAGE))
		gone(area, first, count);
	else
		mprotect(area->at + first * PAGE, count * PAGE, PROT_READ | PROT_WRITE);
}

/* Those whom others read */

static void verify_read(const uint64_t *values, int count, const char *what)
{
	for (int page = 0; page < count; page++)
		if (!holds(scratch + page * PAGE, values[page]))
			wrong("%s: page %d of %d, value %#lx, word 2 is %#lx", what, page, count,
			      (unsigned long)values[page],
			      (unsigned long)((uint64_t *)(scratch + page * PAGE))[2]);
}

static void op_pipe(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, 16, &first) : 0, fds[2];
	struct iovec iov;
	uint64_t values[16];
	long got = 0, last;

	if (!count || pipe(fds))
		return;
	iov = (struct iovec){ area->at + first * PAGE, count * PAGE };
	memcpy(values, area->value + first, count * sizeof(*values));
	if (vmsplice(fds[1], &iov, 1, 0) == (long)iov.iov_len) {
		if (!munmap(iov.iov_base, iov.iov_len))
			gone(area, first, count);
		if (below(2))
			usleep(below(20000));
		for (last = 1; got < count * PAGE && last > 0; got += last)
			last = read(fds[0], scratch + got, count * PAGE - got);
		verify_read(values, count, "data in a pipe");
	}
	close(fds[0]);
	close(fds[1]);
}

static void op_direct(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, FILE_PAGES, &first) : 0, fd;
	uint64_t values[FILE_PAGES];
	aio_context_t ring = 0;
	struct io_event event;
	struct iocb block = { .aio_lio_opcode = IOCB_CMD_PWRITE }, *blocks = &block;
	char name[64];

	snprintf(name, sizeof(name), "/var/tmp/mm_stress-%d-%d", number, getpid());
	if (!count || (fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600)) < 0)
		return;
	memcpy(values, area->value + first, count * sizeof(*values));
	block.aio_fildes = fd;
	block.aio_buf = (uintptr_t)(area->at + first * PAGE);
	block.aio_nbytes = count * PAGE;
	if (!syscall(SYS_io_setup, 1, &ring)) {
		if (syscall(SYS_io_submit, ring, 1, &blocks) == 1) {
			if (!munmap(area->at + first * PAGE, count * PAGE))
				gone(area, first, count);
			if (syscall(SYS_io_getevents, ring, 1, 1, &event, NULL) == 1 && event.res == count * PAGE &&
			    pread(fd, scratch, count * PAGE, 0) == count * PAGE)
				verify_read(values, count, "data written directly");
		}
		syscall(SYS_io_destroy, ring);
	}
	close(fd);
	unlink(name);
}

/* A file's private copies, some of which are cut off; the file itself keeps every byte. */
static void op_truncate(void)
{
	char name[64], *at, *plain = scratch + FILE_PAGES * PAGE;
	uint64_t values[FILE_PAGES] = { 0 };
	int fd, left = 1 + below(FILE_PAGES);

	snprintf(name, sizeof(name), "%s/mm_stress-%d-%d", below(2) ? "/tmp" : "/var/tmp", number, getpid());
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return;
	memset(plain, 'f', PAGE);
	for (int page = 0; page < FILE_PAGES; page++)
		if (pwrite(fd, plain, PAGE, page * PAGE) != PAGE)
			goto out;
	at = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		goto out;
	if (!mlock(at, FILE_PAGES * PAGE)) {
		for (int tries = 0; tries < 20; tries++) {
			int page = below(FILE_PAGES);

			values[page] = draw() | 1;
			fill(at + page * PAGE, values[page]);
		}
		if (ftruncate(fd, left * PAGE))
			die("ftruncate");
		for (int page = 0; page < left; page++) {
			bool good = values[page] ? holds(at + page * PAGE, values[page]) :
						   !memcmp(at + page * PAGE, plain, PAGE);

			if (!good)
				wrong("private copy %d of a truncated file", page);
		}
	}
	munmap(at, FILE_PAGES * PAGE);
	for (int page = 0; page < left; page++)
		if (pread(fd, scratch, PAGE, page * PAGE) != PAGE || memcmp(scratch, plain, PAGE))
			wrong("page %d of a file was changed", page);
out:
	close(fd);
	unlink(name);
}

/* Processes */

static void act(int op);

static void __attribute__((noreturn)) child(void)
{
	static const int may[] = { FILL, FILL, UNMAP, UNLOCK, DROP, PAGEOUT, MOVE, PIPE, HIDE, COLLAPSE, FORK };

	memset(children, 0, sizeof(children));
	state ^= (uint64_t)getpid() * STEP;
	state |= 1;
	check_some("inherited");
	for (int i = below(20); i; i--)
		act(may[below(sizeof(may) / sizeof(*may))]);
	check_some("in a child");
	switch (below(4)) {
	case 0:
		kill(getpid(), SIGKILL);
		break;
	case 1:
		execl("/proc/self/exe", "mm_stress", NULL); /* ends at once */
		break;
	}
	_exit(0);
}

static void reap(pid_t *slot)
{
	if (*slot && below(4) == 0)
		kill(*slot, SIGKILL);
	if (*slot)
		waitpid(*slot, NULL, 0);
	*slot = 0;
}

static void op_fork(void)
{
	pid_t *slot = &children[below(CHILDREN)];

	reap(slot);
	fflush(NULL);
	*slot = fork();
	if (*slot == 0)
		child();
	if (*slot < 0)
		*slot = 0;
	else
		__atomic_fetch_add(&shared->children, 1, __ATOMIC_RELAXED);
}

/* Parent and child release the same pages, or neighbours of one huge page, at the same moment. */
static void op_race(void)
{
	struct area *area = any(true);
	int first, count = area ? run(area, MOST, &first) : 0;
	volatile int *go;
	pid_t pid;

	go = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (go == MAP_FAILED)
		return;
	pid = count ? fork() : -1;
	if (pid == 0) {
		int skip = below(2) ? 0 : below(count);

		while (!*go)
			sched_yield();
		munmap(area->at + (first + skip) * PAGE, (count - skip) * PAGE);
		gone(area, first + skip, count - skip);
		check_some("beside a release");
		_exit(0);
	}
	*go = 1;
	if (pid > 0) {
		if (!munmap(area->at + first * PAGE, count * PAGE))
			gone(area, first, count);
		check_some("beside a release");
		waitpid(pid, NULL, 0);
	}
	munmap((void *)go, PAGE);
}

static void act(int op)
{
	static void (*const ops[OPS])(void) = {
		op_map, op_fill, op_unmap, op_unlock, op_move, op_drop, op_fork, op_race, op_merge, op_pageout,
		op_collapse, op_pipe, op_direct, op_truncate, op_hide,
	};

	if (exact && (op == UNLOCK || op == MERGE || op == PAGEOUT))
		return;
	ops[op]();
	__atomic_fetch_add(&shared->done[op], 1, __ATOMIC_RELAXED);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static char *locked(long length)
{
	char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || mlock(at, length))
		die("a locked buffer");
	return at;
}

static void __attribute__((noreturn)) worker(double end)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	scratch = locked(2 * FILE_PAGES * PAGE);
	for (unsigned long i = 1; now() < end; i++) {
		if (!any(true) || (i % 16 == 0 && any(false)))
			act(MAP);
		act(below(OPS));
		check_some("at work");
		if (i % 64 == 0)
			check_all(&areas[below(AREAS)], "all of an area");
	}
	for (int i = 0; i < CHILDREN; i++)
		reap(&children[i]);
	for (int i = 0; i < AREAS; i++)
		check_all(&areas[i], "at the end");
	_exit(0);
}

/* Memory that comes and goes; with what the workers have it is more than there is. */
static void __attribute__((noreturn)) disturber(double end)
{
	long length = exact ? 64L << 20 : 384L << 20;
	FILE *file = fopen("/proc/self/oom_score_adj", "w");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (file) {
		fputs("1000", file); /* first of all */
		fclose(file);
	}
	while (now() < end) {
		char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (long page = 0; at != MAP_FAILED && page < length && now() < end; page += PAGE)
			at[page] = 1;
		usleep(100000);
		if (at != MAP_FAILED)
			munmap(at, length);
	}
	_exit(0);
}

static pid_t start(int which, double end)
{
	pid_t pid = fork();

	if (pid == 0) {
		number = which;
		state = (state + which + getpid()) * STEP | 1;
		if (which)
			worker(end);
		disturber(end);
	}
	return pid;
}

int main(int argc, char **argv)
{
	int workers, status;
	pid_t *pids, pid;
	double end;

	if (argc == 1)
		return 0; /* what a child becomes */
	if (argc < 5) {
		fprintf(stderr, "usage: mm_stress SECONDS WORKERS SEED SECOND [exact]\n");
		return 2;
	}
	exact = argc > 5 && !strcmp(argv[5], "exact");
	workers = atoi(argv[2]);
	state = strtoull(argv[3], NULL, 0) | 1;
	second_inverted = ~strtoull(argv[4], NULL, 16);
	end = now() + atof(argv[1]);
	pids = calloc(workers + 1, sizeof(*pids));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!pids || shared == MAP_FAILED)
		die("memory");
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the children of killed children too have an end that is waited for */
	setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY });

	for (int i = 0; i <= workers; i++)
		pids[i] = start(i, end);
	while ((pid = wait(&status)) > 0) {
		for (int i = 0; i <= workers; i++) {
			if (pids[i] != pid)
				continue;
			if (!WIFSIGNALED(status) && WEXITSTATUS(status))
				wrong("worker %d ended with %d", i, WEXITSTATUS(status));
			else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
				wrong("worker %d died of signal %d", i, WTERMSIG(status));
			else if (WIFSIGNALED(status))
				shared->oom++;
			pids[i] = WIFSIGNALED(status) && now() < end ? start(i, end) : 0;
		}
	}

	printf("{\"checked\": %lu, \"corrupt\": %lu, \"oom\": %lu, \"children\": %lu, \"first\": \"%s\", \"done\": {",
	       shared->checked, shared->corrupt, shared->oom, shared->children, shared->first);
	for (int op = 0; op < OPS; op++)
		printf("%s\"%s\": %lu", op ? ", " : "", names[op], shared->done[op]);
	printf("}}\n");
	return shared->corrupt > 0;
}
