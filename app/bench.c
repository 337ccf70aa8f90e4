/* bench.c - see bench.h.
 *
 * What must be done is counted from the model's shape (core/cost.h), what the processor can
 * do is measured (core/cpu/limits.h). Their quotient is the floor; a share is floor / time. Of a graphics card only times are told: its limits are not measured here. */
#include "app/bench.h"

#include "app/output.h"
#include "app/process.h"
#include "app/session.h"
#include "core/cost.h"
#include "core/cpu/limits.h"
#include "core/machine.h"
#include "ui/text.h"

#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROMPT = 32,  /* tokens after the picture's */
    TOKENS = 12,  /* decoded */
    ENOUGH_S = 3, /* a stage is repeated until this is used up, */
    RUNS = 5,     /* but not more often; the best counts */
    ROWS_MAX = 4,
};

static const pali_config paligemma_3b = {
    .vision = {.S = 224,
               .patch = 14,
               .channels = 3,
               .P = 256,
               .layers = 27,
               .D = 1152,
               .H = 16,
               .E = 72,
               .F = 4304,
               .eps = 1e-6f},
    .text = {.gemma = 1,
             .layers = 18,
             .D = 2048,
             .H = 8,
             .K = 1,
             .E = 256,
             .F = 16384,
             .V = 257216,
             .max_positions = 8192,
             .eps = 1e-6f,
             .rope_theta = 10000,
             .query_scale = 0.0625f},
    .image_token = 257152,
    .bos = 2,
    .eos = 1,
};

/* A way to run the model, and what it took. */
typedef struct {
    const char *name;
    pali_backend_options with;
    pali_memory memory;
    double load, picture, prompt, token;             /* seconds */
    double picture_share, prompt_share, token_share; /* of the limit; 0: not known */
} row;

typedef struct {
    pali_weights *weights;
    char dir[PATH_MAX]; /* "" when the weights are random */
    double made;        /* seconds that opening or making them took */
    const pali_backend *backend;
    pali_machine machine;
    pali_cpu_limits limits;
    row rows[ROWS_MAX];
    int nrows;
    const pali_run *run;
} bench;

/* --- measuring ------------------------------------------------------------------------------ */

static float *make_pixels(const pali_config *c) {
    size_t n = 3 * (size_t)c->vision.S * (size_t)c->vision.S;
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; p && i < n; i++)
        p[i] = (float)(i % 255) / 127.5f - 1;
    return p;
}

static int time_picture(bench *b, row *r, pali_model *m, const float *pixels, pali_embeds **out,
                        pali_error *err) {
    double start = app_clock();
    for (int i = 0; i < RUNS && (i == 0 || app_clock() - start < ENOUGH_S); i++) {
        if (*out)
            b->backend->embeds_free(m, *out);
        double t = app_clock();
        int rc = b->backend->encode_image(m, pixels, b->run, out, err);
        if (rc)
            return rc;
        t = app_clock() - t;
        r->picture = i == 0 || t < r->picture ? t : r->picture;
    }
    return 0;
}

static int time_prompt(bench *b, row *r, pali_model *m, const pali_embeds *e, pali_error *err) {
    int32_t ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = i == 0 ? b->weights->config.bos : 3 + i % (b->weights->config.text.V - 3);
    double start = app_clock();
    for (int i = 0; i < RUNS && (i == 0 || app_clock() - start < ENOUGH_S); i++) {
        double t = app_clock();
        int rc = b->backend->prefill(m, &e, 1, ids, PROMPT, b->run, err);
        if (rc)
            return rc;
        t = app_clock() - t;
        r->prompt = i == 0 || t < r->prompt ? t : r->prompt;
    }
    return 0;
}

/* The mean: a token that is slow is waited for as well. The first one is not counted, it
 * may be the first to touch what only decoding reads. */
static int time_tokens(bench *b, row *r, pali_model *m, pali_error *err) {
    double t = 0;
    for (int i = 0; i <= TOKENS; i++) {
        if (i == 1)
            t = app_clock();
        int rc = b->backend->decode(m, 3, b->run, err);
        if (rc)
            return rc;
    }
    r->token = (app_clock() - t) / TOKENS;
    return 0;
}

