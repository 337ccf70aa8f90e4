/* decoder.c - Gemma 1 and Gemma 2: prefill of a prefix, then one token at a time or
 * several known ones together.
 *
 *   Gemma 1   x += o attn(norm x)             x += down(gelu(gate y) * up y), y = norm x
 *   Gemma 2   the same, but what is added goes through a norm of its own first, and
 *             scores and logits are soft-capped
 *
 * Text rows are the embedding times sqrt(D); image rows come as they are. Prefix
 * positions all see each other, so the keys and values of a layer are complete
 * before its first query is answered. Positions count from 0.
 *
 * Only the last position's logits are wanted: in the last layer all positions give
 * keys and values, and the rest of the layer is done for one row. Tokens that are
 * known beforehand (extend) are all wanted: they go through whole layers, like a prefix
 * but causal.                                                                      */
#include "core/cpu/model.h"
#include "core/timeline.h"

#include <math.h>
#include <string.h>

/* --- the key/value cache ------------------------------------------------------- */

/* Keys (which 0) or values (1) of one layer: [K][positions][E]. */
static float *cache(const pali_model *m, int layer, int which) {
    const pali_text_config *c = &m->w->config.text;
    return m->kv +
           ((size_t)layer * 2 + (size_t)which) * (size_t)c->K * (size_t)m->positions * (size_t)c->E;
}

/* --- RoPE ------------------------------------------------------------------------ */

void pali_decoder_rope(pali_model *m) {
    const pali_text_config *c = &m->w->config.text;
    size_t L = (size_t)m->k->lanes, half = (size_t)c->E / 2;
    for (size_t i = 0; i < half; i++) {
        double freq = pow((double)c->rope_theta, -2.0 * (double)i / (double)c->E);
        for (size_t p = 0; p < (size_t)m->positions; p++) {
            float *at = m->rope + (p / L * 2 * half + i) * L + p % L;
            at[0] = (float)cos((double)p * freq);
            at[half * L] = (float)sin((double)p * freq);
        }
    }
}

/* Rotates pairs (i, i + E / 2) of one head in a strip, lane t by position t of the
 * strip. Halves, not neighbours. */
static void rope_strip(const pali_model *m, int strip, float *x) {
    size_t n = (size_t)m->w->config.text.E / 2 * (size_t)m->k->lanes;
    const float *cosine = m->rope + (size_t)strip * 2 * n, *sine = cosine + n;
    for (size_t i = 0; i < n; i++) {
        float a = x[i], b = x[i + n];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + n] = b * cosine[i] + a * sine[i];
    }
}

/* Elements `step` floats apart. */
static void rope_row(const pali_model *m, int position, float *x, size_t step) {
    size_t half = (size_t)m->w->config.text.E / 2, L = (size_t)m->k->lanes;
    const float *cosine = m->rope + (size_t)position / L * 2 * half * L + (size_t)position % L;
    const float *sine = cosine + half * L;
    for (size_t i = 0; i < half; i++) {
        float *u = x + i * step, *v = u + half * step;
        float a = *u, b = *v, co = cosine[i * L], si = sine[i * L];
        *u = a * co - b * si;
        *v = b * co + a * si;
    }
}

/* --- one token --------------------------------------------------------------------- */

static void embed_row(const pali_model *m, int32_t id, float *out) {
    const pali_matrix *e = &m->w->embed;
    size_t D = (size_t)e->cols;
    m->k->widen(e->dtype,
                (const unsigned char *)e->data + (size_t)id * D * pali_dtype_size(e->dtype), D,
                out);
    float scale = (float)sqrt((double)D);
    for (size_t d = 0; d < D; d++)
        out[d] *= scale;
}

static pali_norm rms(const pali_model *m, const pali_matrix *w, bool add) {
    return (pali_norm){.w = w, .eps = m->w->config.text.eps, .add = add};
}

static pali_attention attention(const pali_model *m, int layer, const float *q, int keys,
                                float *out) {
    const pali_text_config *c = &m->w->config.text;
    return (pali_attention){
        .q = q,
        .k = cache(m, layer, 0),
        .v = cache(m, layer, 1),
        .head_stride = (size_t)m->positions * (size_t)c->E,
        .H = c->H,
        .K = c->K,
        .E = c->E,
        .keys = keys,
        .scale = c->query_scale,
        .softcap = c->attn_softcap,
        .out = out,
    };
}

