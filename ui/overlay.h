/* overlay.h - boxes, masks and labels drawn onto RGB pixels. Pure; the same for the
 * preview and for files.                                                             */
#ifndef UI_OVERLAY_H
#define UI_OVERLAY_H

#include <stdint.h>

typedef struct {
    float box[4];        /* x0 y0 x1 y1 in pixels of the picture */
    const uint8_t *mask; /* NULL, or [mask_h][mask_w] 0..255 stretched over the box; borrowed */
    int mask_w, mask_h;
    const char *label; /* clean text; borrowed */
    int colour;        /* index into ui_object_rgb */
} ui_object;

/* Draws onto rgb [height][width][3] in place; line = width in pixels, 0 = by size. */
void ui_overlay_draw(uint8_t *rgb, int width, int height, const ui_object *objects, int nobjects,
                     int line);

#endif
