/* SPDX-License-Identifier: MIT */
/* What every workload needs: a clock, a way to give up, and numbers from the command line. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGE_SIZE	4096UL

static inline uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static inline _Noreturn void die(const char *attempted)
{
	perror(attempted);
	exit(1);
}

static inline unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end) {
		fprintf(stderr, "not a number: %s\n", text);
		exit(2);
	}
	return value;
}

/* A result: its name, and nanoseconds per operation. */
static inline void report(const char *name, uint64_t nanoseconds, unsigned long operations)
{
	printf("%s %.1f\n", name, (double)nanoseconds / (double)operations);
}

#endif
