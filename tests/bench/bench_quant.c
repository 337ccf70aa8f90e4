/* Opening and decoding a full-size model in every precision, beside what the machine reads.
 *
 *   build/release/tests/bench/bench_quant DIR [THREADS [STEPS]]          (make bench MODEL=DIR)
 *
 * For none, int8, nf4, the last also with an int8 head: seconds to open (files in the page cache or
 * not, as they are), the highest resident size of the process so far, and ms a token after a
 * prefix of 8 ids: median, least and most. Steps alternate with plain reads of a block as large
 * as a quarter of what a step reads, so that both see the same machine. share: of the median of
 * those reads, by medians; of the best read, by the best step. Processor: the share by processor time, which
 * other programs disturb less. Last, how many times as fast as none. Without DIR nothing is
 * measured. Processes of their own, so that peaks are apart.                          */
#include "core/backend.h"
#include "core/cost.h"
#include "core/cpu/limits.h"
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

enum {
    MB = 1 << 20,
    MOST_STEPS = 200
};

/* median: receives ms a token; of is that of the first row, 0: this is it. */
static void measure(const char *dir, pali_quant quant, int head8, const char *name, int threads,
                    int steps, double of, double *median) {
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
    double step[MOST_STEPS], step_cpu[MOST_STEPS];
    double plain[2][MOST_STEPS], plain_cpu[2][MOST_STEPS]; /* along one line, along eight */
    int n = pali_pool_threads(m->pool);
    if (be->prefill(m, NULL, 0, ids, 8, NULL, &err) != 0)
        printf("%s\n", err.what);
    size_t block = bytes / 4 / MB * MB;
    void *p = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return;
    struct rusage peak;
    getrusage(RUSAGE_SELF, &peak);
    madvise(p, block, MADV_HUGEPAGE);
    memset(p, 1, block);
    for (int s = 0; s < steps; s++) {
        double t = now(), c = cpu_time();
        if (be->decode(m, 1000 + s, NULL, &err) != 0)
            printf("%s\n", err.what);
        step[s] = now() - t;
        step_cpu[s] = (cpu_time() - c) / n;
        pali_pool_enter(m->pool);
        double part = (double)bytes / (double)block;
        for (int k = 0; k < 2; k++) {
            c = cpu_time();
            plain[k][s] = pali_cpu_read_time(m->pool, p, block, k) * part;
            plain_cpu[k][s] = (cpu_time() - c) / n * part;
        }
        pali_pool_leave(m->pool);
    }
    double *all[] = {step, step_cpu, plain[0], plain[1], plain_cpu[0], plain_cpu[1]};
    for (int k = 0; k < 6; k++)
        qsort(all[k], (size_t)steps, sizeof **all, by_size);
    int mid_at = steps / 2, way = plain[1][mid_at] < plain[0][mid_at];
    double best = plain[0][0] < plain[1][0] ? plain[0][0] : plain[1][0];
    double gb = 1e-9 * (double)bytes, mid = step[mid_at], read = plain[way][mid_at];
    printf("%-10s %5.1f %5.1f  %5.2f  %6.3f  %6.1f %6.1f..%-6.1f %5.1f %6.1f %6.1f  %5.2f %5.2f "
           "%9.2f  %5.2f\n",
           name, opened, opened_cpu, 1.024e-6 * (double)peak.ru_maxrss, gb, 1e3 * mid,
           1e3 * step[0], 1e3 * step[steps - 1], gb / mid, gb / read, gb / best, read / mid,
           best / step[0], plain_cpu[way][mid_at] / step_cpu[mid_at], of > 0 ? of / mid : 1.0);
    *median = mid;
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
    double *median = mmap(NULL, sizeof *median * (sizeof ways / sizeof *ways),
                          PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (median == MAP_FAILED)
        return 1;
    printf("decoding, %s kernels, %d steps\n", pali_kernels_pick()->name, steps);
    printf("%-10s %11s  %5s  %6s  %21s %5s %13s  %11s %9s  %5s\n", "", "open, s", "peak", "read",
           "ms a token", "GB/s", "a plain read", "share of it", "processor", "times");
    printf("%-10s %5s %5s  %5s  %6s  %6s %6s..%-6s %5s %6s %6s  %5s %5s %9s  %5s\n", "", "wall",
           "cpu", "GB", "GB", "median", "least", "most", "", "median", "best", "", "best", "share",
           "none");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            measure(argv[1], ways[i].quant, ways[i].head8, ways[i].name, threads, steps, median[0],
                    &median[i]);
            fflush(stdout);
            _exit(0);
        }
        if (child < 0 || waitpid(child, NULL, 0) < 0)
            return 1;
    }
    return 0;
}
