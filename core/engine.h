/* engine.h - what an open engine and a dialog are made of; for engine.c, dialog.c, score.c and
 * reuse.c only. */
#ifndef PALI_ENGINE_H
#define PALI_ENGINE_H

#include "core/keep.h"
#include "core/pali.h"
#include "core/reuse.h"
#include "core/tokenizer.h"
#include "core/weights.h"

struct pali_engine {
    pali_weights *weights;     /* owned */
    pali_tokenizer *tokenizer; /* owned */
    const pali_backend *backend;
    pali_model *model;   /* owned; one timeline for all dialogs */
    pali_error fallback; /* why not the graphics card, when "auto" took the CPU */
    pali_quant quant;    /* what the matrices became, */
    bool quant_all;      /* and whether the tower's were meant too */
    char note[200];      /* on memory and precision, or else on keep; "" for none */
    int context;         /* positions of the timeline */
    int32_t vocab;       /* ids below are sampled: min(tokenizer, embedding rows) */
    pali_reuse reuse;
    pali_keep *keep; /* NULL: embeddings are not kept on disk */
    void (*remark)(void *user, const char *line);
    void *user;
};

struct pali_dialog {
    pali_engine *engine;
    pali_seen **images; /* [nimages], held; NULL: none */
    size_t nimages;
    int width, height; /* of the first one's original */
    struct pali_dialog_turn {
        char *question, *answer; /* owned */
    } * turns;                   /* [nturns], room for cap */
    pali_turn_text *texts;       /* the same, as lent to callers */
    size_t nturns, cap;
};

#endif
