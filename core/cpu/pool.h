/* pool.h - the worker threads of one model.
 *
 * A run is `ntasks` calls of one function, claimed one by one from an atomic
 * counter: a thread that a busy neighbour slows down simply claims fewer. Which
 * thread runs which task is therefore not fixed, so tasks must not share
 * outputs and must compute the same whoever runs them; then results do not
 * depend on the number of threads.
 *
 * The calling thread works too, as worker 0. Workers spin for a moment after a
 * run (the next one usually follows within microseconds), then sleep.
 *
 * When the pool has exactly one thread per core of the process, every thread is
 * pinned to its own: some kernels pack busy threads onto few CPUs, which halves
 * the speed on two. With fewer or more threads placement is the system's.     */
#ifndef PALI_CPU_POOL_H
#define PALI_CPU_POOL_H

#include "core/error.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct pali_pool pali_pool;

/* worker is in [0, threads): an index for private scratch memory. */
typedef void pali_pool_task(void *arg, int task, int worker);

/* threads <= 0: one per core this process may use, no more than a container's quota pays
 * for. Close with pali_pool_close. */
int pali_pool_open(int threads, pali_pool **out, pali_error *err);
void pali_pool_close(pali_pool *p);

/* How many threads pali_pool_open(threads, ..) makes. */
int pali_pool_count(int threads);
int pali_pool_threads(const pali_pool *p);

/* Pins the calling thread for a series of runs; leave gives it its CPUs back. */
void pali_pool_enter(pali_pool *p);
void pali_pool_leave(pali_pool *p);

/* Runs task(arg, 0 .. ntasks - 1, worker) and returns when all are done. cancel
 * (may be NULL) is read before every task; once it is nonzero the rest is
 * skipped and the result is false. One caller at a time.
 *
 * What holds however long any thread stands still: tasks are claimed in their order, each
 * by one thread, and a thread holds at most one. A task that was begun is finished before
 * the run returns. After a stop each thread may have left out one task that it had claimed
 * before and not begun, though later ones were done by others; and a thread that read
 * cancel just before may finish one more. Nothing says which threads take part, or that
 * more than the caller does, unless tasks wait for each other. */
bool pali_pool_run(pali_pool *p, int ntasks, pali_pool_task *task, void *arg,
                   const atomic_int *cancel);

#endif
