/* SPDX-License-Identifier: MIT */
/*
 * obedient WITNESS THREADS: lock a secret, show it, say "ready", and do what each byte of stdin says.
 *
 * It waits in epoll_wait(), as do its other threads, with no handler for any signal: an EINTR there would come from
 * whoever has interfered, and is said. Every order is answered by a line.
 */
#include "secret.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PART (4 * PAGE)

static char *secret, *inherited;
static int witness;
static volatile int interrupted;
static pthread_barrier_t all_there;

static int wait_for(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC), found;

	check(epoll >= 0, "epoll_create1");
	if (fd >= 0)
		check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
	while ((found = epoll_wait(epoll, &event, 1, -1)) < 0)
		interrupted++;
	close(epoll);
	return found;
}

static void *waits(void *unused)
{
	pthread_barrier_wait(&all_there);
	wait_for(-1);
	return unused;
}

static void *exits(void *unused)
{
	usleep(1000);
	_exit(0);
	return unused;
}

static void *executes(void *unused)
{
	execlp("cat", "cat", NULL);
	check(0, "execlp");
	return unused;
}

static void say(const char *line)
{
	check(write(1, line, strlen(line)) == (ssize_t)strlen(line), "write");
}

static void inherit(int dies_by)
{
	pid_t pid = fork();
	int status;

	check(pid >= 0, "fork");
	if (pid == 0) {
		paint(inherited, PART); /* pages of its own: of shared ones, the witness would see a copy */
		show(witness, inherited, PART);
		if (dies_by)
			kill(getpid(), dies_by);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid, "waitpid");
	check(memcmp(inherited, inherited + 16, PART - 16) == 0 && *(uint64_t *)inherited == FIRST, "the parent's copy");
}

/* A sandbox: calls that a keeper needs kill the process. */
static void confine(void)
{
#define KILL_AT(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		KILL_AT(SYS_setsid),
		KILL_AT(SYS_close_range),
		KILL_AT(SYS_chdir),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

int main(int argc, char **argv)
{
	char order;

	if (argc != 3)
		return 2;
	witness = atoi(argv[1]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	secret = make_secret(PART);
	inherited = make_secret(PART);
	check(madvise(secret, PART, MADV_DONTFORK) == 0, "madvise");
	show(witness, secret, PART);
	pthread_barrier_init(&all_there, NULL, atoi(argv[2]));
	for (int other = 1; other < atoi(argv[2]); other++) {
		pthread_t thread;

		check(pthread_create(&thread, NULL, waits, NULL) == 0, "pthread_create");
	}
	pthread_barrier_wait(&all_there);
	say("ready\n");
	while (wait_for(0) == 1 && read(0, &order, 1) == 1) {
		pthread_t thread;
		char *more;
		pid_t pid;

		switch (order) {
		case '?': /* how are you? */
			say(interrupted ? "interrupted\n" : "well\n");
			break;
		case 'l': /* lock more */
			more = make_secret(PART);
			check(madvise(more, PART, MADV_DONTFORK) == 0, "madvise");
			show(witness, more, PART);
			say("locked\n");
			break;
		case 'u': /* unlock */
			check(munlock(secret, PART) == 0, "munlock");
			say("unlocked\n");
			break;
		case 'n': /* protect */
			check(mprotect(secret, PART, PROT_NONE) == 0, "mprotect");
			say("protected\n");
			break;
		case 'd': /* become undumpable */
			check(prctl(PR_SET_DUMPABLE, 0) == 0, "prctl");
			say("undumpable\n");
			break;
		case 'c': /* confine itself */
			confine();
			say("confined\n");
			break;
		case 'f': /* have a child that exits */
			inherit(0);
			say("had a child\n");
			break;
		case 'k': /* have a child that is killed */
			inherit(SIGKILL);
			say("had a child\n");
			break;
		case 'b': /* have a child that ends while its parent waits for something else */
			if (fork() == 0) {
				usleep(20000);
				_exit(0);
			}
			say("there is a child\n");
			break;
		case 's': /* run a program */
			check(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) == 0, "posix_spawn");
			check(waitpid(pid, NULL, 0) == pid, "waitpid");
			check(*(uint64_t *)secret == FIRST, "the secret after another program");
			say("ran it\n");
			break;
		case 't': /* exit by another thread */
			check(pthread_create(&thread, NULL, exits, NULL) == 0, "pthread_create");
			break;
		case 'e': /* exec */
			executes(NULL);
			break;
		case 'E': /* exec by another thread */
			check(pthread_create(&thread, NULL, executes, NULL) == 0, "pthread_create");
			pthread_join(thread, NULL);
			break;
		case 'a': /* exec a program like this one, locking anew */
			execv("/proc/self/exe", argv);
			check(0, "execv");
			break;
		case 'x':
			return 0;
		default:
			return 2;
		}
	}
	return 0;
}
