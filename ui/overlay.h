/* overlay.h - boxes, masks and labels drawn onto RGB pixels. Pure; the same for the
 * preview and for files.                                                             */
#ifndef UI_OVERLAY_H
#define UI_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

/* Colours of detected objects: the same RGB in picture and legend, chosen to stay apart
 * for the usual colour-vision deficiencies (Okabe & Ito 2008). */
enum {
    UI_OBJECT_COLOURS = 8
};
extern const unsigned char ui_object_rgb[UI_OBJECT_COLOURS][3];
/* True when black letters are easier to read on this colour than white ones. */
bool ui_object_dark_ink(int colour);
/* Its number in a terminal's palette of so many colours (256, 16 or 8). */
int ui_object_palette(int colour, int colours);

typedef struct {
    float box[4];        /* x0 y0 x1 y1 in pixels of the picture; any value is safe */
    const uint8_t *mask; /* NULL, or [mask_h][mask_w] 0..255 stretched over the box; borrowed */
    int mask_w, mask_h;
    const char *label; /* clean text; borrowed; NULL or "" = none */
    int colour;        /* index into ui_object_rgb, taken modulo its size */
} ui_object;

/* Zeroes choose everything by the size of the picture. */
typedef struct {
    int line;   /* width of a box's line in pixels; -1 = no boxes */
    int text;   /* pixels per dot of the 5x7 letters; -1 = no labels */
    bool plain; /* no dark or light edges along the lines: for pictures that become symbols,
                   where a cell has but two colours */
} ui_overlay_style;

/* Draws onto rgb [height][width][3] in place: masks first, then boxes, then labels. An
 * object whose box holds a NaN is left out. -1 when memory is out (rgb may be half drawn). */
int ui_overlay_draw(uint8_t *rgb, int width, int height, const ui_object *objects, int nobjects,
                    const ui_overlay_style *style);

/* A label's plate, in the unit of the boxes. */
typedef struct {
    int x, y, w, h;
} ui_plate;

/* Puts plates[i] (w and h are the wish) beside the box of objects[i]: above it, else inside,
 * else below, away from the plates before it, never outside of width x height. w becomes
 * smaller when the picture is narrower, and 0 when the box is out of sight. */
void ui_overlay_place(const ui_object *objects, int nobjects, int width, int height,
                      ui_plate *plates);

#endif
