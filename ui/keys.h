/* keys.h - bytes from the terminal -> whole events. Pure: fed bytes and a clock.
 *
 * The program owns standard input: curses' getch is never called. Bytes are cut into units
 * here: UTF-8 characters, control bytes, escape sequences, bracketed pastes, mouse reports,
 * terminal replies. Text and editing keys go to readline as bytes; the rest is ours. Replies
 * (DA1, cursor, kitty, XTVERSION, DECRPM, OSC) are taken out even when late. Invalid UTF-8
 * is dropped. A lone ESC becomes an event once UI_KEYS_ESC_MS passed without more bytes.    */
#ifndef UI_KEYS_H
#define UI_KEYS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    UI_KEYS_ESC_MS = 50
};
#define UI_KEYS_MAX_PASTE ((size_t)16 << 20)

typedef enum {
    UI_EV_BYTES, /* for readline: one character or editing sequence in text, n */
    UI_EV_KEY,   /* a key of ours, in key */
    UI_EV_MOUSE,
    UI_EV_PASTE, /* text, n: CR and CRLF made LF, otherwise raw */
    UI_EV_REPLY, /* a terminal's answer: text, n, the raw sequence */
    UI_EV_FOCUS, /* key: 1 in, 0 out */
} ui_event_type;

typedef enum {
    UI_KEY_ESC = 1,
    UI_KEY_CTRL_C,
    UI_KEY_CTRL_L,
    UI_KEY_CTRL_Z,
    UI_KEY_PAGE_UP,
    UI_KEY_PAGE_DOWN,
    UI_KEY_CTRL_HOME,
    UI_KEY_CTRL_END,
    UI_KEY_SHIFT_TAB,
    UI_KEY_F1,
    UI_KEY_F2,
    UI_KEY_F3,
    UI_KEY_F4,
    UI_KEY_F5,
    UI_KEY_F6,
    /* Set beside UI_EV_BYTES: readline's keys, which mean something else while the
     * picture has the focus. */
    UI_KEY_UP,
    UI_KEY_DOWN,
    UI_KEY_LEFT,
    UI_KEY_RIGHT,
} ui_key;

typedef enum {
    UI_MOUSE_PRESS,
    UI_MOUSE_RELEASE,
    UI_MOUSE_MOVE,
    UI_MOUSE_WHEEL_UP,
    UI_MOUSE_WHEEL_DOWN
} ui_mouse_what;

typedef struct {
    ui_event_type type;
    int key;
    struct {
        ui_mouse_what what;
        int button; /* 1 left, 2 middle, 3 right; 0 = none */
        int y, x;   /* cells, from 0 */
    } mouse;
    const char *text; /* borrowed until the next call */
    size_t n;
} ui_event;

typedef struct ui_keys ui_keys;

ui_keys *ui_keys_open(void); /* NULL when memory is out */
void ui_keys_close(ui_keys *k);

/* Appends bytes read at now_ms (monotonic). -1 when memory is out. */
int ui_keys_feed(ui_keys *k, const char *bytes, size_t n, long now_ms);
/* Takes the next whole event; false when there is none yet. */
bool ui_keys_next(ui_keys *k, long now_ms, ui_event *out);
/* Milliseconds until a held ESC becomes an event, -1 when none: the time-out for poll(). */
int ui_keys_wait(const ui_keys *k, long now_ms);
/* In vi editing mode a lone ESC belongs to readline and comes as UI_EV_BYTES. */
void ui_keys_vi(ui_keys *k, bool vi);

#endif
