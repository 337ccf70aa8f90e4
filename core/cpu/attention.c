/* attention.c - softmax(scale q k^T) v.
 *
 * There is no mask anywhere: prefill is bidirectional, and one decoded token sees all
 * positions so far and itself. Several tokens after a prefix go query by query, each
 * over the keys it sees: they are few, and the products around them are the work.
 *
 * Many queries: a task is one strip of queries of one head. It makes the scores
 * of all keys against its strip, [key][lanes] in scratch (the only thing that
 * grows with the sequence, by one strip per worker), takes the softmax down the
 * columns and mixes the values. Keys and values are read in place: the tile
 * kernel broadcasts single elements of them, so rows k[key][e] serve for the
 * scores (stride E down, 1 along) and columns of v for the mix (1 down, E along). */
#include "core/cpu/model.h"

enum {
    LANES_MAX = 32,
    KEYS_STEP = 256, /* keys mixed at a time: keeps [E][lanes] of sums and their scores in L2 */
};

typedef struct {
    pali_model *m;
    const pali_attention *a;
    int tokens;
} attend_job;

size_t pali_attend_scratch(const pali_kernels *k, int keys, int E) {
    size_t strip = (size_t)keys * (size_t)k->lanes, row = (size_t)keys + 2 * (size_t)E;
    return strip > row ? strip : row;
}

static void strip_task(void *arg, int task, int worker) {
    const attend_job *j = arg;
    const pali_attention *a = j->a;
    const pali_kernels *k = j->m->k;
    int strip = task / a->H, head = task % a->H, left = j->tokens - strip * k->lanes;
    int used = left < k->lanes ? left : k->lanes;
    size_t L = (size_t)k->lanes, E = (size_t)a->E;
    size_t at = ((size_t)strip * (size_t)a->H + (size_t)head) * E * L;
    size_t group = (size_t)(head * a->K / a->H) * a->head_stride;
    const float *q = a->q + at, *key = a->k + group, *value = a->v + group;
    float *out = a->out + at, *scores = pali_scratch(j->m, worker), inv[LANES_MAX];

    for (int i = 0; i < a->keys; i += k->rows) {
        int rows = a->keys - i < k->rows ? a->keys - i : k->rows;
        k->tile(rows, used, a->E, key + (size_t)i * E, E, 1, q, scores + (size_t)i * L, false);
    }
    k->softmax_lanes((size_t)a->keys, used, a->scale, a->softcap, scores, inv);
    for (int i = 0; i < a->keys; i += KEYS_STEP) {
        int n = a->keys - i < KEYS_STEP ? a->keys - i : KEYS_STEP;
        for (int e = 0; e < a->E; e += k->rows) {
            int rows = a->E - e < k->rows ? a->E - e : k->rows;
            k->tile(rows, used, n, value + (size_t)i * E + (size_t)e, 1, E, scores + (size_t)i * L,
                    out + (size_t)e * L, i > 0);
        }
    }
    for (size_t e = 0; e < E; e++)
        for (int i = 0; i < used; i++)
            out[e * L + (size_t)i] *= inv[i];
}

bool pali_attend_strips(pali_model *m, const pali_attention *a, int tokens) {
    attend_job j = {m, a, tokens};
    return pali_tasks(m, pali_strips(m, tokens) * a->H, strip_task, &j);
}

/* One query row of `head` over the first `keys` keys. */
static void attend_row(const attend_job *j, int head, int keys, const float *q, float *scores,
                       float *out) {
    const pali_attention *a = j->a;
    const pali_kernels *k = j->m->k;
    size_t E = (size_t)a->E, group = (size_t)(head * a->K / a->H) * a->head_stride;
    k->dot(PALI_F32, a->k + group, E * sizeof(float), keys, E, q, scores);
    k->softmax_row((size_t)keys, a->scale, a->softcap, scores);
    k->mix((size_t)keys, E, scores, a->v + group, E, out);
}

static void row_task(void *arg, int head, int worker) {
    const attend_job *j = arg;
    size_t at = (size_t)head * (size_t)j->a->E;
    attend_row(j, head, j->a->keys, j->a->q + at, pali_scratch(j->m, worker), j->a->out + at);
}

bool pali_attend_row(pali_model *m, const pali_attention *a) {
    attend_job j = {m, a, 1};
    return pali_tasks(m, a->H, row_task, &j);
}

/* One head of one query in a strip. */
static void causal_task(void *arg, int task, int worker) {
    const attend_job *j = arg;
    const pali_attention *a = j->a;
    int head = task % a->H, t = task / a->H;
    size_t L = (size_t)j->m->k->lanes, E = (size_t)a->E, strip = (size_t)t / L;
    size_t at = (strip * (size_t)a->H + (size_t)head) * E * L + (size_t)t % L;
    float *q = pali_scratch(j->m, worker), *out = q + E;
    for (size_t e = 0; e < E; e++)
        q[e] = a->q[at + e * L];
    attend_row(j, head, a->keys - j->tokens + t + 1, q, out + E, out);
    for (size_t e = 0; e < E; e++)
        a->out[at + e * L] = out[e];
}

bool pali_attend_causal(pali_model *m, const pali_attention *a, int tokens) {
    attend_job j = {m, a, tokens};
    return pali_tasks(m, a->H * tokens, causal_task, &j);
}
