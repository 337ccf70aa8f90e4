/* bench_gemm.c - matrix products of the CPU backend at PaliGemma's shapes.
 *
 *   make bench                                 all threads
 *   build/release/tests/bench/bench_gemm 1     one thread
 *
 * Prints, per shape: ours on bfloat16 weights in float32 arithmetic, the same with products
 * of bfloat16 where the processor has them, and OpenBLAS' sgemm on the same weights already
 * widened to float32, when libopenblas.so.0 is installed (it is looked up at
 * run time and needed for nothing else). Then one-token products, in GB of weights per
 * second next to a plain read of the same memory. Figures are the best of several
 * repetitions: with one thread per processor time, which a busy machine disturbs least,
 * with more per wall time.                                                             */
#include "core/cpu/model.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);

static int threads;

static double now(void) {
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *get(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) {
        fprintf(stderr, "no memory for %zu MB\n", bytes >> 20);
        exit(1);
    }
    return p;
}

static uint16_t *random_bf16(size_t n) {
    uint16_t *w = get(n * 2);
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        w[i] = (uint16_t)((s >> 16 & 0x80ff) | 0x3d00); /* +-0.03 .. 0.12 */
    }
    return w;
}

static const struct {
    const char *what;
    int tokens, K, N;
} shapes[] = {
    {"tower q, k, v", 256, 1152, 3456},     {"tower out", 256, 1152, 1152},
    {"tower fc1", 256, 1152, 4304},         {"tower fc2", 256, 4304, 1152},
    {"decoder q, k, v", 288, 2048, 2560},   {"decoder out", 288, 2048, 2048},
    {"decoder gate, up", 288, 2048, 32768}, {"decoder down", 288, 16384, 2048},
    {"448 px gate, up", 1056, 2048, 32768}, {"448 px down", 1056, 16384, 2048},
};

static void bench_products(pali_model *m, sgemm_fn *sgemm) {
    printf("%-18s %6s %6s %6s %10s %10s %10s   GFLOP/s\n", "", "tokens", "K", "N", "pali f32",
           m->k->tile_pairs ? "pali bf16" : "", sgemm ? "OpenBLAS" : "");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int T = shapes[s].tokens, K = shapes[s].K, N = shapes[s].N;
        size_t rows = (size_t)pali_strips(m, T) * (size_t)m->k->lanes, n = (size_t)N * (size_t)K;
        uint16_t *w = random_bf16(n);
        m->packed = get(rows * (size_t)K * 2);
        float *x = get(rows * (size_t)K * 4), *y = get(rows * (size_t)N * 4);
        for (size_t i = 0; i < rows * (size_t)K; i++)
            x[i] = (float)(i % 17) / 17 - 0.5f;
        pali_matrix mat = {.dtype = PALI_BF16, .rows = N, .cols = K, .data = w};
        pali_linear l = {.w = &mat, .out = y};
        double flop = 2.0 * T * N * K, best[2] = {1e9, 1e9}, blas = 1e9;
        int reps = flop > 1e10 ? 5 : 20;
        for (int r = 0; r < 2 * reps; r++) {
            double t = now();
            m->bf16_products = r % 2 && m->k->tile_pairs;
            pali_linear_strips(m, &l, 1, x, T);
            t = now() - t;
            best[r % 2] = t < best[r % 2] ? t : best[r % 2];
        }
        if (sgemm) {
            float *wide = get(n * 4);
            m->k->widen(PALI_BF16, w, n, wide);
            for (int r = 0; r < reps; r++) {
                double t = now();
                sgemm(101, 111, 112, T, N, K, 1, x, K, wide, K, 0, y, N);
                t = now() - t;
                blas = t < blas ? t : blas;
            }
            free(wide);
        }
        printf("%-18s %6d %6d %6d %10.1f", shapes[s].what, T, K, N, flop / best[0] * 1e-9);
        if (m->k->tile_pairs)
            printf(" %10.1f", flop / best[1] * 1e-9);
        if (sgemm)
            printf(" %10.1f", flop / blas * 1e-9);
        printf("\n");
        fflush(stdout);
        free(w), free(x), free(y), free(m->packed);
    }
}

/* --- one token: more weights than any cache holds -------------------------------------- */

typedef struct {
    const unsigned char *p;
    size_t n;
    int parts;
    double sums[256];
} read_job;

static void read_task(void *arg, int part, int worker) {
    (void)worker;
    read_job *j = arg;
    const uint64_t *p =
        (const uint64_t *)(const void *)(j->p + j->n / (size_t)j->parts * (size_t)part);
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= j->n / (size_t)j->parts / 8; i += 8) {
        __builtin_prefetch(p + i + 128);
        for (size_t k = 0; k < 8; k++)
            s[k] += p[i + k];
    }
    for (int k = 0; k < 8; k++)
        j->sums[part] += (double)s[k];
}

static void bench_rows(pali_model *m) {
    enum {
        K = 2048,
        N = 256 * 1024
    };
    size_t n = (size_t)N * K;
    uint16_t *w = random_bf16(n);
    float *x = get(K * 4), *y = get(N * 4);
    for (int i = 0; i < K; i++)
        x[i] = (float)(i % 17) / 17 - 0.5f;
    pali_matrix mat = {.dtype = PALI_BF16, .rows = N, .cols = K, .data = w};
    pali_linear l = {.w = &mat, .out = y};
    double best = 1e9, plain = 1e9;
    for (int r = 0; r < 6; r++) {
        double t = now();
        pali_linear_row(m, &l, 1, x);
        t = now() - t;
        best = t < best ? t : best;
        read_job j = {.p = (const unsigned char *)w, .n = n * 2, .parts = 256};
        t = now();
        pali_pool_run(m->pool, j.parts, read_task, &j, NULL);
        t = now() - t;
        plain = t < plain ? t : plain;
    }
    printf("\none token, %zu MB of bfloat16: %.1f GB/s; a plain read: %.1f GB/s\n", n * 2 >> 20,
           (double)n * 2e-9 / best, (double)n * 2e-9 / plain);
    free(w), free(x), free(y);
}

int main(int argc, char **argv) {
    threads = argc > 1 ? atoi(argv[1]) : 0;
    pali_error err = {0};
    pali_run run = {0};
    pali_model m = {.k = pali_kernels_pick(), .run = &run};
    if (argc > 2)
        m.k = pali_kernels_at(atoi(argv[2]));
    if (!m.k || pali_pool_open(threads, &m.pool, &err) != 0) {
        fprintf(stderr, "usage: bench_gemm [threads [kernels, from 0]] %s\n", err.what);
        return 1;
    }
    threads = pali_pool_threads(m.pool);
    m.scratch_len = (pali_linear_scratch(m.k) + 15) / 16 * 16;
    m.scratch = get((size_t)threads * m.scratch_len * 4);
    sgemm_fn *sgemm = NULL;
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_GLOBAL);
    if (blas) {
        *(void **)&sgemm = dlsym(blas, "cblas_sgemm");
        void (*set)(int) = NULL;
        *(void **)&set = dlsym(blas, "openblas_set_num_threads");
        if (set)
            set(threads);
    }
    printf("%s kernels, %d thread%s\n", m.k->name, threads, threads == 1 ? "" : "s");
    pali_pool_enter(m.pool);
    bench_products(&m, sgemm);
    bench_rows(&m);
    pali_pool_leave(m.pool);
    pali_pool_close(m.pool);
    free(m.scratch);
    return 0;
}
