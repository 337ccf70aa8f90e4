/* pictures_out.c - see pictures_out.h. */
#include "app/pictures_out.h"

#include "app/output.h"
#include "app/png.h"
#include "core/file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    NAME_MAX_BYTES = 80, /* of a stem, and of a label in a name */
};

struct app_pictures {
    app_pictures_wish wish;
    char **stems; /* given out so far */
    size_t nstems, cap;
    size_t failed;
    bool told[3];
};

static void make_folder(const char *path) {
    if (path)
        mkdir(path, 0777); /* that it failed shows with the first file */
}

app_pictures *app_pictures_open(const app_pictures_wish *wish) {
    app_pictures *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->wish = *wish;
    make_folder(wish->mask_dir);
    make_folder(wish->crop_dir);
    if (wish->many)
        make_folder(wish->overlay);
    return p;
}

void app_pictures_close(app_pictures *p) {
    if (!p)
        return;
    for (size_t i = 0; i < p->nstems; i++)
        free(p->stems[i]);
    free(p->stems);
    free(p);
}

size_t app_pictures_failed(const app_pictures *p) {
    return p->failed;
}

void app_left_close(app_left *left) {
    for (size_t i = 0; i < left->n; i++) {
        free(left->masks[i]);
        free(left->crops[i]);
    }
    free(left->masks);
    free(left->crops);
    free(left->overlay);
    *left = (app_left){0};
}

/* --- names ---------------------------------------------------------------------------- */

/* s[0..n) as a part of a file's name. */
static void clean_name(const char *s, size_t n, char out[NAME_MAX_BYTES + 1]) {
    size_t used = 0;
    for (size_t i = 0; i < n && used < NAME_MAX_BYTES; i++) {
        unsigned char c = (unsigned char)s[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("-_.", c) && used);
        /* Letters beyond ASCII stay: a name in them would otherwise be all underscores. */
        out[used++] = plain || c >= 0x80 ? (char)c : '_';
    }
    if (n > used) { /* cut at a whole character */
        while (used && ((unsigned char)out[used - 1] & 0xC0) == 0x80)
            used--;
        used -= used && (unsigned char)out[used - 1] >= 0xC0;
    }
    out[used] = 0;
}

static bool is_taken(const app_pictures *p, const char *stem) {
    for (size_t i = 0; i < p->nstems; i++)
        if (!strcasecmp(p->stems[i], stem)) /* some file systems see no difference */
            return true;
    return false;
}

char *app_pictures_stem(app_pictures *p, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!strcmp(path, "-") || !*name)
        name = "stdin";
    const char *dot = strrchr(name, '.');
    char clean[NAME_MAX_BYTES + 1], *stem = NULL;
    clean_name(name, dot > name ? (size_t)(dot - name) : strlen(name), clean);
    if (p->nstems == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 64;
        char **more = reallocarray(p->stems, cap, sizeof *more);
        if (!more)
            return NULL;
        p->stems = more;
        p->cap = cap;
    }
    if (asprintf(&stem, "%s", clean) < 0)
        return NULL;
    for (size_t i = 2; is_taken(p, stem); i++) {
        free(stem);
        if (asprintf(&stem, "%s-%zu", clean, i) < 0)
            return NULL;
    }
    char *kept = strdup(stem);
    if (kept)
        p->stems[p->nstems++] = kept;
    return stem;
}

/* DIR/STEM-NUMBER-LABEL.png; NULL: no memory. */
static char *object_path(const char *dir, const char *stem, size_t i, const pali_object *o) {
    char label[NAME_MAX_BYTES + 1], *name, *path = NULL;
    clean_name(o->label, strlen(o->label), label);
    if (asprintf(&name, "%s-%zu%s%s.png", stem, i + 1, *label ? "-" : "", label) >= 0) {
        path = pali_file_join(dir, name);
        free(name);
    }
    return path;
}

/* Where this picture's overlay goes: the file itself for the first answer about one picture. */
static char *overlay_path(const app_pictures *p, const char *stem) {
    const char *out = p->wish.overlay;
    char *path = NULL, *name;
    if (p->wish.many || pali_file_is_folder(out)) {
        if (asprintf(&name, "%s.png", stem) < 0)
            return NULL;
        path = pali_file_join(out, name);
        free(name);
        return path;
    }
    if (p->nstems < 2)
        return strdup(out);
    const char *slash = strrchr(out, '/'), *dot = strrchr(out, '.');
    int n = dot && dot > (slash ? slash + 1 : out) ? (int)(dot - out) : (int)strlen(out);
    return asprintf(&path, "%.*s-%zu%s", n, out, p->nstems, out + n) < 0 ? NULL : path;
}

