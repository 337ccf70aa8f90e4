/* limits.c - see limits.h. */
#include "core/cpu/limits.h"

#include "core/cpu/kernels.h"
#include "core/cpu/pool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) /* where figures mean nothing, only that all of it runs */
#define LESS 32
#else
#define LESS 1
#endif

enum {
    BYTES = (1 << 30) / LESS,
    PARTS = 256,
    READS = 4,
    DEEP = 256,          /* inner dimension of the tile: 32 KB of x */
    TILES = 4000 / LESS, /* of a task: some milliseconds */
    MULTIPLIES = 4,
};

typedef struct {
    const pali_kernels *k;
    const unsigned char *bytes;
    uint64_t sums[PARTS]; /* so that the reads are not for nothing */
    float *operands;      /* of every worker: w, x, c */
    size_t each;
    bool pairs;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_part(void *arg, int part, int worker) {
    (void)worker;
    job *j = arg;
    const uint64_t *p = (const void *)(j->bytes + (size_t)BYTES / PARTS * (size_t)part);
    uint64_t s[8] = {0};
    for (size_t i = 0; i < (size_t)BYTES / PARTS / 8; i += 8) {
        __builtin_prefetch(p + i + 128);
        for (int k = 0; k < 8; k++)
            s[k] += p[i + (size_t)k];
    }
    for (int k = 0; k < 8; k++)
        j->sums[part] += s[k];
}

static void multiply(void *arg, int task, int worker) {
    (void)task;
    job *j = arg;
    const pali_kernels *k = j->k;
    float *w = j->operands + j->each * (size_t)worker, *x = w + (size_t)k->rows * DEEP;
    float *c = x + (size_t)DEEP * (size_t)k->lanes;
    for (int i = 0; i < TILES; i++)
        if (j->pairs)
            k->tile_pairs(k->rows, k->lanes, DEEP / 2, (uint32_t *)w, DEEP / 2, (uint32_t *)x, c,
                          i > 0);
        else
            k->tile(k->rows, k->lanes, DEEP, w, DEEP, 1, x, c, i > 0);
}

/* The best of several runs: what a neighbour takes is not a limit of the machine. */
static double fastest(pali_pool *p, int runs, int tasks, pali_pool_task *task, job *j) {
    double best = 1e9;
    for (int i = 0; i < runs; i++) {
        double t = now();
        pali_pool_run(p, tasks, task, j, NULL);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

int pali_cpu_limits_measure(int threads, pali_cpu_limits *out, pali_error *err) {
    *out = (pali_cpu_limits){0};
    pali_pool *pool;
    int rc = pali_pool_open(threads, &pool, err);
    if (rc)
        return rc;
    job j = {.k = pali_kernels_pick()};
    out->kernels = j.k->name;
    out->threads = pali_pool_threads(pool);
    j.each =
        ((size_t)j.k->rows * (DEEP + (size_t)j.k->lanes) + (size_t)DEEP * (size_t)j.k->lanes + 63) /
        64 * 64;
    unsigned char *bytes = aligned_alloc(64, BYTES);
    j.operands = aligned_alloc(64, j.each * (size_t)out->threads * sizeof(float));
    if (!bytes || !j.operands) {
        rc = pali_fail_nomem(err, "measuring the machine");
    } else {
        memset(bytes, 1, BYTES);
        memset(j.operands, 0, j.each * (size_t)out->threads * sizeof(float));
        j.bytes = bytes;
        pali_pool_enter(pool);
        out->read = BYTES / fastest(pool, READS, PARTS, read_part, &j);
        double flop = 2.0 * j.k->rows * j.k->lanes * DEEP * TILES * 4 * out->threads;
        out->f32 = flop / fastest(pool, MULTIPLIES, 4 * out->threads, multiply, &j);
        j.pairs = j.k->tile_pairs != NULL;
        if (j.pairs)
            out->bf16 = flop / fastest(pool, MULTIPLIES, 4 * out->threads, multiply, &j);
        pali_pool_leave(pool);
    }
    free(bytes);
    free(j.operands);
    pali_pool_close(pool);
    return rc;
}
