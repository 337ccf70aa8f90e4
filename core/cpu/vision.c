/* vision.c - pixels -> SigLIP encoder -> projector -> image embeddings.
 *
 * P patches of width D, pre-norm blocks, no mask, no class token, no pooling:
 *   x = patches W + b + position
 *   x += attention(LayerNorm1 x);  x += fc2 gelu(fc1 LayerNorm2 x)     each layer
 *   out = projector(post_layernorm x)
 * The result enters the decoder as it is: image rows are not scaled by sqrt(D).  */
#include "core/cpu/model.h"

#include <math.h>
#include <string.h>

typedef struct {
    pali_model *m;
    const float *pixels;
    float *out;
} vision_job;

/* A strip of patches, feature = (channel, row, column) as the weight's flattened order. */
static void patch_task(void *arg, int strip, int worker) {
    (void)worker;
    const vision_job *j = arg;
    const pali_model *m = j->m;
    const pali_vision_config *c = &m->w->config.vision;
    int L = m->k->lanes, side = c->S / c->patch, n = c->patch * c->patch;
    float *a = m->enc.a + (size_t)strip * (size_t)(c->channels * n) * (size_t)L;
    memset(a, 0, (size_t)(c->channels * n) * (size_t)L * sizeof *a);
    for (int t = 0; t < L && strip * L + t < c->P; t++) {
        int py = (strip * L + t) / side * c->patch, px = (strip * L + t) % side * c->patch;
        for (int f = 0; f < c->channels * n; f++) {
            size_t channel = (size_t)(f / n), y = (size_t)(py + f % n / c->patch);
            size_t x = (size_t)(px + f % c->patch);
            a[(size_t)f * (size_t)L + (size_t)t] =
                j->pixels[(channel * (size_t)c->S + y) * (size_t)c->S + x];
        }
    }
}

static void position_task(void *arg, int strip, int worker) {
    const pali_model *m = ((const vision_job *)arg)->m;
    const pali_vision_config *c = &m->w->config.vision;
    const pali_matrix *p = &m->w->position;
    size_t L = (size_t)m->k->lanes, D = (size_t)c->D;
    float *row = pali_scratch(m, worker), *x = m->enc.x + (size_t)strip * D * L;
    for (size_t t = 0; t < L && (size_t)strip * L + t < (size_t)c->P; t++) {
        size_t from = ((size_t)strip * L + t) * D * pali_dtype_size(p->dtype);
        m->k->widen(p->dtype, (const unsigned char *)p->data + from, D, row);
        for (size_t d = 0; d < D; d++)
            x[d * L + t] += row[d];
    }
}

/* Keys and values of one strip and head, from strips in h to rows. */
static void keys_task(void *arg, int task, int worker) {
    (void)worker;
    const pali_model *m = ((const vision_job *)arg)->m;
    const pali_vision_config *c = &m->w->config.vision;
    int L = m->k->lanes, strip = task / c->H, head = task % c->H, left = c->P - strip * L;
    size_t E = (size_t)c->E, all = (size_t)pali_strips(m, c->P) * (size_t)c->D * (size_t)L;
    size_t from = ((size_t)strip * (size_t)c->D + (size_t)head * E) * (size_t)L;
    size_t to = ((size_t)head * (size_t)c->P + (size_t)strip * (size_t)L) * E;
    int tokens = left < L ? left : L;
    pali_strip_read(m, m->enc.h + from, c->E, tokens, m->image_k + to, E);
    pali_strip_read(m, m->enc.h + all + from, c->E, tokens, m->image_v + to, E);
}

static void output_task(void *arg, int strip, int worker) {
    (void)worker;
    const vision_job *j = arg;
    const pali_model *m = j->m;
    int L = m->k->lanes, left = m->w->config.vision.P - strip * L;
    size_t D = (size_t)m->w->config.text.D;
    pali_strip_read(m, m->enc.q + (size_t)strip * (size_t)L * D, (int)D, left < L ? left : L,
                    j->out + (size_t)strip * (size_t)L * D, D);
}