/* Adds a product of `in` to row_x, through post (Gemma 2) when it has data. */
static bool add_row(pali_model *m, const pali_matrix *w, const pali_matrix *post, const float *in) {
    pali_linear l = {.w = w, .put = PALI_PUT_ADD, .out = m->row_x};
    if (!post->data)
        return pali_linear_row(m, &l, 1, in);
    l.put = PALI_PUT;
    l.out = m->row_y;
    if (!pali_linear_row(m, &l, 1, in))
        return false;
    pali_norm n = rms(m, post, true);
    pali_norm_row(m, &n, m->row_y, m->row_x);
    return true;
}

/* A layer from the query on (row_q, rotated), for the token in row_x. */
static bool finish_row(pali_model *m, int layer, int keys) {
    const pali_text_layer *l = &m->text[layer];
    pali_attention a = attention(m, layer, m->row_q, keys, m->row_a);
    if (!pali_attend_row(m, &a) || !add_row(m, &l->o_w, &l->post_attn_norm, m->row_a))
        return false;
    pali_norm n = rms(m, &l->mlp_norm, false);
    pali_norm_row(m, &n, m->row_x, m->row_a);
    pali_linear gate = {.w = &l->gate_w, .up = &l->up_w, .put = PALI_PUT_GATED, .out = m->row_h};
    return pali_linear_row(m, &gate, 1, m->row_a) &&
           add_row(m, &l->down_w, &l->post_mlp_norm, m->row_h);
}

static bool head(pali_model *m) {
    pali_norm n = rms(m, &m->w->norm, false);
    pali_norm_row(m, &n, m->row_x, m->row_a);
    return pali_linear_logits(m, &m->head, m->row_a, m->w->config.text.final_softcap, m->logits);
}

static bool step_layer(pali_model *m, int layer) {
    const pali_text_config *c = &m->w->config.text;
    const pali_text_layer *l = &m->text[layer];
    size_t E = (size_t)c->E, at = (size_t)m->filled * E;
    pali_norm n = rms(m, &l->attn_norm, false);
    pali_norm_row(m, &n, m->row_x, m->row_a);
    pali_linear qkv[] = {
        {.w = &l->q_w, .out = m->row_q},
        {.w = &l->k_w, .out = m->row_k},
        {.w = &l->v_w, .out = m->row_v},
    };
    if (!pali_linear_row(m, qkv, 3, m->row_a))
        return false;
    for (int h = 0; h < c->H; h++)
        rope_row(m, m->filled, m->row_q + (size_t)h * E, 1);
    for (int k = 0; k < c->K; k++) {
        size_t to = (size_t)k * (size_t)m->positions * E + at;
        rope_row(m, m->filled, m->row_k + (size_t)k * E, 1);
        memcpy(cache(m, layer, 0) + to, m->row_k + (size_t)k * E, E * sizeof(float));
        memcpy(cache(m, layer, 1) + to, m->row_v + (size_t)k * E, E * sizeof(float));
    }
    return finish_row(m, layer, m->filled + 1);
}

int pali_decoder_step(pali_model *m, int32_t token, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int rc = pali_check_decode(&m->w->config, m->positions, m->filled, token, err);
    if (rc)
        return rc;
    embed_row(m, token, m->row_x);
    pali_progress(m, PALI_STAGE_DECODE, 0, c->layers + 1);
    for (int i = 0; i < c->layers; i++) {
        if (!step_layer(m, i))
            return pali_stopped(err);
        pali_progress(m, PALI_STAGE_DECODE, i + 1, c->layers + 1);
    }
    if (!head(m))
        return pali_stopped(err);
    m->filled++;
    pali_progress(m, PALI_STAGE_DECODE, c->layers + 1, c->layers + 1);
    return 0;
}

/* --- prefill ------------------------------------------------------------------------ */

typedef struct {
    pali_model *m;
    const pali_embeds *const *embeds;
    const int32_t *ids;
    int images; /* tokens of all images */
    int tokens;
    int first; /* position of token 0; not 0: causal, after what is there */
    int layer;
    bool queries; /* rotate these too */
} prefill_job;

