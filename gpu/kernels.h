/* kernels.h - launchers of our own kernels, one line of meaning each; the files say how.
 *
 * T is the model's 16-bit type (bf16 or f16), chosen by `half`. Leading dimensions (ld)
 * are in elements. Weights have ld a multiple of 8 and zeros past their columns, so that
 * 128-bit loads need no edge case. Nothing here depends on the order in which blocks or
 * threads run: sums have a fixed shape, and no float is added atomically.
 *
 * Launchers return nothing: a failed launch is found by the next check_cuda.            */
#ifndef PALI_GPU_KERNELS_H
#define PALI_GPU_KERNELS_H

#include "core/sample.h"
#include "gpu/port.cuh"
#include "gpu/tune.h"

#include <stdint.h>

typedef enum {
    HALF_BF16,
    HALF_F16
} half_type;

/* What one decode step reads from device memory; a recorded step can be replayed. */
typedef struct {
    int32_t token, position;
} step_state;

/* A weight matrix as a decode step reads it: rows of ld elements of 16 bits, of one byte, or of
 * half a byte, always in steps of 16 bytes. Values of the quantised forms are core/quant.h's. */
typedef enum {
    FORM_HALF, /* T; ld a multiple of 8, zeros past the columns */
    FORM_INT8, /* ld a multiple of 16, zeros past the columns */
    FORM_NF4,  /* columns, so ld too, a multiple of 64: no block spans two rows */
    FORMS
} weight_form;

typedef struct {
    weight_form form;
    const void *w;
    int64_t ld;                       /* elements */
    const float *scales;              /* INT8: [rows]; NF4: [rows][nf4_head(ld)] */
    const unsigned char *scale_codes; /* NF4: [rows][ld / 64] */
    const float *tables;              /* NF4: codes [16], map [256], middles [15] */
} weight;

/* What a row of NF4 needs of its second level, whatever rows were its neighbours when it was
 * quantised: [offset][blocks of its group before it, an integer][top of its groups ..]. */
static __host__ __device__ __forceinline__ int nf4_head(int64_t ld) {
    return (int)((ld / 64 + 254) / 256) + 3;
}
enum {
    NF4_BLOCK = 64,
    NF4_GROUP = 256, /* blocks */
    NF4_TABLES = 16 + 256,
    NF4_MIDDLES = 15 /* behind the tables: for quantising */
};
#define INT8_STEP 0.007874015718698502f /* 1 / 127, as bitsandbytes has it */

/* --- load.cu: from a file's elements to weights, and back -------------------------------- */

typedef enum {
    RAW_F32,
    RAW_BF16,
    RAW_F16
} raw_type;

/* n elements of a matrix of `cols` columns, from element `first` on, row by row as its file has
 * them. Its row r belongs into row row_first + r * row_step of the destination. */
typedef struct {
    const void *raw;
    raw_type type;
    int64_t first, n;
    int cols;
    int64_t row_first, row_step;
} raw_piece;

/* to[row][column] = element, of type T or float32. */
void place_halves(half_type half, const raw_piece *p, void *to, int64_t ld, cudaStream_t s);
void place_floats(const raw_piece *p, float *to, int64_t ld, cudaStream_t s);
/* Quantises whole rows. */
void place_int8(const raw_piece *p, const weight *to, cudaStream_t s);
/* Quantises whole blocks; the absmax of block b of the matrix goes to absmax[b]. */
void place_nf4(const raw_piece *p, const weight *to, float *absmax, cudaStream_t s);

/* The second level of a matrix whose pieces are all placed. */
typedef struct {
    int cols;
    int64_t blocks, groups;
    int64_t row_first, row_step;
    const float *absmax; /* [blocks] */
    const float *tables;
    double *sums;               /* [groups], scratch */
    float *tops;                /* [groups + 1], scratch */
    unsigned char *scale_codes; /* of the destination, as its weight has them */
    float *heads;
} nf4_finish;
void finish_nf4(const nf4_finish *f, cudaStream_t s);
/* Only the last part of that: tops and scale codes are there. */
void place_nf4_heads(const nf4_finish *f, cudaStream_t s);

