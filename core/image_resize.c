/* image_resize.c - Pillow's BICUBIC, bit for bit.
 *
 * Each axis on its own, horizontal first. Output i of an axis is the weighted sum of
 * the inputs [lo, hi) around its centre; when shrinking, the kernel is stretched by
 * the shrink factor (that is the antialiasing). Weights are computed in double,
 * divided by their sum, and turned into integers with 22 fractional bits, half away
 * from zero. A sum starts at one half, is shifted down by 22 and clipped to a byte.
 * The result of the horizontal pass is bytes again, so the order matters.
 *
 * An axis that keeps its length has the weights 0 1 0 exactly: no special case.
 *
 * Speed: both passes take dot products along a line of consecutive samples of one
 * channel, so the horizontal pass leaves its result turned (a column of the output
 * is a line there). A weight does not fit in 16 bits; split into high and low parts
 * that do, a product sum becomes two of 16 x 16 -> 32 bits, which every x86-64 has
 * one instruction for (pmaddwd). The recombination is modulo 2^32, like the plain
 * int sum it replaces, hence exact.                                              */
#include "core/image.h"

#include "core/size.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    PRECISION = 22,
    LOW_BITS = 11,
    LANES = 8,         /* taps are padded with zero weights to a multiple of this */
    BLOCK_TAPS = 2048, /* 2048 * 2047 * 255 < 2^31: a block's sums fit an int     */
};

/* The weights of one axis: output i uses taps[i] inputs from lo[i] on; its weights are
 * high[i * room + k] * 2^LOW_BITS + low[i * room + k]. */
typedef struct {
    int out;
    size_t room;
    int *lo, *taps; /* taps[i] is a multiple of LANES */
    int16_t *high, *low;
} axis;

static double kernel(double t) {
    const double a = -0.5;
    t = fabs(t);
    if (t < 1.0)
        return ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    if (t < 2.0)
        return (((t - 5.0) * t + 8.0) * t - 4.0) * a;
    return 0.0;
}

static void axis_done(axis *x) {
    free(x->lo);
    free(x->taps);
    free(x->high);
    free(x->low);
}

/* false: no memory. The operations are in Pillow's order, as doubles round. */
static bool axis_init(axis *x, int in, int out) {
    double scale = (double)in / out;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * stretch, inverse = 1.0 / stretch;
    size_t most = (size_t)ceil(support) * 2 + 1;
    x->out = out;
    x->room = (most + LANES - 1) / LANES * LANES;
    size_t all;
    double *w = malloc(most * sizeof *w);
    x->lo = malloc((size_t)out * sizeof *x->lo);
    x->taps = malloc((size_t)out * sizeof *x->taps);
    if (pali_size_mul((size_t)out, x->room, &all)) {
        x->high = calloc(all, sizeof *x->high);
        x->low = calloc(all, sizeof *x->low);
    }
    if (!w || !x->lo || !x->taps || !x->high || !x->low) {
        free(w);
        return false;
    }
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        for (int j = lo; j < hi; j++) {
            w[j - lo] = kernel((j - centre + 0.5) * inverse);
            sum += w[j - lo];
        }
        for (int k = 0; k < hi - lo; k++) {
            double v = (sum != 0.0 ? w[k] / sum : w[k]) * (1 << PRECISION);
            int fixed = (int)(v < 0 ? v - 0.5 : v + 0.5);
            x->high[(size_t)i * x->room + (size_t)k] = (int16_t)(fixed >> LOW_BITS);
            x->low[(size_t)i * x->room + (size_t)k] = (int16_t)(fixed & ((1 << LOW_BITS) - 1));
        }
        x->lo[i] = lo;
        x->taps[i] = (hi - lo + LANES - 1) / LANES * LANES;
    }
    free(w);
    return true;
}