static int lanes_used(const prefill_job *j, int strip) {
    int left = j->tokens - strip * j->m->k->lanes;
    return left < j->m->k->lanes ? left : j->m->k->lanes;
}

static void embed_task(void *arg, int strip, int worker) {
    const prefill_job *j = arg;
    const pali_model *m = j->m;
    int L = m->k->lanes, P = m->w->config.vision.P;
    size_t D = (size_t)m->w->config.text.D;
    float *x = m->dec.x + (size_t)strip * (size_t)L * D, *row = pali_scratch(m, worker);
    memset(x, 0, (size_t)L * D * sizeof *x); /* lanes past the last token stay 0 */
    for (int t = 0; t < lanes_used(j, strip); t++) {
        int at = strip * L + t;
        const float *from = row;
        if (at < j->images)
            from = j->embeds[at / P]->data + (size_t)(at % P) * D;
        else
            embed_row(m, j->ids[at - j->images], row);
        for (size_t d = 0; d < D; d++)
            x[d * (size_t)L + (size_t)t] = from[d];
    }
}

/* RoPE of one head in a strip: strips of the table start at position 0, those of an
 * extension anywhere. */
static void rope_head(const prefill_job *j, int strip, float *x) {
    int L = j->m->k->lanes;
    if (j->first == 0)
        rope_strip(j->m, strip, x);
    for (int t = 0; j->first && t < lanes_used(j, strip); t++)
        rope_row(j->m, j->first + strip * L + t, x + t, (size_t)L);
}

/* One strip: rotates queries and keys, moves keys and values to the cache. */
static void cache_task(void *arg, int strip, int worker) {
    (void)worker;
    const prefill_job *j = arg;
    const pali_model *m = j->m;
    const pali_text_config *c = &m->w->config.text;
    size_t L = (size_t)m->k->lanes, E = (size_t)c->E, KE = (size_t)c->K * E;
    float *keys = m->dec.h + (size_t)strip * KE * L;
    float *values = keys + (size_t)pali_strips(m, j->tokens) * KE * L;
    for (int h = 0; j->queries && h < c->H; h++)
        rope_head(j, strip, m->dec.q + ((size_t)strip * (size_t)c->H + (size_t)h) * E * L);
    for (int k = 0; k < c->K; k++) {
        size_t from = (size_t)k * E * L, position = (size_t)j->first + (size_t)strip * L;
        size_t to = ((size_t)k * (size_t)m->positions + position) * E;
        rope_head(j, strip, keys + from);
        pali_strip_read(m, keys + from, c->E, lanes_used(j, strip), cache(m, j->layer, 0) + to, E);
        pali_strip_read(m, values + from, c->E, lanes_used(j, strip), cache(m, j->layer, 1) + to,
                        E);
    }
}

/* Adds a product of `tokens` tokens from `in` to x, both starting at strip; q is free. */
static bool add_strips(pali_model *m, const pali_matrix *w, const pali_matrix *post,
                       const float *in, int strip, int tokens) {
    float *x = m->dec.x + (size_t)strip * (size_t)m->k->lanes * (size_t)w->rows;
    pali_linear l = {.w = w, .put = PALI_PUT_ADD, .out = x};
    if (!post->data)
        return pali_linear_strips(m, &l, 1, in, tokens);
    l.put = PALI_PUT;
    l.out = m->dec.q;
    pali_norm n = rms(m, post, true);
    return pali_linear_strips(m, &l, 1, in, tokens) && pali_norm_strips(m, &n, m->dec.q, tokens, x);
}

/* Keys and values of a layer for all tokens, and the queries in q when wanted. */
static bool prefill_keys(pali_model *m, prefill_job *j) {
    const pali_text_layer *l = &m->text[j->layer];
    size_t values = (size_t)pali_strips(m, j->tokens) * (size_t)m->k->lanes * (size_t)l->k_w.rows;
    pali_norm n = rms(m, &l->attn_norm, false);
    pali_linear qkv[] = {
        {.w = &l->k_w, .out = m->dec.h},
        {.w = &l->v_w, .out = m->dec.h + values},
        {.w = &l->q_w, .out = m->dec.q},
    };
    return pali_norm_strips(m, &n, m->dec.x, j->tokens, m->dec.a) &&
           pali_linear_strips(m, qkv, j->queries ? 3 : 2, m->dec.a, j->tokens) &&
           pali_tasks(m, pali_strips(m, j->tokens), cache_task, j);
}

