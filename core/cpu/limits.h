/* limits.h - what the processor can do at most, measured: the floors of `pali bench`.
 *
 * Reading: every thread sums its part of a buffer that no cache holds. Multiplying: every
 * thread runs the matrix tile on operands that stay in its first-level cache, which is the
 * kernels' own inner loop with nothing around it; a whole product cannot be faster.      */
#ifndef PALI_CPU_LIMITS_H
#define PALI_CPU_LIMITS_H

#include "core/error.h"

typedef struct {
    const char *kernels; /* name of the table of kernels; borrowed, static */
    int threads;
    double read;      /* bytes a second */
    double f32, bf16; /* FLOP a second in products; bf16 is 0 where there are none */
} pali_cpu_limits;

/* Takes about a second, and 1 GB of memory for that time. threads as in pool.h. */
int pali_cpu_limits_measure(int threads, pali_cpu_limits *out, pali_error *err);

#endif
