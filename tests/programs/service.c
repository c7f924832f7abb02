/* SPDX-License-Identifier: MIT */
/*
 * service WITNESS [stubborn]: a service of systemd. It locks a secret, shows it to the FIFO WITNESS, says that it is
 * ready, and keeps its watchdog quiet. `stubborn`: SIGTERM does not end it.
 */
#include "secret.h"
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int socket_fd;

	if (!path)
		return;
	strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0';
	socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check(socket_fd >= 0, "socket");
	check(sendto(socket_fd, text, strlen(text), 0, (void *)&to,
		     offsetof(struct sockaddr_un, sun_path) + strlen(path)) >= 0, "sendto");
	close(socket_fd);
}

int main(int argc, char **argv)
{
	const char *watchdog = getenv("WATCHDOG_PID"), *interval = getenv("WATCHDOG_USEC");
	int ours = watchdog && atoi(watchdog) == getpid();
	int witness = open(argv[1], O_WRONLY | O_CLOEXEC);
	char *secret = make_secret(SIZE / 2);

	check(witness >= 0, "open");
	if (argc > 2)
		signal(SIGTERM, SIG_IGN);
	show(witness, secret, SIZE / 2);
	close(witness);
	notify("READY=1");
	for (;;) {
		usleep(interval && ours ? atoi(interval) / 4 : 1000000);
		if (ours)
			notify("WATCHDOG=1");
	}
}