/* --- files ----------------------------------------------------------------------------- */

/* Writes one; *path is freed and becomes NULL when that fails. kind: which complaint it is. */
static void write_one(app_pictures *p, int kind, char **path, const uint8_t *pixels, int width,
                      int height, int channels) {
    pali_error failure = {0};
    if (!png_write(*path, pixels, width, height, channels, &failure))
        return;
    if (!p->told[kind])
        app_err_complain(&failure);
    p->told[kind] = true;
    p->failed++;
    free(*path);
    *path = NULL;
}

static int write_overlay(app_pictures *p, const char *stem, const pali_image *image,
                         const app_marks *marks, app_left *left) {
    size_t n = (size_t)image->width * (size_t)image->height * 3;
    uint8_t *rgb = malloc(n);
    ui_object *objects = app_marks_draw(marks, image, 0);
    left->overlay = overlay_path(p, stem);
    bool ok = rgb && objects && left->overlay;
    if (ok) {
        memcpy(rgb, image->rgb, n);
        ok = !ui_overlay_draw(rgb, image->width, image->height, objects, (int)marks->n, NULL);
    }
    if (ok)
        write_one(p, 0, &left->overlay, rgb, image->width, image->height, 3);
    free(rgb);
    free(objects);
    return ok ? 0 : -1;
}

/* The mask at its place in a picture of zeros. */
static int write_mask(app_pictures *p, const pali_image *image, const pali_mask *m, char **path) {
    uint8_t *grey = calloc((size_t)image->width, (size_t)image->height);
    if (!grey || !*path) {
        free(grey);
        return -1;
    }
    for (int y = 0; y < m->height; y++)
        memcpy(grey + (size_t)(m->y + y) * (size_t)image->width + (size_t)m->x,
               m->soft + (size_t)y * (size_t)m->width, (size_t)m->width);
    write_one(p, 1, path, grey, image->width, image->height, 1);
    free(grey);
    return 0;
}

/* The pixels that the box touches. */
static int write_crop(app_pictures *p, const pali_image *image, const float whole[4], char **path) {
    float box[4];
    pali_image_place_box(image, whole, box);
    int x0 = (int)floorf(box[0]), y0 = (int)floorf(box[1]);
    int w = (int)ceilf(box[2]) - x0, h = (int)ceilf(box[3]) - y0;
    uint8_t *rgb = *path ? malloc((size_t)w * (size_t)h * 3) : NULL;
    if (!rgb)
        return -1;
    for (int y = 0; y < h; y++)
        memcpy(rgb + (size_t)y * (size_t)w * 3,
               image->rgb + ((size_t)(y0 + y) * (size_t)image->width + (size_t)x0) * 3,
               (size_t)w * 3);
    write_one(p, 2, path, rgb, w, h, 3);
    free(rgb);
    return 0;
}

int app_pictures_write(app_pictures *p, const char *stem, const pali_image *image,
                       const app_marks *marks, const pali_mask *placed, app_left *left,
                       pali_error *err) {
    *left = (app_left){.masks = calloc(marks->n + 1, sizeof *left->masks),
                       .crops = calloc(marks->n + 1, sizeof *left->crops),
                       .n = marks->n};
    int rc = left->masks && left->crops ? 0 : -1;
    if (!left->masks || !left->crops)
        left->n = 0;
    if (!rc && p->wish.overlay)
        rc = write_overlay(p, stem, image, marks, left);
    for (size_t i = 0; i < marks->n && !rc; i++) {
        const pali_object *o = &marks->objects[i];
        if (p->wish.mask_dir && placed[i].soft) {
            left->masks[i] = object_path(p->wish.mask_dir, stem, i, o);
            rc = write_mask(p, image, &placed[i], &left->masks[i]);
        } else if (p->wish.mask_dir && o->has_mask) {
            p->failed++; /* for want of weights, which was told */
        }
        if (!rc && p->wish.crop_dir) {
            left->crops[i] = object_path(p->wish.crop_dir, stem, i, o);
            rc = write_crop(p, image, o->box, &left->crops[i]);
        }
    }
    return rc ? pali_fail_nomem(err, "writing the pictures of an answer") : 0;
}
