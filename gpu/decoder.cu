/* decoder.cu - Gemma 1 and Gemma 2 on the device: prefill of a prefix through products of
 * many rows, then one token at a time through the fused kernels of gemv.cu and attend.cu.
 * The steps are those of core/cpu/decoder.c.
 *
 * A decode step is one recorded graph: token and position in, five kernels a layer, one for
 * the embedding and one for the head, logits out. It is recorded when the model is opened
 * and replayed for every token, which is possible because nothing in it depends on the
 * position but through device memory. Generating replays another: it ends with the
 * sampler, which leaves token and position where the next step reads them, and the logits
 * stay on the device; the host keeps at most LAG steps queued and reads tokens from a ring.
 *
 * Prefill works layer by layer on all rows, because every position of a prefix sees every
 * other: the keys and values of a layer are complete before its first query. Attention goes
 * in tiles of queries, the MLP in chunks of CHUNK_ROWS. The last layer makes keys and values
 * of all rows and then is a decode step's layer for the last row.                      */
#include "gpu/port.cuh"

#include "core/timeline.h"
#include "gpu/model.h"
#include "gpu/rule.cuh"

#include <math.h>
#include <string.h>

/* Keys (0) or values (1) of one layer. */
static void *cache(const pali_model *m, int layer, int which) {
    const pali_text_config *c = &m->w->config.text;
    return m->kv + ((int64_t)layer * 2 + which) * c->K * m->positions * ld8(c->E) * 2;
}

/* --- one row ---------------------------------------------------------------------------- */

/* row_x through one layer, at the position in m->state. */
static void row_layer(pali_model *m, int layer) {
    const pali_text_config *c = &m->w->config.text;
    const text_layer *l = &m->text[layer];

    qkv_args q = {};
    q.x = m->row_x;
    q.D = c->D;
    q.norm = l->attn_norm;
    q.eps = c->eps;
    q.w = l->qkv;
    q.H = c->H, q.K = c->K, q.E = c->E;
    q.state = m->state;
    q.rope = m->rope;
    q.q = m->row_q;
    q.k = cache(m, layer, 0);
    q.v = cache(m, layer, 1);
    q.ldkv = ld8(c->E);
    q.positions = m->positions;
    qkv_step(m->half, &q, &m->tune, m->stream);

    attend_args a = {};
    a.q = m->row_q;
    a.k = q.k;
    a.v = q.v;
    a.ldkv = q.ldkv;
    a.positions = m->positions;
    a.H = c->H, a.K = c->K, a.E = c->E;
    a.scale = c->query_scale;
    a.cap = c->attn_softcap;
    a.state = m->state;
    a.partial = m->partial;
    a.counter = m->counters;
    a.out = m->row_a;
    attend_step(m->half, &a, &m->tune, m->stream);

    add_args o = {};
    o.in = m->row_a;
    o.n = c->H * c->E;
    o.w = l->o;
    o.D = c->D;
    o.x = m->row_x;
    o.norm = l->post_attn_norm;
    o.eps = c->eps;
    o.y = m->row_y;
    o.counter = m->counters;
    add_step(m->half, &o, &m->tune, m->stream);

    norm_gemv_args g = {};
    g.x = m->row_x;
    g.D = c->D;
    g.norm = l->mlp_norm;
    g.eps = c->eps;
    g.w = l->gate_up;
    g.rows = 2 * c->F;
    g.out = m->row_h;
    gated_step(m->half, &g, &m->tune, m->stream);

    o.in = m->row_h;
    o.n = c->F;
    o.w = l->down;
    o.norm = l->post_mlp_norm;
    add_step(m->half, &o, &m->tune, m->stream);
}

static void head(pali_model *m) {
    const pali_text_config *c = &m->w->config.text;
    norm_gemv_args g = {};
    g.x = m->row_x;
    g.D = c->D;
    g.norm = m->norm;
    g.eps = c->eps;
    g.w = m->head;
    g.rows = c->V;
    g.out = m->logits;
    g.cap = c->final_softcap;
    head_step(m->half, &g, &m->tune, m->stream);
}

