// SPDX-License-Identifier: MIT
/*
 * Process 1 of a machine whose time stamp counter goes on by one with every instruction (QEMU, -icount shift=0). It
 * does what releases memory, each thing several times, prints one line of JSON for each kind with the instructions that
 * every single time took, and ends the machine. Compiled with TIME, for any other machine, it is nanoseconds, and
 * "system" are those of them, on all CPUs, that the kernel took for the program and what it had executed.
 *
 * "wiped" is by how much init_mlocked_on_free's own count of the pages that it zeroed went up, each time.
 *
 * Its argument, if it has one, are the parameters of the module init_mlocked_on_free, which it loads first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE		4096UL
#define MIB		(1UL << 20)
#define GIB		(1UL << 30)
#ifndef TIMES
#define TIMES		3
#endif
#define FEWER		((TIMES + 1) / 2)	/* of what takes long */
#define ONCE		0			/* of what takes longest: not even a first time that doesn't count */
#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define NOTHING		"nothing"	/* the argument with which this program ends at once */
#define MODULE		"init_mlocked_on_free"
#define TAINTED_BY_IT	(1L << 12 | 1L << 13)	/* built out of the kernel's tree, not signed */

/* What one time took, of the spans of it that count. Shared, for a child begins its own end. */
static struct span {
	uint64_t begin, took; /* instructions, or nanoseconds */
	uint64_t system_before, system; /* nanoseconds; 0 where instructions are counted */
	long wiped_before, wiped; /* -1: this kernel doesn't count */
} *span;

static void end_machine(void)
{
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
}

static _Noreturn void die(const char *attempted)
{
	printf("{\"failed\": \"%s: %s\"}\n", attempted, strerror(errno));
	if (getpid() == 1)
		end_machine();
	fflush(stdout);
	_exit(1);
}

static void check(bool good, const char *attempted)
{
	if (!good)
		die(attempted);
}

static int opened(const char *path, int flags)
{
	int file = open(path, flags | O_CLOEXEC);

	check(file >= 0, path);
	return file;
}

/* The number after a word at the beginning of a line, or at that of the file if the word is empty; -1: none. */
static long number_in(int file, const char *word)
{
	static char text[1 << 15];
	size_t size = 0, length = strlen(word);
	ssize_t more;

	while ((more = pread(file, text + size, sizeof(text) - 1 - size, size)) > 0)
		size += more;
	check(more == 0, "reading numbers");
	text[size] = 0;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		if (!strncmp(line, word, length) && (!length || strchr(": ", line[length])))
			return strtol(line + length + !!length, NULL, 10);
	return -1;
}

static long number(const char *path, const char *word)
{
	int file = opened(path, O_RDONLY);
	long value = number_in(file, word);

	close(file);
	return value;
}

static bool set(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	bool done = file >= 0 && write(file, value, strlen(value)) == (ssize_t)strlen(value);

	if (file >= 0)
		close(file);
	return done;
}

/* Files that stay open: memory that comes and goes with them would count. */
static int refresh; /* makes the kernel sum up what it counts */
static int counts; /* where the count of wiped pages is, after this word */
static const char *counted = "init_mlocked_wiped";

static long wiped(void)
{
	return number_in(counts, counted);
}

static void load(const char *parameters)
{
	int file = opened("/" MODULE ".ko", O_RDONLY);

	check(syscall(SYS_finit_module, file, parameters, 0) == 0, "loading " MODULE);
	close(file);
	counts = opened("/sys/module/" MODULE "/parameters/wiped", O_RDONLY);
	counted = "";
}

/*
 * How many free pages a CPU keeps is tuned by the load since Linux 6.7, and an eighth less each time that counts are
 * summed up, once a second. Twenty later it is what it is without load, whatever was done before.
 */
static void calm_down(void)
{
	for (int i = 0; i < 30; i++)
		check(pwrite(refresh, "1", 1, 0) == 1, "stat_refresh");
}

/* Until right after a tick of the timer, whose interrupt takes thousands of instructions and may fall in or not. */
static void wait_for_tick(void)
{
	struct timespec before, now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
	do
		clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	while (now.tv_nsec == before.tv_nsec);
}

#ifdef TIME
#define REST		20000	/* microseconds */

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC_RAW, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

static uint64_t system_time(void)
{
	const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
	struct rusage usage;
	uint64_t total = 0;

	for (int i = 0; i < 2; i++) {
		check(getrusage(who[i], &usage) == 0, "getrusage");
		total += usage.ru_stime.tv_sec * 1000000000UL + usage.ru_stime.tv_usec * 1000UL;
	}
	return total;
}
#else
#define REST		3000000