static bool prefill_layer(pali_model *m, prefill_job *j) {
    const pali_text_layer *l = &m->text[j->layer];
    int T = j->tokens, strips = pali_strips(m, T), block = pali_block_strips(m, T);
    size_t L = (size_t)m->k->lanes, D = (size_t)l->mlp_norm.cols;
    pali_norm n = rms(m, &l->mlp_norm, false);
    pali_attention a = attention(m, j->layer, m->dec.q, j->first + T, m->dec.a);
    if (!prefill_keys(m, j) ||
        !(j->first ? pali_attend_causal(m, &a, T) : pali_attend_strips(m, &a, T)) ||
        !add_strips(m, &l->o_w, &l->post_attn_norm, m->dec.a, 0, T) ||
        !pali_norm_strips(m, &n, m->dec.x, T, m->dec.a))
        return false;
    for (int s = 0; s < strips; s += block) {
        int left = T - s * (int)L, tokens = left < block * (int)L ? left : block * (int)L;
        pali_linear gate = {
            .w = &l->gate_w, .up = &l->up_w, .put = PALI_PUT_GATED, .out = m->dec.h};
        if (!pali_linear_strips(m, &gate, 1, m->dec.a + (size_t)s * L * D, tokens) ||
            !add_strips(m, &l->down_w, &l->post_mlp_norm, m->dec.h, s, tokens))
            return false;
    }
    return true;
}

/* The last layer: keys and values of all, the rest for the last token alone. */
static bool prefill_last(pali_model *m, prefill_job *j) {
    const pali_text_config *c = &m->w->config.text;
    const pali_text_layer *l = &m->text[j->layer];
    size_t L = (size_t)m->k->lanes, D = (size_t)c->D, last = (size_t)j->tokens - 1;
    if (!prefill_keys(m, j))
        return false;
    pali_strip_read(m, m->dec.x + last / L * D * L + last % L, c->D, 1, m->row_x, D);
    pali_norm n = rms(m, &l->attn_norm, false);
    pali_norm_row(m, &n, m->row_x, m->row_a);
    pali_linear q = {.w = &l->q_w, .out = m->row_q};
    if (!pali_linear_row(m, &q, 1, m->row_a))
        return false;
    for (int h = 0; h < c->H; h++)
        rope_row(m, (int)last, m->row_q + (size_t)h * (size_t)c->E, 1);
    return finish_row(m, j->layer, j->tokens);
}

int pali_decoder_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                         const int32_t *ids, int n, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int64_t images = (int64_t)nembeds * m->w->config.vision.P, tokens = images + n;
    m->filled = 0;
    int rc = pali_check_prefill(&m->w->config, m->positions, nembeds, ids, n, err);
    if (rc)
        return rc;

    prefill_job j = {.m = m,
                     .embeds = embeds,
                     .ids = ids,
                     .images = (int)images,
                     .tokens = (int)tokens,
                     .queries = true};
    pali_progress(m, PALI_STAGE_PREFILL, 0, c->layers + 1);
    if (!pali_tasks(m, pali_strips(m, j.tokens), embed_task, &j))
        return pali_stopped(err);
    for (; j.layer < c->layers; j.layer++) {
        j.queries = j.layer + 1 < c->layers;
        if (!(j.queries ? prefill_layer(m, &j) : prefill_last(m, &j)))
            return pali_stopped(err);
        pali_progress(m, PALI_STAGE_PREFILL, j.layer + 1, c->layers + 1);
    }
    if (!head(m))
        return pali_stopped(err);
    m->filled = m->prefix = j.tokens;
    pali_progress(m, PALI_STAGE_PREFILL, c->layers + 1, c->layers + 1);
    return 0;
}

/* --- several known tokens ---------------------------------------------------------------- */

typedef struct {
    pali_model *m;
    const int32_t *targets;
    int tokens, row, rows; /* logits of ids row .. row + rows - 1, in dec.h */
} score_job;

/* One strip of logits [rows][lanes] into the running softmax of its tokens: the largest
 * logit so far, the sum of e^(logit - largest), and the target's logit. */
