/* marks.c - see marks.h. */
#include "app/marks.h"

#include "core/file.h"
#include "ui/text.h"

#include <stdlib.h>
#include <string.h>

enum {
    LABEL = 3 * PALI_LABEL_MAX
};

void app_masks_close(app_masks *m) {
    pali_mask_decoder_close(m->decoder);
    m->decoder = NULL;
    m->failed = false;
}

static int open_decoder(app_masks *m, pali_error *err) {
    char *beside = m->file || !m->model_dir ? NULL : pali_mask_find(m->model_dir);
    const char *path = m->file ? m->file : beside;
    int rc = path ? pali_mask_decoder_open(path, &m->decoder, err)
                  : pali_fail(err, PALI_EIO,
                              "put https://storage.googleapis.com/big_vision/paligemma/vae-oid.npz "
                              "there, or name it with --mask-weights",
                              "masks are not drawn: %s has no vae-oid.npz",
                              m->model_dir ? pali_file_brief(m->model_dir) : "the model");
    m->failed = rc != 0;
    free(beside);
    return rc;
}

/* The mask of o: from `old` if that had it, else decoded. */
static uint8_t *mask_of(app_masks *m, const pali_object *o, app_marks *old, size_t i, int *rc,
                        pali_error *err) {
    if (!o->has_mask)
        return NULL;
    if (i < old->n && old->masks[i] && !memcmp(o->codes, old->objects[i].codes, sizeof o->codes)) {
        uint8_t *had = old->masks[i];
        old->masks[i] = NULL;
        return had;
    }
    if (!m->decoder && (m->failed || (*rc = open_decoder(m, err))))
        return NULL;
    uint8_t *mask = malloc(APP_MASK_BYTES);
    if (!mask)
        return NULL; /* a mask less */
    float map[APP_MASK_BYTES];
    pali_mask_decode(m->decoder, o->codes, map);
    pali_mask_bytes(map, mask);
    return mask;
}

int app_marks_set(app_marks *marks, app_masks *m, const pali_object *objects, size_t n,
                  pali_error *err) {
    app_marks old = *marks;
    int rc = 0;
    *marks = (app_marks){.objects = calloc(n + 1, sizeof *objects),
                         .masks = calloc(n + 1, sizeof *marks->masks),
                         .n = n};
    if (!marks->objects || !marks->masks) {
        marks->n = 0;
        app_marks_close(marks);
        rc = pali_fail_nomem(err, "drawing the boxes");
    }
    for (size_t i = 0; i < marks->n; i++) {
        marks->objects[i] = objects[i];
        marks->masks[i] = mask_of(m, &objects[i], &old, i, &rc, err);
        marks->nmasks += marks->masks[i] != NULL;
    }
    app_marks_close(&old);
    return rc;
}

void app_marks_close(app_marks *marks) {
    for (size_t i = 0; i < marks->n; i++)
        free(marks->masks[i]);
    free(marks->masks);
    free(marks->objects);
    *marks = (app_marks){0};
}

ui_object *app_marks_draw(const app_marks *marks, const pali_image *image, size_t more) {
    size_t n = marks->n + more;
    ui_object *list = calloc(1, n * sizeof *list + marks->n * LABEL + 1);
    if (!list)
        return NULL;
    char *label = (char *)(list + n);
    for (size_t i = 0; i < marks->n; i++, label += LABEL) {
        const pali_object *o = &marks->objects[i];
        list[i] = (ui_object){
            .mask = marks->masks[i],
            .mask_w = PALI_MASK_SIDE,
            .mask_h = PALI_MASK_SIDE,
            .label = ui_text_clean(UI_TEXT_LINE, o->label, label, LABEL),
            .colour = (int)(i % UI_OBJECT_COLOURS),
        };
        pali_image_place_box(image, o->box, list[i].box);
    }
    return list;
}
