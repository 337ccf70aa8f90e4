/* The thread pool: every task once, any number of threads, stop, pinning undone. */
#include "tests/test.h"

#include "core/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

enum {
    MANY = 1000
};

typedef struct {
    atomic_int count[MANY];
    atomic_int by_worker[64];
    atomic_int *cancel;
    int cancel_at;
} tally;

static void count_task(void *arg, int task, int worker) {
    tally *t = arg;
    atomic_fetch_add(&t->count[task], 1);
    atomic_fetch_add(&t->by_worker[worker], 1);
    if (t->cancel && task == t->cancel_at)
        atomic_store(t->cancel, 1);
    /* The one that asks may lose its CPU before it has: the later ones wait for it. */
    while (t->cancel && task > t->cancel_at && !atomic_load(t->cancel))
        sched_yield();
}

static void cpu_pool_runs_every_task_once(void **unused) {
    (void)unused;
    for (int threads = 1; threads <= 5; threads++) {
        pali_pool *p;
        pali_error err = {0};
        assert_ok(pali_pool_open(threads, &p, &err), err);
        assert_int_equal(pali_pool_threads(p), threads);
        static tally t;
        for (int run = 0; run < 300; run++) {
            memset(&t, 0, sizeof t);
            int n = run % 7 == 0 ? MANY : run % 5;
            pali_pool_enter(p);
            assert_true(pali_pool_run(p, n, count_task, &t, NULL));
            pali_pool_leave(p);
            int by = 0;
            for (int i = 0; i < MANY; i++)
                assert_int_equal(atomic_load(&t.count[i]), i < n);
            for (int w = 0; w < threads; w++)
                by += atomic_load(&t.by_worker[w]);
            assert_int_equal(by, n);
        }
        pali_pool_close(p);
    }
}

/* Short runs of changing length, back to back: a worker still in the last one must not
 * take part in the next by mistake. A pool that let it failed within 400,000 runs. */
static void cpu_pool_keeps_runs_apart(void **unused) {
    (void)unused;
    pali_pool *p;
    pali_error err = {0};
    assert_ok(pali_pool_open(4, &p, &err), err);
    static tally t;
    memset(&t, 0, sizeof t);
    for (int run = 0; run < 800000; run++) {
        int n = run % 2 ? 1 + run * 7 % 64 : 2;
        pali_pool_run(p, n, count_task, &t, NULL);
        for (int i = 0; i < 64; i++)
            if (atomic_exchange_explicit(&t.count[i], 0, memory_order_relaxed) != (i < n))
                fail_msg("run %d of %d tasks: task %d", run, n, i);
    }
    pali_pool_close(p);
}

/* Between runs the workers go to sleep; the next run must wake them. */
static void wait_task(void *arg, int task, int worker) {
    (void)task;
    (void)worker;
    atomic_fetch_add((atomic_int *)arg, 1);
    while (atomic_load((atomic_int *)arg) < 3) /* returns only when 3 threads are inside */
        sched_yield();
}

static void cpu_pool_wakes_sleepers(void **unused) {
    (void)unused;
    pali_pool *p;
    pali_error err = {0};
    assert_ok(pali_pool_open(3, &p, &err), err);
    for (int run = 0; run < 20; run++) {
        struct timespec pause = {0, run % 2 ? 2000000 : 60000};
        nanosleep(&pause, NULL);
        atomic_int inside = 0;
        assert_true(pali_pool_run(p, 3, wait_task, &inside, NULL));
        assert_int_equal(atomic_load(&inside), 3);
    }
    pali_pool_close(p);
}

static void cpu_pool_stops_on_request(void **unused) {
    (void)unused;
    static tally t;
    for (int threads = 1; threads <= 3; threads++) {
        pali_pool *p;
        pali_error err = {0};
        assert_ok(pali_pool_open(threads, &p, &err), err);
        atomic_int cancel = 0;
        memset(&t, 0, sizeof t);
        t.cancel = &cancel;
        t.cancel_at = 10;
        assert_false(pali_pool_run(p, MANY, count_task, &t, &cancel));
        int done = 0;
        for (int i = 0; i < MANY; i++)
            done += atomic_load(&t.count[i]);
        /* Each of the others may hold one task: a later one it has begun, or an earlier one that
         * it has claimed and not yet begun, which is then left out. */
        assert_in_range(done, 11 - (threads - 1), 11 + (threads - 1)); /* both ends are seen */
        assert_false(pali_pool_run(p, 0, count_task, &t, &cancel));
        atomic_store(&cancel, 0);
        t.cancel = NULL;
        assert_true(pali_pool_run(p, 5, count_task, &t, &cancel));
        pali_pool_close(p);
    }
}

static void cpu_pool_gives_the_caller_its_cpus_back(void **unused) {
    (void)unused;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    pali_pool *p;
    pali_error err = {0};
    assert_ok(pali_pool_open(0, &p, &err), err);
    assert_in_range(pali_pool_threads(p), 1, CPU_COUNT(&before)); /* one a core, not a CPU */
    assert_int_equal(pali_pool_count(0), pali_pool_threads(p));
    static tally t;
    pali_pool_enter(p);
    assert_true(pali_pool_run(p, 50, count_task, &t, NULL));
    pali_pool_leave(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    pali_pool_close(p);
}

/* A worker must not take the terminal's signals from the program. */
static void mask_task(void *arg, int task, int worker) {
    (void)task;
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    if (worker != 0 && !sigismember(&now, SIGINT))
        atomic_store((atomic_int *)arg, 1);
}

static void cpu_pool_workers_take_no_signals(void **unused) {
    (void)unused;
    pali_pool *p;
    pali_error err = {0};
    assert_ok(pali_pool_open(3, &p, &err), err);
    atomic_int open_to_signals = 0;
    assert_true(pali_pool_run(p, MANY, mask_task, &open_to_signals, NULL));
    assert_int_equal(atomic_load(&open_to_signals), 0);
    sigset_t mine;
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    assert_false(sigismember(&mine, SIGINT));
    pali_pool_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_pool_runs_every_task_once),
        cmocka_unit_test(cpu_pool_keeps_runs_apart),
        cmocka_unit_test(cpu_pool_wakes_sleepers),
        cmocka_unit_test(cpu_pool_stops_on_request),
        cmocka_unit_test(cpu_pool_gives_the_caller_its_cpus_back),
        cmocka_unit_test(cpu_pool_workers_take_no_signals),
    };
    return cmocka_run_group_tests_name("cpu_pool", tests, NULL, NULL);
}
