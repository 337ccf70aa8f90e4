/* session.c - see session.h. */
#include "app/session.h"

#include "app/dump.h"
#include "app/frames.h"
#include "app/output.h"
#include "app/process.h"
#include "core/image_sandbox.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double app_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void describe(const app_session *s, const char *model_dir) {
    const pali_engine_info *i = &s->info;
    if (s->image_path)
        app_err_note("picture  %s, %d x %d%s", s->image_path, pali_image_full_width(&s->image),
                     pali_image_full_height(&s->image),
                     pali_image_sandbox_on() ? "" : ", decoded without a sandbox");
    if (s->image.full_width)
        app_err_note("         made smaller while it was decoded: %d x %d", s->image.width,
                     s->image.height);
    if (s->nfurther)
        app_err_note("         and %zu more for the same prompt", s->nfurther);
    app_err_note(
        "model    %s: %s, %s%s, %.1f million weights, %.1f MB, %d x %d pixels in %d tokens",
        model_dir, i->generation == 2 ? "PaliGemma 2" : "PaliGemma", i->dtype,
        i->coded_tower ? " (the encoder too)" : "", 1e-6 * (double)i->params,
        1e-6 * (double)i->weight_bytes, i->image_size, i->image_size, i->image_tokens);
    app_err_note("backend  %s, room for %d tokens", i->backend, i->context);
    if (i->fallback)
        app_err_note("         not CUDA: %s", i->fallback);
}

int app_session_find_model(const app_options *o, char *dir, size_t size, pali_error *err) {
    app_demo demo = {0};
    int rc = 0;
    *dir = '\0';
    if (o->demo) {
        rc = app_demo_open(&demo, err);
        if (!rc)
            snprintf(dir, size, "%s", demo.dir);
        app_demo_close(&demo);
    } else if (o->model && *o->model) {
        rc = pali_hub_find(&o->hub, o->model, dir, size, err);
    }
    return rc;
}

int app_session_begin(app_session *out, const app_options *o, pali_error *err) {
    *out = (app_session){.options = o};
    return o->demo ? app_demo_open(&out->demo, err) : 0;
}

static void remark(void *user, const char *line) {
    (void)user;
    app_err_note("%s", line);
}

int app_session_load(app_session *s, const pali_run *run, pali_error *err) {
    const app_options *o = s->options;
    double start = app_clock();
    int rc = 0;
    pali_engine_options eo = {
        .model_dir = s->model_dir,
        .backend = o->backend,
        .threads = o->threads,
        .images = 1 + (int)s->nfurther,
        .context = o->context,
        .math = o->math,
        .quant = o->quant,
        .quant_all = o->quant_all,
        .head8 = o->head8,
        .image_folder = o->image_folder,
        .remark = o->verbose ? remark : NULL,
    };
    if (o->demo)
        snprintf(s->model_dir, sizeof s->model_dir, "%s", s->demo.dir);
    else
        rc = pali_hub_find(&o->hub, o->model, s->model_dir, sizeof s->model_dir, err);
    if (!rc)
        rc = pali_engine_open(&eo, run, &s->engine, err);
    if (rc)
        return rc;
    pali_engine_describe(s->engine, &s->info);
    s->load_s = app_clock() - start;
    if (o->verbose)
        describe(s, s->model_dir);
    else if (s->info.fallback && s->info.card)
        app_err_note("not using the graphics card: %s%s%s", s->info.fallback,
                     *s->info.advice ? "; " : "", s->info.advice);
    if (s->info.note)
        app_err_note("%s", s->info.note);
    return pali_dialog_open(s->engine, &s->dialog, err);
}

static int set_images(app_session *s, pali_error *err) {
    const pali_image **all = malloc((1 + s->nfurther) * sizeof *all);
    if (!all)
        return pali_fail_nomem(err, "opening the images");
    all[0] = &s->image;
    for (size_t i = 0; i < s->nfurther; i++)
        all[i + 1] = &s->further[i];
    int rc = pali_dialog_set_images(s->dialog, all, 1 + s->nfurther, true, err);
    free(all);
    return rc;
}

/* Every picture that the options name, or the frames of what moves. */
static int open_pictures(app_session *s, pali_error *err) {
    const app_options *o = s->options;
    size_t each = o->frames ? (size_t)o->frames : 1, files = o->nimages ? o->nimages : 1;
    pali_image *list = calloc(files * each, sizeof *list);
    size_t n = 0;
    int rc = list ? 0 : pali_fail_nomem(err, "opening the images");
    for (size_t i = 0; i < files && !rc; i++) {
        size_t got;
        rc = app_frames_open(i ? o->images[i] : s->image_path, (size_t)o->frames, list + n, &got,
                             err);
        n += got;
    }
    if (n) {
        s->image = list[0];
        s->nfurther = n - 1;
        memmove(list, list + 1, s->nfurther * sizeof *list);
    }
    s->further = list;
    return rc;
}

int app_session_open(app_session *out, const app_options *o, const pali_run *run, pali_error *err) {
    int rc = app_session_begin(out, o, err);
    if (rc)
        return rc;
    out->image_path = o->nimages ? o->images[0] : out->demo.picture;
    rc = open_pictures(out, err);
    if (!rc && o->dump)
        rc = app_dump_prepare(o->dump, err);
    if (rc)
        return rc;
    /* Not earlier: a picture that never comes on standard input must be interruptible. */
    app_process_catch_signals();
    rc = app_session_load(out, run, err);
    return rc ? rc : set_images(out, err);
}

app_tiling app_session_tiling(const app_session *s, const pali_image *image) {
    app_tiling want = s->options->tile;
    app_tiles_detail detail = {0};
    if (!want.cols)
        detail = app_tiles_look(image->rgb, image->width, image->height);
    return app_tiling_choose(want, image->width, image->height, s->info.image_size, detail);
}

void app_session_close(app_session *s) {
    pali_dialog_close(s->dialog);
    pali_engine_close(s->engine);
    pali_image_close(&s->image);
    while (s->nfurther)
        pali_image_close(&s->further[--s->nfurther]);
    free(s->further);
    app_demo_close(&s->demo);
    *s = (app_session){0};
}
