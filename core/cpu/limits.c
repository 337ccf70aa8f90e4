/* limits.c - see limits.h. */
#include "core/cpu/limits.h"

#include "core/cpu/kernels.h"
#include "core/cpu/pool.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__) && defined(__gnu_linux__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

#if defined(__SANITIZE_ADDRESS__) /* where figures mean nothing, only that all of it runs */
#define LESS 32
#else
#define LESS 1
#endif

enum {
    BYTES = (1 << 30) / LESS,
    LARGE_PAGE = 2 << 20,
    PIECE = 1 << 20, /* of a task */
    READS = 6,
    DEEP = 256,          /* inner dimension of the tile: 32 KB of x */
    TILES = 4000 / LESS, /* of a task: some milliseconds */
    MULTIPLIES = 4,
    ROWS_MOST = 32, /* of a tile */
};

typedef struct {
    const pali_kernels *k;
    float *operands; /* of every worker: w, x, c */
    size_t each;
    bool pairs;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- reading ---------------------------------------------------------------------- */

typedef uint64_t words __attribute__((vector_size(64), may_alias));

typedef struct {
    const unsigned char *bytes;
    bool lines;           /* eight of them */
    _Atomic uint64_t sum; /* so that the reads are not for nothing */
} read_job;

WIDE static void read_piece(const unsigned char *p, size_t apart, size_t step, words *out) {
    words s[8] = {{0}};
    for (size_t i = 0; i < PIECE / 512; i++, p += step)
        for (size_t k = 0; k < 8; k++)
            s[k] += *(const words *)(const void *)(p + k * apart);
    *out = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

static void read_task(void *arg, int task, int worker) {
    (void)worker;
    read_job *j = arg;
    words sum;
    read_piece(j->bytes + (size_t)task * PIECE, j->lines ? PIECE / 8 : 64, j->lines ? 64 : 512,
               &sum);
    uint64_t all = 0;
    for (int i = 0; i < 8; i++)
        all += sum[i];
    atomic_fetch_add(&j->sum, all);
}

double pali_cpu_read_time(pali_pool *pool, const void *p, size_t n, bool lines) {
    read_job j = {.bytes = p, .lines = lines};
    double t = now();
    pali_pool_run(pool, (int)(n / PIECE), read_task, &j, NULL);
    return now() - t;
}

/* --- multiplying ------------------------------------------------------------------- */

static void multiply(void *arg, int task, int worker) {
    (void)task;
    job *j = arg;
    const pali_kernels *k = j->k;
    float *w = j->operands + j->each * (size_t)worker, *x = w + (size_t)ROWS_MOST * DEEP;
    float *c = x + (size_t)DEEP * (size_t)k->lanes;
    for (int i = 0; i < TILES; i++)
        if (j->pairs)
            k->tile_pairs(k->pair_rows, k->lanes, DEEP / 2, (uint32_t *)w, DEEP / 2, (uint32_t *)x,
                          c, i > 0);
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
    j.each = (ROWS_MOST * (DEEP + (size_t)j.k->lanes) + (size_t)DEEP * (size_t)j.k->lanes + 63) /
             64 * 64;
    unsigned char *bytes = aligned_alloc(LARGE_PAGE, BYTES);
    j.operands = aligned_alloc(64, j.each * (size_t)out->threads * sizeof(float));
    if (!bytes || !j.operands) {
        rc = pali_fail_nomem(err, "measuring the machine");
    } else {
        madvise(bytes, BYTES, MADV_HUGEPAGE); /* a wish */
        memset(bytes, 1, BYTES);
        memset(j.operands, 0, j.each * (size_t)out->threads * sizeof(float));
        pali_pool_enter(pool);
        for (int i = 0; i < READS; i++)
            out->read = fmax(out->read, BYTES / pali_cpu_read_time(pool, bytes, BYTES, i % 2));
        double row = 2.0 * j.k->lanes * DEEP * TILES * 4 * out->threads; /* operations */
        out->f32 = row * j.k->rows / fastest(pool, MULTIPLIES, 4 * out->threads, multiply, &j);
        j.pairs = j.k->tile_pairs != NULL;
        if (j.pairs)
            out->bf16 =
                row * j.k->pair_rows / fastest(pool, MULTIPLIES, 4 * out->threads, multiply, &j);
        pali_pool_leave(pool);
    }
    free(bytes);
    free(j.operands);
    pali_pool_close(pool);
    return rc;
}
