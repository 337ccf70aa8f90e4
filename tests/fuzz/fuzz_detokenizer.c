/* fuzz_detokenizer.c - any bytes, whole and cut, to the same valid UTF-8. */
#include "core/tokenizer.h"
#include "core/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void require(int holds) {
    if (!holds)
        abort();
}

/* Every part in a block of exactly the promised size, so that one byte more is seen. */
static size_t feed(const char *bytes, size_t n, size_t step, char *all) {
    pali_detokenizer d = {0};
    size_t used = 0;
    for (size_t i = 0; i <= n; i += step) {
        size_t part = n - i < step ? n - i : step;
        char *out = malloc(3 * part + PALI_DETOKENIZER_ROOM);
        require(out != NULL);
        size_t wrote = pali_detokenizer_feed(&d, bytes + i, part, out);
        memcpy(all + used, out, wrote);
        used += wrote;
        free(out);
    }
    return used + pali_detokenizer_finish(&d, all + used);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    char *whole = malloc(3 * n + PALI_DETOKENIZER_ROOM),
         *cut = malloc(3 * n + PALI_DETOKENIZER_ROOM);
    require(whole && cut);
    size_t length = feed((const char *)bytes, n, n + 1, whole);
    for (size_t step = 1; step <= 5; step++) {
        require(feed((const char *)bytes, n, step, cut) == length);
        require(memcmp(whole, cut, length) == 0);
    }
    for (size_t i = 0; i < length;) {
        int taken = pali_utf8_step((const unsigned char *)whole + i, length - i);
        require(taken > 0);
        i += (size_t)taken;
    }
    free(whole);
    free(cut);
    return 0;
}
