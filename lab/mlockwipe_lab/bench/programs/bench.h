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

static inline int compare_times(const void *first, const void *second)
{
	uint64_t a = *(const uint64_t *)first, b = *(const uint64_t *)second;

	return (a > b) - (a < b);
}

/* Each call was timed: the median, which other load on the machine hardly moves, and the mean. */
static inline void report_calls(const char *name, uint64_t *times, unsigned long count)
{
	uint64_t total = 0;

	qsort(times, count, sizeof(*times), compare_times);
	for (unsigned long i = 0; i < count; i++)
		total += times[i];
	report(name, times[count / 2], 1);
	printf("%s_mean %.1f\n", name, (double)total / (double)count);
}

/* Every call by itself, for its distribution. */
static inline void report_each(const char *name, const uint64_t *times, unsigned long count)
{
	for (unsigned long i = 0; i < count; i++)
		report(name, times[i], 1);
}

static inline uint64_t *new_times(unsigned long count)
{
	uint64_t *times = calloc(count, sizeof(*times));

	if (!times)
		die("calloc");
	return times;
}

#endif
