/* SPDX-License-Identifier: MIT */
/*
 * locked_init [crash|return]: process 1 of a machine that has nothing else. It locks all that it has and will have, and
 * reboots the machine; or, to show what that looks like, has the kernel panic, or ends, which process 1 must not.
 */
#include "secret.h"
#include <sys/mount.h>
#include <sys/reboot.h>
#include <termios.h>

static long locked(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];
	long amount = 0;

	check(status != NULL, "/proc/self/status");
	while (fgets(line, sizeof line, status))
		sscanf(line, "VmLck: %ld kB", &amount);
	fclose(status);
	return amount;
}

static void crash(void)
{
	int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	check(trigger >= 0, "/proc/sysrq-trigger");
	check(write(trigger, "c", 1) == 1, "sysrq c");
}

int main(int argc, char **argv)
{
	const char *end = argc > 1 ? argv[1] : "reboot";

	check(mount("proc", "/proc", "proc", 0, NULL) == 0, "mount /proc");
	check(mlockall(MCL_CURRENT | MCL_FUTURE) == 0, "mlockall");
	make_secret(SIZE);
	printf("process %d has locked %ld kB: %s\n", getpid(), locked(), end);
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	if (!strcmp(end, "crash"))
		crash();
	else if (!strcmp(end, "reboot"))
		check(reboot(RB_AUTOBOOT) == 0, "reboot");
	return 0;
}
