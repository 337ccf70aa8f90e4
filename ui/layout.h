/* layout.h - screen size -> rectangles. Pure: no curses, no state.
 *
 *   wide                                        narrow
 *   +-----------+--------------------+          +--------------------+
 *   | picture   | transcript         |          | picture            |
 *   |           |                    |          +--------------------+
 *   |           +--------------------+          | transcript         |
 *   |           | input              |          +--------------------+
 *   +-----------+--------------------+          | input              |
 *   | status                         |          | status             |
 *   +--------------------------------+          +--------------------+
 *
 * The last row is always the status line: a sixel that touches the last row scrolls
 * the screen, so the picture must end above it.                                     */
#ifndef UI_LAYOUT_H
#define UI_LAYOUT_H

#include <stdbool.h>

typedef struct {
    int y, x, h, w; /* rows and columns of the screen; h or w 0 = not shown */
} ui_rect;

enum {
    UI_LAYOUT_MIN_ROWS = 12,
    UI_LAYOUT_MIN_COLS = 40
};

typedef struct {
    int rows, cols;
    bool picture; /* show the preview */
    int split;    /* share of the preview, 1/1000 of width (wide) or height (narrow); 0 = default */
    int input_rows; /* rows the input would like; it gets 1 .. a third of the screen */
} ui_layout_request;

typedef struct {
    bool too_small; /* nothing but a message fits */
    bool stacked;   /* picture above the transcript instead of beside it */
    ui_rect picture, divider, transcript, input, status;
} ui_layout;

void ui_layout_compute(const ui_layout_request *r, ui_layout *out);

/* The split that puts the divider at row y / column x: for dragging. */
int ui_layout_split_at(const ui_layout *l, const ui_layout_request *r, int y, int x);

#endif
