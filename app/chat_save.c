/* chat_save.c - what a chat leaves behind on request: Markdown, JSON, the picture.
 *
 * .json is the chat file's own format, so /load and --resume read it back.            */
#include "app/chat_state.h"
#include "app/png.h"
#include "ui/text.h"
#include "ui/theme.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- readable boxes ---------------------------------------------------------------------- */

/* What the model said between the objects and behind them stays. */
static void put_between(FILE *f, const char *before, const char *s, size_t n, const char *after) {
    while (n && strchr(" ;\n", *s)) {
        s++;
        n--;
    }
    while (n && strchr(" ;\n", s[n - 1]))
        n--;
    char *text = n ? strndup(s, n) : NULL;
    size_t room = UI_TEXT_ROOM(n) + 4;
    char *clean = text ? malloc(room) : NULL;
    if (clean)
        fprintf(f, "%s%s%s", before, ui_text_clean(UI_TEXT_LINE, text, clean, room), after);
    free(text);
    free(clean);
}

char *chat_pretty(const pali_object *objects, size_t n, const char *raw, bool marks) {
    if (!n)
        return NULL;
    char *out = NULL;
    size_t size;
    FILE *f = open_memstream(&out, &size);
    if (!f)
        return NULL;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const pali_object *o = &objects[i];
        char label[3 * PALI_LABEL_MAX];
        ui_text_clean(UI_TEXT_LINE, *o->label ? o->label : "object", label, sizeof label);
        if (i)
            fputc('\n', f);
        put_between(f, "", raw + at, o->from - at, "\n");
        at = o->to;
        if (marks)
            fprintf(f, "%c ", (int)(i % UI_OBJECT_COLOURS) + 1);
        fprintf(f, "%s at %ld,%ld\u2013%ld,%ld%s", label, lroundf(o->box[0]), lroundf(o->box[1]),
                lroundf(o->box[2]), lroundf(o->box[3]), o->has_mask ? ", with outline" : "");
    }
    put_between(f, "\n", raw + at, strlen(raw) - at, "");
    if (fclose(f)) {
        free(out);
        return NULL;
    }
    return out;
}

/* --- files ----------------------------------------------------------------------------------- */

/* People look at such files with cat: what drives a terminal is made visible. */
static void write_text(FILE *f, const char *s) {
    size_t room = UI_TEXT_ROOM(strlen(s)) + 4;
    char *clean = malloc(room);
    if (clean)
        fprintf(f, "\n%s\n", ui_text_clean(UI_TEXT_PIPE, s, clean, room));
    free(clean);
}

static int write_markdown(const chat *c, FILE *f) {
    char line[4096];
    fprintf(f, "# %s\n",
            ui_text_clean(UI_TEXT_LINE, c->image_path ? c->image_path : "chat", line, sizeof line));
    for (size_t i = 0; i < c->nturns; i++) {
        const chat_turn *t = &c->turns[i];
        fprintf(f, "\n**%s**\n", ui_text_clean(UI_TEXT_LINE, t->question, line, sizeof line));
        write_text(f, t->answer);
        if (*t->stop && strcmp(t->stop, "eos"))
            fprintf(f, "\n*(%s)*\n", ui_text_clean(UI_TEXT_LINE, t->stop, line, sizeof line));
    }
    return ferror(f);
}

static int save_json(const chat *c, const char *path, pali_error *err) {
    /* Beside it first: a full disk must not cost the older file of that name. */
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return pali_fail(err, PALI_EIO, NULL, "the path is too long");
    if (unlink(part) && errno != ENOENT)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", part, strerror(errno));
    int rc = chatfile_write(part, c->model_dir, c->image_path, c->turns, c->nturns, err);
    if (!rc && rename(part, path))
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", path, strerror(errno));
    if (rc)
        unlink(part);
    return rc;
}

static int save_markdown(const chat *c, const char *path, pali_error *err) {
    FILE *f = fopen(path, "we");
    if (!f)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", path, strerror(errno));
    int bad = write_markdown(c, f);
    bad |= fclose(f);
    return bad ? pali_fail(err, PALI_EIO, "free some space", "%s: could not be written", path) : 0;
}

/* The picture at full resolution, with the boxes and masks of the last answer. */
static int save_picture(const chat *c, const char *path, pali_error *err) {
    if (!c->image)
        return pali_fail(err, PALI_EARG, NULL, "there is no picture to save");
    const pali_image *im = &c->image->image;
    size_t n = (size_t)im->width * (size_t)im->height * 3;
    uint8_t *rgb = malloc(n);
    ui_object *objects = app_marks_draw(&c->marks, im, 0);
    int rc = 0;
    if (!rgb || !objects)
        rc = pali_fail_nomem(err, "saving the picture");
    if (!rc) {
        memcpy(rgb, im->rgb, n);
        rc = ui_overlay_draw(rgb, im->width, im->height, objects, (int)c->marks.n, NULL)
                 ? pali_fail_nomem(err, "drawing the boxes")
                 : png_write(path, rgb, im->width, im->height, 3, err);
    }
    free(rgb);
    free(objects);
    return rc;
}

int chat_save(chat *c, const char *path, pali_error *err) {
    const char *dot = strrchr(path, '.');
    if (dot && !strcmp(dot, ".png"))
        return save_picture(c, path, err);
    if (!c->nturns)
        return pali_fail(err, PALI_EARG, NULL, "there is no conversation to save yet");
    if (dot && !strcmp(dot, ".md"))
        return save_markdown(c, path, err);
    if (dot && (!strcmp(dot, ".json") || !strcmp(dot, ".jsonl")))
        return save_json(c, path, err);
    return pali_fail(err, PALI_EARG, NULL, "the name must end in .md, .json or .png");
}
