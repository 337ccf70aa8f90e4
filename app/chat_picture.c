/* chat_picture.c - the pictures that are asked about: opening, adding, cropping, and what the
 * painter answers. */
#include "app/chat_state.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void open_image(chat *c, const char *path, bool forget, bool add) {
    char full[PATH_MAX];
    if (path && path[0] == '~' && path[1] == '/' && c->o->env.home &&
        snprintf(full, sizeof full, "%s%s", c->o->env.home, path + 1) < (int)sizeof full)
        path = full;
    if (painter_open_image(c->painter, path, forget, add)) {
        chat_no_memory(c);
        return;
    }
    c->opening++;
    chat_notice(c, "opening %s", path ? path : "the clipboard");
    c->notice_opening = true;
}

void chat_open_image(chat *c, const char *path) {
    open_image(c, path, true, false);
}

void chat_add_image(chat *c, const char *path) {
    open_image(c, path, false, true);
}

/* Tells the worker what is asked about. */
void chat_post_images(chat *c, bool forget) {
    shared_image **all = malloc((1 + c->nfurther) * sizeof *all);
    if (all) {
        all[0] = c->image;
        for (size_t i = 0; i < c->nfurther; i++)
            all[i + 1] = c->further[i];
    }
    if (!all || worker_images(c->worker, all, 1 + c->nfurther, forget) < 0)
        chat_no_memory(c);
    free(all);
}

void chat_forget_further(chat *c) {
    while (c->nfurther)
        shared_image_unref(c->further[--c->nfurther]);
    free(c->further);
    c->further = NULL;
}

/* One more picture for every question to come. Takes over the reference. */
static void add_image(chat *c, shared_image *image) {
    int most = c->loaded ? (c->info.context - 8) / c->info.image_tokens : INT_MAX;
    shared_image **more = NULL;
    if ((int)c->nfurther + 2 > most) {
        chat_notice(c, "there is room for %d pictures: start pali with all of them", most);
    } else if (!(more = realloc(c->further, (c->nfurther + 1) * sizeof *more))) {
        chat_no_memory(c);
    } else {
        c->further = more;
        c->further[c->nfurther++] = shared_image_ref(image);
        chat_post_images(c, false);
        c->working = true;
        chat_notice(c, "%zu pictures are asked about; boxes are in the first", c->nfurther + 1);
    }
    shared_image_unref(image);
}

void chat_set_image(chat *c, shared_image *image, bool forget) {
    shared_image *old = c->image;
    c->image = shared_image_ref(image);
    shared_image_unref(old);
    c->view = UI_VIEW_FIT;
    chat_forget_objects(c);
    if (forget) {
        pali_error err = {0};
        if (c->file && c->nturns && chatfile_drop(c->file, c->nturns, &err))
            chat_error(c, &err);
        chat_forget_conversation(c);
        /* What runs and what the worker has got was asked about the picture before. */
        c->orphan = c->busy;
        c->orphans = c->nposted;
    }
    chat_post_images(c, forget);
    c->working = true;
    chat_refresh_picture(c);
}

void chat_crop(chat *c, float x0, float y0, float x1, float y1) {
    if (!c->image)
        return;
    const pali_image *from = &c->image->image;
    int a = (int)x0, b = (int)y0, w = (int)x1 - a, h = (int)y1 - b;
    if (a < 0 || b < 0 || w < 2 || h < 2 || a + w > from->width || b + h > from->height) {
        chat_notice(c, "that part is not inside the picture");
        return;
    }
    pali_image part = {.width = w, .height = h, .rgb = malloc((size_t)w * (size_t)h * 3)};
    if (!part.rgb) {
        chat_no_memory(c);
        return;
    }
    for (int y = 0; y < h; y++)
        memcpy(part.rgb + (size_t)y * (size_t)w * 3,
               from->rgb + ((size_t)(b + y) * (size_t)from->width + (size_t)a) * 3, (size_t)w * 3);
    shared_image *s = shared_image_new(&part);
    if (!s) {
        chat_no_memory(c);
        return;
    }
    chat_set_image(c, s, false);
    shared_image_unref(s);
    chat_notice(c, "asking about a part of %dx%d pixels; /crop off for all of it", w, h);
}

void chat_uncrop(chat *c) {
    if (c->full && c->image != c->full)
        chat_set_image(c, c->full, false);
}

void chat_on_painter(chat *c, painter_event *e) {
    if (c->notice_opening && e->type != PAINTER_PICTURE)
        c->notice_until = 0; /* the status line has its name now, or the conversation why not */
    switch (e->type) {
    case PAINTER_IMAGE:
        c->opening--;
        if (e->add && c->image) {
            add_image(c, e->image);
            chat_post_questions(c);
            break;
        }
        chat_forget_further(c);
        shared_image_unref(c->full);
        c->full = e->image;
        bool first = c->image == NULL;
        free(c->image_path);
        c->image_path = e->path;
        e->path = NULL;
        if (!first && e->forget)
            ui_transcript_clear(c->log);
        chat_set_image(c, c->full, e->forget && !first);
        pali_error err = {0};
        if (c->file && chatfile_image(c->file, e->clipboard ? NULL : c->image_path, &err))
            chat_error(c, &err);
        chat_post_questions(c);
        chat_mark_last_turn(c);
        break;
    case PAINTER_PICTURE:
        if (e->serial != c->serial) {
            ui_picture_close(e->picture);
            break;
        }
        ui_picture_close(c->picture);
        c->picture = e->picture;
        c->generation++;
        c->emit = c->dirty = true;
        break;
    case PAINTER_FAILED:
        chat_error(c, &e->error);
        if (!e->path) /* only the preview */
            break;
        c->opening--;
        if (!c->opening) /* else they are about the picture that comes next */
            chat_drop_unposted(c);
        break;
    }
    free(e->path);
}
