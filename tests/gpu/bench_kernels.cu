/* bench_kernels.cu - GB/s of the products of a decode step, and the sweep behind gpu/tune.cu.
 *
 *   bench_kernels [READ_CEILING_GB_S]
 *
 * The matrices of PaliGemma 3B in three forms, all weights zero. Each kernel runs over copies
 * that fill 1 GB, more than any L2 cache, 20 times after 3 that are not counted; the
 * figure is bytes of weights by the time of all. For every form the best row of the
 * sweep (rows at once, blocks a multiprocessor, early start with bytes ahead) comes last.   */
#include "gpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>

static const size_t ARENA = (size_t)1 << 30;
static unsigned char *arena;
static float *small; /* activations, scales, tables: zeros */
static step_state *state;
static unsigned *counter;
static cudaStream_t stream;

static void check(cudaError_t e, const char *what) {
    if (e != cudaSuccess) {
        fprintf(stderr, "bench_kernels: %s: %s\n", what, cudaGetErrorString(e));
        exit(1);
    }
}

enum {
    QKV,
    O,
    GATE_UP,
    DOWN,
    HEAD,
    KINDS
};
static const struct {
    const char *name;
    int rows, cols;
} matrices[KINDS] = {{"qkv", 2560, 2048},
                     {"o", 2048, 2048},
                     {"gate, up", 32768, 2048},
                     {"down", 2048, 16384},
                     {"head", 257216, 2048}};

static size_t bytes_of(int kind, int form) {
    size_t n = (size_t)matrices[kind].rows * (size_t)matrices[kind].cols;
    return form == FORM_HALF ? n * 2 : form == FORM_INT8 ? n : n / 2;
}

static void launch(int kind, int form, size_t at, const tuning *t) {
    weight w = {};
    w.w = arena + at;
    w.ld = matrices[kind].cols;
    w.form = (weight_form)form;
    w.scales = small;
    w.scale_codes = (const unsigned char *)small;
    w.tables = small;
    if (kind == QKV) {
        qkv_args a = {};
        a.x = a.norm = small;
        a.D = 2048, a.eps = 1e-6f, a.w = w, a.H = 8, a.K = 1, a.E = 256;
        a.state = state;
        a.rope = (const float2 *)small;
        a.q = small + (1 << 20);
        a.k = a.v = small + (1 << 20);
        a.ldkv = 256, a.positions = 1;
        qkv_step(HALF_BF16, &a, t, stream);
    } else if (kind == O || kind == DOWN) {
        add_args a = {};
        a.in = small;
        a.n = matrices[kind].cols;
        a.w = w;
        a.D = 2048;
        a.x = small + (1 << 20);
        a.counter = counter;
        add_step(HALF_BF16, &a, t, stream);
    } else {
        norm_gemv_args a = {};
        a.x = a.norm = small;
        a.D = 2048, a.eps = 1e-6f, a.w = w;
        a.rows = matrices[kind].rows;
        a.out = small + (1 << 20);
        if (kind == HEAD)
            head_step(HALF_BF16, &a, t, stream);
        else
            gated_step(HALF_BF16, &a, t, stream);
    }
}

/* GB/s of one matrix. */
static double rate(int kind, int form, const tuning *t) {
    size_t each = bytes_of(kind, form), copies = ARENA / each ? ARENA / each : 1;
    int runs = (int)(copies > 20 ? copies : 20);
    cudaEvent_t start, end;
    float ms;
    check(cudaEventCreate(&start), "event");
    check(cudaEventCreate(&end), "event");
    for (int i = -3; i < runs; i++) {
        if (i == 0)
            check(cudaEventRecord(start, stream), "event");
        launch(kind, form, (size_t)(i + 3) % copies * each, t);
    }
    check(cudaGetLastError(), matrices[kind].name);
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), matrices[kind].name);
    check(cudaEventElapsedTime(&ms, start, end), "event");
    cudaEventDestroy(start);
    cudaEventDestroy(end);
    return (double)each * runs / ms * 1e-6;
}

int main(int argc, char **argv) {
    static const char *const forms[FORMS] = {"half", "int8", "nf4"};
    static const int blocks[] = {4, 6, 8}, aheads[] = {-1, 0, 256, 1024};
    double ceiling = argc > 1 ? atof(argv[1]) : 0;
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, 0), "device");
    size_t head = bytes_of(HEAD, FORM_HALF);
    size_t small_bytes = (size_t)128 << 20;
    check(cudaMalloc((void **)&arena, head > ARENA ? head : ARENA), "memory");
    check(cudaMalloc((void **)&small, small_bytes), "memory");
    check(cudaMalloc((void **)&state, sizeof *state), "memory");
    check(cudaMalloc((void **)&counter, sizeof *counter), "memory");
    check(cudaMemset(arena, 0, head > ARENA ? head : ARENA), "memory");
    check(cudaMemset(small, 0, small_bytes), "memory");
    check(cudaMemset(state, 0, sizeof *state), "memory");
    check(cudaMemset(counter, 0, sizeof *counter), "memory");
    check(cudaDeviceSynchronize(), "memory");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    tuning base = tuning_of(p.major * 10 + p.minor, p.multiProcessorCount);
    for (int form = 0; form < FORMS; form++) {
        tuning best = base;
        double least = 0;
        for (int rows = 4; rows <= 8; rows += 4)
            for (int b = 0; b < 3; b++)
                for (int a = 0; a < 4; a++) {
                    tuning t = base;
                    double ms = 0;
                    t.rows[form] = rows;
                    t.blocks = blocks[b];
                    t.early = aheads[a] >= 0;
                    t.ahead = t.early ? aheads[a] : 0;
                    if (t.early && p.major < 9)
                        continue;
                    for (int kind = 0; kind < HEAD; kind++)
                        ms += (double)bytes_of(kind, form) / rate(kind, form, &t) * 1e-6;
                    printf("sweep %-4s rows %d, blocks %d, early %d, ahead %4d: %.4f ms a layer\n",
                           forms[form], rows, t.blocks, t.early, t.ahead, ms);
                    if (least == 0 || ms < least) {
                        least = ms;
                        best = t;
                    }
                }
        for (int pass = 0; pass < 2; pass++)
            for (int kind = 0; kind < KINDS; kind++) {
                const tuning *t = pass ? &best : &base;
                double r = rate(kind, form, t);
                printf("%-5s %-4s %-9s %7.0f GB/s", pass ? "best" : "table", forms[form],
                       matrices[kind].name, r);
                if (ceiling > 0)
                    printf("  %5.1f%% of the ceiling", 100 * r / ceiling);
                printf("\n");
            }
        printf("best  %-4s {rows %d, blocks %d, early %d, ahead %d}\n", forms[form],
               best.rows[form], best.blocks, best.early, best.ahead);
    }
    return 0;
}
