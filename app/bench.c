/* bench.c - see bench.h.
 *
 * What must be done is counted from the model's shape (core/cost.h), what the processor can
 * do is measured (core/cpu/limits.h). Their quotient is the floor; a share is floor / time. Times
 * are medians, and told with the least and the most. A virtual processor's limits move by a tenth
 * from minute to minute, so they are measured before every row and after the last, and a row's
 * shares are of the better of the two around it. Of a graphics card only times are told: its
 * limits are not measured here.                                                             */
#include "app/bench.h"

#include "app/output.h"
#include "app/process.h"
#include "app/session.h"
#include "core/cost.h"
#include "core/cpu/kernels.h"
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
    TOKENS = 32,  /* decoded */
    ENOUGH_S = 3, /* picture and prompt are repeated until this is used up, */
    RUNS = 3,     /* but so often at least, */
    RUNS_MAX = 9, /* and not more often */
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

/* Of several times, in seconds. */
typedef struct {
    double median, least, most;
    double share; /* of the limit, by the median; 0: not known */
} timing;

/* A way to run the model, and what it took. */
typedef struct {
    const char *name;
    pali_backend_options with;
    pali_memory memory;
    pali_cpu_limits limits; /* around it */
    double load;            /* seconds */
    timing picture, prompt, token;
} row;

