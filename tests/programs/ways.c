/* SPDX-License-Identifier: MIT */
/*
 * ways WAY TRIALS THREADS: release locked memory in one way, again and again, and judge each time.
 *
 * This process never locks anything. In every trial it forks a child that locks pages, paints them, shows
 * them to a witness and releases them. What the kernel has got back is judged at the first moment when
 * anybody can see that the release is done: by the process itself behind a munmap, by the new program
 * behind an exec, by this process when its wait is over. One line of JSON says what was seen.
 *
 * Where SIGKILL races with a release, the delay before it is steered so that it comes too late about as often as
 * in time: both ends are counted.
 */
#include "secret.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define PATIENCE 60000 /* milliseconds until a trial counts as hung */
#define MOST_THREADS 64
#define MADV_DONTNEED_LOCKED 24

enum { CLEAN = 0, TROUBLE = 40, DIRTY = 100, MOST_TOLD = 100 }; /* exit status of who judges itself; DIRTY + pages */

static int witness[2], ready[2], go[2];
static unsigned long trial;
static int threads;
static char *secret;
static char **own_argv;

/* What the parent does once the child is ready. */
enum parent { WAITS, KILLS_SLEEPER, KILLS_AT_ONCE, RACES };

struct way {
	const char *name;
	void (*release)(void);
	void *(*thread)(void *); /* what the other threads do, NULL: they sleep */
	enum parent parent;
	int ends_by; /* the signal, 0: exit */
	unsigned long pages; /* that the witness must have seen, 0: it varies */
	int least_threads;
};

static const struct way *way;

