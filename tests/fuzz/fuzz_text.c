/* fuzz_text.c - ui/text with arbitrary bytes. First byte: rule and how to cut; the
 * rest is the text. Whole and cut must agree, cleaning twice must equal once, and
 * nothing that drives a terminal may come out of the strict rules.               */
#include "ui/text.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    setlocale(LC_CTYPE, "C.UTF-8");
    return 0;
}

static size_t clean(ui_text_rule rule, const char *s, size_t n, size_t step, char *out) {
    ui_text t = {.rule = rule};
    size_t w = 0;
    for (size_t i = 0; i < n; i += step)
        w += ui_text_feed(&t, s + i, n - i < step ? n - i : step, out + w);
    return w + ui_text_finish(&t, out + w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    ui_text_rule rule = (ui_text_rule)(data[0] % 4);
    size_t step = 1 + data[0] / 4 % 7, n = size - 1;
    const char *s = (const char *)data + 1;
    char *whole = malloc(UI_TEXT_ROOM(n)), *cut = malloc(UI_TEXT_ROOM(n));
    if (!whole || !cut)
        abort();
    size_t wn = clean(rule, s, n, n + 1, whole);
    if (wn > UI_TEXT_ROOM(n) || clean(rule, s, n, step, cut) != wn || memcmp(whole, cut, wn))
        abort();
    if (rule >= UI_TEXT_PIPE)
        for (size_t i = 0; i < wn; i++) {
            unsigned char c = (unsigned char)whole[i];
            if (c == 0x7F || (c < 0x20 && (rule == UI_TEXT_LINE || (c != '\n' && c != '\t'))))
                abort();
        }
    char *again = malloc(UI_TEXT_ROOM(wn));
    if (!again || clean(rule, whole, wn, wn + 1, again) != wn || memcmp(whole, again, wn))
        abort();
    if (ui_text_width(whole, wn) > 2 * wn)
        abort();
    free(again);
    free(cut);
    free(whole);
    return 0;
}
