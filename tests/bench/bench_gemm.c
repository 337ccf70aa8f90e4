/* bench_gemm.c - matrix products of the CPU backend at PaliGemma's shapes.
 *
 *   make bench                                 all threads
 *   build/release/tests/bench/bench_gemm 1     one thread
 *
 * Per shape: ours on bfloat16 weights in float32 arithmetic, the same with products of bfloat16
 * where the processor has them faster, and OpenBLAS' sgemm on the same weights already widened
 * to float32, when libopenblas.so.0 is installed (it is looked up at run time and needed for
 * nothing else). The three take turns; told are medians, the share of what the tile alone
 * multiplies in the first cache (core/cpu/limits.h), and the ratio to OpenBLAS of the same turn: median,
 * least and most. Then one-token products, in GB of weights per second, beside plain reads of the
 * same memory in turn. With one thread by processor time, which a busy machine disturbs least,
 * with more by wall time.                                                              */
#include "core/cpu/limits.h"
#include "core/cpu/model.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts t. */
static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, by_size);
    return t[n / 2];
}

enum {
    TURNS_MOST = 15,
    REST_US = 80 * 1000 /* in which the idle threads of OpenBLAS stop spinning */
};

/* One turn: seconds of ours and of OpenBLAS (0: not there). */
static double ours(pali_model *m, const pali_linear *l, const float *x, int T, bool pairs) {
    pali_pool_enter(m->pool);
    m->bf16_products = pairs;
    double t = now();
    pali_linear_strips(m, l, 1, x, T);
    t = now() - t;
    pali_pool_leave(m->pool);
    return t;
}

static double theirs(sgemm_fn *sgemm, int T, int N, int K, const float *x, const float *w,
                     float *y) {
    if (!sgemm)
        return 0;
    usleep(2000); /* ours spin for a moment too */
    double t = now();
    sgemm(101, 111, 112, T, N, K, 1, x, K, w, K, 0, y, N);
    t = now() - t;
    usleep(REST_US);
    return t;
}

static void tell_ratio(const double *t, const double *of, int n) {
    double r[TURNS_MOST];
    for (int i = 0; i < n; i++)
        r[i] = of[i] / t[i];
    double mid = median(r, n);
    printf(" %5.2f (%.2f..%.2f)", mid, r[0], r[n - 1]);
}

static void bench_products(pali_model *m, sgemm_fn *sgemm, const pali_cpu_limits *limits) {
    bool pairs = m->k->tile_pairs != NULL;
    printf("%-17s %6s %6s %6s  %15s%s%s%s\n", "GFLOP/s", "tokens", "K", "N", "float32  share",
           pairs ? "   bfloat16  share" : "", sgemm ? "   OpenBLAS  float32 of it      " : "",
           sgemm && pairs ? "bfloat16 of it" : "");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int T = shapes[s].tokens, K = shapes[s].K, N = shapes[s].N;
        size_t rows = (size_t)pali_strips(m, T) * (size_t)m->k->lanes, n = (size_t)N * (size_t)K;
        uint16_t *w = random_bf16(n);
        m->packed = get(rows * (size_t)K * 2);
        float *x = get(rows * (size_t)K * 4), *y = get(rows * (size_t)N * 4);
        float *wide = sgemm ? get(n * 4) : NULL;
        if (wide)
            m->k->widen(PALI_BF16, w, n, wide);
        for (size_t i = 0; i < rows * (size_t)K; i++)
            x[i] = (float)(i % 17) / 17 - 0.5f;
        pali_matrix mat = {.dtype = PALI_BF16, .rows = N, .cols = K, .data = w};
        pali_linear l = {.w = &mat, .out = y};
        double flop = 2.0 * T * N * K, t[3][TURNS_MOST];
        int turns = flop > 1e11 ? 5 : flop > 1e10 ? 9 : TURNS_MOST;
        for (int r = -1; r < turns; r++) { /* the first is not counted */
            int at = r < 0 ? 0 : r;
            t[2][at] = theirs(sgemm, T, N, K, x, wide, y);
            t[0][at] = ours(m, &l, x, T, false);
            t[1][at] = pairs ? ours(m, &l, x, T, true) : 0;
        }
        double sorted[3][TURNS_MOST];
        memcpy(sorted, t, sizeof t);
        double f32 = flop / median(sorted[0], turns);
        printf("%-17s %6d %6d %6d  %8.1f   %.2f", shapes[s].what, T, K, N, 1e-9 * f32,
               f32 / limits->f32);
        if (pairs) {
            double bf16 = flop / median(sorted[1], turns);
            printf("   %8.1f   %.2f", 1e-9 * bf16, bf16 / limits->bf16);
        }
        if (sgemm) {
            printf("   %8.1f ", 1e-9 * flop / median(sorted[2], turns));
            tell_ratio(t[0], t[2], turns);
            if (pairs)
                tell_ratio(t[1], t[2], turns);
        }
        printf("\n");
        fflush(stdout);
        free(w), free(x), free(y), free(wide), free(m->packed);
    }
}

/* --- one token: more weights than any cache holds -------------------------------------- */

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
    double t[TURNS_MOST], plain[2][TURNS_MOST];
    pali_pool_enter(m->pool);
    for (int r = 0; r < TURNS_MOST; r++) {
        double start = now();
        pali_linear_row(m, &l, 1, x);
        t[r] = now() - start;
        for (int k = 0; k < 2; k++)
            plain[k][r] = pali_cpu_read_time(m->pool, w, n * 2, k);
    }
    pali_pool_leave(m->pool);
    double mid = median(t, TURNS_MOST),
           read = fmin(median(plain[0], TURNS_MOST), median(plain[1], TURNS_MOST));
    double least = fmin(plain[0][0], plain[1][0]), gb = (double)n * 2e-9;
    printf("\none token, %zu MB of bfloat16: %.1f GB/s (%.1f..%.1f); a plain read %.1f, at best "
           "%.1f; share %.2f\n",
           n * 2 >> 20, gb / mid, gb / t[TURNS_MOST - 1], gb / t[0], gb / read, gb / least,
           read / mid);
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
    if (!blas)
        printf("no libopenblas.so.0: ours are not compared\n");
    if (blas) {
        const char *(*core)(void) = NULL;
        *(void **)&core = dlsym(blas, "openblas_get_corename");
        printf(
            "OpenBLAS for %s (OPENBLAS_CORETYPE=SkylakeX where it does not know the processor)\n",
            core ? core() : "?");
        *(void **)&sgemm = dlsym(blas, "cblas_sgemm");
        void (*set)(int) = NULL;
        *(void **)&set = dlsym(blas, "openblas_set_num_threads");
        if (set)
            set(threads);
    }
    pali_cpu_limits limits;
    if (pali_cpu_limits_measure(threads, &limits, &err) != 0) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    printf("%s kernels, %d thread%s; tiles in the first cache %.0f GFLOP/s in float32, %.0f in "
           "bfloat16\n",
           m.k->name, threads, threads == 1 ? "" : "s", 1e-9 * limits.f32, 1e-9 * limits.bf16);
    bench_products(&m, sgemm, &limits);
    bench_rows(&m);
    pali_pool_close(m.pool);
    free(m.scratch);
    return 0;
}
