/* random_model.h - small random models in memory, of awkward sizes: nothing a multiple of a
 * vector, head size times heads unlike the width, several key/value heads, inner
 * dimensions over one step of a product, every tensor at an odd address. For the tests
 * that compare whole models.                                                          */
#ifndef PALI_TEST_RANDOM_MODEL_H
#define PALI_TEST_RANDOM_MODEL_H

#include "tests/test.h"

#include "core/weights.h"

#include <math.h>

static uint32_t state = 7;
static double uniform(void) { /* in [-1, 1) */
    state = state * 1664525u + 1013904223u;
    return (double)((int32_t)state >> 8) / 8388608.0;
}

typedef struct {
    pali_weights w;
    void *owned[512];
    int n;
} random_model;

/* Element i as double: the test's own reading of the three formats. */
static inline double at(const pali_matrix *m, size_t i) {
    const unsigned char *p = m->data;
    if (m->dtype == PALI_F32) {
        float x;
        memcpy(&x, p + i * 4, 4);
        return x;
    }
    uint16_t h;
    memcpy(&h, p + i * 2, 2);
    if (m->dtype == PALI_BF16) {
        uint32_t bits = (uint32_t)h << 16;
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    int e = h >> 10 & 31, f = h & 0x3ff;
    double x = e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h & 0x8000 ? -x : x;
}

static void put(pali_matrix *m, size_t i, double v) {
    unsigned char *p = (unsigned char *)(uintptr_t)m->data;
    float x = (float)v;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (m->dtype == PALI_F32) {
        memcpy(p + i * 4, &x, 4);
        return;
    }
    uint16_t h = (uint16_t)(bits >> 16);
    if (m->dtype == PALI_F16) {
        int e;
        double f = frexp(fabs(v), &e); /* f in [0.5, 1) */
        h = v == 0 || e < -12 ? 0 : (uint16_t)((e + 14) << 10 | ((int)(f * 2048) & 0x3ff));
        h |= v < 0 ? 0x8000 : 0;
    }
    memcpy(p + i * 2, &h, 2);
}

static pali_matrix matrix(random_model *r, pali_dtype dtype, int rows, int cols, double size) {
    size_t n = (size_t)rows * (size_t)cols;
    unsigned char *p = malloc(n * pali_dtype_size(dtype) + 1);
    assert_true(p && r->n < 512);
    r->owned[r->n++] = p;
    pali_matrix m = {.dtype = dtype, .rows = rows, .cols = cols, .data = p + 1};
    for (size_t i = 0; i < n; i++)
        put(&m, i, size * uniform());
    return m;
}

static random_model *make(pali_config config, pali_dtype dtype) {
    random_model *r = calloc(1, sizeof *r);
    assert_non_null(r);
    pali_weights *w = &r->w;
    w->config = config;
    const pali_vision_config *v = &w->config.vision;
    const pali_text_config *t = &w->config.text;
    int patch = v->channels * v->patch * v->patch;
#define LINEAR(rows, cols) matrix(r, dtype, rows, cols, 1.7 / sqrt(cols))
#define VECTOR(n, size)    matrix(r, dtype, 1, n, size)
    w->patch_w = LINEAR(v->D, patch);
    w->patch_b = VECTOR(v->D, 0.2);
    w->position = matrix(r, dtype, v->P, v->D, 0.5);
    w->vision = calloc((size_t)v->layers, sizeof *w->vision);
    w->text = calloc((size_t)t->layers, sizeof *w->text);
    assert_true(w->vision && w->text);
    for (int i = 0; i < v->layers; i++) {
        pali_vision_layer *l = &w->vision[i];
        pali_matrix *square[] = {&l->q_w, &l->k_w, &l->v_w, &l->o_w};
        pali_matrix *vector[] = {&l->ln1_w, &l->ln1_b, &l->ln2_w, &l->ln2_b, &l->q_b,
                                 &l->k_b,   &l->v_b,   &l->o_b,   &l->fc2_b};
        for (int k = 0; k < 4; k++)
            *square[k] = LINEAR(v->D, v->D);
        for (int k = 0; k < 9; k++)
            *vector[k] = VECTOR(v->D, k == 0 || k == 2 ? 1.5 : 0.3);
        l->fc1_w = LINEAR(v->F, v->D);
        l->fc1_b = VECTOR(v->F, 0.3);
        l->fc2_w = LINEAR(v->D, v->F);
    }
    w->post_ln_w = VECTOR(v->D, 1.5);
    w->post_ln_b = VECTOR(v->D, 0.3);
    w->proj_w = LINEAR(t->D, v->D);
    w->proj_b = VECTOR(t->D, 0.3);
    w->embed = matrix(r, dtype, t->V, t->D, 1.7 / sqrt(t->D));
    for (int i = 0; i < t->layers; i++) {
        pali_text_layer *l = &w->text[i];
        l->attn_norm = VECTOR(t->D, 0.5);
        l->mlp_norm = VECTOR(t->D, 0.5);
        if (t->gemma == 2) {
            l->post_attn_norm = VECTOR(t->D, 0.5);
            l->post_mlp_norm = VECTOR(t->D, 0.5);
        }
        l->q_w = LINEAR(t->H * t->E, t->D);
        l->k_w = LINEAR(t->K * t->E, t->D);
        l->v_w = LINEAR(t->K * t->E, t->D);
        l->o_w = LINEAR(t->D, t->H * t->E);
        l->gate_w = LINEAR(t->F, t->D);
        l->up_w = LINEAR(t->F, t->D);
        l->down_w = LINEAR(t->D, t->F);
    }
    w->norm = VECTOR(t->D, 0.5);
    return r;
}

static void drop(random_model *r) {
    for (int i = 0; i < r->n; i++)
        free(r->owned[i]);
    free(r->w.vision);
    free(r->w.text);
    free(r);
}

/* F and the text width exceed one step of a product (256) and one block of rows (96). */
static const pali_config gemma1 = {
    .vision = {.S = 15,
               .patch = 5,
               .channels = 3,
               .P = 9,
               .layers = 2,
               .D = 33,
               .H = 3,
               .E = 11,
               .F = 37,
               .eps = 1e-6f},
    .text = {.gemma = 1,
             .layers = 3,
             .D = 45,
             .H = 5,
             .K = 1,
             .E = 14,
             .F = 311,
             .V = 101,
             .max_positions = 256,
             .eps = 1e-6f,
             .rope_theta = 10000,
             .query_scale = 0.3f},
};
static const pali_config gemma2 = {
    .vision = {.S = 36,
               .patch = 4,
               .channels = 3,
               .P = 81,
               .layers = 1,
               .D = 70,
               .H = 2,
               .E = 35,
               .F = 301,
               .eps = 1e-6f},
    .text = {.gemma = 2,
             .layers = 2,
             .D = 290,
             .H = 6,
             .K = 3,
             .E = 10,
             .F = 131,
             .V = 77,
             .max_positions = 256,
             .eps = 1e-6f,
             .rope_theta = 1000,
             .query_scale = 0.5f,
             .attn_softcap = 3,
             .final_softcap = 5},
};

static inline float *random_pixels(const pali_weights *w) {
    const pali_vision_config *c = &w->config.vision;
    size_t n = (size_t)(c->channels * c->S * c->S);
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)uniform();
    return p;
}

static inline void random_ids(const pali_weights *w, int n, int32_t *ids) {
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)((uniform() + 1) / 2 * w->config.text.V);
}

#endif
