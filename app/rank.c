/* rank.c - see rank.h. */
#include "app/rank.h"

#include "app/json.h"
#include "app/output.h"
#include "app/process.h"
#include "app/session.h"
#include "ui/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = 16384, /* bytes of one text */
    TEXTS_MAX = 10000
};

/* --- texts ---------------------------------------------------------------------------- */

typedef struct {
    char **list; /* owned, as are the strings */
    size_t n;
} texts;

static void texts_close(texts *t) {
    while (t->n)
        free(t->list[--t->n]);
    free(t->list);
}

static int add_text(texts *t, const char *text, const char *from, pali_error *err) {
    if (strlen(text) > TEXT_MAX)
        return pali_fail(err, PALI_ELIMIT, "rank shorter texts",
                         "text %zu%s%s is longer than %d bytes", t->n + 1, *from ? " of " : "",
                         from, TEXT_MAX);
    if (t->n == TEXTS_MAX)
        return pali_fail(err, PALI_ELIMIT, NULL, "more than %d texts", TEXTS_MAX);
    char **more = realloc(t->list, (t->n + 1) * sizeof *more);
    if (more)
        t->list = more;
    if (!more || !(more[t->n] = strdup(text)))
        return pali_fail_nomem(err, "reading the texts");
    t->n++;
    return 0;
}

/* The lines of a file, "-" for standard input; empty ones do not count. */
static int read_texts(texts *t, const char *path, pali_error *err) {
    bool piped = !strcmp(path, "-");
    const char *name = piped ? "standard input" : path;
    FILE *f = piped ? stdin : fopen(path, "r");
    if (!f)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", path, strerror(errno));
    char line[TEXT_MAX + 2]; /* one more byte than a text may have shows that it is too long */
    size_t n = 0;
    int rc = 0, c;
    do {
        c = getc(f);
        bool ends = c == '\n' || c == '\r' || c == EOF || n == sizeof line - 1;
        if (c == '\0')
            rc = pali_fail(err, PALI_EFORMAT, "write one text a line",
                           "%s: not text: there is a zero byte in it", name);
        if (!ends)
            line[n++] = (char)c;
        line[n] = '\0';
        if (ends && n && !rc)
            rc = add_text(t, line, name, err);
        n = ends ? 0 : n;
    } while (!rc && c != EOF);
    if (!rc && ferror(f))
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", name, strerror(errno));
    if (!piped)
        fclose(f);
    return rc;
}

static int collect_texts(texts *t, const app_options *o, pali_error *err) {
    int rc = 0;
    for (size_t i = 0; i < o->ntexts && !rc; i++)
        rc = *o->texts[i] ? add_text(t, o->texts[i], "", err)
                          : pali_fail(err, PALI_EARG, NULL, "a text to rank is empty");
    if (!rc && o->texts_from)
        rc = read_texts(t, o->texts_from, err);
    if (!rc && !t->n && o->nwords && !o->ntexts && !o->texts_from)
        rc = *o->words[0]
                 ? add_text(t, o->words[0], "", err)
                 : pali_fail(err, PALI_EARG, NULL, "the text to rank pictures for is empty");
    if (!rc && !t->n)
        rc = pali_fail(err, PALI_EARG,
                       "give them with --text or --texts, or one text before the pictures",
                       "no texts to rank");
    return rc;
}

/* --- ranking ---------------------------------------------------------------------------- */

static double mean(const app_ranked *r) {
    return r->score.sum / r->score.tokens;
}

static int better(const void *a, const void *b) {
    double x = mean(a), y = mean(b);
    return x > y ? -1 : x < y;
}

/* Fills in the shares and sorts, best first. */
static void sort(app_ranked *list, size_t n) {
    double top = -INFINITY, all = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, list[i].score.sum);
    for (size_t i = 0; i < n; i++)
        all += list[i].share = exp(list[i].score.sum - top);
    for (size_t i = 0; i < n; i++)
        list[i].share /= all;
    qsort(list, n, sizeof *list, better);
}

/* What is ranked against what, and how it is told. */
typedef struct {
    const app_options *o;
    const char *prompt;
    texts texts;
    const char *const *images;
    size_t nimages;
    app_session session;
    pali_run run;
    app_ranked *list; /* of texts, or of pictures */
    size_t nlist;
} ranking;

/* One line each: a tab between score and name, and the picture's name in front when texts are
 * ranked for several. */
