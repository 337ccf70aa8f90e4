/* norm.c - RMSNorm and LayerNorm over the features of a token.
 *
 *   RMSNorm    x / sqrt(mean(x^2) + eps) * (1 + w)         (Gemma: the 1 is not in w)
 *   LayerNorm  (x - mean) / sqrt(variance + eps) * w + b   (variance divides by D)
 *
 * The sums run in double: they are one part in thousands of the work, and a
 * float32 sum of thousands of squares would be the largest rounding error here.
 * In strips each lane is a token, so a sum over features is a vertical one.     */
#include "core/cpu/model.h"

#include <math.h>

enum {
    LANES_MAX = 32
};

typedef struct {
    pali_model *m;
    const pali_norm *n;
    const float *x;
    float *out;
    int D;
} norm_job;

static void strip_task(void *arg, int strip, int worker) {
    const norm_job *j = arg;
    const pali_kernels *k = j->m->k;
    int L = k->lanes;
    size_t D = (size_t)j->D, at = (size_t)strip * D * (size_t)L;
    const float *x = j->x + at;
    float *out = j->out + at;
    float *w = pali_scratch(j->m, worker), *b = w + D;
    k->widen(j->n->w->dtype, j->n->w->data, D, w);
    if (j->n->b)
        k->widen(j->n->b->dtype, j->n->b->data, D, b);

    double sum[LANES_MAX] = {0};
    float mean[LANES_MAX] = {0}, inv[LANES_MAX];
    if (j->n->b) {
        for (size_t d = 0; d < D; d++)
            for (int i = 0; i < L; i++)
                sum[i] += x[d * (size_t)L + (size_t)i];
        for (int i = 0; i < L; i++) {
            mean[i] = (float)(sum[i] / (double)D);
            sum[i] = 0;
        }
    }
    for (size_t d = 0; d < D; d++)
        for (int i = 0; i < L; i++) {
            double v = x[d * (size_t)L + (size_t)i] - mean[i];
            sum[i] += v * v;
        }
    for (int i = 0; i < L; i++)
        inv[i] = (float)(1.0 / sqrt(sum[i] / (double)D + (double)j->n->eps));

    for (size_t d = 0; d < D; d++) {
        const float *s = x + d * (size_t)L;
        float *o = out + d * (size_t)L;
        if (j->n->b)
            for (int i = 0; i < L; i++)
                o[i] = (s[i] - mean[i]) * inv[i] * w[d] + b[d];
        else if (j->n->add)
            for (int i = 0; i < L; i++)
                o[i] += s[i] * inv[i] * (1.0f + w[d]);
        else
            for (int i = 0; i < L; i++)
                o[i] = s[i] * inv[i] * (1.0f + w[d]);
    }
}

bool pali_norm_strips(pali_model *m, const pali_norm *n, const float *x, int tokens, float *out) {
    norm_job j = {.m = m, .n = n, .x = x, .out = out, .D = n->w->cols};
    return pali_tasks(m, pali_strips(m, tokens), strip_task, &j);
}

void pali_norm_row(pali_model *m, const pali_norm *n, const float *x, float *out) {
    size_t D = (size_t)n->w->cols;
    float *w = pali_scratch(m, 0);
    m->k->widen(n->w->dtype, n->w->data, D, w);
    double sum = 0;
    for (size_t d = 0; d < D; d++)
        sum += (double)x[d] * x[d];
    float inv = (float)(1.0 / sqrt(sum / (double)D + (double)n->eps));
    for (size_t d = 0; d < D; d++) {
        float y = x[d] * inv * (1.0f + w[d]);
        out[d] = n->add ? out[d] + y : y;
    }
}
