// SPDX-License-Identifier: MIT
/*
 * Process 1 of a machine in which one munmap is looked at: it says 'ready', waits for a line, unmaps 256 locked pages,
 * says 'done' and waits for ever.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE	(256UL * 4096)

int main(void)
{
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || madvise(memory, SIZE, MADV_NOHUGEPAGE))
		return 1;
	memset(memory, 1, SIZE);
	if (mlock(memory, SIZE))
		return 1;
	sleep(30); /* what the kernel has begun by itself ends; where time is instructions, it does not take long */
	puts("ready");
	getchar();
	munmap(memory, SIZE);
	puts("done");
	for (;;)
		pause();
}