/* Logits of row_x, on their way to the host. */
static int send_logits(pali_model *m, pali_error *err) {
    size_t V = (size_t)m->w->config.text.V;
    head(m);
    return check_cuda(cudaMemcpyAsync(m->host_logits, m->logits, V * sizeof(float),
                                      cudaMemcpyDeviceToHost, m->stream),
                      "computing an answer", err);
}

static float embed_scale(const pali_model *m) {
    return (float)sqrt((double)m->w->config.text.D);
}

static int send_state(pali_model *m, pali_error *err) {
    return check_cuda(cudaMemcpyAsync(m->state, m->host_state, sizeof *m->state,
                                      cudaMemcpyHostToDevice, m->stream),
                      "computing an answer", err);
}

/* The token in m->state to row_x behind all layers. */
static void queue_token(pali_model *m) {
    const pali_text_config *c = &m->w->config.text;
    embed_step(m->half, m->embed, ld8(c->D), m->state, c->D, embed_scale(m), m->row_x, m->stream);
    for (int i = 0; i < c->layers; i++)
        row_layer(m, i);
}

static void queue_sample(pali_model *m, bool draws) {
    sample_args a = {};
    a.logits = m->logits;
    a.V = m->w->config.text.V;
    a.draw = m->draw;
    a.keys = m->draw_keys;
    a.state = m->state;
    a.ring = m->ring;
    sample_step(&a, draws, &m->tune, m->stream);
}

/* Steps that are recorded. */
enum recorded {
    GREEDY,
    DRAWN, /* of a turn: the token last sampled, and the next one from its logits */
    GIVEN  /* host_state in, host_logits out */
};

static int queue_step(pali_model *m, int kind, pali_error *err) {
    if (kind != GIVEN) {
        queue_token(m);
        head(m);
        queue_sample(m, kind == DRAWN);
        return 0;
    }
    int rc = send_state(m, err);
    if (rc)
        return rc;
    queue_token(m);
    return send_logits(m, err);
}

/* What a turn samples with, behind what was drawn before, which is forgotten. */
static int send_rule(pali_model *m, const draw_rule *r, pali_error *err) {
    *m->host_rule = *r;
    int rc = check_cuda(cudaMemsetAsync(m->draw, 0, sizeof *m->draw, m->stream),
                        "computing an answer", err);
    return rc ? rc
              : check_cuda(cudaMemcpyAsync(m->draw, m->host_rule, sizeof *r, cudaMemcpyHostToDevice,
                                           m->stream),
                           "computing an answer", err);
}

static int record(pali_model *m, int kind, cudaGraphExec_t *to, pali_error *err) {
    static const char what[] = "preparing the first answer";
    cudaGraph_t graph = NULL;
    int rc =
        check_cuda(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal), what, err);
    if (rc)
        return rc;
    rc = queue_step(m, kind, err);
    int end = check_cuda(cudaStreamEndCapture(m->stream, &graph), what, err);
    if (!rc && !end)
        rc = check_cuda(cudaGraphInstantiate(to, graph, 0), what, err);
    if (!rc && !end) /* else the first replay would do it, and take memory in a turn */
        rc = check_cuda(cudaGraphUpload(*to, m->stream), what, err);
    if (graph)
        cudaGraphDestroy(graph);
    return rc ? rc : end;
}

/* Runs every kernel for nothing first: what the runtime loads on first use is then loaded, and
 * a device that cannot run them says so now. Nobody needs what the cache holds. */
int decoder_record(pali_model *m, pali_error *err) {
    static const char what[] = "preparing the first answer";
    pali_sampling s = {};
    s.temperature = 1;
    draw_rule r = draw_rule_of(&s, m->w->config.text.V, 0);
    m->host_state->token = m->host_state->position = 0;
    int rc = queue_step(m, GIVEN, err);
    if (!rc)
        rc = send_rule(m, &r, err);
    if (rc)
        return rc;
    queue_sample(m, false);
    queue_sample(m, true);
    rc = check_cuda(cudaGetLastError(), what, err);
    if (!rc)
        rc = check_cuda(cudaStreamSynchronize(m->stream), what, err);
    if (!rc)
        rc = record(m, GIVEN, &m->step, err);
    if (!rc)
        rc = record(m, GREEDY, &m->turn[0], err);
    return rc ? rc : record(m, DRAWN, &m->turn[1], err);
}

