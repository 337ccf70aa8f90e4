/* model.h - the CUDA backend's model: what its host files share.
 *
 *   plugin.cu   the exported function, the device, the backend table, open and close
 *   layout.cu   where everything lies: the one list of weights, memory and upload
 *   vision.cu   pixels -> image embeddings      decoder.cu  prefill and decode
 *   gemm.h      products of many rows           kernels.h   everything else
 *
 * Weights, key/value cache and workspace are three device blocks, taken at open. A turn
 * allocates nothing: the workspace has places for the embeddings of as many pictures as the
 * context can hold, and for some that are kept beside those. Matrices are in the model's 16-bit type (bf16, or f16 when all of them are f16 in
 * the file), rows padded to 8 elements; norms and additive biases are float32. The decoder's
 * matrices may be quantised (int8, NF4) instead: a decode step reads the codes, and prefill
 * turns them back into 16 bits, a slab of rows at a time, for the products of many rows. The
 * residual stream and every sum are float32. The cache is of the 16-bit type: prefill
 * feeds it to tensor cores as it is, and decode reads half the bytes; what that rounds
 * away is what the reference library rounds as well.
 *
 * All work goes through one stream, in order. Long calls let the host run at most
 * LAG layers ahead, so that a stop is obeyed within that many.                      */
#ifndef PALI_GPU_MODEL_H
#define PALI_GPU_MODEL_H

#include "core/backend.h"
#include "gpu/gemm.h"
#include "gpu/kernels.h"

enum {
    CHUNK_ROWS = 512, /* tokens of one step through an MLP */
    LAG = 2,
    EVENTS = 4, /* > LAG */
    STAGES = 2  /* pieces of a file on their way at a time */
};

typedef struct {
    void *qkv, *o, *fc1, *fc2; /* [3D][D], [D][D], [F][D], [D][F] */
    void *qkv_b, *fc1_b;       /* of the 16-bit type: biases have the type of the result */
    float *o_b, *fc2_b, *ln1_w, *ln1_b, *ln2_w, *ln2_b;
} vision_layer;

typedef struct {
    weight qkv, o, gate_up, down; /* [(H + 2K)E][D], [D][HE], [2F][D] alternating, [D][F] */
    float *attn_norm, *post_attn_norm, *mlp_norm, *post_mlp_norm; /* post: NULL in Gemma 1 */
} text_layer;

struct pali_embeds {
    float *rows; /* device, [P][ld of text.D]: one of the model's places */
    pali_embeds *next;
};

struct pali_model {
    const pali_weights *w;
    half_type half;
    weight_form form;   /* of the decoder's matrices */
    weight_form stored; /* of the same in the file */
    bool head8;         /* the head is int8, beside the embedding of 16 bits */
    int positions;
    int device;
    tuning tune;

    void *weight_block, *kv_block, *work_block; /* device, owned; all below point into them */
    void *patch_w, *proj_w, *embed;
    weight head; /* the embedding, or its own copy in int8 */
    float *patch_b, *position, *post_ln_w, *post_ln_b, *proj_b, *norm;
    float *tables;        /* of NF4 */
    vision_layer *vision; /* [layers] in host memory, owned */
    text_layer *text;

    unsigned char *kv; /* [layer][K or V][K][positions][ld8(E)] */
    step_state *state;
    unsigned *counters; /* [max(H, 1)], zero between kernels */
    draw_state *draw;
    unsigned long long *draw_keys; /* [V] */
    float2 *rope;                  /* [positions][E / 2] */
    int32_t *ids;                  /* [positions] */
    void *gemm_space;
    float *pictures; /* [places][P][ld of text.D]: embeddings */
    float *row_x, *row_y, *row_q, *row_a, *row_h, *logits, *partial; /* of one token */

    /* Of loading, of the image encoder and of prefill, in one space. */
    struct {
        unsigned char *stage[STAGES]; /* pieces of the file, as they are there */
        size_t bytes;                 /* of each */
        float *absmax, *tops;         /* of the NF4 matrix in work */
        double *sums;
    } load;
    float *scores; /* [H][queries of a tile][keys]; of chips without flash.cu */
    void *probs;
    size_t score_floats; /* room in each */
    struct {
        float *pixels, *x;
        void *a, *qkv, *h;
    } enc;
    struct {
        float *x, *qkv, *gu, *y;
        void *a, *q, *h;
        void *slab; /* rows of a quantised matrix in 16 bits */
    } dec;
    int64_t slab_elements;

