/* Opening and decoding a full-size model in every precision, beside what the machine reads.
 *
 *   build/release/tests/bench/bench_quant DIR [THREADS [STEPS]]
 *
 * For none, int8, nf4 and nf4 with an int8 head: seconds to open (files in the page cache or not, as they are), the
 * highest resident size of the process so far, and ms a token after a prefix of 8 ids. Steps
 * alternate with plain reads of a block as large as what a step reads, so that both see the
 * same machine; the best and the median of each are printed, and their ratio. Without DIR
 * nothing is measured. Processes of their own, so that peaks are apart.              */
#include "core/backend.h"
#include "core/cost.h"
#include "core/cpu/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu_time(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct {
    const unsigned char *p;
    uint64_t sums[1024];
} read_job;

enum {
    PIECE = 1 << 20,
    MOST_STEPS = 200
};

static void read_task(void *arg, int task, int worker) {
    (void)worker;
    typedef uint64_t words __attribute__((vector_size(64)));
    read_job *j = arg;
    words sum[4] = {{0}};
    for (size_t i = 0; i < PIECE; i += sizeof sum)
        for (size_t k = 0; k < 4; k++)
            sum[k] += *(const words *)(const void *)(j->p + (size_t)task * PIECE + i + 64 * k);
    j->sums[task % 1024] += sum[0][0] + sum[1][1] + sum[2][2] + sum[3][3];
}

static void measure(const char *dir, pali_quant quant, int head8, const char *name, int threads,
                    int steps) {
    pali_error err = {0};
    pali_weights *w;
    pali_model *m;
    const pali_backend *be = pali_backend_cpu();
    double start = now(), cpu = cpu_time();
    if (pali_weights_open(dir, &w, &err) != 0) {
        printf("%s\n", err.what);
        return;
    }
    pali_weights_prefetch(w);
    pali_backend_options o = {.threads = threads, .positions = 512, .quant = quant, .head8 = head8};
    if (be->open(w, &o, NULL, &m, &err) != 0) {
        printf("%s\n", err.what);
        return;
    }
    double opened = now() - start, opened_cpu = cpu_time() - cpu;

    uint64_t bytes = (uint64_t)pali_cost_token(w, &o, 8);
    static const int32_t ids[8] = {2, 1000, 20000, 300, 4000, 50000, 600, 108};
    double step[MOST_STEPS], plain[MOST_STEPS], step_cpu[MOST_STEPS], plain_cpu[MOST_STEPS];
    int n = pali_pool_threads(m->pool);
    if (be->prefill(m, NULL, 0, ids, 8, NULL, &err) != 0)
        printf("%s\n", err.what);
    size_t block = bytes / PIECE / 4 * PIECE; /* a quarter: read four times */
    read_job j = {
        .p = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
    if (j.p == MAP_FAILED)
        return;
    struct rusage peak;
    getrusage(RUSAGE_SELF, &peak);
    madvise((void *)(uintptr_t)j.p, block, MADV_HUGEPAGE);
    memset((void *)(uintptr_t)j.p, 1, block);
    for (int s = 0; s < steps; s++) {
        double t = now(), c = cpu_time();
        if (be->decode(m, 1000 + s, NULL, &err) != 0)
            printf("%s\n", err.what);
        step[s] = now() - t;
        step_cpu[s] = (cpu_time() - c) / n;
        pali_pool_enter(m->pool);
        t = now();
        c = cpu_time();
        for (int k = 0; k < 4; k++)
            pali_pool_run(m->pool, (int)(block / PIECE), read_task, &j, NULL);
        plain[s] = (now() - t) * (double)bytes / (4 * (double)block);
        plain_cpu[s] = (cpu_time() - c) / n * (double)bytes / (4 * (double)block);
        pali_pool_leave(m->pool);
    }
    double *all[] = {step, plain, step_cpu, plain_cpu};
    for (int k = 0; k < 4; k++)
        qsort(all[k], (size_t)steps, sizeof **all, by_size);
    double gb = 1e-9 * (double)bytes;
    printf("%-9s open %5.1f s (%4.1f of processor), peak %4.2f GB, a token reads %.3f GB\n", name,
           opened, opened_cpu, 1.024e-6 * (double)peak.ru_maxrss, gb);
    static const char *const of[] = {"wall, best", "wall, median", "processor, median"};
    for (int k = 0; k < 3; k++) {
        double t = all[k / 2 * 2][k ? steps / 2 : 0], p = all[k / 2 * 2 + 1][k ? steps / 2 : 0];
        printf("    %-17s %6.1f ms a token, %5.1f GB/s of %5.1f, share %.2f\n", of[k], 1e3 * t,
               gb / t, gb / p, p / t);
    }
    be->close(m);
    pali_weights_close(w);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        pali_quant quant;
        int head8;
    } ways[] = {{"none", PALI_QUANT_NONE, 0},
                {"int8", PALI_QUANT_INT8, 0},
                {"nf4", PALI_QUANT_NF4, 0},
                {"nf4, head", PALI_QUANT_NF4, 1}};
    int threads = argc > 2 ? atoi(argv[2]) : 0, steps = argc > 3 ? atoi(argv[3]) : 20;
    if (argc < 2) {
        printf("bench_quant: no model directory named, nothing measured\n");
        return 0;
    }
    steps = steps < 1 ? 1 : steps > MOST_STEPS ? MOST_STEPS : steps;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            measure(argv[1], ways[i].quant, ways[i].head8, ways[i].name, threads, steps);
            fflush(stdout);
            _exit(0);
        }
        if (child < 0 || waitpid(child, NULL, 0) < 0)
            return 1;
    }
    return 0;
}
