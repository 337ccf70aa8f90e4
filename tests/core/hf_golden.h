/* hf_golden.h - what the tests against transformers share: the pictures that its scripts make, and
 * how far two results are apart. */
#ifndef PALI_TESTS_HF_GOLDEN_H
#define PALI_TESTS_HF_GOLDEN_H

#include "tests/test.h"

#include <math.h>

/* Image k as pixels() of models.py makes it, [3][S][S], the caller's; *sum (may be NULL) is that of
 * its bytes. */
static inline float *hf_pixels(int S, int k, int64_t *sum) {
    float *out = malloc(3 * (size_t)S * (size_t)S * sizeof *out), *at = out;
    assert_non_null(out);
    int64_t all = 0;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < S; y++)
            for (int x = 0; x < S; x++) {
                int v = (3 + k) * x + (5 - k) * y + 85 * c + 4 * ((x ^ y) & 31) + x * y / (7 + k);
                all += v & 255;
                *at++ = (float)((v & 255) / 127.5 - 1);
            }
    if (sum)
        *sum = all;
    return out;
}

/* max |a[i * stride] - b[i]| / max |b|; *each (may be NULL) grows to the largest relative
 * difference of one element, elements below 1 % of the largest counted as that. */
static inline double hf_error(const float *a, size_t stride, const float *b, size_t n,
                              double *each) {
    double top = 0, off = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)b[i]));
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i * stride] - (double)b[i]);
        if (!(d <= top * 1e6)) /* NaN and infinity too */
            return INFINITY;
        off = fmax(off, d);
        if (each)
            *each = fmax(*each, d / fmax(fabs((double)b[i]), 0.01 * top));
    }
    return off / top;
}

#endif
