/* json.c - see json.h. jansson writes; what it refuses (bytes that are no UTF-8, in a
 * prompt from the command line) becomes U+FFFD first.                              */
#include "app/json.h"

#include "ui/text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* NULL when memory is short, like all makers of jansson values below. */
json_t *app_json_string(const char *s) {
    size_t room = UI_TEXT_ROOM(strlen(s)) + 4;
    char *clean = malloc(room);
    json_t *j = clean ? json_string(ui_text_clean(UI_TEXT_VALID, s, clean, room)) : NULL;
    free(clean);
    return j;
}

/* Rounded, so that a float does not show digits it never had. */
json_t *app_json_number(double v, double step) {
    return json_real(round(v / step) * step);
}

/* list, if all of its n elements could be made. */
static json_t *all_or_nothing(json_t *list, size_t n) {
    if (json_array_size(list) == n)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *tokens(const pali_result *r) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->ntokens; i++)
        if (json_array_append_new(list, json_integer(r->tokens[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *codes(const pali_object *o) {
    json_t *list = json_array();
    int bad = 0;
    for (int i = 0; i < PALI_MASK_CODES; i++)
        bad |= json_array_append_new(list, json_integer(o->codes[i]));
    if (!bad)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *object(const pali_object *o, const app_made *m) {
    json_t *j = json_pack("{s:o, s:[o,o,o,o], s:o}", "label", app_json_string(o->label), "box",
                          app_json_number(o->box[0], 0.01), app_json_number(o->box[1], 0.01),
                          app_json_number(o->box[2], 0.01), app_json_number(o->box[3], 0.01),
                          "score", app_json_number(o->score, 1e-6));
    int bad = !j;
    if (m && m->counts)
        bad |= json_object_set_new(
            j, "mask",
            json_pack("{s:[i,i], s:s}", "size", m->height, m->width, "counts", m->counts));
    else if (o->has_mask)
        bad |= json_object_set_new(j, "codes", codes(o));
    if (m && m->mask_png)
        bad |= json_object_set_new(j, "mask_png", app_json_string(m->mask_png));
    if (m && m->crop)
        bad |= json_object_set_new(j, "crop", app_json_string(m->crop));
    if (!bad)
        return j;
    json_decref(j);
    return NULL;
}

static json_t *objects(const pali_result *r, const app_made *made) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->nobjects; i++)
        if (json_array_append_new(list, object(&r->objects[i], made ? &made[i] : NULL))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *timings_of(const pali_result *r, const app_timings *t) {
    const double us = 1e-6;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:i}", "load_s", app_json_number(t->load_s, us),
                     "encode_s", app_json_number(r->encode_s, us), "prefill_s",
                     app_json_number(r->prefill_s, us), "decode_s",
                     app_json_number(r->decode_s, us), "first_token_s",
                     app_json_number(t->first_s, us), "prefix_tokens", r->prefix_tokens);
}

/* j as one line; takes over j. */
int app_json_line(json_t *j, char **out, pali_error *err) {
    *out = NULL;
    size_t n = 0;
    const size_t flags = JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(10);
    if (j && (n = json_dumpb(j, NULL, 0, flags)) && (*out = malloc(n + 2))) {
        json_dumpb(j, *out, n, flags);
        memcpy(*out + n, "\n", 2);
    }
    json_decref(j);
    return *out ? 0 : pali_fail_nomem(err, "writing the answer as JSON");
}

static json_t *strings(const char *const *list, size_t n) {
    json_t *j = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(j, app_json_string(list[i]));
    return all_or_nothing(j, n);
}

/* A token's text may be a part of a character: U+FFFD, as for all that is no UTF-8. */
static json_t *logprobs(const pali_engine *e, const pali_result *r) {
    json_t *list = json_array();
    for (size_t i = 0; i < r->ntokens; i++) {
        size_t n;
        const char *bytes = pali_engine_token(e, r->tokens[i], &n);
        char *text = strndup(bytes, n);
        json_array_append_new(list, json_pack("{s:o, s:i, s:o}", "token",
                                              text ? app_json_string(text) : NULL, "id",
                                              (int)r->tokens[i], "logprob",
                                              app_json_number((double)r->logprobs[i], 1e-6)));
        free(text);
    }
    return all_or_nothing(list, r->ntokens);
}

int app_json_turn(const app_turn *t, char **out, pali_error *err) {
    const pali_result *r = t->result;
    json_t *j =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "image", app_json_string(t->images[0]),
                  "prompt", app_json_string(t->prompt), "text", app_json_string(r->text), "tokens",
                  tokens(r), "objects", objects(r, t->made), "timings", timings_of(r, t->timings),
                  "stop", pali_stop_name(r->stop));
    if ((t->overlay && json_object_set_new(j, "overlay", app_json_string(t->overlay))) ||
        (t->image && t->image->full_width &&
         json_object_set_new(j, "decoded",
                             json_pack("[i,i]", t->image->width, t->image->height))) ||
        (t->nimages > 1 && json_object_set_new(j, "images", strings(t->images, t->nimages))) ||
        (t->logprobs && json_object_set_new(j, "logprobs", logprobs(t->logprobs, r)))) {
        json_decref(j);
        j = NULL;
    }
    return app_json_line(j, out, err);
}

int app_json_ranking(bool of_texts, const char *subject, const char *prompt, const app_ranked *list,
                     size_t n, char **out, pali_error *err) {
    json_t *items = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            items,
            json_pack("{s:o, s:o, s:o, s:o, s:i}", of_texts ? "text" : "image",
                      app_json_string(list[i].name), "score",
                      app_json_number(list[i].score.sum / list[i].score.tokens, 1e-6), "share",
                      app_json_number(list[i].share, 1e-9), "sum",
                      app_json_number(list[i].score.sum, 1e-6), "tokens", list[i].score.tokens));
    return app_json_line(json_pack("{s:o, s:o, s:o}", of_texts ? "image" : "text",
                                   app_json_string(subject), "prompt", app_json_string(prompt),
                                   "ranking", all_or_nothing(items, n)),
                         out, err);
}
