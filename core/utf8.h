/* utf8.h - one step through bytes that should be UTF-8 (RFC 3629).
 *
 * Surrogates, overlong forms and anything above U+10FFFF are not characters.   */
#ifndef PALI_UTF8_H
#define PALI_UTF8_H

#include <stddef.h>

/* Looks at the start of s[0..n), n > 0. Returns the bytes of a whole character,
 * 0 when all n bytes are the beginning of one that is not finished, or -1 when
 * s[0] can begin none of the characters that could follow.                     */
static inline int pali_utf8_step(const unsigned char *s, size_t n) {
    unsigned char c = s[0], low = 0x80, high = 0xBF;
    size_t len;
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        len = 2;
    else if (c >= 0xE0 && c <= 0xEF)
        len = 3;
    else if (c >= 0xF0 && c <= 0xF4)
        len = 4;
    else
        return -1;
    /* Only the second byte's range depends on the first. */
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < len; i++) {
        if (i == n)
            return 0;
        if (s[i] < low || s[i] > high)
            return -1;
        low = 0x80, high = 0xBF;
    }
    return (int)len;
}

#endif