static uint64_t now(void)
{
	return __rdtsc();
}

static uint64_t system_time(void)
{
	return 0;
}
#endif

static void begin(void)
{
	span->wiped_before = wiped();
	calm_down();
	wait_for_tick();
	span->system_before = system_time();
	span->begin = now();
}

static void end(void)
{
	span->took += now() - span->begin;
	span->system += system_time() - span->system_before;
	span->wiped = span->wiped_before < 0 ? -1 : span->wiped + wiped() - span->wiped_before;
}

/* Memory, every page of which has been written to. It begins where a huge page could. */
static char *mapped(size_t size, int advice)
{
	size_t huge = 2 * MIB;
	char *all = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *memory = (char *)(((uintptr_t)all + huge - 1) & ~(huge - 1));

	check(all != MAP_FAILED, "mmap");
	if (memory != all)
		check(munmap(all, memory - all) == 0, "munmap");
	check(munmap(memory + size, all + huge - memory) == 0, "munmap");
	check(madvise(memory, size, advice) == 0, "madvise");
	for (size_t at = 0; at < size; at += PAGE)
		memory[at] = 1;
	return memory;
}

static char *locked(size_t size, int advice)
{
	char *memory = mapped(size, advice);

	check(mlock(memory, size) == 0, "mlock");
	return memory;
}

static void timed_munmap(char *memory, size_t size)
{
	begin();
	check(munmap(memory, size) == 0, "munmap");
	end();
}

static void wait_for(pid_t child)
{
	int status;

	check(child > 0, "fork");
	check(waitpid(child, &status, 0) == child, "waitpid");
	errno = 0;
	check(status == 0, "a child of it");
}

/* The kinds */

static void loop(void)
{
	unsigned long left = 1000000;

	begin();
	asm volatile("1: dec %0; jnz 1b" : "+r"(left));
	end();
}

static void rep_stosq(void)
{
	static char page[PAGE];
	unsigned long left = PAGE / 8;
	char *at = page;

	begin();
	asm volatile("rep stosq" : "+D"(at), "+c"(left) : "a"(0L) : "memory");
	end();
}

static void unmap_locked(void)
{
	timed_munmap(locked(64 * MIB, MADV_NOHUGEPAGE), 64 * MIB);
}

static void unmap_unlocked(void)
{
	timed_munmap(mapped(64 * MIB, MADV_NOHUGEPAGE), 64 * MIB);
}

static const unsigned int shares[] = {10, 25, 50, 75, 90}; /* per cent of the memory that is locked */
static unsigned int share;

/* As a program that locks some of what it has: the rest is never locked. */
static void unmap_share(void)
{
	char *memory = mapped(64 * MIB, MADV_NOHUGEPAGE);

	check(mlock(memory, 64 * MIB / PAGE * share / 100 * PAGE) == 0, "mlock");
	timed_munmap(memory, 64 * MIB);
}

static void unmap_munlocked(void)
{
	char *memory = locked(64 * MIB, MADV_NOHUGEPAGE);

	check(munlock(memory, 64 * MIB) == 0, "munlock");
	timed_munmap(memory, 64 * MIB);
}

static void unmap_huge(size_t size)
{
	char *memory;

	check(set(THP "enabled", "madvise"), THP);
	memory = locked(size, MADV_HUGEPAGE);
	errno = ENOMEM;
	check(number("/proc/self/smaps_rollup", "AnonHugePages") == (long)(size >> 10), "huge pages");
	timed_munmap(memory, size);
}

static void unmap_thps(void)
{
	for (int i = 0; i < 32; i++)
		unmap_huge(2 * MIB);
}

static void unmap_thp_1g(void)
{
	unmap_huge(GIB);
}

static void unmap_folios_of_64k(size_t size)
{
	char *memory;

	check(set(THP "hugepages-2048kB/enabled", "never"), THP);
	check(set(THP "hugepages-64kB/enabled", "always"), THP);
	memory = locked(size, MADV_HUGEPAGE);
	errno = ENOMEM;
	check(number(THP "hugepages-64kB/stats/nr_anon", "") == (long)(size >> 16), "folios of 64 KiB");
	timed_munmap(memory, size);
	check(set(THP "hugepages-64kB/enabled", "never"), THP);
	check(set(THP "hugepages-2048kB/enabled", "inherit"), THP);
}