static bool encode_layer(pali_model *m, const pali_vision_layer *l, vision_job *j) {
    const pali_vision_config *c = &m->w->config.vision;
    int strips = pali_strips(m, c->P), block = pali_block_strips(m, c->P);
    size_t L = (size_t)m->k->lanes, D = (size_t)c->D, all = (size_t)strips * L * D;
    pali_norm ln1 = {.w = &l->ln1_w, .b = &l->ln1_b, .eps = c->eps};
    pali_norm ln2 = {.w = &l->ln2_w, .b = &l->ln2_b, .eps = c->eps};
    pali_linear qkv[] = {
        {.w = &l->q_w, .bias = &l->q_b, .out = m->enc.q},
        {.w = &l->k_w, .bias = &l->k_b, .out = m->enc.h},
        {.w = &l->v_w, .bias = &l->v_b, .out = m->enc.h + all},
    };
    pali_attention attention = {
        .q = m->enc.q,
        .k = m->image_k,
        .v = m->image_v,
        .head_stride = (size_t)c->P * (size_t)c->E,
        .H = c->H,
        .K = c->H,
        .E = c->E,
        .keys = c->P,
        .scale = 1.0f / sqrtf((float)c->E),
        .out = m->enc.a,
    };
    pali_linear o = {.w = &l->o_w, .bias = &l->o_b, .put = PALI_PUT_ADD, .out = m->enc.x};
    if (!pali_norm_strips(m, &ln1, m->enc.x, c->P, m->enc.a) ||
        !pali_linear_strips(m, qkv, 3, m->enc.a, c->P) ||
        !pali_tasks(m, strips * c->H, keys_task, j) || !pali_attend_strips(m, &attention, c->P) ||
        !pali_linear_strips(m, &o, 1, m->enc.a, c->P) ||
        !pali_norm_strips(m, &ln2, m->enc.x, c->P, m->enc.a))
        return false;
    for (int s = 0; s < strips; s += block) {
        int left = c->P - s * (int)L, tokens = left < block * (int)L ? left : block * (int)L;
        size_t at = (size_t)s * L * D;
        pali_linear fc1 = {
            .w = &l->fc1_w, .bias = &l->fc1_b, .put = PALI_PUT_GELU, .out = m->enc.h};
        pali_linear fc2 = {
            .w = &l->fc2_w, .bias = &l->fc2_b, .put = PALI_PUT_ADD, .out = m->enc.x + at};
        if (!pali_linear_strips(m, &fc1, 1, m->enc.a + at, tokens) ||
            !pali_linear_strips(m, &fc2, 1, m->enc.h, tokens))
            return false;
    }
    return true;
}

int pali_vision_encode(pali_model *m, const float *pixels, float *out, pali_error *err) {
    const pali_weights *w = m->w;
    const pali_vision_config *c = &w->config.vision;
    int strips = pali_strips(m, c->P), total = c->layers + 1;
    size_t all = (size_t)strips * (size_t)m->k->lanes * (size_t)c->D;
    vision_job j = {m, pixels, out};
    pali_linear patch = {.w = &w->patch_w, .bias = &w->patch_b, .out = m->enc.x};
    pali_linear projector = {.w = &m->proj, .bias = &w->proj_b, .out = m->enc.q};
    pali_norm post = {.w = &w->post_ln_w, .b = &w->post_ln_b, .eps = c->eps};

    pali_progress(m, PALI_STAGE_ENCODE, 0, total);
    memset(m->enc.x, 0, all * sizeof *m->enc.x); /* lanes past the last patch stay 0 */
    if (!pali_tasks(m, strips, patch_task, &j) ||
        !pali_linear_strips(m, &patch, 1, m->enc.a, c->P) ||
        !pali_tasks(m, strips, position_task, &j))
        return pali_stopped(err);
    for (int i = 0; i < c->layers; i++) {
        if (!encode_layer(m, &m->vision[i], &j))
            return pali_stopped(err);
        pali_progress(m, PALI_STAGE_ENCODE, i + 1, total);
    }
    if (!pali_norm_strips(m, &post, m->enc.x, c->P, m->enc.a) ||
        !pali_linear_strips(m, &projector, 1, m->enc.a, c->P) ||
        !pali_tasks(m, strips, output_task, &j))
        return pali_stopped(err);
    pali_progress(m, PALI_STAGE_ENCODE, total, total);
    return 0;
}
