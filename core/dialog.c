/* dialog.c - one conversation about one image, or several.
 *
 * Holds the pictures (reuse.h keeps their embeddings) and the turns so far. A turn is:
 * encode what is not, build the prefix, prefill it unless it is the one in the timeline,
 * then sample and append one token at a time. A second turn computes exactly what a
 * fresh run would.                                                                     */
#include "core/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DEFAULT_MAX_TOKENS = 256
};

typedef struct pali_dialog_turn turn;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *pali_stop_name(pali_stop s) {
    switch (s) {
    case PALI_STOP_EOS:
        return "eos";
    case PALI_STOP_LENGTH:
        return "length";
    case PALI_STOP_CONTEXT:
        return "context";
    case PALI_STOP_CANCEL:
        return "cancel";
    }
    return "?";
}

void pali_result_close(pali_result *r) {
    free(r->text);
    free(r->tokens);
    free(r->logprobs);
    free(r->objects);
    *r = (pali_result){0};
}

/* --- opening, picture ------------------------------------------------------------ */

int pali_dialog_open(pali_engine *e, pali_dialog **out, pali_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out)
        return pali_fail_nomem(err, "starting a chat");
    (*out)->engine = e;
    return 0;
}

static void release(pali_engine *e, pali_seen **images, size_t n) {
    while (n)
        pali_reuse_release(e, images[--n]);
    free(images);
}

void pali_dialog_close(pali_dialog *d) {
    if (!d)
        return;
    release(d->engine, d->images, d->nimages);
    pali_dialog_drop_turns(d, d->nturns);
    free(d->turns);
    free(d->texts);
    free(d);
}

int pali_dialog_set_images(pali_dialog *d, const pali_image *const *images, size_t n, bool forget,
                           pali_error *err) {
    pali_engine *e = d->engine;
    size_t P = (size_t)e->weights->config.vision.P;
    if (n > ((size_t)e->context - 8) / P)
        return pali_fail(err, PALI_ELIMIT, "show fewer images, or make the context larger",
                         "%zu images take %zu positions each, but the context has only %d", n, P,
                         e->context);
    pali_seen **seen = malloc((n + 1) * sizeof *seen);
    int rc = seen ? 0 : pali_fail_nomem(err, "preparing the images");
    size_t held = 0;
    for (; held < n && !rc; held += !rc)
        rc = pali_reuse_hold(e, images[held], &seen[held], err);
    if (rc) {
        release(e, seen, held);
        return rc;
    }
    release(e, d->images, d->nimages);
    d->images = seen;
    d->nimages = n;
    d->width = pali_image_full_width(images[0]);
    d->height = pali_image_full_height(images[0]);
    if (forget)
        pali_dialog_drop_turns(d, d->nturns);
    return 0;
}

int pali_dialog_set_image(pali_dialog *d, const pali_image *image, bool forget, pali_error *err) {
    return pali_dialog_set_images(d, &image, 1, forget, err);
}

int pali_dialog_encode(pali_dialog *d, const pali_run *run, pali_error *err) {
    if (!d->nimages)
        return pali_fail(err, PALI_EARG, "open an image first", "there is no image to ask about");
    int rc = 0;
    for (size_t i = 0; i < d->nimages && !rc; i++)
        rc = pali_reuse_encode(d->engine, d->images[i], run, err);
    return rc;
}

/* --- turns ------------------------------------------------------------------------ */

size_t pali_dialog_turns(const pali_dialog *d, const pali_turn_text **out) {
    *out = d->texts;
    return d->nturns;
}

int pali_dialog_add_turn(pali_dialog *d, const char *question, const char *answer,
                         pali_error *err) {
    if (d->nturns == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 8;
        turn *turns = realloc(d->turns, cap * sizeof *turns);
        if (turns)
            d->turns = turns;
        pali_turn_text *texts = realloc(d->texts, cap * sizeof *texts);
        if (texts)
            d->texts = texts;
        if (!turns || !texts)
            return pali_fail_nomem(err, "keeping the chat");
        d->cap = cap;
    }
    turn t = {strdup(question), strdup(answer)};
    if (!t.question || !t.answer) {
        free(t.question);
        free(t.answer);
        return pali_fail_nomem(err, "keeping the chat");
    }
    d->turns[d->nturns] = t;
    d->texts[d->nturns] = (pali_turn_text){t.question, t.answer};
    d->nturns++;
    return 0;
}

