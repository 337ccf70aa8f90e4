/* fuzz_tiles.c - app/tiles with arbitrary texts. First byte: columns and rows; the rest is cut into
 * texts at bytes FE. Nothing is invented: no text comes out longer than what went in.            */
#include "app/tiles.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    app_tiling t = {.cols = 1 + data[0] % 3, .rows = 1 + data[0] / 3 % 3};
    const char *texts[9];
    char *bytes = malloc(size), *out;
    if (!bytes)
        abort();
    memcpy(bytes, data + 1, size - 1);
    bytes[size - 1] = '\0';
    char *at = bytes;
    for (int i = 0; i < t.cols * t.rows; i++) {
        texts[i] = at;
        at += strcspn(at, "\xFE");
        if (*at)
            *at++ = '\0';
    }
    if (app_tiles_join(texts, t, &out, NULL) || strlen(out) > size + 9)
        abort();
    free(out);
    free(bytes);
    if (size >= 3)
        app_tiles_look(data, 1, (int)(size / 3));
    return 0;
}
