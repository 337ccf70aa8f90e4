/* fuzz_transcript.c - the conversation pane with arbitrary text in pieces. The bytes are a
 * little program: each step is an operation byte and up to 15 bytes of text for it. curses
 * writes to /dev/null; nothing outside the pane may change.                              */
#include "ui/transcript.h"

#include <locale.h>
#include <ncurses.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    ROWS = 24,
    COLUMNS = 80
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    setlocale(LC_ALL, "C.UTF-8");
    setenv("LINES", "24", 1);
    setenv("COLUMNS", "80", 1);
    return newterm("xterm", fopen("/dev/null", "w"), fopen("/dev/null", "r")) ? 0 : -1;
}

static void draw(ui_transcript *t, int h, int w) {
    for (int y = 0; y < ROWS; y++)
        mvhline(y, 0, '#', COLUMNS);
    ui_transcript_draw(t, (ui_rect){1, 2, h, w});
    for (int y = 0; y < ROWS; y++)
        for (int x = 0; x < COLUMNS; x++) {
            bool pane = y >= 1 && y < 1 + h && x >= 2 && x < 2 + w;
            cchar_t cell;
            wchar_t c[CCHARW_MAX + 1];
            attr_t attr;
            short pair;
            if (mvin_wch(y, x, &cell) != OK || getcchar(&cell, c, &attr, &pair, NULL) != OK)
                abort();
            if (!pane && *c != '#')
                abort();
            if (pane && (*c < 0x20 || (*c >= 0x7f && *c < 0xa0) || *c == 0x202e))
                abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 2048)
        return 0;
    ui_transcript *t = ui_transcript_open();
    if (!t)
        abort();
    int h = 10, w = 40;
    for (size_t i = 0; i < size;) {
        int op = data[i] >> 4;
        size_t n = data[i++] & 15;
        n = n < size - i ? n : size - i;
        const char *s = (const char *)data + i;
        i += n;
        switch (op) {
        case 0:
        case 1:
        case 2:
        case 3:
            ui_transcript_add(t, (ui_from)op, s, n);
            break;
        case 4:
            ui_transcript_raw(t, n & 1);
            break;
        case 5:
            ui_transcript_scroll(t, (long)n - 8);
            break;
        case 6:
            ui_transcript_drop(t, n % 3);
            break;
        case 7:
            ui_transcript_drop_turn(t);
            break;
        case 8:
            ui_transcript_top(t);
            break;
        case 9:
            w = 4 + 5 * (int)n;
            draw(t, h, w);
            break;
        case 10:
            h = 1 + (int)n;
            draw(t, h, w);
            break;
        case 11: {
            static const char pretty[] = "\1 a cat\n\2 a dog";
            ui_transcript_pretty(t, n & 1 ? pretty : NULL, n & 1 ? sizeof pretty - 1 : 0);
            break;
        }
        case 12:
            ui_transcript_note(t, n & 1 ? "[stopped]" : "");
            break;
        default:
            ui_transcript_append(t, s, n);
        }
    }
    draw(t, h, w);
    ui_transcript_close(t);
    return 0;
}