static void unmap_mthp(void)
{
	unmap_folios_of_64k(64 * MIB);
}

static void unmap_mthp_1g(void)
{
	unmap_folios_of_64k(GIB);
}

static const struct size {
	size_t bytes;
	int munmaps; /* many of the small ones, for now and then one has to refill or to empty a cache of the kernel's */
} sizes[] = {{4 << 10, 64}, {64 << 10, 16}, {MIB, 4}, {16 * MIB, 1}, {256 * MIB, 1}, {GIB, 1}};
static const struct size *size;

static int times_of(size_t bytes)
{
	return bytes >= GIB ? ONCE : bytes > 64 * MIB ? FEWER : TIMES;
}

static void unmap_sized_locked(void)
{
	for (int i = 0; i < size->munmaps; i++)
		timed_munmap(locked(size->bytes, MADV_NOHUGEPAGE), size->bytes);
}

static void unmap_sized_unlocked(void)
{
	for (int i = 0; i < size->munmaps; i++)
		timed_munmap(mapped(size->bytes, MADV_NOHUGEPAGE), size->bytes);
}

static void exit_locked(void)
{
	uint64_t ours;
	pid_t child = fork();

	if (!child) {
		locked(64 * MIB, MADV_NOHUGEPAGE);
		begin();
		_exit(0);
	}
	ours = system_time();
	wait_for(child);
	end();
	span->system -= ours;	/* begin() knew the child's alone */
}

static void fork_exec(void)
{
	begin();
	for (int i = 0; i < 100; i++) {
		pid_t child = fork();

		if (!child) {
			execl("/init", "init", NOTHING, NULL);
			_exit(1);
		}
		wait_for(child);
	}
	end();
}

static void fork_locked(void)
{
	char *memory = locked(16 * MIB, MADV_NOHUGEPAGE);
	pid_t child;

	begin();
	child = fork();
	if (!child)
		_exit(0);
	wait_for(child);
	end();
	check(munmap(memory, 16 * MIB) == 0, "munmap");
}

/* The child keeps all pages, and each of the parent's is a copy. */
static void fork_locked_write(void)
{
	char *memory = locked(16 * MIB, MADV_NOHUGEPAGE);
	int until[2];
	pid_t child;

	check(pipe(until) == 0, "pipe");
	child = fork();
	if (!child) {
		close(until[1]);
		_exit(read(until[0], until, 1));
	}
	close(until[0]);
	usleep(10000); /* it waits */
	begin();
	for (size_t at = 0; at < 16 * MIB; at += PAGE)
		memory[at] = 2;
	end();
	close(until[1]);
	wait_for(child);
	check(munmap(memory, 16 * MIB) == 0, "munmap");
}

/* Real programs, each a line of /programs: a name, and what is executed, all parted by one space */

static char *words[64];

static void run_program(void)
{
	pid_t child;

	begin();
	child = fork();
	if (!child) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		execv(words[1], words + 1);
		_exit(127);
	}
	wait_for(child);
	end();
	while (waitpid(-1, NULL, 0) > 0) /* a daemon of it, which was told to end */
		;
}

/* Programs use devices, the loopback interface, and what a shell would have told them. */
static void prepare_for_programs(void)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int any = socket(AF_INET, SOCK_DGRAM, 0);

	check(mkdir("/dev", 0755) == 0 || errno == EEXIST, "/dev");
	check(mount("dev", "/dev", "devtmpfs", 0, NULL) == 0, "mount /dev");
	check(mkdir("/tmp", 01777) == 0 || errno == EEXIST, "/tmp");
	check(any >= 0 && ioctl(any, SIOCSIFFLAGS, &loopback) == 0, "the loopback interface");
	close(any);
	check(clearenv() == 0, "clearenv");
	check(putenv("PATH=/usr/bin:/bin") == 0 && putenv("HOME=/root") == 0, "putenv");
	check(putenv("PYTHONHASHSEED=0") == 0, "putenv");
}

/* What is mapped then comes from large blocks of free pages, whatever was done before. */
static void compact(void)
{
	set("/proc/sys/vm/compact_memory", "1");
}

/*
 * How much of a kernel's memory is in use and when its timers end differs from boot to boot, and so do the counts. This
 * machine is the same every time, so it is told which boot it is.
 */
