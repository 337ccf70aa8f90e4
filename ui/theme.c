/* theme.c - the table of looks; see theme.h.
 *
 * Colours are numbers of the terminal's own palette: 0-7, and 8-15 where there are that
 * many. -1 keeps the terminal's default, so the background is always the user's.          */
#include "ui/theme.h"
#include "ui/overlay.h"

#include <ncurses.h>
#include <stdlib.h>

typedef struct {
    short fg, bg;
    unsigned long attr;
} look;

enum {
    BRIGHT = 8
};

/* [theme][look]; the row for "none" is also what a mono terminal gets. */
static const look looks[][UI_LOOKS] =
    {
        [UI_THEME_DARK] =
            {
                [UI_LOOK_TEXT] = {-1, -1, 0},
                [UI_LOOK_DIM] = {BRIGHT + COLOR_BLACK, -1, 0},
                [UI_LOOK_YOU] = {COLOR_CYAN, -1, A_BOLD},
                [UI_LOOK_MODEL] = {-1, -1, 0},
                [UI_LOOK_NOTICE] = {COLOR_YELLOW, -1, 0},
                [UI_LOOK_ERROR] = {BRIGHT + COLOR_RED, -1, A_BOLD},
                [UI_LOOK_BOX] = {COLOR_GREEN, -1, 0},
                [UI_LOOK_STATUS] = {COLOR_WHITE, BRIGHT + COLOR_BLACK, 0},
                [UI_LOOK_STATUS_KEY] = {BRIGHT + COLOR_WHITE, BRIGHT + COLOR_BLACK, A_BOLD},
                [UI_LOOK_PROMPT] = {COLOR_CYAN, -1, A_BOLD},
                [UI_LOOK_DIVIDER] = {BRIGHT + COLOR_BLACK, -1, 0},
                [UI_LOOK_POPUP] = {-1, -1, 0},
                [UI_LOOK_SELECTED] = {-1, -1, A_REVERSE},
                [UI_LOOK_LIKELY] = {COLOR_YELLOW, -1, 0},
                [UI_LOOK_UNSURE] = {BRIGHT + COLOR_MAGENTA, -1, A_UNDERLINE},
                [UI_LOOK_GUESS] = {COLOR_WHITE, COLOR_RED, A_BOLD},
            },
        [UI_THEME_LIGHT] =
            {
                [UI_LOOK_TEXT] = {-1, -1, 0},
                [UI_LOOK_DIM] = {BRIGHT + COLOR_BLACK, -1, 0},
                [UI_LOOK_YOU] = {COLOR_BLUE, -1, A_BOLD},
                [UI_LOOK_MODEL] = {-1, -1, 0},
                [UI_LOOK_NOTICE] = {COLOR_MAGENTA, -1, 0},
                [UI_LOOK_ERROR] = {COLOR_RED, -1, A_BOLD},
                [UI_LOOK_BOX] = {COLOR_GREEN, -1, 0},
                [UI_LOOK_STATUS] = {COLOR_BLACK, COLOR_WHITE, 0},
                [UI_LOOK_STATUS_KEY] = {COLOR_BLACK, COLOR_WHITE, A_BOLD},
                [UI_LOOK_PROMPT] = {COLOR_BLUE, -1, A_BOLD},
                [UI_LOOK_DIVIDER] = {BRIGHT + COLOR_BLACK, -1, 0},
                [UI_LOOK_POPUP] = {-1, -1, 0},
                [UI_LOOK_SELECTED] = {-1, -1, A_REVERSE},
                [UI_LOOK_LIKELY] = {COLOR_BLUE, -1, 0},
                [UI_LOOK_UNSURE] = {COLOR_MAGENTA, -1, A_UNDERLINE},
                [UI_LOOK_GUESS] = {COLOR_WHITE, COLOR_RED, A_BOLD},
            },
        [UI_THEME_NONE] =
            {
                [UI_LOOK_TEXT] = {-1, -1, 0},
                [UI_LOOK_DIM] = {-1, -1, A_DIM},
                [UI_LOOK_YOU] = {-1, -1, A_BOLD},
                [UI_LOOK_MODEL] = {-1, -1, 0},
                [UI_LOOK_NOTICE] = {-1, -1, A_DIM},
                [UI_LOOK_ERROR] = {-1, -1, A_BOLD},
                [UI_LOOK_BOX] = {-1, -1, A_UNDERLINE},
                [UI_LOOK_STATUS] = {-1, -1, A_REVERSE},
                [UI_LOOK_STATUS_KEY] = {-1, -1, A_REVERSE | A_BOLD},
                [UI_LOOK_PROMPT] = {-1, -1, A_BOLD},
                [UI_LOOK_DIVIDER] = {-1, -1, A_DIM},
                [UI_LOOK_POPUP] = {-1, -1, 0},
                [UI_LOOK_SELECTED] = {-1, -1, A_REVERSE},
                [UI_LOOK_LIKELY] = {-1, -1, A_DIM},
                [UI_LOOK_UNSURE] = {-1, -1, A_UNDERLINE},
                [UI_LOOK_GUESS] = {-1, -1, A_REVERSE},
            },
};

static ui_theme current = UI_THEME_NONE;

/* Grey on a terminal of 8 colours: bright black would be black on black. */
static look fit(look l) {
    if (COLORS >= 16)
        return l;
    if (l.fg == BRIGHT + COLOR_BLACK) {
        l.fg = -1;
        l.attr |= A_DIM;
    }
    if (l.bg == BRIGHT + COLOR_BLACK)
        l.bg = COLOR_BLUE;
    if (l.fg >= BRIGHT) {
        l.fg = (short)(l.fg - BRIGHT);
        l.attr |= A_BOLD;
    }
    return l;
}

void ui_theme_start(ui_theme theme) {
    bool colour = theme != UI_THEME_NONE && has_colors() && start_color() != ERR;
    current = colour ? theme : UI_THEME_NONE;
    if (colour)
        use_default_colors();
}

void ui_theme_get(ui_look which, unsigned long *attr, short *pair) {
    look l = looks[current][which];
    *pair = 0;
    if (current != UI_THEME_NONE) {
        l = fit(l);
        if (l.fg != -1 || l.bg != -1) {
            int p = alloc_pair(l.fg, l.bg);
            *pair = p > 0 ? (short)p : 0;
        }
    }
    *attr = l.attr;
}

void ui_theme_object(int i, unsigned long *attr, short *pair) {
    *attr = A_BOLD;
    *pair = 0;
    if (current == UI_THEME_NONE)
        return;
    int p = alloc_pair(ui_object_palette(i, COLORS), -1);
    *pair = p > 0 ? (short)p : 0;
}
