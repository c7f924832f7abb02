// SPDX-License-Identifier: MIT
/*
 * forks SIZE: lock so many bytes, and fork a child that ends and leaves its copies of them.
 */
#include "secret.h"

#include <sys/wait.h>

int main(int argc, char **argv)
{
	int status;

	check(argc == 2, "usage");
	make_secret(strtoul(argv[1], NULL, 10));
	if (fork() == 0)
		_exit(7);
	check(wait(&status) > 0 && status == 7 << 8, "wait");
	return 0;
}
