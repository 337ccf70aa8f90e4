/* term.h - the terminal: up, down, size, what it can do. The only owner of its modes.
 *
 * Up: saves termios, starts curses (output only), alternate screen, raw mode, bracketed
 * paste, mouse reports. Down: undoes all of it, also from a crash: SIGSEGV, SIGBUS, SIGFPE,
 * SIGILL and SIGABRT write one prepared string and restore termios, then the process dies of
 * the same signal. SIGTERM, SIGHUP and SIGINT only note themselves in a pipe: the event loop
 * leaves in good order and dies of them afterwards.                                        */
#ifndef UI_TERM_H
#define UI_TERM_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    UI_GRAPHICS_NONE,
    UI_GRAPHICS_ASCII,
    UI_GRAPHICS_SYMBOLS,
    UI_GRAPHICS_SIXEL,
    UI_GRAPHICS_ITERM2,
    UI_GRAPHICS_KITTY,
} ui_graphics;
/* "none", "ascii", "symbols", "sixel", "iterm2", "kitty". */
const char *ui_graphics_name(ui_graphics g);
/* A ui_graphics, -1 for an unknown name, -2 for "auto". */
int ui_graphics_parse(const char *name);

typedef enum {
    UI_COLOURS_MONO,
    UI_COLOURS_16,
    UI_COLOURS_256,
    UI_COLOURS_TRUE
} ui_colours;

typedef struct {
    int rows, cols;
    int cell_w, cell_h;   /* pixels; 0 when the terminal does not say (assume 1:2) */
    ui_colours colours;   /* true ones by asking it, COLORTERM or its name */
    ui_graphics graphics; /* the best it can do, by asking it */
    bool multiplexer;     /* tmux or screen: pixels only when asked for by name */
    bool sync;            /* synchronized output (DEC 2026) */
    bool dark;            /* background by OSC 11 when it answers; true when unknown */
    char name[64];        /* XTVERSION's or TERM's word, control characters removed */
} ui_term_caps;

typedef struct {
    bool mouse;
    bool no_colour;                                     /* NO_COLOR or --theme none */
    const char *term, *colorterm, *term_program, *tmux; /* environment; may be NULL */
    int probe_ms;                                       /* how long to wait for replies; 0 = 1000 */
} ui_term_options;

/* Brings the terminal up on stdin/stdout and asks what it can do. Keys typed meanwhile are
 * kept: *early (free() it) holds *nearly raw bytes for ui_keys_feed. On failure writes a
 * sentence to why and leaves the terminal as it was. */
int ui_term_open(const ui_term_options *o, ui_term_caps *caps, char **early, size_t *nearly,
                 char *why, size_t why_size);
/* Puts everything back. Safe to call twice. */
void ui_term_close(void);
/* Reads the size anew (after SIGWINCH) and tells curses. */
void ui_term_resize(ui_term_caps *caps);
/* The next refresh draws every cell anew, whatever is on the screen now. */
void ui_term_repaint(void);
/* Readable when a signal came; ui_term_signal takes one (0 = none): SIGWINCH, SIGTERM,
 * SIGHUP, SIGINT, SIGTSTP, SIGCONT. */
int ui_term_signal_fd(void);
int ui_term_signal(void);
/* Ctrl-Z: puts the terminal back, stops the process, brings the terminal up on return. The
 * caller redraws everything. */
void ui_term_suspend(ui_term_caps *caps);
/* After SIGCONT from outside: brings modes and screen up again. */
void ui_term_resume(ui_term_caps *caps);
/* Writes all n bytes past curses (pictures, OSC 52). -1 on error. */
int ui_term_write(const char *bytes, size_t n);
/* Asks the terminal to put text on the clipboard (OSC 52). Nothing confirms it. -1 with a
 * sentence when it is too long. */
int ui_term_copy(const char *text, size_t n, char *why, size_t why_size);

#endif
