/* input.h - the line being typed: GNU readline, painted by us.
 *
 * readline edits, remembers, searches and completes through its callback interface; it never
 * touches the terminal (streams on /dev/null, own redisplay, own getc). One input line a
 * process, because readline is global.                                                      */
#ifndef UI_INPUT_H
#define UI_INPUT_H

#include "ui/layout.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    /* A finished line (free() it); NULL on Ctrl-D on an empty line. */
    void (*on_line)(void *user, char *line);
    /* Completions of line[start..end): malloc'ed NULL-terminated array of malloc'ed strings,
     * or NULL; *is_path asks for file completion instead. */
    char **(*complete)(void *user, const char *line, int start, int end, bool *is_path);
    void *user;
    const char *history_file; /* NULL = none; created 0600 */
    int history_max;
} ui_input_options;

int ui_input_open(const ui_input_options *o, char *why, size_t why_size);
void ui_input_close(void);

void ui_input_feed(const char *bytes, size_t n); /* one whole unit */
/* Inserts text at the cursor as one undoable step; control characters are cleaned. */
void ui_input_paste(const char *text, size_t n);
/* Ctrl-C: leaves searches and empties the line. False when it was empty already. */
bool ui_input_cancel(void);
const char *ui_input_text(void); /* borrowed until the next call */
void ui_input_set(const char *text);
bool ui_input_vi(void); /* vi editing mode is on */

/* Rows the line needs at width w (it wraps; prompt included), at least 1. */
int ui_input_rows(int w);
/* Draws into rect and leaves the hardware cursor where typing goes. */
void ui_input_draw(ui_rect rect);
/* Completions to show, NULL-terminated (NULL: none); the caller draws them. */
const char *const *ui_input_matches(void);

#endif
