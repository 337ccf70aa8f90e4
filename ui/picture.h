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

void ui_view_clamp(ui_view *v);

typedef struct {
    const uint8_t *rgb; /* [height][width][3]; borrowed for the call */
    int width, height;
    ui_view view;
    const ui_object *objects;
    int nobjects;
    ui_rect pane;       /* where on the screen */
    int cell_w, cell_h; /* pixels of a cell; 0 = assume 1:2 */
    ui_graphics graphics;
    ui_colours colours;
} ui_picture_request;

typedef struct ui_picture ui_picture;

/* NULL with a sentence in why when memory or chafa fails. Free with ui_picture_close. */
ui_picture *ui_picture_render(const ui_picture_request *r, char *why, size_t why_size);
void ui_picture_close(ui_picture *p);
/* The cells the image covers inside the pane (centred, aspect kept). */
ui_rect ui_picture_area(const ui_picture *p);
/* Screen cell -> pixel of the picture at its centre; false when outside the image. */
bool ui_picture_pixel(const ui_picture *p, int y, int x, float *px, float *py);

/* Fills the pane with placeholders on the curses screen (before doupdate); a generation
 * other than the last one's makes curses rewrite the cells. */
void ui_picture_placeholders(ui_rect pane, unsigned generation);
/* Writes the picture over its placeholders (after doupdate). -1 on a write error. */
int ui_picture_show(const ui_picture *p, bool sync);
/* Removes pictures that live in a layer of their own (kitty); nothing for others. */
void ui_picture_hide(ui_graphics g);

#endif