typedef struct {
    pali_weights *weights;
    char dir[PATH_MAX]; /* "" when the weights are random */
    double made;        /* seconds that opening or making them took */
    const pali_backend *backend;
    pali_machine machine;
    pali_cpu_limits limits; /* the best of all */
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

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static timing timing_of(double *s, int n) {
    qsort(s, (size_t)n, sizeof *s, by_size);
    return (timing){.median = (s[n / 2] + s[(n - 1) / 2]) / 2, .least = s[0], .most = s[n - 1]};
}

/* Whether a stage that began at start is to be run for the i-th time. */
static bool again(int i, double start) {
    return i < RUNS || (i < RUNS_MAX && app_clock() - start < ENOUGH_S);
}

static int time_picture(bench *b, row *r, pali_model *m, const float *pixels, pali_embeds **out,
                        pali_error *err) {
    double start = app_clock(), s[RUNS_MAX];
    int n = 0;
    for (; again(n, start); n++) {
        if (*out)
            b->backend->embeds_free(m, *out);
        double t = app_clock();
        int rc = b->backend->encode_image(m, pixels, b->run, out, err);
        if (rc)
            return rc;
        s[n] = app_clock() - t;
    }
    r->picture = timing_of(s, n);
    return 0;
}

static int time_prompt(bench *b, row *r, pali_model *m, const pali_embeds *e, pali_error *err) {
    int32_t ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = i == 0 ? b->weights->config.bos : 3 + i % (b->weights->config.text.V - 3);
    double start = app_clock(), s[RUNS_MAX];
    int n = 0;
    for (; again(n, start); n++) {
        double t = app_clock();
        int rc = b->backend->prefill(m, &e, 1, ids, PROMPT, b->run, err);
        if (rc)
            return rc;
        s[n] = app_clock() - t;
    }
    r->prompt = timing_of(s, n);
    return 0;
}

/* The first one is not counted, it may be the first to touch what only decoding reads. */
static int time_tokens(bench *b, row *r, pali_model *m, pali_error *err) {
    double s[1 + TOKENS];
    for (int i = 0; i <= TOKENS; i++) {
        double t = app_clock();
        int rc = b->backend->decode(m, 3, b->run, err);
        if (rc)
            return rc;
        s[i] = app_clock() - t;
    }
    r->token = timing_of(s + 1, TOKENS);
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
    return rc;
}

static void raise(pali_cpu_limits *to, const pali_cpu_limits *by) {
    to->read = by->read > to->read ? by->read : to->read;
    to->f32 = by->f32 > to->f32 ? by->f32 : to->f32;
    to->bf16 = by->bf16 > to->bf16 ? by->bf16 : to->bf16;
    to->kernels = by->kernels;
    to->threads = by->threads;
}

/* Before the i-th row, i up to nrows: for it, for the one before it and for all. */
static int measure_limits(bench *b, const app_options *o, int i, pali_error *err) {
    pali_cpu_limits now;
    if (b->backend != pali_backend_cpu())
        return 0;
    app_err_status("measuring the processor");
    int rc = pali_cpu_limits_measure(o->threads, &now, err);
    if (rc)
        return rc;
    raise(&b->limits, &now);
    if (i < b->nrows)
        raise(&b->rows[i].limits, &now);
    if (i > 0)
        raise(&b->rows[i - 1].limits, &now);
    return 0;
}

static void find_shares(const bench *b, row *r) {
    const pali_config *c = &b->weights->config;
    int T = c->vision.P + PROMPT;
    double rate = r->with.math == PALI_MATH_BF16 ? r->limits.bf16 : r->limits.f32;
    r->picture.share = pali_cost_picture(c) / rate / r->picture.median;
    r->prompt.share = pali_cost_prompt(c, T) / rate / r->prompt.median;
    r->token.share =
        pali_cost_token(b->weights, &r->with, T + TOKENS / 2) / r->limits.read / r->token.median;
}

static void add_row(bench *b, const app_options *o, const char *name, pali_quant quant,
                    pali_math math) {
    int T = b->weights->config.vision.P + PROMPT;
    b->rows[b->nrows++] = (row){.name = name,
                                .with = {.threads = o->threads,
                                         .positions = T + TOKENS + 1,
                                         .quant = quant,
                                         .math = math,
                                         .quant_all = o->quant_all,
                                         .head8 = o->head8}};
}

/* The ways that differ here, as far as the options ask for them. */
static void plan_rows(bench *b, const app_options *o) {
    bool cpu = b->backend == pali_backend_cpu(), any = o->quant == PALI_QUANT_AUTO;
    bool pairs =
        cpu && pali_kernels_pick()->tile_pairs && b->weights->text[0].q_w.dtype == PALI_BF16;
    pali_math best = pairs && o->math != PALI_MATH_F32 ? PALI_MATH_BF16 : PALI_MATH_F32;
    bool plain = any || o->quant == PALI_QUANT_NONE;
    if (plain && (best == PALI_MATH_F32 || o->math == PALI_MATH_AUTO))
        add_row(b, o, pairs ? "as stored, exact" : "as stored", PALI_QUANT_NONE, PALI_MATH_F32);
    if (plain && best == PALI_MATH_BF16)
        add_row(b, o, "as stored", PALI_QUANT_NONE, PALI_MATH_BF16);
    if (any || o->quant == PALI_QUANT_INT8)
        add_row(b, o, o->quant_all ? "int8, all" : "int8", PALI_QUANT_INT8, best);
    if (any || o->quant == PALI_QUANT_NF4)
        add_row(b, o, o->quant_all ? "nf4, all" : "nf4", PALI_QUANT_NF4, best);
}

/* --- telling -------------------------------------------------------------------------------- */

/* Seconds as milliseconds, with three figures at least. */
static const char *ms(char out[16], double s) {
    snprintf(out, 16, "%.*f", s < .01 ? 2 : s < .1 ? 1 : 0, 1e3 * s);
    return out;
}

static void tell_row(FILE *f, const row *r) {
    const timing *t[] = {&r->picture, &r->prompt, &r->token};
    char a[16], b[16];
    fprintf(f, "%-16s %6.2f", r->name, r->load);
    for (int i = 0; i < 3; i++) {
        fprintf(f, "   %8s", ms(a, t[i]->median));
        if (t[i]->share > 0)
            fprintf(f, " %4.0f %%", 100 * t[i]->share);
        else
            fprintf(f, "      -");
    }
    fprintf(f, "   %8s\n%23s", ms(a, r->picture.median + r->prompt.median + r->token.median), "");
    for (int i = 0; i < 3; i++) {
        char range[40];
        snprintf(range, sizeof range, "%s..%s", ms(a, t[i]->least), ms(b, t[i]->most));
        fprintf(f, "  %15s", range);
    }
    fprintf(f, "\n");
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
    fprintf(f, "\n%-16s %6s %17s %17s %17s %10s\n", "", "load", "picture      ", "prompt      ",
            "a token      ", "first");
    fprintf(f, "%-16s %6s   %8s %6s   %8s %6s   %8s %6s   %8s\n", "", "s", "ms", "share", "ms",
            "share", "ms", "share", "token ms");
    for (int i = 0; i < b->nrows; i++)
        tell_row(f, &b->rows[i]);
    fprintf(
        f,
        "\nMedians, and the range below. prompt: %d tokens, the picture's %d among them. share: "
        "of the\nlimit measured around the row, by what must be multiplied or read.\n",
        c->vision.P + PROMPT, c->vision.P);
}

static json_t *known(double x) {
    return x > 0 ? json_real(x) : json_null();
}

static json_t *json_timing(const timing *t) {
    return json_pack("{s:f, s:f, s:f, s:o}", "median_s", t->median, "least_s", t->least, "most_s",
                     t->most, "share", known(t->share));
}

static json_t *json_limits(const pali_cpu_limits *l) {
    return l->read > 0 ? json_pack("{s:f, s:f, s:o}", "read_bytes_s", l->read, "f32_flop_s", l->f32,
                                   "bf16_flop_s", known(l->bf16))
                       : json_null();
}

static json_t *json_of(const bench *b) {
    const pali_config *c = &b->weights->config;
    char safe[PATH_MAX];
    json_t *rows = json_array();
    for (int i = 0; i < b->nrows; i++) {
        const row *r = &b->rows[i];
        json_array_append_new(
            rows,
            json_pack("{s:s, s:f, s:o, s:o, s:o, s:o, s:I, s:I}", "precision", r->name, "load_s",
                      r->load, "picture", json_timing(&r->picture), "prompt",
                      json_timing(&r->prompt), "token", json_timing(&r->token), "limits",
                      json_limits(&r->limits), "extra_weight_bytes", (json_int_t)r->memory.weights,
                      "workspace_bytes", (json_int_t)(r->memory.workspace + r->memory.kv)));
    }
    json_t *machine =
        b->limits.read > 0
            ? json_pack("{s:s, s:i, s:s, s:o}", "cpu", b->machine.cpu, "threads", b->limits.threads,
                        "kernels", b->limits.kernels, "limits", json_limits(&b->limits))
            : json_null();
    return json_pack("{s:s, s:i, s:I, s:i, s:s, s:i, s:f, s:o, s:o}", "model",
                     *b->dir ? ui_text_clean(UI_TEXT_VALID, b->dir, safe, sizeof safe) : "random",
                     "generation", c->text.gemma, "weights", (json_int_t)b->weights->params,
                     "image_size", c->vision.S, "backend", b->backend->name, "prompt_tokens",
                     c->vision.P + PROMPT, "open_s", b->made, "machine", machine, "rows", rows);
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
        rc = measure_limits(&b, o, i, err);
        snprintf(line, sizeof line, "measuring: %s (%d of %d)", b.rows[i].name, i + 1, b.nrows);
        app_err_status(line);
        if (!rc)
            rc = time_row(&b, &b.rows[i], pixels, err);
    }
    if (!rc)
        rc = measure_limits(&b, o, b.nrows, err);
    for (int i = 0; !rc && b.backend == pali_backend_cpu() && i < b.nrows; i++)
        find_shares(&b, &b.rows[i]);
    app_err_progress_clear();
    if (!rc)
        rc = print(&b, o->json, err);
    free(pixels);
    pali_weights_close(b.weights);
    return rc;
}
