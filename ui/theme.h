/* theme.h - named looks -> curses attributes, for any number of colours.
 *
 * Only meanings are named here; what they look like is one table in theme.c with columns
 * for dark, light and none (NO_COLOR, mono terminals: bold, dim, reverse).               */
#ifndef UI_THEME_H
#define UI_THEME_H

typedef enum {
    UI_LOOK_TEXT,
    UI_LOOK_DIM,    /* hints, rulers */
    UI_LOOK_YOU,    /* a question */
    UI_LOOK_MODEL,  /* an answer */
    UI_LOOK_NOTICE, /* what the program says */
    UI_LOOK_ERROR,
    UI_LOOK_BOX,    /* a location in an answer */
    UI_LOOK_STATUS, /* the status line */
    UI_LOOK_STATUS_KEY,
    UI_LOOK_PROMPT, /* in front of the input line */
    UI_LOOK_DIVIDER,
    UI_LOOK_POPUP,
    UI_LOOK_SELECTED,
    UI_LOOK_LIKELY, /* a word of an answer that came with less probability, */
    UI_LOOK_UNSURE, /* with little, */
    UI_LOOK_GUESS,  /* with very little */
    UI_LOOKS,
} ui_look;

typedef enum {
    UI_THEME_DARK,
    UI_THEME_LIGHT,
    UI_THEME_NONE
} ui_theme;

/* After curses started. Pairs use the terminal's own palette (0-15), so the user's scheme
 * decides what red is. */
void ui_theme_start(ui_theme theme);
/* attr_t and colour pair of a look, as curses wants them. */
void ui_theme_get(ui_look look, unsigned long *attr, short *pair);

/* The look of object colour i of overlay.h, for the legend. */
void ui_theme_object(int i, unsigned long *attr, short *pair);

#endif
