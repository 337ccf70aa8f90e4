/* fuzz_keys.c - ui/keys with arbitrary bytes. First byte: how to cut, and the editing mode.
 * Cutting must not change the events, the parser must come to rest when the clock runs, and
 * a key typed after that must arrive.                                                     */
#include "ui/keys.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(ui_keys *k, long now, FILE *f) {
    ui_event e;
    while (ui_keys_next(k, now, &e)) {
        fprintf(f, "%d %d %d %d %d %d ", e.type, e.key, e.mouse.what, e.mouse.button, e.mouse.y,
                e.mouse.x);
        if (e.n && (e.type == UI_EV_BYTES || e.type == UI_EV_PASTE || e.type == UI_EV_REPLY))
            fwrite(e.text, 1, e.n, f);
    }
}

/* All events of s, step bytes at a time within one millisecond. */
static char *events(const char *s, size_t n, size_t step, bool vi, size_t *len) {
    char *out = NULL;
    FILE *f = open_memstream(&out, len);
    ui_keys *k = ui_keys_open();
    if (!f || !k)
        abort();
    ui_keys_vi(k, vi);
    long now = 0;
    for (size_t i = 0; i < n; i += step) {
        if (ui_keys_feed(k, s + i, n - i < step ? n - i : step, now))
            abort();
        drain(k, now, f);
    }
    size_t rounds = 0;
    for (int wait; (wait = ui_keys_wait(k, now)) >= 0; drain(k, now, f)) {
        now += wait;
        if (++rounds > n + 8) /* held for ever */
            abort();
    }
    fputs(" end ", f);
    now += 60000;
    ui_event e;
    if (ui_keys_feed(k, "x", 1, now) || !ui_keys_next(k, now, &e) || e.type != UI_EV_BYTES ||
        e.n < 1 || e.text[e.n - 1] != 'x')
        abort();
    ui_keys_close(k);
    fclose(f);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    size_t step = 1 + data[0] % 7, n = size - 1, wn, cn;
    bool vi = data[0] & 128;
    const char *s = (const char *)data + 1;
    char *whole = events(s, n, n + 1, vi, &wn), *cut = events(s, n, step, vi, &cn);
    if (wn != cn || memcmp(whole, cut, wn))
        abort();
    free(whole);
    free(cut);
    return 0;
}