void pali_dialog_drop_turns(pali_dialog *d, size_t n) {
    while (n-- && d->nturns) {
        turn *t = &d->turns[--d->nturns];
        free(t->question);
        free(t->answer);
    }
}

/* --- one turn --------------------------------------------------------------------- */

/* The answer while it grows. */
typedef struct {
    const pali_ask *ask;
    pali_detokenizer detok;
    char *text;
    size_t n, cap;
    int32_t *tokens; /* as sampled, the final eos included */
    float *logprobs;
    size_t *ends; /* where the text of each ends */
    size_t ntokens, tokens_cap;
} answer;

/* Appends whole characters of one token's bytes (token < 0: the end) and hands them
 * out. The text is a C string, so a NUL the model spells out becomes U+FFFD. */
static int answer_add(answer *a, const pali_tokenizer *tok, int32_t token, float logprob,
                      pali_error *err) {
    size_t nbytes = 0;
    const char *bytes = token < 0 ? "" : pali_tokenizer_peek(tok, token, &nbytes);
    size_t room = 3 * (nbytes + PALI_DETOKENIZER_ROOM) * 2;
    if (a->n + room + 1 > a->cap) {
        size_t cap = 2 * (a->n + room + 1);
        char *text = realloc(a->text, cap);
        if (!text)
            return pali_fail_nomem(err, "keeping the answer");
        a->text = text;
        a->cap = cap;
    }
    char *from = a->text + a->n;
    size_t n = token < 0 ? pali_detokenizer_finish(&a->detok, from)
                         : pali_detokenizer_feed(&a->detok, bytes, nbytes, from);
    for (size_t i = 0; i < n; i++) {
        if (from[i])
            continue;
        memmove(from + i + 3, from + i + 1, n - i - 1);
        memcpy(from + i, "\xEF\xBF\xBD", 3);
        n += 2;
        i += 2;
    }
    a->n += n;
    a->text[a->n] = 0;
    if (token >= 0)
        a->ends[a->ntokens - 1] = a->n;
    if (a->ask->on_piece && (token >= 0 || n)) {
        pali_piece piece = {from, n, token, logprob, (int)a->ntokens - (token >= 0)};
        a->ask->on_piece(a->ask->user, &piece);
    }
    return 0;
}

static int answer_keep_token(answer *a, int32_t token, float logprob, pali_error *err) {
    if (a->ntokens == a->tokens_cap) {
        size_t cap = a->tokens_cap ? 2 * a->tokens_cap : 64;
        int32_t *tokens = realloc(a->tokens, cap * sizeof *tokens);
        if (tokens)
            a->tokens = tokens;
        float *logprobs = realloc(a->logprobs, cap * sizeof *logprobs);
        if (logprobs)
            a->logprobs = logprobs;
        size_t *ends = realloc(a->ends, cap * sizeof *ends);
        if (ends)
            a->ends = ends;
        if (!tokens || !logprobs || !ends)
            return pali_fail_nomem(err, "keeping the answer");
        a->tokens_cap = cap;
    }
    a->ends[a->ntokens] = a->n;
    a->logprobs[a->ntokens] = logprob;
    a->tokens[a->ntokens++] = token;
    return 0;
}

/* How sure the model was of the four locations that o begins with. */
static float score_of(const answer *a, const pali_object *o) {
    static const char four[] = "<loc0000><loc0000><loc0000><loc0000>";
    size_t i = 0, n = 0;
    double sum = 0;
    while (i < a->ntokens && a->ends[i] <= o->from)
        i++;
    for (; i < a->ntokens && (n == 0 || a->ends[i - 1] < o->from + sizeof four - 1); i++, n++)
        sum += (double)a->logprobs[i];
    return n ? (float)exp(sum / (double)n) : 0;
}

static void trace(const pali_ask *ask, const char *name, bool is_int, const void *data, int ndim,
                  size_t d0, size_t d1, size_t d2) {
    if (!ask->on_tensor)
        return;
    pali_traced t = {name, is_int, ndim, {d0, d1, d2}, data};
    ask->on_tensor(ask->user, &t);
}