static int time_row(bench *b, row *r, const float *pixels, pali_error *err) {
    pali_model *m = NULL;
    pali_embeds *e = NULL;
    int rc = b->backend->memory(b->weights, &r->with, &r->memory, err);
    double t = app_clock();
    if (!rc)
        rc = b->backend->open(b->weights, &r->with, b->run, &m, err);
    r->load = app_clock() - t;
    if (!rc)
        rc = time_picture(b, r, m, pixels, &e, err);
    if (!rc)
        rc = time_prompt(b, r, m, e, err);
    if (!rc)
        rc = time_tokens(b, r, m, err);
    if (e)
        b->backend->embeds_free(m, e);
    b->backend->close(m);
    if (rc || b->backend != pali_backend_cpu())
        return rc;
    const pali_config *c = &b->weights->config;
    int T = c->vision.P + PROMPT;
    bool pairs = r->with.math == PALI_MATH_BF16;
    double rate = pairs ? b->limits.bf16 : b->limits.f32;
    r->picture_share = pali_cost_picture(c) / rate / r->picture;
    r->prompt_share = pali_cost_prompt(c, T) / rate / r->prompt;
    r->token_share =
        pali_cost_token(b->weights, r->with.quant, T + TOKENS / 2) / b->limits.read / r->token;
    return 0;
}

static void add_row(bench *b, const app_options *o, const char *name, pali_quant quant,
                    pali_math math) {
    int T = b->weights->config.vision.P + PROMPT;
    b->rows[b->nrows++] = (row){
        .name = name,
        .with = {.threads = o->threads, .positions = T + TOKENS + 1, .quant = quant, .math = math}};
}

/* The ways that differ here. */
static void plan_rows(bench *b, const app_options *o) {
    bool cpu = b->backend == pali_backend_cpu();
    bool pairs = cpu && b->limits.bf16 > 0 && b->weights->text[0].q_w.dtype == PALI_BF16;
    pali_math best = pairs ? PALI_MATH_BF16 : PALI_MATH_F32;
    add_row(b, o, pairs ? "as stored, exact" : "as stored", PALI_QUANT_NONE, PALI_MATH_F32);
    if (pairs)
        add_row(b, o, "as stored", PALI_QUANT_NONE, PALI_MATH_BF16);
    add_row(b, o, "int8", PALI_QUANT_INT8, best);
    add_row(b, o, "nf4", PALI_QUANT_NF4, best);
}

/* --- telling -------------------------------------------------------------------------------- */

static void add_share(FILE *f, double share) {
    if (share > 0)
        fprintf(f, " %4.0f %%", 100 * share);
    else
        fprintf(f, "      -");
}

static void tell(const bench *b, FILE *f) {
    const pali_config *c = &b->weights->config;
    char safe[PATH_MAX];
    fprintf(f, "%s, %.1f million weights, %d x %d pixels: %s\n",
            c->text.gemma == 2 ? "PaliGemma 2" : "PaliGemma", 1e-6 * (double)b->weights->params,
            c->vision.S, c->vision.S,
            *b->dir ? ui_text_clean(UI_TEXT_VALID, b->dir, safe, sizeof safe)
                    : "random, in memory");
    if (b->backend == pali_backend_cpu())
        fprintf(f, "%s, %d threads, %s: reads %.1f GB/s, multiplies %.0f GFLOP/s in float32%s",
                *b->machine.cpu ? b->machine.cpu : "processor", b->limits.threads,
                b->limits.kernels, 1e-9 * b->limits.read, 1e-9 * b->limits.f32,
                b->limits.bf16 > 0 ? "" : "\n");
    if (b->limits.bf16 > 0)
        fprintf(f, ", %.0f in bfloat16\n", 1e-9 * b->limits.bf16);
    fprintf(f, "\n%-17s %7s  %9s        %9s        %9s        %9s\n", "", "load", "picture",
            "prompt", "a token", "first");
    fprintf(f, "%-17s %7s  %9s  %5s %9s  %5s %9s  %5s %9s\n", "", "s", "ms", "share", "ms", "share",
            "ms", "share", "token ms");
    for (int i = 0; i < b->nrows; i++) {
        const row *r = &b->rows[i];
        fprintf(f, "%-17s %7.2f  %9.1f", r->name, r->load, 1e3 * r->picture);
        add_share(f, r->picture_share);
        fprintf(f, " %9.1f", 1e3 * r->prompt);
        add_share(f, r->prompt_share);
        fprintf(f, " %9.2f", 1e3 * r->token);
        add_share(f, r->token_share);
        fprintf(f, " %9.1f\n", 1e3 * (r->picture + r->prompt + r->token));
    }
    fprintf(f,
            "\nprompt: %d tokens, the picture's %d among them. share: of the limit above, by what "
            "must\nbe multiplied or read.\n",
            c->vision.P + PROMPT, c->vision.P);
}

static json_t *share(double s) {
    return s > 0 ? json_real(s) : json_null();
}