/* Token number i of a turn, of logits that are there or of the token before. */
static int queue_turn(pali_model *m, bool draws, bool logits, int i, pali_error *err) {
    static const char what[] = "computing an answer";
    int rc = 0;
    if (logits)
        queue_sample(m, draws);
    else
        rc = check_cuda(cudaGraphLaunch(m->turn[draws], m->stream), what, err);
    if (!rc)
        rc = check_cuda(cudaGetLastError(), what, err);
    return rc ? rc : check_cuda(cudaEventRecord(m->events[i % EVENTS], m->stream), what, err);
}

static int stopped(const pali_model *m, pali_error *err) {
    bool stop = m->run->cancel && m->run->cancel->load();
    return stop ? pali_fail(err, PALI_ECANCEL, NULL, "stopped") : 0;
}

/* When the last token is handed out, eos or not, and when a stop is seen, LAG - 1 steps are under
 * way at most, and are waited for: one, 1.4 ms of a 3B model in bf16 at 700 tokens a second. To cut
 * it short each of its 92 kernels would have to wait for a flag first, in every step. */
int decoder_generate(pali_model *m, const pali_generation *g, pali_error *err) {
    static const char what[] = "computing an answer";
    if (m->filled == 0)
        return pali_fail(err, PALI_EARG, NULL, "there is no prefix to continue");
    if (g->vocab < 1 || g->vocab > m->w->config.text.V || g->max < 1)
        return pali_fail(err, PALI_EARG, NULL, "nothing is to be sampled");
    bool given = g->first >= 0;
    if (given && pali_check_id(&m->w->config, g->first, err) != 0)
        return PALI_EARG;
    if (g->max > m->positions - m->filled + !given) /* the last token takes no place */
        return pali_fail(err, PALI_ELIMIT, "start again with a larger context",
                         "the context of %d positions has no room for %d more tokens", m->positions,
                         g->max);
    bool draws = g->sampling.temperature > 0, more = true;
    draw_rule r = draw_rule_of(&g->sampling, g->vocab, g->counter);
    m->host_state->token = given ? g->first : 0;
    m->host_state->position = m->filled - !given; /* sampling goes on to the next */
    int rc = send_rule(m, &r, err), queued = 0, got = 0;
    if (!rc)
        rc = send_state(m, err);
    while (rc == 0 && more && got < g->max) {
        rc = stopped(m, err); /* while a token was handed out: nothing more is queued then */
        for (; rc == 0 && queued < g->max && queued - got < LAG; queued++)
            rc = queue_turn(m, draws, !given && queued == 0, queued, err);
        if (!rc)
            rc = check_cuda(cudaEventSynchronize(m->events[got % EVENTS]), what, err);
        if (rc)
            break;
        if ((rc = stopped(m, err)))
            break;
        drawn d = m->ring[got % RING];
        if (d.token < 0) {
            rc = pali_fail(err, PALI_EFORMAT, "the weights are damaged: download them again",
                           "the model computed no usable logits");
            break;
        }
        got++;
        more = g->token(g->user, d.token, pali_rule_logprob(d.logit, d.top, d.sum, r.bits)) &&
               d.token != g->eos;
    }
    m->filled += got > 0 ? got - 1 + given : 0;
    return rc;
}

int decoder_step(pali_model *m, int32_t token, pali_error *err) {
    int rc = pali_check_decode(&m->w->config, m->positions, m->filled, token, err);
    if (rc)
        return rc;
    rc = steps_begin(m, PALI_STAGE_DECODE, 1, err);
    if (rc)
        return rc;
    m->host_state->token = token;
    m->host_state->position = m->filled;
    rc = check_cuda(cudaGraphLaunch(m->step, m->stream), "computing an answer", err);
    if (!rc)
        rc = step_queued(m, err);
    if (!rc)
        rc = steps_drain(m, err);
    if (!rc)
        m->filled++;
    return rc;
}