/* Hands out what the prefill is about to see. Costs copies, so only when asked for. */
static int trace_inputs(pali_dialog *d, const pali_ask *ask, const int32_t *ids, size_t n,
                        pali_error *err) {
    if (!ask->on_tensor)
        return 0;
    pali_engine *e = d->engine;
    const pali_config *c = &e->weights->config;
    size_t S = (size_t)c->vision.S, P = (size_t)c->vision.P, D = (size_t)c->text.D;
    size_t images = d->nimages * P;
    float *pixels = malloc(3 * S * S * sizeof *pixels), *embeds = malloc(P * D * sizeof *embeds);
    int32_t *prefix = malloc((images + n) * sizeof *prefix);
    int rc = pixels && embeds && prefix ? 0 : pali_fail_nomem(err, "writing tensors");
    for (size_t i = 0; i < d->nimages && !rc; i++) {
        char number[24] = "", name[48];
        if (i)
            snprintf(number, sizeof number, "%zu", i + 1);
        rc = e->backend->embeds_read(e->model, d->images[i]->embeds, embeds, err);
        if (rc)
            break;
        pali_image_normalize(&d->images[i]->square, pixels);
        snprintf(name, sizeof name, "pixel_values%s", number);
        trace(ask, name, false, pixels, 3, 3, S, S);
        snprintf(name, sizeof name, "image_embeds%s", number);
        trace(ask, name, false, embeds, 2, P, D, 0);
    }
    if (!rc) {
        for (size_t i = 0; i < images; i++)
            prefix[i] = c->image_token;
        memcpy(prefix + images, ids, n * sizeof *ids);
        trace(ask, "prefix_ids", true, prefix, 1, images + n, 0, 0);
    }
    free(pixels);
    free(embeds);
    free(prefix);
    return rc;
}

static bool cancelled(const pali_run *run) {
    return run && run->cancel && atomic_load(run->cancel);
}

/* What the answer's tokens go through, wherever they are sampled. */
typedef struct {
    const pali_engine *engine;
    answer *a;
    size_t max_tokens, room;
    int32_t eos;
    pali_stop stop;
    int rc;
    pali_error *err;
} sink;

/* false: the answer ends, stop says why, or rc what failed. */
static bool take_token(void *user, int32_t token, float logprob) {
    sink *s = user;
    answer *a = s->a;
    s->rc = answer_keep_token(a, token, logprob, s->err);
    s->stop = PALI_STOP_EOS;
    if (token == s->eos || s->rc)
        return false;
    s->rc = answer_add(a, s->engine->tokenizer, token, logprob, s->err);
    s->stop = a->ntokens == s->max_tokens ? PALI_STOP_LENGTH : PALI_STOP_CONTEXT;
    return s->rc == 0 && a->ntokens != s->max_tokens && a->ntokens != s->room;
}

/* Samples and appends until the answer ends; *stop says why. The first token is of the
 * prefix's logits, which are kept; the backend's own are them unless it was reused. A backend
 * that can generate by itself does so, but where the logits are asked for. */
static int generate(pali_dialog *d, const pali_ask *ask, const pali_run *run, int room, bool reused,
                    void *scratch, answer *a, pali_stop *stop, pali_error *err) {
    pali_engine *e = d->engine;
    size_t V = (size_t)e->weights->config.text.V;
    int most = ask->max_tokens ? ask->max_tokens : DEFAULT_MAX_TOKENS;
    /* Every turn of a seed gets its own stretch of random numbers. */
    uint64_t counter = (uint64_t)d->nturns << 32;
    sink s = {.engine = e,
              .a = a,
              .max_tokens = (size_t)most,
              .room = (size_t)room,
              .eos = pali_tokenizer_eos(e->tokenizer),
              .err = err};
    bool by_itself = e->backend->generate && !ask->on_tensor && room > 0, more = true;
    int32_t token = -1;
    int rc = 0;
    while (rc == 0 && more && !(by_itself && (a->ntokens > 0 || !reused))) {
        const float *logits = a->ntokens ? e->backend->logits(e->model) : e->reuse.logits;
        trace(ask, "logits", false, logits, 1, V, 0, 0);
        float logprob;
        token = pali_sample(logits, (int)e->vocab, &ask->sampling, counter + a->ntokens, scratch,
                            &logprob);
        if (token < 0)
            return pali_fail(err, PALI_EFORMAT, "the weights are damaged: download them again",
                             "the model computed no usable logits");
        more = take_token(&s, token, logprob);
        if (more && !by_itself)
            rc = cancelled(run) ? PALI_ECANCEL : e->backend->decode(e->model, token, run, err);
    }
    if (more && by_itself) {
        pali_generation g = {.first = token,
                             .sampling = ask->sampling,
                             .counter = counter + a->ntokens,
                             .vocab = (int)e->vocab,
                             .max = (most < room ? most : room) - (int)a->ntokens,
                             .eos = s.eos,
                             .token = take_token,
                             .user = &s};
        rc = e->backend->generate(e->model, &g, run, err);
    }
    rc = s.rc ? s.rc : rc;
    if (!rc)
        *stop = s.stop;
    return rc;
}

