/* engine.h - what an open engine is made of; for core/engine.c and core/dialog.c only. */
#ifndef PALI_ENGINE_H
#define PALI_ENGINE_H

#include "core/pali.h"
#include "core/tokenizer.h"
#include "core/weights.h"

struct pali_engine {
    pali_weights *weights;     /* owned */
    pali_tokenizer *tokenizer; /* owned */
    const pali_backend *backend;
    pali_model *model;   /* owned; one timeline, started anew by every turn */
    pali_error fallback; /* why not the graphics card, when "auto" took the CPU */
    int context;         /* positions of the timeline */
    int32_t vocab;       /* ids below are sampled: min(tokenizer, embedding rows) */
};

#endif
