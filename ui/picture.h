/* picture.h - RGB pixels -> cells or terminal graphics. The only file that knows chafa.
 *
 * The pane is a foreign region on the curses screen: curses paints placeholders there that
 * differ from row to row (else its scroll optimiser drags the picture along), and after
 * doupdate() the picture is written over them. Two steps, so that the slow one can run on
 * another thread: ui_picture_render makes the bytes (no terminal), ui_picture_show writes. */
#ifndef UI_PICTURE_H
#define UI_PICTURE_H

#include "ui/layout.h"
#include "ui/overlay.h"
#include "ui/term.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What part of the picture is seen. Zoom 1 shows all of it. */
typedef struct {
    float cx, cy; /* centre, [0, 1] of width and height */
    float zoom;   /* 1 .. 32 */
} ui_view;
#define UI_VIEW_FIT ((ui_view){0.5f, 0.5f, 1.0f})

/* Any values -> values in range. That the centre is too close to a border for this zoom
 * only a rendered picture knows: ui_picture_view. */
void ui_view_clamp(ui_view *v);

typedef struct {
    const uint8_t *rgb; /* [height][width][3]; borrowed for the call */
    int width, height;
    ui_view view;
    const ui_object *objects;
    int nobjects;
    ui_rect pane;         /* where on the screen; must end above its last row (layout.h) */
    int cell_w, cell_h;   /* pixels of a cell; 0 = assume 1:2 */
    int sixel_w, sixel_h; /* pixels of the largest sixel picture it takes; 0 = assume 1000 */
    ui_graphics graphics;
    ui_colours colours;
    bool light; /* the terminal's background is light: matters for one-colour pictures */
} ui_picture_request;

typedef struct ui_picture ui_picture;

/* NULL with a sentence in why when the size makes no sense, or memory or chafa fails. Free
 * with ui_picture_close. Uses no terminal; may run on any one thread. */
ui_picture *ui_picture_render(const ui_picture_request *r, char *why, size_t why_size);
void ui_picture_close(ui_picture *p);
/* The cells the image covers inside the pane (centred, aspect kept); h, w 0 = none. */
ui_rect ui_picture_area(const ui_picture *p);
/* The view as it is shown, its centre moved so that no border comes inside: pan and zoom
 * from this one, else keys seem dead after a pan against a border. */
ui_view ui_picture_view(const ui_picture *p);
/* The part that is seen: x0 y0 x1 y1 in pixels of the picture. */
void ui_picture_crop(const ui_picture *p, float box[4]);
/* Screen cell -> pixel of the picture at its centre; false when outside the image. */
bool ui_picture_pixel(const ui_picture *p, int y, int x, float *px, float *py);

/* Fills the pane with placeholders on the curses screen (before doupdate). A generation one
 * above the last one's makes curses rewrite the cells, and so erase what was there. */
void ui_picture_placeholders(ui_rect pane, unsigned generation);
/* What ui_picture_show writes: cursor saved, picture, cursor restored; with sync as one
 * synchronized update. Borrowed until close; NULL and 0 when there is nothing to show. */
const char *ui_picture_bytes(const ui_picture *p, bool sync, size_t *n);
/* Writes the picture over its placeholders (after doupdate). -1 on a write error. */
int ui_picture_show(const ui_picture *p, bool sync);
/* Removes pictures that live in a layer of their own (kitty); nothing for others. */
void ui_picture_hide(ui_graphics g);

#endif
