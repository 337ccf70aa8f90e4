/* pool.c - see pool.h.
 *
 * One 64-bit word holds the number of the run (high half) and the next task (low
 * half). A worker claims by compare-and-swap on the whole word, so a claim can
 * succeed only while the run it saw is still the current one; and the caller
 * describes a new run only after every task of the last one is done and its word
 * is closed (next task: the largest number), because the new run may have more
 * tasks than the old one had. So when a claim succeeds, the description read before
 * it belongs to that run. A worker that wakes late finds nothing to claim and harms
 * nothing, and nobody waits for a thread that holds no task.
 *
 * Sleeping: a sleeper first counts itself in `sleepers`, then looks at the word
 * again; a waker first changes the word, then looks at `sleepers`. Both are
 * sequentially consistent, so at least one of them sees the other.           */
#include "core/cpu/pool.h"

#include "core/cpu/cpus.h"
#include "core/machine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    THREADS_MAX = 1024,
    SPIN_NS = 50 * 1000, /* longer than the gaps inside one decode step, short for a laptop */
};

#define CLOSED ((uint64_t)UINT32_MAX) /* no task left to claim, however many there are */

struct pali_pool {
    int threads;
    int started; /* pthreads in id[], at most threads - 1 */
    pthread_t *id;
    int *cpu; /* CPU of worker i, or NULL when nobody is pinned */
    cpu_set_t caller_cpus;
    bool entered;

    _Alignas(64) _Atomic uint64_t word; /* run << 32 | next task */
    _Alignas(64) atomic_int done;       /* tasks finished in this run */

    /* The current run; written only while no task is claimable. Atomic because a late
     * worker may read them meanwhile (and then fails to claim). */
    _Alignas(64) _Atomic(pali_pool_task *) task;
    _Atomic(void *) arg;
    atomic_int ntasks;
    _Atomic(const atomic_int *) cancel;
    atomic_bool skipped;

    _Alignas(64) pthread_mutex_t lock;
    pthread_cond_t work;     /* a new run, or quit */
    pthread_cond_t finished; /* the last task of a run is done */
    atomic_int sleepers;
    atomic_bool caller_sleeps;
    atomic_bool quit;
};

typedef struct {
    pali_pool *pool;
    int worker;
} worker_start;

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- CPUs ------------------------------------------------------------------ */

/* The processors that workers may be pinned to; how many. 0: the system does not tell. */
static int usable_cpus(int *cpu) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    return pali_cpus_of_cores("", &set, cpu, THREADS_MAX);
}

int pali_pool_count(int threads) {
    int cpu[THREADS_MAX];
    if (threads > 0)
        return threads > THREADS_MAX ? THREADS_MAX : threads;
    int n = pali_cpus_under_quota(usable_cpus(cpu), pali_machine_quota(""));
    return n < 1 ? 1 : n;
}

int pali_pool_threads(const pali_pool *p) {
    return p->threads;
}

static void pin(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one); /* best effort: unpinned is slower, not wrong */
}

void pali_pool_enter(pali_pool *p) {
    if (!p->cpu || p->entered)
        return;
    if (sched_getaffinity(0, sizeof p->caller_cpus, &p->caller_cpus) != 0)
        return;
    p->entered = true;
    pin(p->cpu[0]);
}

void pali_pool_leave(pali_pool *p) {
    if (!p->entered)
        return;
    p->entered = false;
    sched_setaffinity(0, sizeof p->caller_cpus, &p->caller_cpus);
}

/* --- running --------------------------------------------------------------- */

