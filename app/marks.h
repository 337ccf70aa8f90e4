/* marks.h - what an answer points at, as it is drawn: boxes, masks, labels.
 *
 * The weights that turn codes into masks are a file beside the model, or one that the user
 * names. Without them boxes are drawn, and it is said once how to get the masks.          */
#ifndef APP_MARKS_H
#define APP_MARKS_H

#include "core/mask.h"
#include "core/pali.h"
#include "ui/overlay.h"

#include <stdbool.h>

enum {
    APP_MASK_BYTES = PALI_MASK_SIDE * PALI_MASK_SIDE
};

/* The mask decoder of one model, opened when the first mask is met. Set the first two (borrowed);
 * close, or call app_masks_close before they change. */
typedef struct {
    const char *file;      /* from the user; NULL: beside the model */
    const char *model_dir; /* NULL: none yet */
    pali_mask_decoder *decoder;
    bool failed; /* it was told */
} app_masks;
void app_masks_close(app_masks *m);

/* The objects of an answer. masks[i] are APP_MASK_BYTES bytes as pali_mask_bytes makes them, or
 * NULL. Owns all three. Zeroed: none. */
typedef struct {
    pali_object *objects;
    uint8_t **masks;
    size_t n, nmasks;
} app_marks;

/* Makes *marks show objects (copied). A mask it had already is not decoded again, so it may be
 * called with every token. Returns 0; PALI_ENOMEM (*marks is empty then); or, the first time
 * that a mask cannot be decoded for want of weights, why: everything else is there. */
int app_marks_set(app_marks *marks, app_masks *m, const pali_object *objects, size_t n,
                  pali_error *err);
void app_marks_close(app_marks *marks);

/* The marks in the pixels of image, for ui_overlay and ui_picture, with `more` empty ones behind; masks are borrowed from
 * marks, labels are inside. Caller frees with free(). NULL when memory is out. */
ui_object *app_marks_draw(const app_marks *marks, const pali_image *image, size_t more);

#endif
