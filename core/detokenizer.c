/* detokenizer.c - bytes as tokens give them -> whole UTF-8 characters.
 *
 * A byte-fallback token is one byte of a character, so a character may arrive over
 * several tokens. The tail of an unfinished one waits in the state; a byte that can
 * belong to no character becomes U+FFFD at once, one mark per byte, as SentencePiece's
 * decoder does. The state is a function of the bytes fed so far and not of how they
 * were cut, so feeding byte by byte and feeding whole give the same text.           */
#include "core/tokenizer.h"

#include <string.h>

#include "core/utf8.h"

static const char mark[3] = {'\xEF', '\xBF', '\xBD'}; /* U+FFFD */

size_t pali_detokenizer_feed(pali_detokenizer *d, const char *bytes, size_t n, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < n; i++) {
        d->tail[d->ntail++] = (unsigned char)bytes[i];
        /* A byte that breaks a sequence is itself looked at again: it may begin the next. */
        while (d->ntail > 0) {
            int step = pali_utf8_step(d->tail, (size_t)d->ntail);
            if (step == 0)
                break;
            int used = step > 0 ? step : 1;
            if (step > 0)
                memcpy(out + written, d->tail, (size_t)step);
            else
                memcpy(out + written, mark, sizeof mark);
            written += step > 0 ? (size_t)step : sizeof mark;
            d->ntail -= used;
            memmove(d->tail, d->tail + used, (size_t)d->ntail);
        }
    }
    return written;
}

size_t pali_detokenizer_finish(pali_detokenizer *d, char *out) {
    if (d->ntail == 0)
        return 0;
    d->ntail = 0;
    memcpy(out, mark, sizeof mark);
    return sizeof mark;
}
