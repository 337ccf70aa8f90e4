/* scripted_model.h - a model that says one thing, whatever it is asked.
 *
 *     scripted_model(dir, (int[]){id, id, ...}, n);      the ids, all different, then eos
 *
 * For tests that need an answer with boxes and masks in it. Embeddings are rows of random
 * signs; attention adds nothing; the one MLP is a table: unit i answers to the i-th token
 * (the newline that ends a prompt first) and writes the embedding of the next, far louder
 * than what else is there. Tokenizer and vocabulary are those of tests/data/hf/pg1-bf16:
 * SCRIPT_LOC + n is <locN>, SCRIPT_SEG + n is <segN>.                                       */
#ifndef PALI_SCRIPTED_MODEL_H
#define PALI_SCRIPTED_MODEL_H

#include "tests/core/make_model.h"

enum {
    SCRIPT_EOS = 1,
    SCRIPT_NEWLINE = 4,
    SCRIPT_SPACE = 322,
    SCRIPT_SEMICOLON = 349,
    SCRIPT_LETTER = 387, /* 'a' */
    SCRIPT_LOC = 420,
    SCRIPT_SEG = 1444,
    SCRIPT_V = 1636,
    SCRIPT_D = 256,
    SCRIPT_F = 64, /* tokens at most, and one */
};

static inline void scripted_model(const char *dir, const int *tokens, size_t n) {
    model_plan *p = model_tiny(1);
    p->D = SCRIPT_D;
    p->F = SCRIPT_F;
    p->V = SCRIPT_V;
    p->layers = 1;
    model_list(p);
    assert_true(n < SCRIPT_F);
    float *sign = calloc(SCRIPT_V * SCRIPT_D, sizeof *sign);
    float *key = calloc(SCRIPT_F * SCRIPT_D, sizeof *key);
    float *value = calloc(SCRIPT_D * SCRIPT_F, sizeof *value);
    assert_true(sign && key && value);
    uint64_t random = 1;
    for (size_t i = 0; i < SCRIPT_V * SCRIPT_D; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        sign[i] = random >> 63 ? 1 : -1;
    }
    for (size_t i = 0; i <= n; i++) {
        int from = i ? tokens[i - 1] : SCRIPT_NEWLINE, to = i < n ? tokens[i] : SCRIPT_EOS;
        for (size_t k = 0; k < SCRIPT_D; k++) {
            key[i * SCRIPT_D + k] = sign[from * SCRIPT_D + (int)k] * 8 / SCRIPT_D;
            value[k * SCRIPT_F + i] = sign[to * SCRIPT_D + (int)k];
        }
    }
    for (int i = 0; i < p->count; i++) {
        model_tensor *t = &p->tensors[i];
        size_t prefix = strlen(p->text);
        if (strncmp(t->name, p->text, prefix))
            continue;
        t->mean = t->spread = 0;
        const char *name = t->name + prefix;
        t->values = strstr(name, "embed_tokens")                           ? sign
                    : strstr(name, "gate_proj") || strstr(name, "up_proj") ? key
                    : strstr(name, "down_proj")                            ? value
                                                                           : NULL;
    }
    model_write(p, dir);
    char *bytes = malloc(1 << 16);
    FILE *f = fopen(TEST_DATA "hf/pg1-bf16/tokenizer.model", "rb");
    assert_true(f && bytes);
    model_put(dir, "tokenizer.model", bytes, fread(bytes, 1, 1 << 16, f));
    fclose(f);
    free(bytes);
    free(sign);
    free(key);
    free(value);
    free(p);
}

/* One object: its box in 1024ths (y0 x0 y1 x1), sixteen codes (NULL: no mask) and a label of
 * lower-case letters; out has room for 64 ids. All ids of an answer must differ. */
static inline size_t scripted_object(int *out, const int loc[4], const int *codes,
                                     const char *label) {
    size_t n = 0;
    for (int i = 0; i < 4; i++)
        out[n++] = SCRIPT_LOC + loc[i];
    for (int i = 0; codes && i < 16; i++)
        out[n++] = SCRIPT_SEG + codes[i];
    for (; *label; label++)
        out[n++] = SCRIPT_LETTER + *label - 'a';
    return n;
}

/* Codes of a five-pointed star under assets/demo/mask.npz (tests/data/mask_shapes.txt). */
static const int scripted_star[16] = {70,  99, 125, 123, 110, 47,  127, 109,
                                      101, 50, 67,  94,  42,  100, 18,  73};

#endif
