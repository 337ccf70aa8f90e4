/* size.h - size products that cannot overflow. Everything read from a file is
 * multiplied through these, never with a bare `*`.                            */
#ifndef PALI_SIZE_H
#define PALI_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* *out = a * b; false (and *out untouched) on overflow. */
static inline bool pali_size_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* *out = a + b; false (and *out untouched) on overflow. */
static inline bool pali_size_add(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

#endif