/* Ids of the question with as much history as fits beside an answer. */
static int build_prefix(pali_dialog *d, const char *prompt, const pali_ask *ask, int32_t **ids,
                        size_t *n, size_t *used, pali_error *err) {
    int space = d->engine->context - (int)d->nimages * d->engine->weights->config.vision.P;
    int max_tokens = ask->max_tokens ? ask->max_tokens : DEFAULT_MAX_TOKENS;
    int reserve = max_tokens < space / 2 ? max_tokens : space / 2;

    /* A question that got no answer teaches the model nothing. */
    pali_turn_text *turns = malloc((d->nturns + 1) * sizeof *turns);
    if (!turns)
        return pali_fail_nomem(err, "building the prompt");
    size_t nturns = 0;
    for (size_t i = 0; i < d->nturns; i++)
        if (*d->texts[i].answer)
            turns[nturns++] = d->texts[i];
    int rc = pali_prompt_build(d->engine->tokenizer, turns, nturns, ask->history, prompt,
                               (size_t)(space - reserve), ids, n, used, err);
    free(turns);
    return rc;
}

int pali_dialog_ask(pali_dialog *d, const char *prompt, const pali_ask *ask, const pali_run *run,
                    pali_result *out, pali_error *err) {
    pali_engine *e = d->engine;
    const pali_config *c = &e->weights->config;
    *out = (pali_result){.stop = PALI_STOP_CANCEL};
    if (ask->max_tokens < 0 || !(ask->sampling.temperature >= 0))
        return pali_fail(err, PALI_EARG, NULL, "the answer's length or temperature is negative");

    answer a = {.ask = ask};
    int32_t *ids = NULL;
    size_t nids = 0;
    void *scratch = malloc((size_t)e->vocab * 8);
    a.text = calloc(1, 1);
    a.cap = 1;
    int rc = scratch && a.text ? 0 : pali_fail_nomem(err, "asking");
    if (!rc)
        rc = build_prefix(d, prompt, ask, &ids, &nids, &out->turns_used, err);
    if (rc)
        goto out;
    out->prefix_tokens = (int)d->nimages * c->vision.P + (int)nids;

    double t0 = now();
    bool encoded = true;
    for (size_t i = 0; i < d->nimages; i++)
        encoded = encoded && d->images[i]->embeds;
    rc = pali_dialog_encode(d, run, err);
    double t1 = now();
    out->encode_s = encoded ? 0 : t1 - t0;
    if (!rc)
        rc = trace_inputs(d, ask, ids, nids, err);
    t1 = now();
    if (!rc)
        rc = pali_reuse_prefix(e, d->images, d->nimages, ids, nids, run, &out->reused, err);
    double t2 = now();
    out->prefill_s = out->reused ? 0 : t2 - t1;
    if (!rc)
        rc = generate(d, ask, run, e->context - out->prefix_tokens, out->reused, scratch, &a,
                      &out->stop, err);
    out->decode_s = now() - t2;
    if (rc && rc != PALI_ECANCEL) {
        pali_reuse_forget_prefix(e);
        goto out;
    }
    rc = answer_add(&a, e->tokenizer, -1, 0, err);
    if (!rc)
        rc = pali_locate(a.text, a.n, d->width, d->height, &out->objects, &out->nobjects, err);
    for (size_t i = 0; !rc && i < out->nobjects; i++)
        out->objects[i].score = score_of(&a, &out->objects[i]);
    if (!rc)
        rc = pali_dialog_add_turn(d, prompt, a.text, err);
    if (rc)
        goto out;
    trace(ask, "output_ids", true, a.tokens, 1, a.ntokens, 0, 0);
    out->text = a.text;
    out->tokens = a.tokens;
    out->logprobs = a.logprobs;
    out->ntokens = a.ntokens - (out->stop == PALI_STOP_EOS);
    a.text = NULL;
    a.tokens = NULL;
    a.logprobs = NULL;
out:
    if (rc)
        pali_result_close(out);
    free(a.text);
    free(a.tokens);
    free(a.logprobs);
    free(a.ends);
    free(ids);
    free(scratch);
    return rc;
}
