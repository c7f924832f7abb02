/* SPDX-License-Identifier: MIT */
/*
 * locks WAY WITNESS: lock, paint, show and release pages, in the ABI that this file is compiled for (-m32), or, when it
 * is compiled with -DINT80, in the 64-bit program by calls of the i386 ABI.
 */
#include "secret.h"
#include <signal.h>
#include <sys/syscall.h>

#ifdef INT80
enum { CALL_MLOCK = 150, CALL_MUNMAP = 91, CALL_MLOCKALL = 152, CALL_MLOCK2 = 376, CALL_MMAP2 = 192 };

static long call(long number, long first, long second, long third, long fourth, long fifth)
{
	long result;

	/* the kernel gives r8 to r11 back as zeros */
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}
#else
#define CALL_MLOCK SYS_mlock
#define CALL_MUNMAP SYS_munmap
#define CALL_MLOCKALL SYS_mlockall
#define CALL_MLOCK2 SYS_mlock2
#ifdef SYS_mmap2
#define CALL_MMAP2 SYS_mmap2
#endif
#define call(number, first, second, third, fourth, fifth) syscall(number, first, second, third, fourth, fifth)
#endif

int main(int argc, char **argv)
{
	/* i386 calls can only name the first 4 GiB */
	void *place = (void *)0x40000000UL;
	char *secret;
	int witness;

	if (argc != 3)
		return 2;
	witness = atoi(argv[2]);
	secret = mmap(place, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	check(secret == place, "mmap");
	if (!strcmp(argv[1], "mlock2"))
		check(call(CALL_MLOCK2, (long)secret, SIZE, 1 /* MLOCK_ONFAULT */, 0, 0) == 0, "mlock2");
	else if (!strcmp(argv[1], "mlockall"))
		check(call(CALL_MLOCKALL, 3, 0, 0, 0, 0) == 0, "mlockall");
	else
		check(call(CALL_MLOCK, (long)secret, SIZE, 0, 0, 0) == 0, "mlock");
	paint(secret, SIZE);
	show(witness, secret, SIZE);
	if (!strcmp(argv[1], "munmap")) {
		check(call(CALL_MUNMAP, (long)secret, SIZE, 0, 0, 0) == 0, "munmap");
		puts("unmapped");
		fflush(stdout);
		/* stays alive until its standard input ends: it is judged before its exit */
		while (getchar() != EOF)
			;
	}
	if (!strcmp(argv[1], "killed"))
		kill(getpid(), SIGKILL);
	return 3;
}
