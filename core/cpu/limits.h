/* limits.h - what the processor can do at most, measured: the floors of `pali bench`.
 *
 * Reading: the threads sum a buffer that no cache holds, each along one line or along eight at
 * once, whichever is faster: processors differ in what they foresee. Multiplying: every
 * thread runs the matrix tile on operands that stay in its first-level cache, which is the
 * kernels' own inner loop with nothing around it; a whole product cannot be faster.      */
#ifndef PALI_CPU_LIMITS_H
#define PALI_CPU_LIMITS_H

#include "core/cpu/pool.h"
#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *kernels; /* name of the table of kernels; borrowed, static */
    int threads;
    double read;      /* bytes a second */
    double f32, bf16; /* FLOP a second in products; bf16 is 0 where there are none */
} pali_cpu_limits;

/* Takes about a second, and 1 GB of memory for that time. threads as in pool.h. */
int pali_cpu_limits_measure(int threads, pali_cpu_limits *out, pali_error *err);

/* Seconds of reading the n bytes at p, each thread along one line or along eight; p 64-byte
 * aligned, n a multiple of 1 MB. For pools that were entered. */
double pali_cpu_read_time(pali_pool *pool, const void *p, size_t n, bool lines);

#endif
