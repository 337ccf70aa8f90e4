/* layout.c - the arithmetic of panes; see layout.h for the two shapes. */
#include "ui/layout.h"

enum {
    WIDE_COLS = 76,     /* from here on, and when not much taller than wide, side by side */
    TEXT_MIN_COLS = 28, /* the transcript keeps at least this */
    TEXT_MIN_ROWS = 4,
    PICTURE_MIN_COLS = 12,
    PICTURE_MIN_ROWS = 4,
    SPLIT_WIDE = 480, /* default share of the picture, 1/1000 */
    SPLIT_NARROW = 400,
};

static int clamp(int v, int lo, int hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

void ui_layout_compute(const ui_layout_request *r, ui_layout *out) {
    *out = (ui_layout){0};
    if (r->rows < UI_LAYOUT_MIN_ROWS || r->cols < UI_LAYOUT_MIN_COLS) {
        out->too_small = true;
        return;
    }
    int rows = r->rows - 1; /* above the status line */
    out->status = (ui_rect){rows, 0, 1, r->cols};
    /* A cell is about twice as tall as wide: 2 * rows is the screen's height in columns. */
    out->stacked = r->cols < WIDE_COLS || r->cols < 2 * r->rows - 8;
    int input = clamp(r->input_rows, 1, r->rows / 3);

    if (!r->picture) {
        out->transcript = (ui_rect){0, 0, rows - input, r->cols};
        out->input = (ui_rect){rows - input, 0, input, r->cols};
    } else if (out->stacked) {
        input = clamp(input, 1, rows - 1 - PICTURE_MIN_ROWS - TEXT_MIN_ROWS);
        int share = r->split ? r->split : SPLIT_NARROW;
        int h = clamp((int)((long)rows * share / 1000), PICTURE_MIN_ROWS,
                      rows - input - 1 - TEXT_MIN_ROWS);
        out->picture = (ui_rect){0, 0, h, r->cols};
        out->divider = (ui_rect){h, 0, 1, r->cols};
        out->transcript = (ui_rect){h + 1, 0, rows - input - h - 1, r->cols};
        out->input = (ui_rect){rows - input, 0, input, r->cols};
    } else {
        int share = r->split ? r->split : SPLIT_WIDE;
        int w = clamp((int)((long)r->cols * share / 1000), PICTURE_MIN_COLS,
                      r->cols - 1 - TEXT_MIN_COLS);
        int x = w + 1;
        out->picture = (ui_rect){0, 0, rows, w};
        out->divider = (ui_rect){0, w, rows, 1};
        out->transcript = (ui_rect){0, x, rows - input, r->cols - x};
        out->input = (ui_rect){rows - input, x, input, r->cols - x};
    }
}

int ui_layout_split_at(const ui_layout *l, const ui_layout_request *r, int y, int x) {
    int at = l->stacked ? y : x, all = l->stacked ? r->rows - 1 : r->cols;
    if (all < 1)
        return 1;
    /* Rounded up, so that computing the layout from it lands on the same cell. */
    return clamp((at * 1000 + all - 1) / all, 1, 999);
}