/* --- several known tokens, one by one ----------------------------------------------------- */

/* log softmax(logits[0 .. n))[target] */
static float log_probability(const float *logits, int n, int32_t target) {
    float top = logits[0];
    double sum = 0;
    for (int i = 1; i < n; i++)
        top = fmaxf(top, logits[i]);
    for (int i = 0; i < n; i++)
        sum += expf(logits[i] - top);
    return logits[target] - top - (float)log(sum);
}

int decoder_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                   float *logprobs, pali_error *err) {
    int rc = pali_check_extend(&m->w->config, m->positions, m->filled, ids, n, targets, vocab, err);
    if (rc)
        return rc;
    int before = m->filled;
    for (int i = 0; i < n && rc == 0; i++) {
        rc = decoder_step(m, ids[i], err);
        if (!rc)
            logprobs[i] = log_probability(m->host_logits, vocab, targets[i]);
    }
    if (rc)
        m->filled = before;
    return rc;
}

int decoder_rewind(pali_model *m, int n, pali_error *err) {
    if (m->filled == 0 || n < m->prefix || n > m->filled)
        return pali_fail(err, PALI_EARG, NULL, "%d positions cannot be cut to %d", m->filled, n);
    m->filled = n;
    return 0;
}

/* --- prefill ------------------------------------------------------------------------------ */

/* g.c = g.a times rows first .. first + g.n - 1 of w; quantised ones in slabs of 16 bits. */
static int weight_product(pali_model *m, gemm_args g, const weight *w, int first, pali_error *err) {
    g.ldb = w->form == FORM_HALF ? w->ld : ld8(g.k);
    if (w->form == FORM_HALF) {
        g.b = half_at(w->w, first * w->ld);
        return gemm(m->gemm, &g, m->stream, err);
    }
    int all = g.n, most = (int)(m->slab_elements / g.ldb) / 8 * 8, rc = 0;
    unsigned char *c = (unsigned char *)g.c;
    g.b = m->dec.slab;
    for (int r = 0; r < all && rc == 0; r += most) {
        g.n = all - r < most ? all - r : most;
        g.c = c + (size_t)r * (g.out == GEMM_F32 ? sizeof(float) : 2);
        dequantize(m->half, w, first + r, g.n, g.k, m->dec.slab, g.ldb, m->stream);
        rc = gemm(m->gemm, &g, m->stream, err);
    }
    return rc;
}

/* Keys and values of rows 0 .. T - 1 to the cache, and rotated queries to dec.q when wanted. */
static int prefill_keys(pali_model *m, int layer, int T, bool queries, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    const text_layer *l = &m->text[layer];
    int64_t ld = ld8(c->D);
    int HE = c->H * c->E, first = queries ? 0 : HE, n = HE + 2 * c->K * c->E - first;
    rms_norm(m->half, m->dec.x, ld, T, c->D, c->eps, l->attn_norm, m->dec.a, ld, m->stream);
    gemm_args g = product(m, T, n, c->D, m->dec.a, ld, NULL, 0, m->dec.qkv, ld8(n));
    g.out = GEMM_F32;
    int rc = weight_product(m, g, &l->qkv, first, err);
    if (rc)
        return rc;
    rope_args r = {};
    r.qkv = m->dec.qkv;
    r.ld = ld8(n);
    r.first = first;
    r.rows = T;
    r.H = c->H, r.K = c->K, r.E = c->E;
    r.rope = m->rope;
    r.q = m->dec.q;
    r.ldq = ld8(HE);
    r.k = cache(m, layer, 0);
    r.v = cache(m, layer, 1);
    r.ldkv = ld8(c->E);
    r.positions = m->positions;
    rope_rows(m->half, &r, m->stream);
    return 0;
}

/* dec.a = attention of dec.q over all T rows. The query heads of one key/value head are a
 * batch that reads the same keys. */
