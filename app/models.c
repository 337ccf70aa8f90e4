/* models.c - `pali models` and `pali rm`; see models.h. */
#include "app/models.h"

#include "app/cache.h"
#include "app/human.h"
#include "app/output.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COLUMNS = 7,
    CELL_BYTES = 512
};

/* --- pali models ------------------------------------------------------------------------ */

typedef struct {
    const app_options *o;
    char (*cells)[COLUMNS][CELL_BYTES]; /* owned; the lines of the table */
    size_t n, room;
    int others; /* models that pali does not run */
    pali_error *err;
} table;

static const char *dtype_word(const char *dtype) {
    return !strcmp(dtype, "F32")    ? "float32"
           : !strcmp(dtype, "BF16") ? "bfloat16"
           : !strcmp(dtype, "F16")  ? "float16"
                                    : dtype;
}

static const char *generation_word(const cached_model *m) {
    return m->generation == 2 ? "PaliGemma 2" : m->generation == 1 ? "PaliGemma" : "?";
}

static char (*new_line(table *t))[CELL_BYTES] {
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 16;
        void *more = realloc(t->cells, room * sizeof *t->cells);
        if (!more) {
            pali_fail_nomem(t->err, "listing the models");
            return NULL;
        }
        t->cells = more;
        t->room = room;
    }
    memset(t->cells[t->n], 0, sizeof *t->cells);
    return t->cells[t->n++];
}

static void add_line(table *t, const cached_model *m) {
    char(*c)[CELL_BYTES] = new_line(t), size[HUMAN_BYTES];
    if (!c)
        return;
    snprintf(c[0], CELL_BYTES, "%s", m->id);
    snprintf(c[1], CELL_BYTES, *m->refs ? "%s" : "%.12s", *m->refs ? m->refs : m->commit);
    snprintf(c[2], CELL_BYTES, "%s", human_bytes(m->bytes, size));
    if (m->complete) {
        snprintf(c[3], CELL_BYTES, "%s", dtype_word(m->dtype));
        snprintf(c[4], CELL_BYTES, "%s", generation_word(m));
        snprintf(c[5], CELL_BYTES, "%d px", m->pixels);
        snprintf(c[6], CELL_BYTES, "complete");
    } else {
        snprintf(c[6], CELL_BYTES, "incomplete: %s", m->why);
    }
}

/* "main, v1" as a list. */
static json_t *revisions(const char *refs) {
    json_t *list = json_array();
    for (const char *at = refs; *at; at += strspn(at, ", ")) {
        size_t n = strcspn(at, ",");
        json_array_append_new(list, json_stringn(at, n));
        at += n;
    }
    return list;
}

static void add_json(table *t, const cached_model *m) {
    char *text = NULL;
    json_t *o = json_pack("{s:s, s:s, s:o, s:s, s:I, s:b}", "id", m->id, "commit", m->commit,
                          "revisions", revisions(m->refs), "path", m->path, "bytes",
                          (json_int_t)m->bytes, "complete", m->complete);
    if (o && m->complete)
        json_object_update_new(o, json_pack("{s:s, s:s, s:i, s:I}", "precision",
                                            dtype_word(m->dtype), "generation", generation_word(m),
                                            "pixels", m->pixels, "weights", (json_int_t)m->params));
    else if (o)
        json_object_set_new(o, "why", json_string(m->why));
    text = o ? json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(o);
    if (!text)
        pali_fail_nomem(t->err, "listing the models");
    else if (!app_out_string(text, t->err))
        app_out_string("\n", t->err);
    free(text);
}

static void on_model(void *user, const cached_model *m) {
    table *t = user;
    if (!m->paligemma)
        t->others++;
    else if (t->o->json)
        add_json(t, m);
    else
        add_line(t, m);
}

/* Columns as wide as their widest cell; the last one ends the line. */
static void print(const table *t) {
    size_t width[COLUMNS] = {0};
    for (size_t i = 0; i < t->n; i++)
        for (int k = 0; k < COLUMNS - 1; k++)
            if (strlen(t->cells[i][k]) > width[k])
                width[k] = strlen(t->cells[i][k]);
    for (size_t i = 0; i < t->n && !t->err->code; i++) {
        char line[COLUMNS * (CELL_BYTES + 2) + 2];
        int n = 0;
        for (int k = 0; k < COLUMNS - 1; k++)
            n += snprintf(line + n, sizeof line - (size_t)n, k == 2 ? "%*s  " : "%-*s  ",
                          (int)width[k], t->cells[i][k]);
        snprintf(line + n, sizeof line - (size_t)n, "%s\n", t->cells[i][COLUMNS - 1]);
        app_out_string(line, t->err);
    }
}

int app_models_list(const app_options *o, pali_error *err) {
    char cache[4096];
    table t = {.o = o, .err = err};
    int rc = pali_hub_cache(&o->hub, cache, sizeof cache, err);
    if (!rc)
        rc = cache_list(cache, on_model, &t, err);
    if (!rc && !err->code && !o->json) {
        print(&t);
        if (!t.n)
            app_err_note("no PaliGemma in %s; `pali pull google/paligemma2-3b-mix-224` brings one",
                         cache);
        if (t.others && o->verbose)
            app_err_note("%d other models, which pali does not run", t.others);
    }
    free(t.cells);
    return rc ? rc : err->code;
}

/* --- pali rm ------------------------------------------------------------------------------- */

/* 0: go on. 1: rather not. */
static int ask(const char *id, const cache_removal *r, pali_error *err) {
    char line[512], size[HUMAN_BYTES], answer[16];
    if (!isatty(STDIN_FILENO))
        return pali_fail(err, PALI_EARG, "say --yes", "nobody is there to ask whether to remove %s",
                         id);
    snprintf(line, sizeof line, "remove %s: %s%s? [y/N] ", id, human_bytes(r->bytes, size),
             r->left ? "" : ", all there is of it");
    app_err_status(line);
    bool yes = fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
    app_err_progress_clear();
    return !yes;
}

int app_models_remove(const app_options *o, pali_error *err) {
    char cache[4096], size[HUMAN_BYTES];
    pali_hub_id id;
    cache_removal r;
    int rc = app_models_id(o, &id, err);
    if (!rc)
        rc = pali_hub_cache(&o->hub, cache, sizeof cache, err);
    if (!rc)
        rc = cache_plan_removal(cache, &id, &r, err);
    if (!rc && !o->yes)
        rc = ask(o->words[0], &r, err);
    if (rc > 0)
        app_err_note("kept");
    if (!rc)
        rc = cache_remove(cache, &id, err);
    if (!rc)
        app_err_note("removed %s, %s", o->words[0], human_bytes(r.bytes, size));
    return rc > 0 ? 0 : rc;
}
