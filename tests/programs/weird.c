/* SPDX-License-Identifier: MIT */
/*
 * weird SEED COUNT native|i386: make so many of the calls that a supervisor looks at, with arguments that nobody means,
 * and say what came of each. Nothing of it depends on addresses that the kernel chooses.
 */
#include "secret.h"
#include <sched.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARENA 0x10000000UL
#define ARENA_PAGES 64
#define TABLE 0x20000000UL /* what a pointer points at */
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static uint64_t state;
static int foreign, pidfd, segment;

static uint64_t roll(void)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return state >> 33;
}

static unsigned long number(void)
{
	static const unsigned long odd[] = { 0, 1, 2, 3, 7, 8, 0xfff, 0x1000, 0x1001, 0xffff, 1UL << 30, 1UL << 31, 1UL << 32,
		0x7fffffff, 0xffffffff, 0xfffff000, 1UL << 46, 0x7ffffffff000, 1UL << 47, 0x800000000001, 1UL << 52, 1UL << 63,
		0xffffffffff600000, -4096UL, -1UL, -2UL, 0x7fffffffffffffff };

	return odd[roll() % COUNT_OF(odd)];
}

/* Somewhere in the arena, on a page or not, or nowhere. */
static unsigned long place(void)
{
	switch (roll() % 4) {
	case 0: return number();
	case 1: return ARENA + roll() % (ARENA_PAGES * PAGE);
	default: return ARENA + roll() % ARENA_PAGES * PAGE;
	}
}

/* A length that reaches nothing of the program's own from `start`. */
static unsigned long length(unsigned long start)
{
	if (start - ARENA < ARENA_PAGES * PAGE && roll() % 3)
		return roll() % 3 ? roll() % 8 * PAGE : roll() % (8 * PAGE);
	return foreign || roll() % 3 == 0 ? 0 : -start + roll() % 8192; /* the end is before the beginning */
}

static unsigned long flags(unsigned long known)
{
	return roll() % 3 ? roll() & known : number();
}

static long make(const char *name, long native, long i386, unsigned long a, unsigned long b, unsigned long c,
		 unsigned long d, unsigned long e, unsigned long f)
{
	long result;

	(void)name;
	if (foreign) {
		register unsigned long six asm("r9") = f;

		/* ebp can't be named as an operand */
		asm volatile("push %%rbp\n\tmov %%r9d, %%ebp\n\tint $0x80\n\tpop %%rbp"
			     : "=a"(result)
			     : "a"(i386), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(six)
			     : "memory", "r8", "r10", "r11");
		return (int)result;
	}
	register unsigned long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;

	asm volatile("syscall" : "=a"(result) : "a"(native), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "memory", "rcx", "r11");
	return result;
}

static void say(int at, const char *name, long result, int is_address)
{
	if (is_address && !(result < 0 && result > -4096))
		printf("%d %s at %s\n", at, name, (unsigned long)result - ARENA < ARENA_PAGES * PAGE ? "the arena" : "a place");
	else
		printf("%d %s %ld\n", at, name, result);
}

static void renew(void)
{
	check(mmap((void *)ARENA, ARENA_PAGES * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)ARENA, "mmap of the arena");
	memset((void *)ARENA, 1, ARENA_PAGES * PAGE);
	mlock((void *)(ARENA + 8 * PAGE), (ARENA_PAGES - 16) * PAGE);
}

static long weird_iovec(long native, long i386)
{
	static const unsigned long counts[] = { 0, 1, 2, 3, 8, 1023, 1024, 1025, 1UL << 31, 0xffffffff, 1UL << 63, -1UL };
	static const long fds[] = { -1, -100, -10000, -10001, 0, 1, 2, 99, 1L << 31, 1L << 32 };
	unsigned long at = roll() % 3 ? TABLE + PAGE - roll() % 64 : place();

	if (at - TABLE < PAGE)
		for (unsigned long i = 0; i < 64; i += foreign ? 8 : 16) {
			unsigned long base = place(), size = length(base);

			memcpy((char *)at + i, &base, foreign ? 4 : 8);
			memcpy((char *)at + i + (foreign ? 4 : 8), &size, foreign ? 4 : 8);
		}
	return make("process_madvise", native, i386, roll() % 2 ? (unsigned long)pidfd : (unsigned long)fds[roll() % COUNT_OF(fds)],
		    at, counts[roll() % COUNT_OF(counts)], roll() % 2 ? 4 + 4 * (roll() % 2) : flags(31), roll() % 8 ? 0 : number(), 0);
}