static int print(const ranking *r, const char *subject, bool of_texts, pali_error *err) {
    if (r->o->json) {
        char *line;
        int rc = app_json_ranking(of_texts, subject, r->prompt, r->list, r->nlist, &line, err);
        if (!rc)
            rc = app_out_string(line, err);
        free(line);
        return rc;
    }
    int rc = 0;
    for (size_t i = 0; i < r->nlist && !rc; i++) {
        char name[UI_TEXT_ROOM(TEXT_MAX)], head[64];
        if (of_texts && r->nimages > 1) {
            rc = app_out_string(ui_text_clean(UI_TEXT_LINE, subject, name, sizeof name), err);
            if (!rc)
                rc = app_out_string("\t", err);
        }
        snprintf(head, sizeof head, "%.3f\t", mean(&r->list[i]));
        if (!rc)
            rc = app_out_string(head, err);
        if (!rc)
            rc = app_out_string(ui_text_clean(UI_TEXT_LINE, r->list[i].name, name, sizeof name),
                                err);
        if (!rc)
            rc = app_out_string("\n", err);
    }
    return rc;
}

/* The scores of all texts on one picture, whose name is path. */
static int rank_image(ranking *r, const char *path, bool of_texts, pali_error *err) {
    size_t n = r->texts.n;
    pali_score *scores = malloc(n * sizeof *scores);
    int rc = scores ? 0 : pali_fail_nomem(err, "ranking");
    if (!rc)
        rc = pali_dialog_score(r->session.dialog, r->prompt, (const char *const *)r->texts.list, n,
                               &r->run, scores, err);
    app_err_progress_clear();
    if (!rc && !of_texts)
        r->list[r->nlist++] = (app_ranked){path, scores[0], 0};
    if (!rc && of_texts) {
        r->nlist = n;
        for (size_t i = 0; i < n; i++)
            r->list[i] = (app_ranked){r->texts.list[i], scores[i], 0};
        sort(r->list, n);
        rc = print(r, path, true, err);
    }
    free(scores);
    return rc;
}

/* Makes a picture the subject; opens the model with the first. */
static int open_image(ranking *r, const pali_image *image, pali_error *err) {
    int rc = 0;
    if (!r->session.engine) {
        /* Not earlier: a picture that never comes on standard input must be interruptible. */
        app_process_catch_signals();
        rc = app_session_load(&r->session, &r->run, err);
        rc = rc == PALI_EARG ? PALI_EUNSUPPORTED : rc; /* the command line was fine */
    }
    return rc ? rc : pali_dialog_set_image(r->session.dialog, image, true, err);
}

static bool about_the_picture(int rc, const ranking *r) {
    return r->nimages > 1 &&
           (rc == PALI_EIO || rc == PALI_EFORMAT || rc == PALI_EUNSUPPORTED || rc == PALI_ELIMIT);
}

static int rank_all(ranking *r, pali_error *err) {
    bool of_texts = r->texts.n > 1 || r->nimages == 1;
    size_t bad = 0, most = of_texts ? r->texts.n : r->nimages;
    if (!(r->list = malloc(most * sizeof *r->list)))
        return pali_fail_nomem(err, "ranking");
    int rc = 0;
    for (size_t i = 0; i < r->nimages && !rc; i++) {
        pali_image image;
        pali_error why = {0};
        if (app_process_stopped())
            return PALI_ECANCEL;
        rc = pali_image_open(r->images[i], &image, &why);
        if (about_the_picture(rc, r)) {
            app_err_complain(&why);
            bad++;
            rc = 0;
            continue;
        }
        if (rc)
            return pali_fail(err, why.code, why.hint, "%s", why.what);
        rc = open_image(r, &image, err);
        pali_image_close(&image);
        if (!rc)
            rc = rank_image(r, r->images[i], of_texts, err);
    }
    if (!rc && !of_texts && r->nlist) {
        sort(r->list, r->nlist);
        rc = print(r, r->texts.list[0], false, err);
    }
    if (!rc && bad)
        rc = pali_fail(err, PALI_EFORMAT, NULL, "%zu of %zu pictures could not be read", bad,
                       r->nimages);
    return rc;
}

int app_rank_run(const app_options *o, pali_error *err) {
    ranking r = {.o = o,
                 .prompt = o->nprompts ? o->prompts[0] : "caption en",
                 .run = {.cancel = app_process_stop_flag(), .progress = app_err_progress}};
    if (o->nprompts > 1)
        return pali_fail(err, PALI_EARG, NULL, "rank takes one --prompt");
    int rc = app_session_begin(&r.session, o, err);
    bool text_first = !o->ntexts && !o->texts_from;
    r.images = o->words + (text_first && o->nwords);
    r.nimages = o->nwords - (text_first && o->nwords);
    const char *demo[] = {r.session.demo.picture};
    if (!r.nimages && o->demo) {
        r.images = demo;
        r.nimages = 1;
    }
    if (!rc)
        rc = collect_texts(&r.texts, o, err);
    if (!rc && !r.nimages)
        rc = pali_fail(err, PALI_EARG, NULL, "no image given");
    if (!rc)
        rc = rank_all(&r, err);
    free(r.list);
    texts_close(&r.texts);
    app_session_close(&r.session);
    return rc;
}
