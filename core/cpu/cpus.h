/* cpus.h - which processors the workers of a pool go to. */
#ifndef PALI_CPU_CPUS_H
#define PALI_CPU_CPUS_H

#include <sched.h>

/* One processor of every core in `allowed`: a core's second thread adds nothing to
 * arithmetic that keeps its multipliers busy, and two pinned to one core would leave another
 * empty. At most max of them to cpu[], ascending; how many. root as in machine.h. */
int pali_cpus_of_cores(const char *root, const cpu_set_t *allowed, int *cpu, int max);

/* How many workers n such processors should get under a container's quota of processor
 * time (cores' worth; 0: none): as many as it pays for, the last perhaps in part. */
int pali_cpus_under_quota(int n, double quota);

#endif