static void *sleeps(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void *spins(void *unused)
{
	for (volatile unsigned long i = 0;; i++)
		;
	return unused;
}

static void start_threads(void)
{
	pthread_t thread;

	for (int i = 1; i < threads; i++)
		check(pthread_create(&thread, NULL, way->thread ? way->thread : sleeps, NULL) == 0, "pthread_create");
}

static void make_and_show(void)
{
	static const int protections[] = { PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ };

	secret = make_secret(SIZE);
	show(witness[1], secret, SIZE);
	check(mprotect(secret, SIZE, protections[trial % 3]) == 0, "mprotect");
}

/* Tell the parent, and wait for its word. */
static void meet(void)
{
	char byte = 0;

	check(write(ready[1], &byte, 1) == 1, "write");
	check(read(go[0], &byte, 1) == 1, "read");
}

/* The end of a process that has released `pages` and sees for itself what became of them. */
static void judge_self(unsigned long pages)
{
	struct seen seen = look(witness[0]);

	if (seen.dirty)
		_exit(DIRTY + (seen.dirty < MOST_TOLD ? (int)seen.dirty : MOST_TOLD));
	_exit(seen.pages == pages ? CLEAN : TROUBLE);
}

/* -- ends ------------------------------------------------------------------------------------------------- */

static void returns(void) { exit(0); }
static void exit_group(void) { syscall(SYS_exit_group, 0); }
static void exit_thread(void) { syscall(SYS_exit, 0); }
static void segv(void) { static volatile char *volatile nowhere; *nowhere = 0; }
static void self_abort(void) { abort(); }
static void self_term(void) { kill(getpid(), SIGTERM); pause(); }
static void self_kill(void) { kill(getpid(), SIGKILL); }
static void sleep_on(void) { meet(); sleeps(NULL); }
static void spin_on(void) { char byte = 0; check(write(ready[1], &byte, 1) == 1, "write"); spins(NULL); }

static pthread_barrier_t all_there;

static void *meets_and_exits(void *unused)
{
	pthread_barrier_wait(&all_there);
	exit_thread();
	return unused;
}

static void *meets_and_ends_all(void *unused)
{
	pthread_barrier_wait(&all_there);
	exit_group();
	return unused;
}

static void all_exit(void) { pthread_barrier_wait(&all_there); exit_thread(); }
static void leader_exits(void) { pthread_barrier_wait(&all_there); exit_thread(); }
static void thread_ends_all(void) { pthread_barrier_wait(&all_there); pause(); }

/* -- exec --------------------------------------------------------------------------------------------------- */

static void exec(void)
{
	char fd[16];

	snprintf(fd, sizeof(fd), "%d", witness[0]);
	execv("/proc/self/exe", (char *[]){ own_argv[0], "--judge", fd, NULL });
	check(0, "execv");
}

/* -- races --------------------------------------------------------------------------------------------------- */

static void race_exit_group(void) { meet(); exit_group(); }
static void race_exit_thread(void) { meet(); pthread_barrier_wait(&all_there); exit_thread(); }
static void race_exec(void) { meet(); exec(); }
static void race_munmap(void) { meet(); munmap(secret, SIZE); exit_group(); }

/* -- releases in a process that lives on ----------------------------------------------------------------- */

static void unmap(void)
{
	check(munmap(secret, SIZE) == 0, "munmap");
	judge_self(PAGES);
}

static void unmap_part(void)
{
	/* The middle goes; the rest is kept from the witness by a pipe that was read too early: so show it last. */
	struct seen seen;

	check(mprotect(secret, SIZE, PROT_READ | PROT_WRITE) == 0, "mprotect");
	seen = look(witness[0]);
	if (seen.dirty != PAGES)
		_exit(TROUBLE); /* wiped too early */
	show(witness[1], secret + 4 * PAGE, 4 * PAGE);
	check(munmap(secret + 4 * PAGE, 4 * PAGE) == 0, "munmap");
	for (unsigned long i = 0; i < SIZE / 8; i++)
		if ((i < 4 * PAGE / 8 || i >= 8 * PAGE / 8) && ((uint64_t *)secret)[i] != (i % 2 ? SECOND : FIRST))
			_exit(TROUBLE);
	judge_self(4);
}

static void map_over(void)
{
	int locked = trial % 2 ? MAP_LOCKED : 0;

	check(mmap(secret, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | locked, -1, 0) == secret, "mmap");
	judge_self(PAGES);
}

static void shrink(void)
{
	check(mremap(secret, SIZE, PAGE, 0) == secret, "mremap");
	check(munmap(secret, PAGE) == 0, "munmap");
	judge_self(PAGES);
}

static void move(void)
{
	char *place = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(place != MAP_FAILED, "mmap");
	check(mremap(secret, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place, "mremap");
	check(mprotect(place, SIZE, PROT_READ) == 0, "mprotect");
	for (unsigned long i = 0; i < SIZE / 8; i++)
		if (((uint64_t *)place)[i] != (i % 2 ? SECOND : FIRST))
			_exit(TROUBLE);
	check(munmap(place, SIZE) == 0, "munmap");
	judge_self(PAGES);
}

static void move_onto(void)
{
	char *other = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(mremap(other, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, secret) == secret, "mremap");
	judge_self(PAGES);
}

static void advise(void)
{
	check(mprotect(secret, SIZE, PROT_READ | PROT_WRITE) == 0, "mprotect");
	check(madvise(secret, SIZE, MADV_DONTNEED_LOCKED) == 0, "madvise");
	judge_self(PAGES);
}

static void brk_shrink(void)
{
	struct seen unmapped;
	char *start;

	munmap(secret, SIZE);
	unmapped = look(witness[0]);
	if (unmapped.dirty)
		_exit(DIRTY + (int)unmapped.dirty);
	start = sbrk(0);
	start = sbrk((intptr_t)(-(uintptr_t)start & (PAGE - 1)) + (intptr_t)SIZE);
	start = (char *)sbrk(0) - SIZE;
	check(mlock(start, SIZE) == 0, "mlock");
	paint(start, SIZE);
	show(witness[1], start, SIZE);
	check(brk(start) == 0, "brk");
	judge_self(PAGES);
}

/* -- inherited copies -------------------------------------------------------------------------------------- */

static void inherit(int by_signal)
{
	int status;
	pid_t child;

	check(mprotect(secret, SIZE, PROT_READ | PROT_WRITE) == 0, "mprotect");
	if (look(witness[0]).dirty != PAGES)
		_exit(TROUBLE);
	child = fork();
	check(child >= 0, "fork");
	if (child == 0) {
		paint(secret, SIZE); /* pages of its own: else the witness would see the copy of a shared one */
		show(witness[1], secret, SIZE);
		if (by_signal)
			kill(getpid(), SIGKILL);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child, "waitpid");
	for (unsigned long i = 0; i < SIZE / 8; i++)
		if (((uint64_t *)secret)[i] != (i % 2 ? SECOND : FIRST))
			_exit(TROUBLE);
	judge_self(PAGES);
}

static void child_exits(void) { inherit(0); }
static void child_is_killed(void) { inherit(1); }

/* -- attaching under load ---------------------------------------------------------------------------------- */

#define EACH 8

static void *locks_and_unmaps(void *unused)
{
	for (int i = 0; i < EACH; i++) {
		char *page = make_secret(PAGE);

		show(witness[1], page, PAGE);
		check(munmap(page, PAGE) == 0, "munmap");
	}
	return unused;
}

static void *makes_threads(void *unused)
{
	for (int i = 0; i < EACH; i++) {
		pthread_t thread;

		check(pthread_create(&thread, NULL, locks_and_unmaps, NULL) == 0, "pthread_create");
		check(pthread_join(thread, NULL) == 0, "pthread_join");
	}
	return unused;
}

static void load(void)
{
	pthread_t makers[MOST_THREADS];

	fcntl(witness[1], F_SETPIPE_SZ, 256 * PAGE);
	check(fcntl(witness[1], F_GETPIPE_SZ) >= (int)(threads * EACH * EACH * PAGE), "F_SETPIPE_SZ");
	for (int i = 0; i < threads; i++)
		check(pthread_create(&makers[i], NULL, makes_threads, NULL) == 0, "pthread_create");
	for (int i = 0; i < threads; i++)
		check(pthread_join(makers[i], NULL) == 0, "pthread_join");
	judge_self(threads * EACH * EACH);
}

static const struct way ways[] = {
	{ "return", returns, NULL, WAITS, 0, PAGES, 1 },
	{ "exit_group", exit_group, spins, WAITS, 0, PAGES, 1 },
	{ "exit_group-by-a-thread", thread_ends_all, meets_and_ends_all, WAITS, 0, PAGES, 2 },
	{ "exit-of-all-threads", all_exit, meets_and_exits, WAITS, 0, PAGES, 1 },
	{ "exit-of-the-leader-first", leader_exits, meets_and_ends_all, WAITS, 0, PAGES, 2 },
	{ "segv", segv, NULL, WAITS, SIGSEGV, PAGES, 1 },
	{ "abort", self_abort, NULL, WAITS, SIGABRT, PAGES, 1 },
	{ "term", self_term, NULL, WAITS, SIGTERM, PAGES, 1 },
	{ "kill-itself", self_kill, spins, WAITS, SIGKILL, PAGES, 1 },
	{ "kill-asleep", sleep_on, sleeps, KILLS_SLEEPER, SIGKILL, PAGES, 1 },
	{ "kill-busy", spin_on, spins, KILLS_AT_ONCE, SIGKILL, PAGES, 1 },
	{ "kill-racing-exit_group", race_exit_group, spins, RACES, 0, PAGES, 1 },
	{ "kill-racing-exit-of-all-threads", race_exit_thread, meets_and_exits, RACES, 0, PAGES, 1 },
	{ "kill-racing-exec", race_exec, spins, RACES, 0, PAGES, 1 },
	{ "kill-racing-munmap", race_munmap, spins, RACES, 0, PAGES, 1 },
	{ "exec", exec, spins, WAITS, 0, PAGES, 1 },
	{ "munmap", unmap, NULL, WAITS, 0, PAGES, 1 },
	{ "munmap-of-a-part", unmap_part, NULL, WAITS, 0, 0, 1 },
	{ "mmap-over", map_over, NULL, WAITS, 0, PAGES, 1 },
	{ "mremap-shrinks", shrink, NULL, WAITS, 0, PAGES, 1 },
	{ "mremap-moves", move, NULL, WAITS, 0, PAGES, 1 },
	{ "mremap-onto", move_onto, NULL, WAITS, 0, PAGES, 1 },
	{ "brk-shrinks", brk_shrink, NULL, WAITS, 0, 0, 1 },
	{ "madvise-dontneed-locked", advise, NULL, WAITS, 0, PAGES, 1 },
	{ "inherited-exit", child_exits, NULL, WAITS, 0, 0, 1 },
	{ "inherited-kill", child_is_killed, NULL, WAITS, 0, 0, 1 },
	{ "attach-under-load", load, NULL, WAITS, 0, 0, 1 },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* -- one trial ---------------------------------------------------------------------------------------------- */

static void child(void)
{
	close(ready[0]);
	close(go[1]);
	pthread_barrier_init(&all_there, NULL, threads);
	if (way->release != load) {
		if (trial % 2)
			start_threads();
		make_and_show();
		if (trial % 2 == 0)
			start_threads();
	}
	way->release();
	_exit(TROUBLE);
}

static void wait_until_asleep(pid_t pid)
{
	char path[64], text[512], *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		int fd = open(path, O_RDONLY);
		ssize_t size = read(fd, text, sizeof(text) - 1);

		close(fd);
		text[size < 0 ? 0 : size] = 0;
		state = strrchr(text, ')');
	} while (state && state[2] != 'S' && state[2] != 'Z');
}

static unsigned long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

static long delay = 20000; /* nanoseconds from 'go' to SIGKILL in a race */

static void act(pid_t pid)
{
	char byte = 0;

	if (way->parent == WAITS)
		return;
	if (read(ready[0], &byte, 1) != 1)
		return; /* it died before it was ready: its status will tell */
	if (way->parent == KILLS_SLEEPER)
		wait_until_asleep(pid);
	if (way->parent == RACES) {
		unsigned long start = now(), jitter = random() % 20000;

		check(write(go[1], &byte, 1) == 1, "write");
		while (now() < start + delay + jitter)
			;
	}
	kill(pid, SIGKILL);
}

struct result {
	unsigned long dirty_trials, dirty_pages, hangs, wrong, killed, exited;
};

static int ended_rightly(int status)
{
	if (way->parent == RACES)
		return (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && !WEXITSTATUS(status));
	if (way->ends_by)
		return WIFSIGNALED(status) && WTERMSIG(status) == way->ends_by;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void run_trial(struct result *result)
{
	struct pollfd end;
	struct seen seen;
	int status;
	pid_t pid;

	check(pipe(witness) == 0 && pipe(ready) == 0 && pipe(go) == 0, "pipe");
	fcntl(witness[0], F_SETFL, O_NONBLOCK);
	pid = fork();
	check(pid >= 0, "fork");
	if (pid == 0)
		child();
	close(ready[1]);
	close(go[0]);
	act(pid);
	end = (struct pollfd){ syscall(SYS_pidfd_open, pid, 0), POLLIN, 0 };
	if (poll(&end, 1, PATIENCE) == 0) {
		result->hangs++;
		fprintf(stderr, "trial %lu of %s hangs: process %d\n", trial, way->name, pid);
		if (getenv("WAYS_KEEP_HUNG"))
			pause();
		kill(pid, SIGKILL);
		if (poll(&end, 1, PATIENCE) == 0) {
			fprintf(stderr, "and can't be killed\n");
			_exit(98);
		}
	}
	check(waitpid(pid, &status, 0) == pid, "waitpid");
	seen = look(witness[0]);
	result->killed += WIFSIGNALED(status);
	result->exited += WIFEXITED(status);
	delay += (WIFSIGNALED(status) ? 1 : -1) * (1000 + delay / 16);
	if (delay < 0)
		delay = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) > DIRTY)
		seen.dirty += WEXITSTATUS(status) - DIRTY;
	else if (!ended_rightly(status) ||
		 (WIFSIGNALED(status) && way->pages && seen.pages != way->pages && way->release != race_exec)) {
		if (result->wrong++ < 5)
			fprintf(stderr, "trial %lu of %s: status %#x, %lu pages seen\n", trial, way->name, status, seen.pages);
	}
	result->dirty_pages += seen.dirty;
	result->dirty_trials += seen.dirty != 0;
	close(witness[0]);
	close(witness[1]);
	close(ready[0]);
	close(go[1]);
	close(end.fd);
}

int main(int argc, char **argv)
{
	struct result result = { 0 };
	unsigned long trials;

	own_argv = argv;
	if (argc == 3 && !strcmp(argv[1], "--judge")) {
		witness[0] = atoi(argv[2]);
		judge_self(PAGES);
	}
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < WAYS; i++)
			printf("%s %d\n", ways[i].name, ways[i].least_threads);
		return 0;
	}
	if (argc != 4) {
		fprintf(stderr, "usage: ways WAY TRIALS THREADS, or ways --list\n");
		return 2;
	}
	for (size_t i = 0; i < WAYS; i++)
		if (!strcmp(ways[i].name, argv[1]))
			way = &ways[i];
	trials = strtoul(argv[2], NULL, 10);
	threads = atoi(argv[3]);
	if (!way || threads < way->least_threads || threads > MOST_THREADS) {
		fprintf(stderr, "ways: no such way, or not its number of threads\n");
		return 2;
	}
	srandom(getpid());
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	for (trial = 0; trial < trials; trial++)
		run_trial(&result);
	printf("{\"way\": \"%s\", \"threads\": %d, \"trials\": %lu, \"dirty_trials\": %lu, \"dirty_pages\": %lu, "
	       "\"hangs\": %lu, \"wrong\": %lu, \"killed\": %lu, \"exited\": %lu}\n",
	       way->name, threads, trials, result.dirty_trials, result.dirty_pages, result.hangs, result.wrong,
	       result.killed, result.exited);
	return result.dirty_trials || result.hangs || result.wrong;
}