/* Claims and runs tasks of run `run` until there are none left. */
static void work(pali_pool *p, uint32_t run, int worker) {
    for (;;) {
        uint64_t w = atomic_load(&p->word);
        pali_pool_task *task = atomic_load_explicit(&p->task, memory_order_relaxed);
        void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
        const atomic_int *cancel = atomic_load_explicit(&p->cancel, memory_order_relaxed);
        int ntasks = atomic_load_explicit(&p->ntasks, memory_order_acquire);
        if ((uint32_t)(w >> 32) != run || (uint32_t)w >= (uint32_t)ntasks)
            return;
        if (!atomic_compare_exchange_weak(&p->word, &w, w + 1))
            continue;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            atomic_store_explicit(&p->skipped, true, memory_order_relaxed);
        else
            task(arg, (int)(uint32_t)w, worker);
        if (atomic_fetch_add(&p->done, 1) + 1 == ntasks && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static uint32_t current_run(pali_pool *p) {
    return (uint32_t)(atomic_load(&p->word) >> 32);
}

static void *worker_main(void *start) {
    pali_pool *p = ((worker_start *)start)->pool;
    int worker = ((worker_start *)start)->worker;
    free(start);
    if (p->cpu)
        pin(p->cpu[worker]);
    uint32_t seen = 0;
    for (;;) {
        int64_t until = now_ns() + SPIN_NS;
        while (current_run(p) == seen && !atomic_load(&p->quit)) {
            for (int i = 0; i < 64 && current_run(p) == seen; i++)
                relax();
            if (now_ns() < until || current_run(p) != seen)
                continue;
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (current_run(p) == seen && !atomic_load(&p->quit))
                pthread_cond_wait(&p->work, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->quit))
            return NULL;
        seen = current_run(p);
        work(p, seen, worker);
    }
}

bool pali_pool_run(pali_pool *p, int ntasks, pali_pool_task *task, void *arg,
                   const atomic_int *cancel) {
    if (ntasks <= 0)
        return !(cancel && atomic_load(cancel));
    uint32_t run = current_run(p) + 1;
    atomic_fetch_or(&p->word, CLOSED);
    atomic_store_explicit(&p->task, task, memory_order_relaxed);
    atomic_store_explicit(&p->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&p->cancel, cancel, memory_order_relaxed);
    atomic_store_explicit(&p->skipped, false, memory_order_relaxed);
    /* Whoever sees this number sees the closed word too. */
    atomic_store_explicit(&p->ntasks, ntasks, memory_order_release);
    atomic_store(&p->done, 0);
    atomic_store(&p->word, (uint64_t)run << 32);
    if (ntasks > 1 && atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, run, 0);

    int64_t until = 0;
    while (atomic_load(&p->done) != ntasks) {
        for (int i = 0; i < 64 && atomic_load(&p->done) != ntasks; i++)
            relax();
        int64_t t = now_ns();
        if (!until)
            until = t + SPIN_NS;
        if (t < until)
            continue;
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, true);
        while (atomic_load(&p->done) != ntasks)
            pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, false);
        pthread_mutex_unlock(&p->lock);
    }
    return !atomic_load_explicit(&p->skipped, memory_order_relaxed);
}

/* --- open and close -------------------------------------------------------- */

/* Signals belong to the program's own threads: a worker must not receive the
 * terminal's. */
static int start_workers(pali_pool *p, pali_error *err) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = 0;
    for (int i = 1; i < p->threads && rc == 0; i++) {
        worker_start *s = malloc(sizeof *s);
        if (!s) {
            rc = pali_fail_nomem(err, "starting the worker threads");
            break;
        }
        *s = (worker_start){p, i};
        int e = pthread_create(&p->id[p->started], NULL, worker_main, s);
        if (e != 0) {
            free(s);
            rc = pali_fail(err, PALI_EIO, "ask for fewer with --threads",
                           "cannot start worker thread %d of %d: %s", i, p->threads, strerror(e));
        } else {
            p->started++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int pali_pool_open(int threads, pali_pool **out, pali_error *err) {
    *out = NULL;
    int cpu[THREADS_MAX], ncpus = usable_cpus(cpu);
    int n = pali_pool_count(threads);
    pali_pool *p = aligned_alloc(64, sizeof *p);
    if (!p)
        return pali_fail_nomem(err, "starting the worker threads");
    memset(p, 0, sizeof *p);
    p->threads = n;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->id = calloc((size_t)n, sizeof *p->id);
    if (n > 1 && n == ncpus)
        p->cpu = calloc((size_t)n, sizeof *p->cpu);
    if (!p->id || (n > 1 && n == ncpus && !p->cpu)) {
        pali_pool_close(p);
        return pali_fail_nomem(err, "starting the worker threads");
    }
    if (p->cpu)
        memcpy(p->cpu, cpu, (size_t)n * sizeof *cpu);
    int rc = start_workers(p, err);
    if (rc != 0) {
        pali_pool_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pali_pool_close(pali_pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->quit, true);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->id[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
    free(p->id);
    free(p->cpu);
    free(p);
}
