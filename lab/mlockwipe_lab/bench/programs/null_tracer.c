// SPDX-License-Identifier: MIT
/*
 * null_tracer [--pin|--apart] [--twice] munmap|mlock COMMAND...: what a trap costs when nothing is done about it.
 *
 * A seccomp filter stops the command at every call of that name, and the tracer lets it go on. That is the least that
 * any tracer does, in C. With --pin both are bound to the first CPU this process may use; with --apart the tracer is,
 * and the command to the second; else the kernel places them, now together and now apart. With --twice the command is
 * stopped at the end of the call, too, as by a tracer that must know whether it succeeded.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT_END	(SIGTRAP | 0x80)	/* what PTRACE_O_TRACESYSGOOD makes of the stop after a call */

static void get_cpus(cpu_set_t *set)
{
	if (sched_getaffinity(0, sizeof(*set), set))
		die("sched_getaffinity");
}

/* Bind this process to one CPU of `allowed`: to the first, with `which` 0. */
static void pin(const cpu_set_t *allowed, int which)
{
	cpu_set_t set;
	int cpu = 0;

	if (which >= CPU_COUNT(allowed)) {
		fprintf(stderr, "null_tracer: --apart takes two CPUs\n");
		exit(2);
	}
	while (!CPU_ISSET(cpu, allowed) || which--)
		cpu++;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void add_filter(unsigned int call)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		.len = sizeof(code) / sizeof(code[0]),
		.filter = code,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("prctl(PR_SET_NO_NEW_PRIVS)");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		die("seccomp");
}

static _Noreturn void become(unsigned int call, int go, char **command)
{
	char byte;

	if (read(go, &byte, 1) != 1)
		_exit(1);
	close(go);
	add_filter(call);
	execvp(command[0], command);
	die(command[0]);
}

/* Let it all go on, until the command has ended: its exit status. `before`: how, before a call. */
static int trace(pid_t command, int before)
{
	for (;;) {
		int status;
		pid_t task = waitpid(-1, &status, __WALL);

		if (task < 0 && errno == EINTR)
			continue;
		if (task < 0)
			die("waitpid");
		if (WIFSTOPPED(status)) {
			int event = status >> 16;
			int is_signal = !event && WSTOPSIG(status) != AT_END;

			ptrace(event == PTRACE_EVENT_SECCOMP ? before : PTRACE_CONT, task, 0,
			       is_signal ? WSTOPSIG(status) : 0);
		} else if (task == command) {
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
	}
}

int main(int argc, char **argv)
{
	int before = PTRACE_CONT;
	int apart = 0;
	unsigned int call;
	cpu_set_t cpus;
	int go[2];
	pid_t child;

	get_cpus(&cpus);
	for (; argc > 1 && argv[1][0] == '-'; argv++, argc--) {
		if (!strcmp(argv[1], "--pin"))
			pin(&cpus, 0);
		else if (!strcmp(argv[1], "--apart"))
			apart = 1;
		else if (!strcmp(argv[1], "--twice"))
			before = PTRACE_SYSCALL;
		else
			return 2;
	}
	if (argc < 3)
		return 2;
	call = strcmp(argv[1], "mlock") ? SYS_munmap : SYS_mlock;
	if (pipe(go))
		die("pipe");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		close(go[1]);
		if (apart)
			pin(&cpus, 1);
		become(call, go[0], argv + 2);
	}
	close(go[0]);
	if (apart)
		pin(&cpus, 0);
	if (ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
		die("PTRACE_SEIZE");
	if (write(go[1], "", 1) != 1)
		die("write");
	close(go[1]);
	return trace(child, before);
}
