/* SPDX-License-Identifier: MIT */
/*
 * interrupted CALL [SIGNALS [late]]: lock a page, with `late` wait for a line of stdin, and make one call that sleeps
 * while signals come. Says what came of it.
 *
 * SIGNALS: `ignored` (by default), `mixed` with ones that a handler takes, `all` with stops too, `stopped` once and
 * continued, or `none`.
 * What is transferred is counted and compared byte by byte at the other end; the registers of the call are compared.
 */
#include "secret.h"
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

#define SHORT 400 /* milliseconds */
#define LONG 5000 /* for calls that are interrupted before, on a busy machine too */
#define MUCH (1 << 20)

/* which no call can write to */
static const struct timespec timeouts[] = { { 0, SHORT * 1000000 }, { LONG / 1000, 0 } };
static const int64_t wide_timeouts[][2] = { { 0, SHORT * 1000000 }, { LONG / 1000, 0 } };
static int is_long;
static pid_t main_task;
static int any_part_will_do; /* a handler may interrupt it anywhere */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
#ifdef __i386__
	long result = syscall(number, a, b, c, d, e, f);

	return result == -1 ? -errno : result;
#else
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long result = number, rdi = a, rsi = b, rdx = c;

	asm volatile("syscall"
		     : "+a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8), "+r"(r9)
		     :
		     : "rcx", "r11", "memory");
	if (rdi != a || rsi != b || rdx != c || r10 != d || r8 != e || r9 != f)
		printf("the registers have changed\n");
	return result;
#endif
}

static void handler(int signal)
{
	(void)signal;
}

/* Until it is stopped: a SIGCONT that comes before takes the SIGSTOP back. */
static void await_stop(void)
{
	char path[64], text[512] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", main_task);
	do {
		usleep(1000);
		fd = open(path, O_RDONLY);
		check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, path);
		close(fd);
	} while (strrchr(text, ')')[2] != 'T' && strrchr(text, ')')[2] != 't');
}

static void send_signals(const char *which)
{
	unsigned int seed = getpid(), i;

	for (i = 0;; i++) {
		usleep(1000 + rand_r(&seed) % 9000);
		if (strcmp(which, "none") == 0)
			continue;
		if (strcmp(which, "stopped") == 0) {
			usleep(50000);
			kill(main_task, SIGSTOP);
			await_stop();
			kill(main_task, SIGCONT);
			pause();
		}
		if (any_part_will_do && i % 8 == 7)
			kill(main_task, SIGUSR1);
		if (strcmp(which, "all") == 0 && i % 5 == 4) {
			kill(main_task, SIGSTOP);
			usleep(rand_r(&seed) % 2000);
			kill(main_task, SIGCONT);
		}
		kill(main_task, (int[]){ SIGUSR2, SIGCHLD, SIGWINCH, SIGURG, SIGCONT }[rand_r(&seed) % 5]);
	}
}

static unsigned char byte_at(size_t at)
{
	return at * 7 + at / 251;
}

static size_t wrong(const unsigned char *bytes, size_t from, size_t length)
{
	size_t i, count = 0;

	for (i = 0; i < length; i++)
		count += bytes[i] != byte_at(from + i);
	return count;
}

/* In a child: read, slowly, all that comes, and say how much and whether it is right. */
static void slow_reader(int fd, int answer)
{
	unsigned char part[40000];
	size_t total = 0, bad = 0;
	ssize_t got;

	while (usleep(3000), (got = read(fd, part, sizeof(part))) > 0) {
		bad += wrong(part, total, got);
		total += got;
	}
	dprintf(answer, "%zu read, %zu wrong", total, bad);
	_exit(0);
}

/* In a child: write `length` bytes, a few at a time. */
static void slow_writer(int fd, size_t length)
{
	unsigned char part[1000];
	size_t total, i;

	for (total = 0; total < length; total += sizeof(part)) {
		for (i = 0; i < sizeof(part); i++)
			part[i] = byte_at(total + i);
		usleep(4000);
		if (write(fd, part, sizeof(part)) != sizeof(part))
			break;
	}
	_exit(0);
}

static void tcp_pair(int pair[2])
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(name);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	check(bind(listener, (void *)&name, length) == 0 && listen(listener, 1) == 0, "listen");
	getsockname(listener, (void *)&name, &length);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	check(connect(pair[0], (void *)&name, length) == 0, "connect");
	pair[1] = accept(listener, NULL, NULL);
	close(listener);
}

static void print(const char *what, long result)
{
	printf("%s: %ld%s%s\n", what, result < 0 ? -1 : result, result < 0 ? " " : "",
	       result < 0 ? strerrorname_np(-result) : "");
}