static long child_of(long result)
{
	if (result == 0)
		_exit(7);
	if (result > 0) {
		int status;

		check(waitpid(result, &status, __WALL) == result, "waitpid");
		return WEXITSTATUS(status);
	}
	return result;
}

static void step(int at)
{
	unsigned long a = place(), b = place(), size = length(a);
	long found;

	switch (roll() % 14) {
	case 0: say(at, "mlock", make("mlock", 149, 150, a, size, 0, 0, 0, 0), 0); break;
	case 1: say(at, "mlock2", make("mlock2", 325, 376, a, size, flags(3), 0, 0, 0), 0); break;
	case 2: say(at, "munlock", make("munlock", 150, 151, a, size, 0, 0, 0, 0), 0); break;
	case 3: say(at, "munmap", make("munmap", 11, 91, a, size, 0, 0, 0, 0), 0); break;
	case 4: say(at, "madvise", make("madvise", 28, 219, a, size, roll() % 2 ? 24 : flags(31) | number() << 32, 0, 0, 0), 0); break;
	case 5: say(at, "mremap", make("mremap", 25, 163, a, size, length(a), flags(7), b, 0), 1); break;
	case 6: /* the place of the result is the kernel's choice but with MAP_FIXED, there the arena alone is hit */
		found = make("mmap", 9, 192, a, size, flags(7), (flags(0x2f) & ~0x10UL) | 0x2010, roll() % 2 ? -1UL : number(),
			     roll() % 2 ? 0 : number());
		say(at, "mmap", found, 1);
		break;
	case 7: say(at, "process_madvise", weird_iovec(440, 440), 0); break;
	case 8: say(at, "shmat", make("shmat", 30, 397, roll() % 2 ? (unsigned long)segment : number(), a, flags(070000), 0, 0, 0), 1); break;
	case 9: say(at, "mlockall", make("mlockall", 151, 152, number() | 8, 0, 0, 0, 0, 0), 0); break;
	case 10: say(at, "prctl", make("prctl", 157, 172, PR_SET_DUMPABLE | number() << 32, number() | 2, number(), number(), 0, 0), 0); break;
	case 11:
		found = syscall(SYS_brk, 0);
		make("brk", 12, 45, roll() % 2 ? 1 + roll() % PAGE : number() | 1UL << 62, 0, 0, 0, 0, 0);
		say(at, "brk", syscall(SYS_brk, 0) - found, 0);
		break;
	case 12: /* those that the kernel refuses, and a fork */
		found = make("clone", 56, 120, roll() % 2 ? 0x00800011 : (number() & ~(0xffUL | CLONE_VM | CLONE_VFORK)) | CLONE_THREAD, 0, 0, 0, 0, 0);
		say(at, "clone", child_of(found), 0);
		break;
	default: {
		unsigned long arguments[16] = { 0x00800000 };

		arguments[roll() % 16] |= number() & ~(unsigned long)(CLONE_VM | CLONE_VFORK);
		arguments[0] &= ~(unsigned long)(CLONE_VM | CLONE_VFORK | CLONE_PARENT);
		arguments[4] = roll() % 2 ? 17 : arguments[4] | 0x100; /* the signal at the end of a child */
		arguments[5] = arguments[6] = 0;
		memcpy((void *)TABLE, arguments, sizeof arguments);
		found = make("clone3", 435, 435, roll() % 2 ? TABLE : number(), roll() % 2 ? 64 + 8 * (roll() % 4) : number(), 0, 0, 0, 0);
		say(at, "clone3", child_of(found), 0);
	}
	}
}

int main(int argc, char **argv)
{
	check(argc == 4, "weird SEED COUNT native|i386");
	state = strtoul(argv[1], NULL, 0);
	foreign = strcmp(argv[3], "i386") == 0;
	setvbuf(stdout, malloc(1 << 20), _IOFBF, 1 << 20);
	pidfd = syscall(434, getpid(), 0);
	segment = shmget(IPC_PRIVATE, 4 * PAGE, 0600);
	check(pidfd >= 0 && segment >= 0, "pidfd_open, shmget");
	check(mmap((void *)TABLE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      (void *)TABLE, "mmap of the table");
	renew();
	for (int at = 0; at < atoi(argv[2]); at++) {
		step(at);
		if (at % 16 == 0)
			renew();
	}
	shmctl(segment, IPC_RMID, NULL);
	return 5;
}