static void score_task(void *arg, int strip, int worker) {
    (void)worker;
    const score_job *j = arg;
    const pali_model *m = j->m;
    int L = m->k->lanes, left = j->tokens - strip * L, used = left < L ? left : L;
    size_t n = (size_t)j->rows * (size_t)L;
    float *x = m->dec.h + (size_t)strip * n, cap = m->w->config.text.final_softcap;
    if (cap > 0)
        m->k->softcap(n, cap, x);
    for (int i = 0; i < used; i++) {
        int token = strip * L + i, at = j->targets[token] - j->row;
        float top = m->top[token];
        if (at >= 0 && at < j->rows)
            m->aim[token] = x[at * L + i];
        for (size_t r = (size_t)i; r < n; r += (size_t)L)
            top = fmaxf(top, x[r]);
        for (size_t r = (size_t)i; r < n; r += (size_t)L)
            x[r] -= top;
        m->sum[token] *= expf(m->top[token] - top);
        m->top[token] = top;
    }
    m->k->exp(n, x);
    for (int i = 0; i < used; i++) {
        double sum = 0;
        for (size_t r = (size_t)i; r < n; r += (size_t)L)
            sum += (double)x[r];
        m->sum[strip * L + i] += (float)sum;
    }
}

/* The head for all of dec.x, as many ids at a time as the space of the MLP holds. */
static bool score(pali_model *m, const int32_t *targets, int vocab, int tokens, float *logprobs) {
    const pali_matrix *h = &m->head;
    pali_norm n = rms(m, &m->w->norm, false);
    if (!pali_norm_strips(m, &n, m->dec.x, tokens, m->dec.a))
        return false;
    for (int t = 0; t < tokens; t++) {
        m->top[t] = -INFINITY;
        m->sum[t] = 0;
    }
    score_job j = {.m = m, .targets = targets, .tokens = tokens};
    for (; j.row < vocab; j.row += j.rows) {
        j.rows = vocab - j.row < m->w->config.text.F ? vocab - j.row : m->w->config.text.F;
        size_t size = h->dtype == PALI_INT8 ? 1 : pali_dtype_size(h->dtype);
        size_t before = (size_t)j.row * (size_t)h->cols * size;
        pali_matrix part = {.dtype = h->dtype,
                            .rows = j.rows,
                            .cols = h->cols,
                            .data = (const unsigned char *)h->data + before,
                            .scales = h->scales ? h->scales + j.row : NULL};
        pali_linear l = {.w = &part, .put = PALI_PUT, .out = m->dec.h};
        if (!pali_linear_strips(m, &l, 1, m->dec.a, tokens) ||
            !pali_tasks(m, pali_strips(m, tokens), score_task, &j))
            return false;
    }
    for (int t = 0; t < tokens; t++)
        logprobs[t] = m->aim[t] - m->top[t] - logf(m->sum[t]);
    return true;
}

int pali_decoder_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                        float *logprobs, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int rc = pali_check_extend(&m->w->config, m->positions, m->filled, ids, n, targets, vocab, err);
    if (rc)
        return rc;
    for (int done = 0; done < n; done += PALI_BLOCK_TOKENS) {
        int left = n - done, tokens = left < PALI_BLOCK_TOKENS ? left : PALI_BLOCK_TOKENS;
        prefill_job j = {.m = m,
                         .ids = ids + done,
                         .tokens = tokens,
                         .first = m->filled + done,
                         .queries = true};
        pali_progress(m, PALI_STAGE_DECODE, 0, c->layers + 1);
        if (!pali_tasks(m, pali_strips(m, tokens), embed_task, &j))
            return pali_stopped(err);
        for (; j.layer < c->layers; j.layer++) {
            if (!prefill_layer(m, &j))
                return pali_stopped(err);
            pali_progress(m, PALI_STAGE_DECODE, j.layer + 1, c->layers + 1);
        }
        if (!score(m, targets + done, vocab, tokens, logprobs + done))
            return pali_stopped(err);
        pali_progress(m, PALI_STAGE_DECODE, c->layers + 1, c->layers + 1);
    }
    m->filled += n;
    return 0;
}

int pali_decoder_rewind(pali_model *m, int n, pali_error *err) {
    if (m->filled == 0 || n < m->prefix || n > m->filled)
        return pali_fail(err, PALI_EARG, NULL, "%d positions cannot be cut to %d", m->filled, n);
    m->filled = n;
    return 0;
}