/* One that begins anew with each signal never ends. */
static void print_time(double seconds)
{
	double wanted = (is_long ? LONG : SHORT) / 1000.0;

	printf("%s\n", seconds < wanted - 0.05 ? "too early" : seconds > wanted + 4 ? "too late" : "in time");
}

/* Calls that end after a time. */
static long with_timeout(const char *call)
{
	struct timeval wait = { timeouts[is_long].tv_sec, timeouts[is_long].tv_nsec / 1000 };
	static sigset_t none;
	static struct sembuf down = { 0, -1, 0 };
	static char bytes[4096];
	static struct iovec vector = { bytes, 1 };
	static struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	struct epoll_event event;
	struct io_event done;
	aio_context_t context = 0;
	int pair[2], epoll = epoll_create1(0);
	long result = -ENOSYS;

	socketpair(AF_UNIX, strstr(call, "dgram") ? SOCK_DGRAM : SOCK_STREAM, 0, pair);
	if (strstr(call, "tcp"))
		tcp_pair(pair);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (strcmp(call, "epoll_wait") == 0)
		result = raw(SYS_epoll_wait, epoll, (long)&event, 1, is_long ? LONG : SHORT, 5, 6);
	else if (strcmp(call, "epoll_pwait") == 0)
		result = raw(SYS_epoll_pwait, epoll, (long)&event, 1, is_long ? LONG : SHORT, 0, 8);
	else if (strcmp(call, "epoll_pwait2") == 0)
		result = raw(SYS_epoll_pwait2, epoll, (long)&event, 1, (long)wide_timeouts[is_long], 0, 8);
	else if (strcmp(call, "rt_sigtimedwait") == 0)
		result = raw(SYS_rt_sigtimedwait, (long)&none, 0, (long)&timeouts[is_long], 8, 5, 6);
	else if (strcmp(call, "ppoll") == 0)
		result = raw(SYS_ppoll, 0, 0, (long)&timeouts[is_long], 0, 8, 6);
	else if (strcmp(call, "poll") == 0)
		result = raw(SYS_poll, 0, 0, is_long ? LONG : SHORT, 4, 5, 6);
	else if (strcmp(call, "nanosleep") == 0)
		result = raw(SYS_nanosleep, (long)&timeouts[is_long], 0, 3, 4, 5, 6);
	else if (strcmp(call, "semtimedop") == 0) {
		int semaphore = semget(IPC_PRIVATE, 1, 0600);

#ifdef __i386__
		result = raw(SYS_semtimedop_time64, semaphore, (long)&down, 1, (long)wide_timeouts[is_long], 5, 6);
#else
		result = raw(SYS_semtimedop, semaphore, (long)&down, 1, (long)wide_timeouts[is_long], 5, 6);
#endif
		semctl(semaphore, 0, IPC_RMID);
	} else if (strcmp(call, "io_getevents") == 0) {
		check(syscall(SYS_io_setup, 4, &context) == 0, "io_setup");
		result = raw(SYS_io_getevents, context, 1, 1, (long)&done, (long)&timeouts[is_long], 6);
	} else if (strncmp(call, "recv", 4) == 0)
		result = raw(SYS_recvfrom, pair[0], (long)bytes, 1, 0, 0, 0);
	else if (strncmp(call, "timed-recvmsg", 13) == 0)
		result = raw(SYS_recvmsg, pair[0], (long)&message, 0, 4, 5, 6);
	else if (strcmp(call, "timed-read") == 0)
		result = raw(SYS_read, pair[0], (long)bytes, 1, 4, 5, 6);
	else if (strncmp(call, "timed-waitall", 13) == 0) {
		if (fork() == 0) {
			close(pair[0]);
			slow_writer(pair[1], MUCH);
		}
		result = raw(SYS_recvfrom, pair[0], (long)malloc(MUCH), MUCH, MSG_WAITALL, 0, 0);
		result = result > 1000 && result < MUCH / 2 ? 1 : result;
	} else if (strcmp(call, "timed-write") == 0) {
		while (send(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
		result = raw(SYS_write, pair[0], (long)bytes, 1, 4, 5, 6);
	} else if (strcmp(call, "accept") == 0) {
		int listener = socket(AF_UNIX, SOCK_STREAM, 0);
		struct sockaddr name = { .sa_family = AF_UNIX };

		check(bind(listener, &name, sizeof(sa_family_t)) == 0 && listen(listener, 1) == 0, "listen");
		setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
		result = raw(SYS_accept4, listener, 0, 0, 0, 5, 6);
	}
	return result;
}

/* Calls that write all of a buffer. The other end reads as they write. */
static long writing(const char *call, int fd, unsigned char *bytes, int file)
{
	static struct iovec parts[1000];
	static struct msghdr message = { .msg_iov = parts };
	int i, count = 0;
	size_t at = 0;

	for (i = 0; at < MUCH; i++, count++) { /* of all lengths, and some of none */
		size_t length = i % 5 == 0 ? 0 : i % 5 * 1777;

		length = length > MUCH - at ? MUCH - at : length;
		parts[i] = (struct iovec){ bytes + at, length };
		at += length;
	}
	message.msg_iovlen = count;
	if (strncmp(call, "writev", 6) == 0)
		return raw(SYS_writev, fd, (long)parts, count, 4, 5, 6);
	if (strncmp(call, "write", 5) == 0)
		return raw(SYS_write, fd, (long)bytes, MUCH, 4, 5, 6);
	if (strncmp(call, "sendmsg", 7) == 0)
		return raw(SYS_sendmsg, fd, (long)&message, MSG_NOSIGNAL, 4, 5, 6);
	if (strncmp(call, "sendfile", 8) == 0) {
		static off_t offset = 0;

		return raw(SYS_sendfile, fd, file, (long)&offset, MUCH + 4096, 5, 6);
	}
	return raw(SYS_sendto, fd, (long)bytes, MUCH, strstr(call, "dontwait") ? MSG_DONTWAIT : 0, 0, 0);
}

static void pty_pair(int pair[2])
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	struct termios raw_mode;

	check(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "posix_openpt");
	pair[0] = open(ptsname(master), O_RDWR | O_NOCTTY);
	pair[1] = master;
	tcgetattr(pair[0], &raw_mode);
	cfmakeraw(&raw_mode);
	tcsetattr(pair[0], TCSANOW, &raw_mode);
}

static void transfer(const char *call)
{
	int pair[2], answer[2], file = fileno(tmpfile());
	unsigned char *bytes = malloc(MUCH);
	char text[100] = "";
	ssize_t got;
	long result;
	size_t i;
	pid_t reader;

	for (i = 0; i < MUCH; i++)
		bytes[i] = byte_at(i);
	check(write(file, bytes, MUCH) == MUCH, "write");
	if (strstr(call, "pipe")) {
		int ends[2];

		check(pipe(ends) == 0, "pipe");
		pair[0] = ends[1];
		pair[1] = ends[0];
	} else if (strstr(call, "tcp"))
		tcp_pair(pair);
	else if (strstr(call, "tty"))
		pty_pair(pair);
	else
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	if (strstr(call, "nonblock"))
		fcntl(pair[0], F_SETFL, O_NONBLOCK);
	check(pipe(answer) == 0, "pipe");
	reader = fork();
	if (reader == 0) {
		close(pair[0]);
		slow_reader(pair[1], answer[1]);
	}
	close(pair[1]);
	result = writing(call, pair[0], bytes, file);
	close(pair[0]);
	close(answer[1]);
	for (i = 0; (got = read(answer[0], text + i, sizeof(text) - 1 - i)) != 0; i += got > 0 ? got : 0)
		;
	/* what is written is what is read, whatever has interrupted it */
	if (strtol(text, NULL, 10) != (result > 0 ? result : 0))
		printf("written %ld, but ", result);
	if (any_part_will_do)
		printf("%s%s\n", result > MUCH ? "too much" : "all or a part", strchr(text, ','));
	else if (strstr(call, "nonblock") || strstr(call, "dontwait"))
		printf("%s%s\n", result < MUCH ? "a part" : "all", strchr(text, ','));
	else
		printf("%ld written, %s\n", result, text);
}

static void receive(const char *call)
{
	static unsigned char bytes[20000];
	static struct iovec parts[] = { { bytes, 777 }, { bytes, 0 }, { bytes + 777, 9223 } };
	static struct msghdr message = { .msg_iov = parts, .msg_iovlen = 3 };
	size_t length = 10000;
	int pair[2];
	long result;

	if (strstr(call, "tcp"))
		tcp_pair(pair);
	else
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	if (fork() == 0) {
		close(pair[0]);
		slow_writer(pair[1], strstr(call, "end") ? 7000 : 12000);
	}
	close(pair[1]);
	if (strncmp(call, "waitall-msg", 11) == 0)
		result = raw(SYS_recvmsg, pair[0], (long)&message, MSG_WAITALL, 4, 5, 6);
	else
		result = raw(SYS_recvfrom, pair[0], (long)bytes, length, MSG_WAITALL, 0, 0);
	if (any_part_will_do)
		printf("%s, %zu wrong\n", result > 10000 ? "too much" : "all or a part", wrong(bytes, 0, result > 0 ? result : 0));
	else
		printf("%ld received, %zu wrong\n", result, wrong(bytes, 0, result));
}

static void fill(const char *call)
{
	size_t length = 64 << 20, i, zeros = 0;
	unsigned char *bytes = malloc(length);
	int fd = open(strcmp(call, "zero") == 0 ? "/dev/zero" : "/dev/urandom", O_RDONLY);
	long result;

	memset(bytes, 1, length);
	result = strcmp(call, "getrandom") == 0 ? raw(SYS_getrandom, (long)bytes, length, 0, 4, 5, 6) :
						  raw(SYS_read, fd, (long)bytes, length, 4, 5, 6);
	for (i = length - 4096; i < length; i++)
		zeros += bytes[i] == (strcmp(call, "zero") == 0 ? 1 : 0);
	printf("%ld of %zu%s\n", any_part_will_do && result > 0 ? 0 : result, length,
	       any_part_will_do || zeros < 100 ? "" : ", but the end is as it was");
}

/* Five completions, of which the call waits for all; they come one by one. */
static void completions(void)
{
	struct iocb blocks[5], *list[5];
	struct io_event events[5];
	aio_context_t context = 0;
	int i, seen = 0;
	long result;

	check(syscall(SYS_io_setup, 8, &context) == 0, "io_setup");
	memset(blocks, 0, sizeof(blocks));
	for (i = 0; i < 5; i++) {
		blocks[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = eventfd(0, 0), .aio_buf = POLLIN,
					   .aio_data = i };
		list[i] = &blocks[i];
	}
	check(syscall(SYS_io_submit, context, 5, list) == 5, "io_submit");
	if (fork() == 0) {
		for (i = 0; i < 5; i++) {
			usleep(30000);
			eventfd_write(blocks[i].aio_fildes, 1);
		}
		_exit(0);
	}
	result = raw(SYS_io_getevents, context, 5, 5, (long)events, 0, 6);
	for (i = 0; i < result; i++)
		seen |= 1 << events[i].data;
	if (any_part_will_do)
		printf("%d wrong\n", result > 0 && seen != (1 << result) - 1);
	else
		printf("%ld completions, which are %x\n", result, seen);
}

/* A ring that waits for a completion: of nothing, for a time, or of the timeout that it submits with the same call. */
static void ring(int submits)
{
	struct io_uring_params parameters = { 0 };
	int fd = syscall(SYS_io_uring_setup, 4, &parameters);
	const int64_t *wait = wide_timeouts[is_long];
	struct io_uring_getevents_arg argument = { .ts = (uintptr_t)wait };
	double start = now();
	long result;

	check(fd >= 0, "io_uring_setup");
	if (submits) {
		char *queue = mmap(NULL, parameters.sq_off.array + 4 * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				   IORING_OFF_SQ_RING);
		struct io_uring_sqe *entry = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);

		*entry = (struct io_uring_sqe){ .opcode = IORING_OP_TIMEOUT, .addr = (uintptr_t)wait, .len = 1 };
		*(unsigned int *)(queue + parameters.sq_off.tail) = 1;
		result = raw(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
	} else
		result = raw(SYS_io_uring_enter, fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (long)&argument,
			     sizeof(argument));
	print("io_uring_enter", result);
	print_time(now() - start);
}

static void watch_file(void)
{
	int fd = inotify_init1(IN_CLOEXEC);
	char bytes[4096], path[] = "/tmp/interrupted-XXXXXX";
	int file = mkstemp(path);

	check(inotify_add_watch(fd, path, IN_MODIFY) > 0, "inotify_add_watch");
	if (fork() == 0) {
		usleep(300000);
		_exit(write(file, "x", 1) != 1);
	}
	print("inotify", raw(SYS_read, fd, (long)bytes, sizeof(bytes), 4, 5, 6) > 0);
	unlink(path);
}

int main(int argc, char **argv)
{
	const char *call = argv[1], *which = argc > 2 ? argv[2] : "ignored";
	struct sigaction action = { .sa_handler = handler };
	double start;
	pid_t sender;

	any_part_will_do = strcmp(which, "mixed") == 0 || strcmp(which, "all") == 0;
	is_long = any_part_will_do || strcmp(which, "stopped") == 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGUSR1, &action, NULL);
	make_secret(PAGE);
	if (argc > 3)
		getchar();
	main_task = getpid();
	sender = fork();
	if (sender == 0)
		send_signals(which);
	start = now();
	if (strncmp(call, "waitall", 7) == 0)
		receive(call);
	else if (strncmp(call, "write", 5) == 0 || strncmp(call, "send", 4) == 0)
		transfer(call);
	else if (strcmp(call, "zero") == 0 || strcmp(call, "urandom") == 0 || strcmp(call, "getrandom") == 0)
		fill(call);
	else if (strcmp(call, "completions") == 0)
		completions();
	else if (strncmp(call, "ring", 4) == 0)
		ring(strcmp(call, "ring-submits") == 0);
	else if (strcmp(call, "inotify") == 0)
		watch_file();
	else {
		print(call, with_timeout(call));
		print_time(now() - start);
	}
	kill(sender, SIGKILL);
	return 0;
}