static int prefill_attend(pali_model *m, int layer, int T, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int64_t ldq = ld8((int64_t)c->H * c->E), lds = ld8(T), ldkv = ld8(c->E);
    if (m->tune.flash) {
        flash_args f = {};
        f.q = m->dec.q;
        f.ldq = f.ldo = ldq;
        f.k = cache(m, layer, 0);
        f.v = cache(m, layer, 1);
        f.ldk = f.ldv = ldkv;
        f.head_kv = m->positions * ldkv;
        f.rows = f.keys = f.prefix = T;
        f.H = c->H, f.K = c->K, f.E = c->E;
        f.scale = c->query_scale;
        f.cap = c->attn_softcap;
        f.out = m->dec.a;
        flash_rows(m->half, &f, m->stream);
        return 0;
    }
    int most = (int)(m->score_floats / ((size_t)c->H * (size_t)lds)), G = c->H / c->K, rc = 0;
    most = most < T ? most : T;
    for (int t = 0; t < T && rc == 0; t += most) {
        int rows = T - t < most ? T - t : most;
        for (int g = 0; g < c->K && rc == 0; g++) {
            int64_t head = (int64_t)g * G;
            gemm_args s = product(m, rows, T, c->E, half_at(m->dec.q, t * ldq + head * c->E), ldq,
                                  half_at(cache(m, layer, 0), g * (int64_t)m->positions * ldkv),
                                  ldkv, m->scores + head * rows * lds, lds);
            s.out = GEMM_F32;
            s.scale = c->query_scale;
            s.batch = G;
            s.stride_a = c->E;
            s.stride_c = rows * lds;
            rc = gemm(m->gemm, &s, m->stream, err);
        }
        if (rc)
            break;
        softmax_rows(m->half, m->scores, lds, (int64_t)c->H * rows, T, c->attn_softcap, m->probs,
                     lds, m->stream);
        for (int g = 0; g < c->K && rc == 0; g++) {
            int64_t head = (int64_t)g * G;
            gemm_args o = product(m, rows, c->E, T, half_at(m->probs, head * rows * lds), lds,
                                  half_at(cache(m, layer, 1), g * (int64_t)m->positions * ldkv),
                                  ldkv, half_at(m->dec.a, t * ldq + head * c->E), ldq);
            o.b_kn = true;
            o.batch = G;
            o.stride_a = rows * lds;
            o.stride_c = c->E;
            rc = gemm(m->gemm, &o, m->stream, err);
        }
    }
    return rc;
}

/* dec.x rows t .. += a W', through the post-norm when there is one. */
static int prefill_add(pali_model *m, int t, gemm_args g, const weight *w, const float *post,
                       pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int64_t ld = ld8(c->D);
    g.out = GEMM_F32;
    g.c = (post ? m->dec.y : m->dec.x) + t * ld;
    g.ldc = ld;
    g.add = !post;
    int rc = weight_product(m, g, w, 0, err);
    if (!rc && post)
        rms_norm_add(m->dec.y + t * ld, ld, g.m, c->D, c->eps, post, m->dec.x + t * ld, ld,
                     m->stream);
    return rc;
}

/* What the hidden values of the MLP are multiplied by while they are of the 16-bit type. Those of
 * Gemma 2 leave f16's range (65504), and this moves it to 8 million; what it loses at the other
 * end are steps of 4e-6. All else that is kept in 16 bits is a norm's output or comes of one. */
static float hidden_scale(const pali_model *m) {
    return m->half == HALF_F16 ? 1.0f / 128 : 1;
}