/* out[r][c] = row first + r of w, r < rows, c < cols, as T. */
void dequantize(half_type half, const weight *w, int first, int rows, int cols, void *out,
                int64_t ldo, cudaStream_t s);

/* --- norm.cu: many rows ------------------------------------------------------------- */

/* out[t] = (x[t] - mean) / sqrt(var + eps) * w + b, T rows of n; out of type T. */
void layer_norm(half_type half, const float *x, int64_t ldx, int rows, int n, float eps,
                const float *w, const float *b, void *out, int64_t ldo, cudaStream_t s);
/* out[t] = x[t] / sqrt(mean(x^2) + eps) * (1 + w). */
void rms_norm(half_type half, const float *x, int64_t ldx, int rows, int n, float eps,
              const float *w, void *out, int64_t ldo, cudaStream_t s);
/* x[t] += rms_norm(y[t]): Gemma 2's norm of what a block adds. */
void rms_norm_add(const float *y, int64_t ldy, int rows, int n, float eps, const float *w, float *x,
                  int64_t ldx, cudaStream_t s);

/* --- rows.cu: gathering, moving, element by element ------------------------------------- */

/* out[patch][channel, row, column] of pixels [channels][S][S]; columns to ldo are zero. */
void im2col(half_type half, const float *pixels, int S, int patch, int channels, void *out,
            int64_t ldo, cudaStream_t s);
/* x[t] = table[ids[t]] * scale, t < rows. */
void embed_rows(half_type half, const void *table, int64_t ldw, const int32_t *ids, int rows, int n,
                float scale, float *x, int64_t ldx, cudaStream_t s);
/* The same for the one token of a step. */
void embed_step(half_type half, const void *table, int64_t ldw, const step_state *state, int n,
                float scale, float *x, cudaStream_t s);
/* out[t][i] = gelu(gu[t][2i]) * gu[t][2i + 1] * scale, i < F. */
void geglu_rows(half_type half, const float *gu, int64_t ldg, int rows, int F, float scale,
                void *out, int64_t ldo, cudaStream_t s);

typedef struct {
    const float *qkv; /* [T][first .. (H + 2K)E): what a product left, column 0 = `first` */
    int64_t ld;
    int first; /* 0, or H * E when the queries were not asked for */
    int rows, H, K, E;
    const float2 *rope; /* [position][E / 2] (cos, sin) */
    void *q;            /* [rows][H * E] of T, ldq */
    int64_t ldq;
    void *k, *v; /* caches of a layer [K][positions][ldkv] of T */
    int64_t ldkv, positions;
} rope_args;
/* Rotates queries and keys of positions 0 .. rows - 1; keys and values go to the cache. */
void rope_rows(half_type half, const rope_args *a, cudaStream_t s);

/* --- softmax.cu --------------------------------------------------------------------------- */

/* p[r][j] = softmax over j < n of softcap(scores[r][j]); cap 0: none. */
void softmax_rows(half_type half, const float *scores, int64_t lds, int64_t rows, int n, float cap,
                  void *p, int64_t ldp, cudaStream_t s);

/* Has this build code for the current device? cudaSuccess, or what says no. *built: the compute
 * capability that it was written for (90), which is less than the device's when the driver
 * compiled it from PTX of an older one: what port.cuh leaves out there is then not in it. */
cudaError_t kernels_fit_device(int *built);

/* --- flash.cu: attention of many rows ------------------------------------------------------- */

typedef struct {
    const void *q; /* row r, head h at q + r * ldq + h * E; all ld and E multiples of 8 */
    int64_t ldq;
    const void *k, *v; /* position p of key/value head g at k + g * head_kv + p * ldk */
    int64_t ldk, ldv, head_kv;
    int rows, keys, H, K, E; /* E <= ATTEND_MAX_E */
    int first, prefix;       /* row r sees keys below prefix, and those up to first + r */
    float scale, cap;
    void *out; /* as q, ldo */
    int64_t ldo;
} flash_args;
/* From compute capability 8.0 on: tuning.flash. */
void flash_rows(half_type half, const flash_args *a, cudaStream_t s);

/* --- gemv.cu, attend.cu: one token -------------------------------------------------------- */