static void be_another_boot(void)
{
	static const char page[PAGE];
	const char *number = getenv("boot");
	int boot = number ? atoi(number) : 0;
	int ballast = open("/ballast", O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* in memory, as all files are here */

	for (int i = 0; i < boot * 37; i++)
		check(write(ballast, page, PAGE) == PAGE, "/ballast");
	close(ballast);
	usleep(boot * 1700);
}

static void measure(const char *name, void (*once)(void), int times)
{
	struct span taken[TIMES];

	if (times == ONCE)
		times = 1;
	else
		once(); /* the first time things are made that stay */
	for (int i = 0; i < times; i++) {
		usleep(REST); /* what the kernel has begun by itself ends */
		compact();
		memset(span, 0, sizeof(*span));
		once();
		taken[i] = *span;
	}
	printf("{\"workload\": \"%s\", \"took\": [", name);
	for (int i = 0; i < times; i++)
		printf("%s%lu", i ? ", " : "", taken[i].took);
	printf("], \"system\": [");
	for (int i = 0; i < times; i++)
		printf("%s%lu", i ? ", " : "", taken[i].system);
	printf("], \"wiped\": [");
	for (int i = 0; i < times; i++)
		printf("%s%ld", i ? ", " : "", taken[i].wiped);
	printf("]}\n");
	fflush(stdout);
	tcdrain(STDOUT_FILENO); /* or the serial line's interrupts would count in what comes next */
}

static void measure_programs(void)
{
	FILE *list = fopen("/programs", "re");
	char *line = NULL;
	size_t size = 0;

	check(list, "/programs");
	prepare_for_programs();
	while (getline(&line, &size, list) > 0) {
		int count = 0;

		for (char *word = strtok(line, " \n"); word && count < 63; word = strtok(NULL, " \n"))
			words[count++] = word;
		words[count] = NULL;
		check(count > 1, "a line of /programs");
		measure(words[0], run_program, FEWER);
	}
	free(line);
	fclose(list);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], NOTHING))
		_exit(0);
	check(mkdir("/sys", 0755) == 0, "/sys");
	check(mount("proc", "/proc", "proc", 0, NULL) == 0, "mount /proc");
	check(mount("sysfs", "/sys", "sysfs", 0, NULL) == 0, "mount /sys");
	span = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(span != MAP_FAILED, "mmap");
	refresh = opened("/proc/sys/vm/stat_refresh", O_WRONLY);
	counts = opened("/proc/vmstat", O_RDONLY);
	if (argc > 1)
		load(argv[1]);
	be_another_boot();

	measure("loop", loop, TIMES);
	measure("rep-stosq", rep_stosq, TIMES);
	measure("unmap-locked", unmap_locked, TIMES);
	measure("unmap-unlocked", unmap_unlocked, TIMES);
	measure("unmap-munlocked", unmap_munlocked, TIMES);
	if (access(THP "hugepages-64kB", F_OK) == 0)
		measure("unmap-mthp", unmap_mthp, TIMES);
	measure("unmap-thp", unmap_thps, TIMES);
	if (access(THP "hugepages-64kB", F_OK) == 0)
		measure("unmap-mthp-1g", unmap_mthp_1g, ONCE);
	measure("unmap-thp-1g", unmap_thp_1g, ONCE);
	for (size = sizes; size < sizes + sizeof(sizes) / sizeof(*sizes); size++) {
		char name[sizeof("unmap-18446744073709551615k-unlocked")];

		snprintf(name, sizeof(name), "unmap-%zuk-locked", size->bytes >> 10);
		measure(name, unmap_sized_locked, times_of(size->bytes));
		snprintf(name, sizeof(name), "unmap-%zuk-unlocked", size->bytes >> 10);
		measure(name, unmap_sized_unlocked, times_of(size->bytes));
	}
	measure("exit-locked", exit_locked, TIMES);
	measure("fork-exec", fork_exec, TIMES);
	measure("fork-locked", fork_locked, TIMES);
	measure("fork-locked-write", fork_locked_write, TIMES);
	for (size_t i = 0; i < sizeof(shares) / sizeof(*shares); i++) {
		char name[sizeof("unmap-share-4294967295")];

		share = shares[i];
		snprintf(name, sizeof(name), "unmap-share-%u", share);
		measure(name, unmap_share, TIMES);
	}
	measure_programs();
	errno = EFAULT;
	check(!(number("/proc/sys/kernel/tainted", "") & ~TAINTED_BY_IT), "a kernel that has no complaint");
	printf("{\"end\": true}\n");
	end_machine();
	return 1;
}
