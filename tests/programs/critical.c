// SPDX-License-Identifier: MIT
/*
 * critical: be in a restartable sequence (rseq(2)), from which the kernel sends a task to its abort handler when anybody
 * else may have run on this CPU. That enters it again, and after a third of a second exits with 3. SIGALRM ends a
 * program that was sent there no more.
 */
#include <sys/rseq.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	struct rseq *rseq = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);

	if (__rseq_size == 0)
		return 4; /* not registered */
	alarm(30);
aborted:
	if (clock() > CLOCKS_PER_SEC / 3)
		_exit(3);
	__asm__ goto(".pushsection __rseq_cs, \"aw\"\n"
		     ".balign 32\n"
		     "3: .long 0, 0\n"
		     ".quad 1f, 2f - 1f, 4f\n"
		     ".popsection\n"
		     "leaq 3b(%%rip), %%rax\n"
		     "movq %%rax, %0\n"
		     "1: jmp 1b\n"
		     "2:\n"
		     ".byte 0x0f, 0xb9, 0x3d\n"
		     ".long 0x53053053\n" /* RSEQ_SIG */
		     "4: jmp %l[aborted]\n"
		     :
		     : "m"(rseq->rseq_cs)
		     : "rax", "memory"
		     : aborted);
	return 5;
}
