/* transcript.h - messages -> wrapped lines, scrollback, streaming append.
 *
 * Holds clean text only (the sanitiser of text.h is applied on the way in). A resize or an
 * appended token re-wraps what changed, not the whole chat. Knows curses only in draw.     */
#ifndef UI_TRANSCRIPT_H
#define UI_TRANSCRIPT_H

#include "ui/layout.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    UI_FROM_YOU,
    UI_FROM_MODEL,
    UI_FROM_PROGRAM,
    UI_FROM_ERROR
} ui_from;

typedef struct ui_transcript ui_transcript;

/* Calls that return int give -1 when memory is out and leave the transcript as it was. */
ui_transcript *ui_transcript_open(void);
void ui_transcript_close(ui_transcript *t);

/* Starts a message. text is raw (untrusted), may be "". */
int ui_transcript_add(ui_transcript *t, ui_from from, const char *text, size_t n);
/* Appends to the newest message; bytes may end inside a character. */
int ui_transcript_append(ui_transcript *t, const char *text, size_t n);
/* What was appended since the newest message began, or since the last such call, came with this
 * probability, 0 to 1. */
void ui_transcript_probability(ui_transcript *t, float p);
/* Sets what is shown instead of the newest message's raw text (readable boxes); NULL: raw.
 * text is the caller's own and clean; a byte 1..8 in it draws a square in object colour
 * 0..7. */
int ui_transcript_pretty(ui_transcript *t, const char *text, size_t n);
/* A dimmed remark at the end of the newest message: "12 tokens, 41 tok/s", "stopped". */
int ui_transcript_note(ui_transcript *t, const char *text);
void ui_transcript_drop(ui_transcript *t, size_t n); /* the newest n messages */
/* The newest messages back to and including the newest question; none without one. */
void ui_transcript_drop_turn(ui_transcript *t);
void ui_transcript_clear(ui_transcript *t);
size_t ui_transcript_count(const ui_transcript *t);
void ui_transcript_raw(ui_transcript *t, bool raw); /* show raw or pretty forms */
/* Shades what came with little probability, in raw forms. */
void ui_transcript_confidence(ui_transcript *t, bool on);

/* Scrolls by lines (negative: up) or to an end. New text keeps the view where it is unless
 * the view is at the bottom, which it then follows. */
void ui_transcript_scroll(ui_transcript *t, long lines);
void ui_transcript_top(ui_transcript *t);
void ui_transcript_bottom(ui_transcript *t);
/* Lines hidden below the view: > 0 means the reader scrolled up. */
size_t ui_transcript_below(const ui_transcript *t);

/* Draws into rect of the curses screen. */
void ui_transcript_draw(ui_transcript *t, ui_rect rect);

#endif