    cudaStream_t stream;
    cudaEvent_t events[EVENTS];
    gemm_context *gemm;
    float *host_logits; /* pinned [V] */
    int32_t *host_ids;  /* pinned [positions] */
    step_state *host_state;
    draw_rule *host_rule;
    drawn *ring;              /* pinned [RING]; the device writes it */
    cudaGraphExec_t step;     /* a decode step from host_state to host_logits */
    cudaGraphExec_t turn[2];  /* greedy, drawn: the token last sampled to the next */
    int places;               /* pictures whose embeddings there is room for */
    pali_embeds *embeds;      /* [places] in host memory, owned */
    pali_embeds *free_embeds; /* those that hold no picture */

    bool trial;          /* while opening: a layer of each tower instead of all */
    const pali_run *run; /* of the call in progress */
    pali_stage stage;
    int total, queued, told;
    int filled;        /* positions in the cache; 0 = no timeline */
    int prefix;        /* those that see each other */
    pali_error broken; /* the device failed: every later call says so */
};

static inline int64_t ld8(int64_t n) {
    return (n + 7) / 8 * 8;
}

/* Element i of a matrix of the 16-bit type. */
static inline void *half_at(const void *p, int64_t i) {
    return (unsigned char *)(uintptr_t)p + i * 2;
}

static inline gemm_type half_gemm(const pali_model *m) {
    return m->half == HALF_F16 ? GEMM_F16 : GEMM_BF16;
}

/* c[rows][n] = a[rows][k] w[n][k]', all of the 16-bit type; the caller changes the rest. */
static inline gemm_args product(const pali_model *m, int rows, int n, int k, const void *a,
                                int64_t lda, const void *w, int64_t ldw, void *c, int64_t ldc) {
    gemm_args g = {};
    g.m = rows;
    g.n = n;
    g.k = k;
    g.in = half_gemm(m);
    g.out = half_gemm(m);
    g.a = a;
    g.lda = lda;
    g.b = w;
    g.ldb = ldw;
    g.c = c;
    g.ldc = ldc;
    g.batch = 1;
    g.scale = 1;
    return g;
}

/* The same product added to a float32 c. bias: [n] or NULL. */
static inline int add_product(pali_model *m, gemm_args g, const float *bias, pali_error *err) {
    g.out = GEMM_F32;
    g.bias = bias;
    g.add = true;
    return gemm(m->gemm, &g, m->stream, err);
}

/* Bytes of scores that attention over many rows works on at a time. A variable so that
 * tests can have many tiles in a small model. */
extern size_t pali_cuda_tile_bytes;
/* And of a quantised matrix that prefill has in 16 bits at a time; bytes of a piece while
 * loading, at most. */
extern size_t pali_cuda_slab_bytes, pali_cuda_stage_bytes;

/* --- layout.cu ---------------------------------------------------------------------- */

/* Checks w against what the kernels can do and fills m's dimensions; allocates host memory
 * for m->vision and m->text only. */
int layout_prepare(pali_model *m, const pali_weights *w, const pali_backend_options *o,
                   pali_error *err);
/* With blocks NULL in m: how large they must be, on a device of m->tune. With blocks: sets all
 * pointers. */
int layout_place(pali_model *m, pali_memory *need, pali_error *err);
/* Copies all weights to the device through pinned memory, converting and quantising them there;
 * progress and cancel by m->run. Works in m->work_block, which holds rubbish afterwards. */
int layout_upload(pali_model *m, pali_error *err);
/* The tables of angles, behind everything else. */
int layout_upload_rope(pali_model *m, pali_error *err);
void layout_done(pali_model *m);

/* --- plugin.cu ---------------------------------------------------------------------- */

/* 0, or the failure told in err; what is a phrase: "copying the weights". */
int check_cuda(cudaError_t e, const char *what, pali_error *err);

/* The frame of a long call: begin, step_queued after every step, and drain at the end.
 * total steps are reported one by one as the device finishes them. PALI_ECANCEL. */
int steps_begin(pali_model *m, pali_stage stage, int total, pali_error *err);
int step_queued(pali_model *m, pali_error *err);
int steps_drain(pali_model *m, pali_error *err);

/* --- vision.cu, decoder.cu ------------------------------------------------------------- */

/* pixels NULL: whatever is there. */
int vision_encode(pali_model *m, const float *pixels, float *out, pali_error *err);
int decoder_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                    const int32_t *ids, int n, pali_error *err);
/* Records the steps that the calls below replay; once, when all else of m is open. */
int decoder_record(pali_model *m, pali_error *err);
int decoder_step(pali_model *m, int32_t token, pali_error *err);
int decoder_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                   float *logprobs, pali_error *err);
int decoder_rewind(pali_model *m, int n, pali_error *err);
int decoder_generate(pali_model *m, const pali_generation *g, pali_error *err);

#endif