/* Output i of an axis from three lines, one a channel, `pitch` samples apart. */
static void weigh(const axis *x, int i, const int16_t *line, size_t pitch, uint8_t rgb[3]) {
    const int16_t *red = line + x->lo[i], *green = red + pitch, *blue = green + pitch;
    const int16_t *high = x->high + (size_t)i * x->room, *low = x->low + (size_t)i * x->room;
    const uint32_t half = 1u << (PRECISION - 1);
    uint32_t sum[3] = {half, half, half};
    for (int done = 0; done < x->taps[i]; done += BLOCK_TAPS) {
        int end = x->taps[i] - done < BLOCK_TAPS ? x->taps[i] : done + BLOCK_TAPS;
        int32_t r_high = 0, r_low = 0, g_high = 0, g_low = 0, b_high = 0, b_low = 0;
        for (int k = done; k < end; k += LANES)
            for (int l = k; l < k + LANES; l++) {
                r_high += (int32_t)red[l] * high[l];
                r_low += (int32_t)red[l] * low[l];
                g_high += (int32_t)green[l] * high[l];
                g_low += (int32_t)green[l] * low[l];
                b_high += (int32_t)blue[l] * high[l];
                b_low += (int32_t)blue[l] * low[l];
            }
        sum[0] += ((uint32_t)r_high << LOW_BITS) + (uint32_t)r_low;
        sum[1] += ((uint32_t)g_high << LOW_BITS) + (uint32_t)g_low;
        sum[2] += ((uint32_t)b_high << LOW_BITS) + (uint32_t)b_low;
    }
    for (int c = 0; c < 3; c++) {
        int32_t v = (int32_t)sum[c] >> PRECISION;
        rgb[c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

/* n pixels to three lines, one a channel. */
static void split(const uint8_t *rgb, size_t n, int16_t *line, size_t pitch) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            line[c * pitch + i] = rgb[3 * i + c];
}

int pali_image_resize(const pali_image *in, int width, int height, pali_image *out,
                      pali_error *err) {
    *out = (pali_image){0};
    if (in->width < 1 || in->height < 1 || width < 1 || height < 1)
        return pali_fail(err, PALI_EARG, NULL, "cannot resize a picture of %d x %d to %d x %d",
                         in->width, in->height, width, height);
    /* Between the passes the picture has the new width and the old height. */
    size_t between = (size_t)width * (size_t)in->height, pixels = (size_t)width * (size_t)height;
    if (width > PALI_IMAGE_MAX_SIDE || height > PALI_IMAGE_MAX_SIDE ||
        pixels > PALI_IMAGE_MAX_PIXELS || between > PALI_IMAGE_MAX_PIXELS)
        return pali_fail(err, PALI_ELIMIT, "choose a smaller size",
                         "resizing %d x %d pixels to %d x %d is more than pali does", in->width,
                         in->height, width, height);

    size_t in_width = (size_t)in->width, in_height = (size_t)in->height;
    size_t pitch = (in_width > in_height ? in_width : in_height) + LANES;
    axis across = {0}, down = {0};
    /* Zeros behind a line's end meet the zero weights that pad its taps. */
    int16_t *line = calloc(3 * pitch, sizeof *line);
    uint8_t *turned = malloc(between * 3); /* [width][in_height][3] */
    uint8_t *rgb = malloc(pixels * 3);
    int rc = 0;
    if (!line || !turned || !rgb || !axis_init(&across, in->width, width) ||
        !axis_init(&down, in->height, height)) {
        rc = pali_fail_nomem(err, "resizing a picture");
        goto out;
    }
    for (size_t y = 0; y < in_height; y++) {
        split(in->rgb + y * in_width * 3, in_width, line, pitch);
        for (int x = 0; x < width; x++)
            weigh(&across, x, line, pitch, turned + ((size_t)x * in_height + y) * 3);
    }
    memset(line, 0, 3 * pitch * sizeof *line);
    for (size_t x = 0; x < (size_t)width; x++) {
        split(turned + x * in_height * 3, in_height, line, pitch);
        for (int y = 0; y < height; y++)
            weigh(&down, y, line, pitch, rgb + ((size_t)y * (size_t)width + x) * 3);
    }
    *out = (pali_image){.width = width, .height = height, .rgb = rgb};
    rgb = NULL;
out:
    axis_done(&across);
    axis_done(&down);
    free(line);
    free(turned);
    free(rgb);
    return rc;
}
