/* reuse.c - see reuse.h. */
#include "core/reuse.h"

#include "core/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_SEEN = 16, /* pictures kept */
};
static const size_t most_bytes = (size_t)256 << 20; /* of their embeddings */

/* --- pictures ------------------------------------------------------------------------ */

static void drop(pali_engine *e, size_t i) {
    pali_reuse *r = &e->reuse;
    pali_seen *s = r->seen[i];
    if (s->embeds)
        e->backend->embeds_free(e->model, s->embeds);
    pali_image_close(&s->square);
    free(s);
    memmove(r->seen + i, r->seen + i + 1, (--r->nseen - i) * sizeof *r->seen);
}

/* Drops the one that nobody holds and that was not used for longest; false: all are held. */
static bool drop_oldest(pali_engine *e) {
    pali_reuse *r = &e->reuse;
    size_t oldest = r->nseen;
    for (size_t i = 0; i < r->nseen; i++)
        if (!r->seen[i]->holders &&
            (oldest == r->nseen || r->seen[i]->used < r->seen[oldest]->used))
            oldest = i;
    if (oldest == r->nseen)
        return false;
    drop(e, oldest);
    return true;
}

static bool too_many(const pali_engine *e) {
    const pali_config *c = &e->weights->config;
    size_t each = (size_t)c->vision.P * (size_t)c->text.D * sizeof(float);
    return e->reuse.nseen > MOST_SEEN || e->reuse.nseen > most_bytes / each;
}

int pali_reuse_hold(pali_engine *e, const pali_image *image, pali_seen **out, pali_error *err) {
    pali_reuse *r = &e->reuse;
    int S = e->weights->config.vision.S;
    size_t bytes = (size_t)S * (size_t)S * 3;
    pali_image square = {0};
    *out = NULL;
    int rc = pali_image_resize(image, S, S, &square, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < r->nseen && !*out; i++)
        if (!memcmp(r->seen[i]->square.rgb, square.rgb, bytes))
            *out = r->seen[i];
    if (!*out) {
        pali_seen **more = r->seen;
        if (r->nseen == r->cap)
            more = realloc(r->seen, (r->cap + MOST_SEEN) * sizeof *more);
        pali_seen *s = more ? calloc(1, sizeof *s) : NULL;
        if (more && r->nseen == r->cap) {
            r->seen = more;
            r->cap += MOST_SEEN;
        }
        if (!s) {
            pali_image_close(&square);
            return pali_fail_nomem(err, "preparing the image");
        }
        s->square = square;
        s->number = ++r->clock;
        r->seen[r->nseen++] = *out = s;
        square = (pali_image){0};
    }
    pali_image_close(&square);
    (*out)->holders++;
    (*out)->used = ++r->clock;
    while (too_many(e) && drop_oldest(e)) {
    }
    return 0;
}

void pali_reuse_release(pali_engine *e, pali_seen *s) {
    s->holders--;
    s->used = ++e->reuse.clock;
    while (too_many(e) && drop_oldest(e)) {
    }
}

static void remark(const pali_engine *e, const char *what, const pali_error *why) {
    char line[400];
    snprintf(line, sizeof line, "%s%s%s", what, why ? ": " : "", why ? why->what : "");
    if (e->remark)
        e->remark(e->user, line);
}

/* One of the two that is not NULL becomes embeddings. */
static int make(pali_engine *e, const float *pixels, const float *rows, const pali_run *run,
                pali_embeds **out, pali_error *err) {
    pali_error full = {0};
    int rc;
    do { /* a graphics card that is full may have room for this picture instead of an older one */
        full = (pali_error){0};
        rc = pixels ? e->backend->encode_image(e->model, pixels, run, out, &full)
                    : e->backend->embeds_write(e->model, rows, out, &full);
    } while (rc == PALI_ENOMEM && drop_oldest(e));
    return rc ? pali_fail(err, full.code, full.hint, "%s", full.what) : 0;
}

/* Whatever goes wrong on the way to or from the disk, the picture can be encoded. */
static void take_kept(pali_engine *e, pali_seen *s, float *rows) {
    pali_error why = {0};
    int rc = pali_keep_find(e->keep, &s->square, rows, &why);
    if (rc < 0)
        remark(e, "picture  kept embeddings are of no use", &why);
    else if (rc && !make(e, NULL, rows, NULL, &s->embeds, NULL))
        remark(e, "picture  its embeddings were kept: not encoded again", NULL);
}