static int prefill_layer(pali_model *m, int layer, int T, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    const text_layer *l = &m->text[layer];
    int HE = c->H * c->E;
    int64_t ld = ld8(c->D), lda = ld8(HE), ldg = ld8(2 * (int64_t)c->F), ldh = ld8(c->F);
    int rc = prefill_keys(m, layer, T, true, err);
    if (!rc)
        rc = prefill_attend(m, layer, T, err);
    if (!rc)
        rc = prefill_add(m, 0, product(m, T, c->D, HE, m->dec.a, lda, NULL, 0, NULL, 0), &l->o,
                         l->post_attn_norm, err);
    if (rc)
        return rc;
    rms_norm(m->half, m->dec.x, ld, T, c->D, c->eps, l->mlp_norm, m->dec.a, ld, m->stream);
    for (int t = 0; t < T && rc == 0; t += CHUNK_ROWS) {
        int rows = T - t < CHUNK_ROWS ? T - t : CHUNK_ROWS;
        gemm_args gu = product(m, rows, 2 * c->F, c->D, half_at(m->dec.a, t * ld), ld, NULL, 0,
                               m->dec.gu, ldg);
        gu.out = GEMM_F32;
        rc = weight_product(m, gu, &l->gate_up, 0, err);
        if (rc)
            break;
        geglu_rows(m->half, m->dec.gu, ldg, rows, c->F, hidden_scale(m), m->dec.h, ldh, m->stream);
        gemm_args down = product(m, rows, c->D, c->F, m->dec.h, ldh, NULL, 0, NULL, 0);
        down.scale = 1 / hidden_scale(m);
        rc = prefill_add(m, t, down, &l->down, l->post_mlp_norm, err);
    }
    return rc;
}

/* dec.x = [images][embedding of ids]. Image rows are not scaled. */
static int gather(pali_model *m, const pali_embeds *const *embeds, int nembeds, const int32_t *ids,
                  int n, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int64_t ld = ld8(c->D), image = m->w->config.vision.P * ld;
    int rc = 0;
    for (int i = 0; i < nembeds && rc == 0; i++)
        rc = check_cuda(cudaMemcpyAsync(m->dec.x + i * image, embeds[i]->rows,
                                        (size_t)image * sizeof(float), cudaMemcpyDeviceToDevice,
                                        m->stream),
                        "reading the question", err);
    if (rc || n == 0)
        return rc;
    memcpy(m->host_ids, ids, (size_t)n * sizeof *ids);
    rc = check_cuda(cudaMemcpyAsync(m->ids, m->host_ids, (size_t)n * sizeof *ids,
                                    cudaMemcpyHostToDevice, m->stream),
                    "reading the question", err);
    if (!rc)
        embed_rows(m->half, m->embed, ld, m->ids, n, c->D, embed_scale(m),
                   m->dec.x + nembeds * image, ld, m->stream);
    return rc;
}

int decoder_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                    const int32_t *ids, int n, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    int64_t tokens = (int64_t)nembeds * m->w->config.vision.P + n;
    m->filled = 0;
    int rc = pali_check_prefill(&m->w->config, m->positions, nembeds, ids, n, err);
    if (rc)
        return rc;

    int T = (int)tokens, last = c->layers - 1;
    rc = steps_begin(m, PALI_STAGE_PREFILL, c->layers + 1, err);
    if (!rc)
        rc = gather(m, embeds, nembeds, ids, n, err);
    for (int i = 0; i < (m->trial && last > 1 ? 1 : last) && rc == 0; i++) {
        rc = prefill_layer(m, i, T, err);
        if (!rc)
            rc = step_queued(m, err);
    }
    if (!rc)
        rc = prefill_keys(m, last, T, false, err);
    m->host_state->token = 0;
    m->host_state->position = T - 1;
    if (!rc)
        rc = send_state(m, err);
    if (!rc)
        rc = check_cuda(cudaMemcpyAsync(m->row_x, m->dec.x + (T - 1) * ld8(c->D),
                                        (size_t)c->D * sizeof(float), cudaMemcpyDeviceToDevice,
                                        m->stream),
                        "reading the question", err);
    if (rc)
        return rc;
    row_layer(m, last);
    rc = step_queued(m, err);
    if (!rc)
        rc = send_logits(m, err);
    if (!rc)
        rc = step_queued(m, err);
    if (!rc)
        rc = steps_drain(m, err);
    if (!rc)
        m->filled = m->prefix = T;
    return rc;
}
