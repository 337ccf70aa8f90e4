/* engine.c - opens the parts of a model and holds them together.
 *
 * Order matters for the user: cheap checks first (config, tensor shapes,
 * tokenizer), so that a wrong directory is refused in milliseconds and before the
 * backend touches gigabytes.                                                       */
#include "core/engine.h"

#include "core/file.h"
#include "core/fit.h"
#include "core/machine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_ROOM = 1024
}; /* default positions beside the images: question, history, answer */

/* tokenizer.model in dir, or beside dir when that is the file of weights itself; big_vision's name for
 * it will do too. */
static int tokenizer_path(const char *dir, char path[PATH_MAX], pali_error *err) {
    char folder[PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s", dir);
    if (pali_file_exists(dir)) {
        char *slash = strrchr(folder, '/');
        n = snprintf(slash ? slash : folder, 2, slash ? "" : ".");
    }
    if (n >= PATH_MAX - 32)
        return pali_fail(err, PALI_EARG, NULL, "%.80s...: the path is too long", dir);
    snprintf(path, PATH_MAX, "%.4000s/paligemma_tokenizer.model", folder);
    if (!pali_file_exists(path))
        snprintf(path, PATH_MAX, "%.4000s/tokenizer.model", folder);
    return 0;
}

static int open_tokenizer(pali_engine *e, const char *dir, pali_error *err) {
    char path[PATH_MAX];
    if (tokenizer_path(dir, path, err))
        return PALI_EARG;
    int rc = pali_tokenizer_open(path, &e->tokenizer, err);
    if (rc)
        return rc;
    int32_t V = e->weights->config.text.V;
    e->vocab = pali_tokenizer_vocab(e->tokenizer);
    if (e->vocab > V)
        return pali_fail(err, PALI_EFORMAT, "use the tokenizer.model that came with this model",
                         "%s: %d tokens, but the model's embedding has only %d rows", path,
                         (int)e->vocab, (int)V);
    return 0;
}

int pali_default_context(const pali_config *c, int images) {
    int most = c->text.max_positions, P = c->vision.P;
    return (most - TEXT_ROOM) / P < images ? most : images * P + TEXT_ROOM;
}

/* Opens e's backend in the precision o asks for; AUTO is the best that fits. */
static int open_model(pali_engine *e, const pali_backend_options *o, const pali_run *run,
                      pali_error *err) {
    pali_backend_options bo = *o;
    int rc = 0;
    if (e->backend == pali_backend_cpu()) {
        pali_machine machine;
        pali_machine_look("", &machine);
        rc = pali_fit_choose(e->backend, e->weights, machine.available, &bo, e->note,
                             sizeof e->note, err);
        if (!rc) /* the memory that this takes was counted as the weights' */
            rc = pali_weights_prepare(e->weights, o->threads, run, err);
        if (!rc)
            rc = e->backend->open(e->weights, &bo, run, &e->model, err);
    } else if ((rc = pali_weights_prepare(e->weights, o->threads, run, err))) {
        return rc;
    } else if (o->quant != PALI_QUANT_AUTO) {
        rc = e->backend->open(e->weights, &bo, run, &e->model, err);
    } else {
        /* What a card has free it alone knows: larger ones are refused. */
        pali_error first = {0};
        bo.quant = PALI_QUANT_NONE;
        rc = e->backend->open(e->weights, &bo, run, &e->model, &first);
        while ((rc == PALI_ELIMIT || rc == PALI_ENOMEM) && bo.quant != PALI_QUANT_NF4) {
            bo.quant++;
            rc = e->backend->open(e->weights, &bo, run, &e->model, NULL);
        }
        if (!rc && bo.quant != PALI_QUANT_NONE)
            snprintf(e->note, sizeof e->note, "taking %s weights: %.150s",
                     bo.quant == PALI_QUANT_NF4 ? "nf4" : "int8", first.what);
        else if (rc)
            pali_fail(err, rc, first.hint, "%s", first.what);
    }
    e->quant = bo.quant;
    e->quant_all = bo.quant_all;
    return rc;
}

int pali_engine_open(const pali_engine_options *o, const pali_run *run, pali_engine **out,
                     pali_error *err) {
    *out = NULL;
    pali_engine *e = calloc(1, sizeof *e);
    if (!e)
        return pali_fail_nomem(err, "opening the model");
    const char *name = o->backend ? o->backend : "auto";
    bool automatic = strcmp(name, "auto") == 0;
    int rc = pali_backend_find(name, &e->backend, err);
    if (!rc)
        rc = pali_weights_open(o->model_dir, &e->weights, err);
    if (!rc)
        rc = open_tokenizer(e, o->model_dir, err);
    if (rc)
        goto fail;

    const pali_config *c = &e->weights->config;
    int most = c->text.max_positions, P = c->vision.P;
    int images = o->images > 1 ? o->images : 1;
    if (images > (most - 8) / P) {
        rc =
            pali_fail(err, PALI_EARG, "show it fewer images",
                      "this model takes at most %d images of %d positions each", (most - 8) / P, P);
        goto fail;
    }
    e->context = o->context ? o->context : pali_default_context(c, images);
    if (e->context > most || e->context < P + 8) {
        rc = pali_fail(err, PALI_EARG, "leave the context at its default",
                       "a context of %d positions does not work: this model takes %d to %d",
                       e->context, P + 8, most);
        goto fail;
    }
    pali_weights_prefetch(e->weights);
    pali_backend_options bo = {.threads = o->threads,
                               .positions = e->context,
                               .math = o->math,
                               .quant = o->quant,
                               .quant_all = o->quant_all,
                               .head8 = o->head8};
    if (automatic && e->backend != pali_backend_cpu()) {
        rc = open_model(e, &bo, run, &e->fallback);
        if (rc == PALI_ECANCEL)
            pali_fail(err, rc, e->fallback.hint, "%s", e->fallback.what);
        else if (rc) /* too large for the card, perhaps: the CPU may still do */
            e->backend = pali_backend_cpu();
    } else if (automatic) {
        e->fallback = *pali_backend_why_not_cuda();
    }
    if (!e->model && rc != PALI_ECANCEL)
        rc = open_model(e, &bo, run, err);
    if (rc)
        goto fail;
    e->remark = o->remark;
    e->user = o->user;
    pali_error why = {0};
    if (o->image_folder &&
        pali_keep_open(o->image_folder, PALI_KEEP_BYTES, e->weights, e->backend, e->model, &e->keep,
                       &why) &&
        !*e->note)
        snprintf(e->note, sizeof e->note, "pictures are not kept: %.170s", why.what);
    *out = e;
    return 0;
fail:
    pali_engine_close(e);
    return rc;
}

void pali_engine_close(pali_engine *e) {
    if (!e)
        return;
    pali_reuse_close(e);
    if (e->model)
        e->backend->close(e->model);
    pali_keep_close(e->keep);
    pali_tokenizer_close(e->tokenizer);
    pali_weights_close(e->weights);
    free(e);
}

void pali_engine_describe(const pali_engine *e, pali_engine_info *out) {
    const pali_config *c = &e->weights->config;
    *out = (pali_engine_info){
        .backend = e->backend->name,
        .dtype = pali_dtype_name(e->quant == PALI_QUANT_INT8  ? PALI_INT8
                                 : e->quant == PALI_QUANT_NF4 ? PALI_NF4
                                                              : e->weights->text[0].q_w.dtype),
        .coded_tower = pali_is_coded(&e->weights->vision[0].q_w) ||
                       (e->quant_all && e->quant != PALI_QUANT_NONE),
        .generation = c->text.gemma,
        .image_size = c->vision.S,
        .image_tokens = c->vision.P,
        .context = e->context,
        .params = e->weights->params,
        .weight_bytes = e->weights->bytes,
        .fallback = e->fallback.code ? e->fallback.what : NULL,
        .advice = e->fallback.hint,
        .card = e->fallback.code && pali_backend_has_card(),
        .note = *e->note ? e->note : NULL,
    };
}

const char *pali_engine_token(const pali_engine *e, int32_t id, size_t *n) {
    return pali_tokenizer_peek(e->tokenizer, id, n);
}