static void put_kept(pali_engine *e, pali_seen *s, float *rows) {
    pali_error why = {0};
    if (e->backend->embeds_read(e->model, s->embeds, rows, &why) ||
        pali_keep_put(e->keep, &s->square, rows, &why))
        remark(e, "picture  its embeddings were not kept", &why);
    else
        remark(e, "picture  its embeddings are kept for the next time", NULL);
}

int pali_reuse_encode(pali_engine *e, pali_seen *s, const pali_run *run, pali_error *err) {
    if (s->embeds)
        return 0;
    const pali_config *c = &e->weights->config;
    size_t side = (size_t)s->square.width, P = (size_t)c->vision.P, D = (size_t)c->text.D;
    float *rows = e->keep ? malloc(P * D * sizeof *rows) : NULL;
    if (rows)
        take_kept(e, s, rows);
    int rc = 0;
    if (!s->embeds) {
        float *pixels = malloc(side * side * 3 * sizeof *pixels);
        if (pixels)
            pali_image_normalize(&s->square, pixels);
        rc = pixels ? make(e, pixels, NULL, run, &s->embeds, err)
                    : pali_fail_nomem(err, "preparing the image");
        free(pixels);
        if (rows && !rc)
            put_kept(e, s, rows);
    }
    free(rows);
    return rc;
}

/* --- the prefix ------------------------------------------------------------------------- */

static bool same_prefix(const pali_reuse *r, pali_seen *const *images, size_t nimages,
                        const int32_t *ids, size_t nids) {
    if (!r->length || r->nimages != nimages || r->nids != nids ||
        (nids && memcmp(r->ids, ids, nids * sizeof *ids)))
        return false;
    for (size_t i = 0; i < nimages; i++)
        if (r->images[i] != images[i]->number)
            return false;
    return true;
}

void pali_reuse_forget_prefix(pali_engine *e) {
    pali_reuse *r = &e->reuse;
    free(r->images);
    free(r->ids);
    r->images = NULL;
    r->ids = NULL;
    r->length = 0;
}

int pali_reuse_prefix(pali_engine *e, pali_seen *const *images, size_t nimages, const int32_t *ids,
                      size_t nids, const pali_run *run, bool *reused, pali_error *err) {
    pali_reuse *r = &e->reuse;
    size_t logits = (size_t)e->weights->config.text.V * sizeof *r->logits;
    *reused = same_prefix(r, images, nimages, ids, nids);
    if (*reused)
        return e->backend->rewind(e->model, r->length, err);
    pali_reuse_forget_prefix(e);
    if (!r->logits)
        r->logits = malloc(logits);
    r->images = malloc((nimages + 1) * sizeof *r->images);
    r->ids = malloc((nids + 1) * sizeof *r->ids);
    const pali_embeds **embeds = malloc((nimages + 1) * sizeof *embeds);
    int rc = r->logits && r->images && r->ids && embeds
                 ? 0
                 : pali_fail_nomem(err, "reading the question");
    for (size_t i = 0; i < nimages && !rc; i++) {
        embeds[i] = images[i]->embeds;
        r->images[i] = images[i]->number;
    }
    if (!rc)
        rc = e->backend->prefill(e->model, embeds, (int)nimages, ids, (int)nids, run, err);
    free(embeds);
    if (rc) {
        pali_reuse_forget_prefix(e);
        return rc;
    }
    memcpy(r->ids, ids, nids * sizeof *ids);
    memcpy(r->logits, e->backend->logits(e->model), logits);
    r->nimages = nimages;
    r->nids = nids;
    r->length = (int)nimages * e->weights->config.vision.P + (int)nids;
    return 0;
}

void pali_reuse_close(pali_engine *e) {
    pali_reuse *r = &e->reuse;
    pali_reuse_forget_prefix(e);
    while (r->nseen)
        drop(e, r->nseen - 1);
    free(r->seen);
    free(r->logits);
    *r = (pali_reuse){0};
}
