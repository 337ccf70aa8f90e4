/* clipboard.c - asking another program for the clipboard, whose owner may never answer; see
 * clipboard.h.                                                                             */
#include "app/clipboard.h"

#include "app/program.h"
#include "core/image.h"

#include <stdlib.h>

enum {
    DEADLINE_MS = 5000
};

int clipboard_read_png(uint8_t **bytes, size_t *n, pali_error *err) {
    static const char *const ways[][8] = {
        {"wl-paste", "--type", "image/png"},
        {"xclip", "-selection", "clipboard", "-t", "image/png", "-o"},
    };
    bool found = false;
    for (size_t i = 0; i < 2; i++) {
        bool missing = false;
        if (program_read(ways[i], PALI_IMAGE_MAX_BYTES, DEADLINE_MS, bytes, n, &missing))
            return 0;
        found |= !missing;
    }
    if (!found)
        return pali_fail(err, PALI_EUNSUPPORTED, "install wl-clipboard or xclip",
                         "the clipboard cannot be read: neither wl-paste nor xclip is there");
    return pali_fail(err, PALI_EFORMAT, "copy a picture, or use /image PATH",
                     "there is no picture on the clipboard");
}