typedef struct {
    const float *x; /* [D] residual */
    int D;
    const float *norm; /* [D] */
    float eps;
    weight w; /* [(H + 2K) * E][D] */
    int H, K, E;
    const step_state *state;
    const float2 *rope;
    float *q;    /* [H * E], rotated */
    void *k, *v; /* caches of the layer */
    int64_t ldkv, positions;
    int ahead; /* the launcher sets it */
} qkv_args;
void qkv_step(half_type half, const qkv_args *a, const tuning *t, cudaStream_t s);

enum {
    ATTEND_MAX_SPLITS = 64,
    ATTEND_MAX_E = 256,   /* size of one head */
    ATTEND_MIN_CHUNK = 16 /* keys of a block */
};
typedef struct {
    const float *q;
    const void *k, *v;
    int64_t ldkv, positions;
    int H, K, E;
    float scale, cap;
    const step_state *state; /* keys 0 .. position */
    float *partial;          /* attend_scratch(H, E) floats */
    unsigned *counter;       /* [H], zero; left zero */
    float *out;              /* [H * E] */
} attend_args;
int64_t attend_scratch(int H, int E);
void attend_step(half_type half, const attend_args *a, const tuning *t, cudaStream_t s);

typedef struct {
    const float *in; /* [n], and zeros up to a multiple of 8 */
    int n;
    weight w; /* [D][n] */
    int D;
    float *x;          /* [D] residual: x += W in, through the norm when there is one */
    const float *norm; /* [D]: Gemma 2's post-norm; NULL: none */
    float eps;
    float *y;          /* [D] scratch, with a norm */
    unsigned *counter; /* one, zero; left zero */
    int ahead;         /* the launcher sets it */
} add_args;
void add_step(half_type half, const add_args *a, const tuning *t, cudaStream_t s);

typedef struct {
    const float *x;
    int D;
    const float *norm;
    float eps;
    weight w; /* [2F][D]: gate 0, up 0, gate 1, .. */
    int rows; /* 2F; or V for the head */
    float *out;
    float cap; /* of the head */
    int ahead; /* the launcher sets it */
} norm_gemv_args;
/* out[i] = gelu(gate i) * up i, i < F, of the normed x. */
void gated_step(half_type half, const norm_gemv_args *a, const tuning *t, cudaStream_t s);
/* out[i] = softcap(w[i] . norm x): the logits. */
void head_step(half_type half, const norm_gemv_args *a, const tuning *t, cudaStream_t s);

/* --- sample.cu: logits -> the next token ---------------------------------------------------- */

enum {
    DRAW_BINS = 2048,
    RING = 4 /* entries; more than steps are ever ahead of the host */
};
/* What a turn samples with, as core/sample_rule.h wants it. */
typedef struct {
    int32_t vocab; /* ids below are picked */
    int32_t bits, top_k;
    float top_p;
    double scale; /* of the temperature; a greedy sampler does not read it */
    uint64_t seed, counter;
} draw_rule;
/* In device memory. The rule is the host's; everything else is zero when a turn starts. */
typedef struct {
    draw_rule rule;
    unsigned long long best; /* complement of the first key; 0: no usable logit */
    unsigned long long sum;  /* of the weights at temperature 1 */
    unsigned long long limit, need, passed;
    unsigned arrived, listed, drawn;
    int32_t goal, bin, bins;
    unsigned counts[DRAW_BINS];
    unsigned long long masses[DRAW_BINS];
} draw_state;
/* One token, for the host; token -1: there was no usable logit. */
typedef struct {
    int32_t token;
    float logit, top;
    uint64_t sum;
} drawn;
typedef struct {
    const float *logits;
    int V;
    draw_state *draw;
    unsigned long long *keys; /* [V] scratch */
    step_state *state;        /* gets the token, and the next position */
    drawn *ring;              /* [RING], pinned: token number i goes to i % RING */
} sample_args;
/* The pick of core/sample.c, bit for bit; greedy or drawn at a temperature > 0. */
void sample_step(const sample_args *a, bool draws, const tuning *t, cudaStream_t s);
draw_rule draw_rule_of(const pali_sampling *s, int vocab, uint64_t counter);

/* Widest text model that the staging of one row in a block's shared memory allows. */
enum {
    STEP_MAX_D = 11264
};

#endif
