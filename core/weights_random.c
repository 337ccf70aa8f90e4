/* weights_random.c - a model of a given shape whose weights mean nothing: for measuring
 * without having the files. Everything lies in one block of memory, in bfloat16. */
#include "core/size.h"
#include "core/weights.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PATTERN = 1 << 20, /* bytes, repeated */
    ALIGN = 64,
};

/* Hands the block out matrix by matrix; with block == NULL it only adds up. */
typedef struct {
    unsigned char *block;
    size_t used;
    uint64_t params;
    bool overflow;
} arena;

static pali_matrix take(arena *a, int rows, int cols) {
    size_t n = 0, bytes = 0, from = a->used;
    if (!pali_size_mul((size_t)rows, (size_t)cols, &n) || !pali_size_mul(n, 2, &bytes) ||
        !pali_size_add(bytes, ALIGN - 1, &bytes) ||
        !pali_size_add(from, bytes / ALIGN * ALIGN, &a->used))
        a->overflow = true;
    a->params += (uint64_t)n;
    return (pali_matrix){
        .dtype = PALI_BF16, .rows = rows, .cols = cols, .data = a->block ? a->block + from : NULL};
}

static void place_vision(pali_weights *w, arena *a) {
    const pali_vision_config *v = &w->config.vision;
    w->patch_w = take(a, v->D, v->channels * v->patch * v->patch);
    w->patch_b = take(a, 1, v->D);
    w->position = take(a, v->P, v->D);
    for (int i = 0; i < v->layers; i++) {
        pali_vision_layer *l = &w->vision[i];
        pali_matrix *wide[] = {&l->q_w, &l->k_w, &l->v_w, &l->o_w};
        pali_matrix *vectors[] = {&l->ln1_w, &l->ln1_b, &l->ln2_w, &l->ln2_b, &l->q_b,
                                  &l->k_b,   &l->v_b,   &l->o_b,   &l->fc2_b};
        for (size_t k = 0; k < sizeof wide / sizeof *wide; k++)
            *wide[k] = take(a, v->D, v->D);
        for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
            *vectors[k] = take(a, 1, v->D);
        l->fc1_w = take(a, v->F, v->D);
        l->fc1_b = take(a, 1, v->F);
        l->fc2_w = take(a, v->D, v->F);
    }
    w->post_ln_w = take(a, 1, v->D);
    w->post_ln_b = take(a, 1, v->D);
    w->proj_w = take(a, w->config.text.D, v->D);
    w->proj_b = take(a, 1, w->config.text.D);
}

static void place_text(pali_weights *w, arena *a) {
    const pali_text_config *t = &w->config.text;
    w->embed = take(a, t->V, t->D);
    for (int i = 0; i < t->layers; i++) {
        pali_text_layer *l = &w->text[i];
        l->attn_norm = take(a, 1, t->D);
        l->mlp_norm = take(a, 1, t->D);
        if (t->gemma == 2) {
            l->post_attn_norm = take(a, 1, t->D);
            l->post_mlp_norm = take(a, 1, t->D);
        }
        l->q_w = take(a, t->H * t->E, t->D);
        l->k_w = take(a, t->K * t->E, t->D);
        l->v_w = take(a, t->K * t->E, t->D);
        l->o_w = take(a, t->D, t->H * t->E);
        l->gate_w = take(a, t->F, t->D);
        l->up_w = take(a, t->F, t->D);
        l->down_w = take(a, t->D, t->F);
    }
    w->norm = take(a, 1, t->D);
}

/* +-0.03 to 0.12: no product of them overflows or dies away. */
static void fill(unsigned char *block, size_t n) {
    uint32_t s = 1;
    size_t first = n < PATTERN ? n : PATTERN;
    for (size_t i = 0; i + 2 <= first; i += 2) {
        s = s * 1664525u + 1013904223u;
        uint16_t v = (uint16_t)((s >> 16 & 0x80ff) | 0x3d00);
        memcpy(block + i, &v, 2);
    }
    for (size_t at = first; at < n; at += PATTERN)
        memcpy(block + at, block, n - at < PATTERN ? n - at : PATTERN);
}

int pali_weights_random(const pali_config *c, pali_weights **out, pali_error *err) {
    *out = NULL;
    pali_weights *w = calloc(1, sizeof *w);
    if (!w)
        return pali_fail_nomem(err, "making a model");
    w->config = *c;
    w->vision = calloc((size_t)c->vision.layers, sizeof *w->vision);
    w->text = calloc((size_t)c->text.layers, sizeof *w->text);
    arena need = {0};
    int rc = 0;
    if (!w->vision || !w->text)
        rc = pali_fail_nomem(err, "making a model");
    if (!rc) {
        place_vision(w, &need);
        place_text(w, &need);
        void *block = need.overflow ? MAP_FAILED
                                    : mmap(NULL, need.used, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) {
            rc = pali_fail(err, PALI_ENOMEM, "measure a model that you have, with -m",
                           "no memory for a model of %llu million weights",
                           (unsigned long long)(need.params / 1000000));
        } else {
            madvise(block, need.used, MADV_HUGEPAGE);
            w->block = block;
            w->block_bytes = need.used;
        }
    }
    if (rc) {
        pali_weights_close(w);
        return rc;
    }
    fill(w->block, w->block_bytes);
    arena a = {.block = w->block};
    place_vision(w, &a);
    place_text(w, &a);
    w->params = a.params;
    w->bytes = a.params * 2;
    *out = w;
    return 0;
}