static json_t *json_of(const bench *b) {
    const pali_config *c = &b->weights->config;
    char safe[PATH_MAX];
    json_t *rows = json_array();
    for (int i = 0; i < b->nrows; i++) {
        const row *r = &b->rows[i];
        json_array_append_new(
            rows,
            json_pack("{s:s, s:f, s:f, s:o, s:f, s:o, s:f, s:o, s:I, s:I}", "precision", r->name,
                      "load_s", r->load, "picture_s", r->picture, "picture_share",
                      share(r->picture_share), "prompt_s", r->prompt, "prompt_share",
                      share(r->prompt_share), "token_s", r->token, "token_share",
                      share(r->token_share), "extra_weight_bytes", (json_int_t)r->memory.weights,
                      "workspace_bytes", (json_int_t)(r->memory.workspace + r->memory.kv)));
    }
    json_t *limits = b->limits.read > 0
                         ? json_pack("{s:s, s:i, s:s, s:f, s:f, s:o}", "cpu", b->machine.cpu,
                                     "threads", b->limits.threads, "kernels", b->limits.kernels,
                                     "read_bytes_s", b->limits.read, "f32_flop_s", b->limits.f32,
                                     "bf16_flop_s", share(b->limits.bf16))
                         : json_null();
    return json_pack("{s:s, s:i, s:I, s:i, s:s, s:i, s:f, s:o, s:o}", "model",
                     *b->dir ? ui_text_clean(UI_TEXT_VALID, b->dir, safe, sizeof safe) : "random",
                     "generation", c->text.gemma, "weights", (json_int_t)b->weights->params,
                     "image_size", c->vision.S, "backend", b->backend->name, "prompt_tokens",
                     c->vision.P + PROMPT, "open_s", b->made, "limits", limits, "rows", rows);
}

static int print(const bench *b, bool json, pali_error *err) {
    char *text = NULL;
    size_t n;
    if (json) {
        json_t *j = json_of(b);
        text = j ? json_dumps(j, JSON_ENSURE_ASCII | JSON_COMPACT) : NULL;
        json_decref(j);
    } else {
        FILE *f = open_memstream(&text, &n);
        if (f) {
            tell(b, f);
            fclose(f);
        }
    }
    int rc = text ? app_out_string(text, err) : pali_fail_nomem(err, "printing the table");
    if (!rc && json)
        rc = app_out_string("\n", err);
    free(text);
    return rc;
}

/* --- the verb ------------------------------------------------------------------------------- */

static int make_random(bench *b, pali_error *err) {
    uint64_t need = (uint64_t)7 << 30; /* the weights as they are and once more as int8, in part */
    if (b->machine.available && b->machine.available < need)
        return pali_fail(err, PALI_ENOMEM, "measure a model that you have, with -m, or --demo",
                         "a random model of full size takes %llu GB, and %.1f GB are free",
                         (unsigned long long)(need >> 30),
                         (double)b->machine.available / (1 << 30));
    app_err_status("making a model");
    return pali_weights_random(&paligemma_3b, &b->weights, err);
}

static int open_weights(bench *b, const app_options *o, pali_error *err) {
    double t = app_clock();
    int rc = app_session_find_model(o, b->dir, sizeof b->dir, err);
    if (!rc)
        rc = *b->dir ? pali_weights_open(b->dir, &b->weights, err) : make_random(b, err);
    if (!rc)
        rc = pali_weights_prepare(b->weights, o->threads, b->run, err);
    b->made = app_clock() - t;
    return rc;
}

int app_bench_run(const app_options *o, pali_error *err) {
    const pali_run how = {.cancel = app_process_stop_flag()};
    bench b = {.run = &how};
    float *pixels = NULL;
    app_process_catch_signals();
    pali_machine_look("", &b.machine);
    int rc = pali_backend_find(o->backend, &b.backend, err);
    if (!rc && b.backend == pali_backend_cpu()) {
        app_err_status("measuring the processor");
        rc = pali_cpu_limits_measure(o->threads, &b.limits, err);
    }
    if (!rc)
        rc = open_weights(&b, o, err);
    if (!rc) {
        pixels = make_pixels(&b.weights->config);
        if (!pixels)
            rc = pali_fail_nomem(err, "making a picture");
        plan_rows(&b, o);
    }
    for (int i = 0; !rc && i < b.nrows; i++) {
        char line[80];
        snprintf(line, sizeof line, "measuring: %s (%d of %d)", b.rows[i].name, i + 1, b.nrows);
        app_err_status(line);
        rc = time_row(&b, &b.rows[i], pixels, err);
    }
    app_err_progress_clear();
    if (!rc)
        rc = print(&b, o->json, err);
    free(pixels);
    pali_weights_close(b.weights);
    return rc;
}
