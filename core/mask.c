/* mask.c - see mask.h; the network as in big_vision's and Hugging Face's PaliGemma demos.
 *
 *   codes    -> [4][4][E]      rows of the codebook, in reading order
 *   0        1x1, ReLU
 *   2, 3     two blocks: x + 1x1(ReLU(3x3(ReLU(3x3(x)))))
 *   4 .. 10  four transposed convolutions 4x4, stride 2, ReLU: 4 -> 8 -> 16 -> 32 -> 64
 *   12       1x1 to one channel
 *
 * Activations are [y][x][channel] and weights are turned at opening to [ky][kx][in][out], so
 * that every inner loop adds a multiple of one row of weights to one pixel: contiguous, and
 * skipped for the half of the inputs that ReLU made zero. At most 40 million multiplications
 * a mask at the released widths.                                                           */
#include "core/mask.h"

#include "core/file.h"
#include "core/image.h"
#include "core/npz.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = PALI_MASK_SIDE,
    GRID = 4, /* codes a side */
    CODES = 128,
    WIDTH_MAX = 1024, /* channels; the released decoder has 512 */
};

enum {
    FIRST, /* decoder.0 */
    BLOCK1,
    BLOCK2 = BLOCK1 + 3,
    GROW = BLOCK2 + 3,
    LAST = GROW + 4,
    LAYERS
};

static const struct {
    const char *name;
    int kernel;
} plan[LAYERS] = {
    {"decoder.0", 1},       {"decoder.2.net.0", 3}, {"decoder.2.net.2", 3}, {"decoder.2.net.4", 1},
    {"decoder.3.net.0", 3}, {"decoder.3.net.2", 3}, {"decoder.3.net.4", 1}, {"decoder.4", 4},
    {"decoder.6", 4},       {"decoder.8", 4},       {"decoder.10", 4},      {"decoder.12", 1},
};

typedef struct {
    int in, out, kernel;
    float *weight; /* [kernel][kernel][in][out] */
    float *bias;   /* [out] */
} layer;

struct pali_mask_decoder {
    int width;   /* E */
    float *book; /* [CODES][E] */
    layer layers[LAYERS];
    float *scratch[3];
};

/* --- opening ---------------------------------------------------------------------------- */

static void words_of(const pali_tensor *t, char out[64]) {
    size_t n = 0;
    for (int i = 0; i < t->ndim && n < 40; i++)
        n += (size_t)snprintf(out + n, 64 - n, "%s%lld", i ? " x " : "", (long long)t->shape[i]);
    if (!n)
        strcpy(out, "one number");
}

/* Array `name` as float32 into fresh memory. Its shape must be that of want, where -1 stands
 * for any width, which is then written there. */
static int read_array(const pali_npz *z, const char *path, const char *name, int ndim, int *want,
                      float **out, pali_error *err) {
    static const char hint[] = "it has to be the vae-oid.npz of PaliGemma, or of its structure";
    const char *brief = pali_file_brief(path);
    const pali_tensor *t = pali_npz_find(z, name);
    if (!t)
        return pali_fail(err, PALI_EFORMAT, hint, "%s: has no array %s", brief, name);
    if (t->dtype != PALI_F32)
        return pali_fail(err, PALI_EFORMAT, hint, "%s: array %s is not float32", brief, name);
    char words[64];
    words_of(t, words);
    for (int i = 0; i < ndim; i++) {
        bool fits = t->ndim == ndim && (want[i] < 0 ? t->shape[i] >= 1 && t->shape[i] <= WIDTH_MAX
                                                    : t->shape[i] == want[i]);
        if (!fits)
            return pali_fail(err, PALI_EFORMAT, hint, "%s: array %s does not fit the others (%s)",
                             brief, name, words);
        want[i] = (int)t->shape[i];
    }
    *out = malloc(t->bytes);
    return *out ? pali_npz_read(z, t, *out, err) : pali_fail_nomem(err, "reading the mask weights");
}

/* Layer i, whose input has `in` channels; out: how many its output has to have, -1 any. */
static int read_layer(const pali_npz *z, const char *path, int i, int in, int out, layer *l,
                      pali_error *err) {
    char name[64];
    int k = plan[i].kernel, grows = i >= GROW && i < LAST;
    int shape[4] = {grows ? in : out, grows ? out : in, k, k};
    float *stored = NULL;
    snprintf(name, sizeof name, "%s.weight", plan[i].name);
    int rc = read_array(z, path, name, 4, shape, &stored, err);
    if (rc) {
        free(stored);
        return rc;
    }
    *l = (layer){.in = in, .out = grows ? shape[1] : shape[0], .kernel = k};
    size_t ni = (size_t)in, no = (size_t)l->out, taps = (size_t)(k * k);
    l->weight = malloc(ni * no * taps * sizeof *l->weight);
    if (!l->weight)
        rc = pali_fail_nomem(err, "reading the mask weights");
    for (size_t o = 0; !rc && o < no; o++)
        for (size_t c = 0; c < ni; c++)
            for (size_t t = 0; t < taps; t++)
                l->weight[(t * ni + c) * no + o] =
                    stored[(grows ? c * no + o : o * ni + c) * taps + t];
    free(stored);
    snprintf(name, sizeof name, "%s.bias", plan[i].name);
    return rc ? rc : read_array(z, path, name, 1, &l->out, &l->bias, err);
}

static int read_layers(pali_mask_decoder *d, const pali_npz *z, const char *path, pali_error *err) {
    int book[2] = {CODES, -1};
    int rc = read_array(z, path, "_vq_vae._embedding", 2, book, &d->book, err);
    int in = d->width = book[1];
    for (int i = 0; i < LAYERS && !rc; i++) {
        bool back = i == BLOCK1 + 2 || i == BLOCK2 + 2; /* is added to the block's input */
        int out = back ? d->layers[FIRST].out : i == LAST ? 1 : -1;
        rc = read_layer(z, path, i, in, out, &d->layers[i], err);
        in = d->layers[i].out;
    }
    return rc;
}

int pali_mask_decoder_open(const char *path, pali_mask_decoder **out, pali_error *err) {
    *out = NULL;
    pali_npz *z;
    int rc = pali_npz_open(path, &z, err);
    if (rc)
        return rc;
    pali_mask_decoder *d = calloc(1, sizeof *d);
    rc = d ? read_layers(d, z, path, err) : pali_fail_nomem(err, "reading the mask weights");
    pali_npz_close(z);
    if (!rc) {
        size_t most = (size_t)(GRID * GRID * d->width);
        for (int i = 0, side = GRID; i < LAYERS; i++) {
            side *= i >= GROW && i < LAST ? 2 : 1;
            size_t n = (size_t)(side * side) * (size_t)d->layers[i].out;
            most = n > most ? n : most;
        }
        for (int i = 0; i < 3; i++)
            if (!(d->scratch[i] = malloc(most * sizeof(float))))
                rc = pali_fail_nomem(err, "reading the mask weights");
    }
    if (rc) {
        pali_mask_decoder_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void pali_mask_decoder_close(pali_mask_decoder *d) {
    if (!d)
        return;
    for (int i = 0; i < LAYERS; i++) {
        free(d->layers[i].weight);
        free(d->layers[i].bias);
    }
    for (int i = 0; i < 3; i++)
        free(d->scratch[i]);
    free(d->book);
    free(d);
}

char *pali_mask_find(const char *model_dir) {
    static const char *const names[] = {"vae-oid.npz", "mask.npz"};
    for (int i = 0; i < 2; i++) {
        char *path = pali_file_join(model_dir, names[i]);
        if (path && pali_file_exists(path))
            return path;
        free(path);
    }
    return NULL;
}

/* --- the network -------------------------------------------------------------------------- */

static void relu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

/* y[out] += x[in] times the weights [in][out] of one tap. */
static void add_tap(const layer *l, int tap, const float *restrict x, float *restrict y) {
    size_t in = (size_t)l->in, out = (size_t)l->out;
    const float *restrict w = l->weight + (size_t)tap * in * out;
    for (size_t c = 0; c < in; c++, w += out) {
        if (x[c] == 0)
            continue;
        for (size_t o = 0; o < out; o++)
            y[o] += x[c] * w[o];
    }
}

static void fill_bias(const layer *l, int pixels, float *y) {
    for (int p = 0; p < pixels; p++)
        memcpy(y + (size_t)p * (size_t)l->out, l->bias, (size_t)l->out * sizeof *y);
}

/* x [side][side][in] -> y [side][side][out], zeros around the border. */
static void convolve(const layer *l, const float *x, int side, float *y) {
    int k = l->kernel, reach = k / 2;
    fill_bias(l, side * side, y);
    for (int p = 0; p < side * side; p++)
        for (int t = 0; t < k * k; t++) {
            int sy = p / side + t / k - reach, sx = p % side + t % k - reach;
            if (sy >= 0 && sy < side && sx >= 0 && sx < side)
                add_tap(l, t, x + (size_t)(sy * side + sx) * (size_t)l->in,
                        y + (size_t)p * (size_t)l->out);
        }
}

/* x [side][side][in] -> y [2 side][2 side][out]: every input pixel is spread over 4 x 4 output
 * pixels, from 2y - 1 and 2x - 1 on. */
static void grow(const layer *l, const float *x, int side, float *y) {
    int k = l->kernel, to = 2 * side;
    fill_bias(l, to * to, y);
    for (int p = 0; p < side * side; p++)
        for (int t = 0; t < k * k; t++) {
            int ty = p / side * 2 - 1 + t / k, tx = p % side * 2 - 1 + t % k;
            if (ty >= 0 && ty < to && tx >= 0 && tx < to)
                add_tap(l, t, x + (size_t)p * (size_t)l->in,
                        y + (size_t)(ty * to + tx) * (size_t)l->out);
        }
}

static void block(const layer l[3], float *x, float *a, float *b) {
    const size_t pixels = GRID * GRID;
    convolve(&l[0], x, GRID, a);
    relu(a, pixels * (size_t)l[0].out);
    convolve(&l[1], a, GRID, b);
    relu(b, pixels * (size_t)l[1].out);
    convolve(&l[2], b, GRID, a);
    for (size_t i = 0; i < pixels * (size_t)l[2].out; i++)
        x[i] += a[i];
}

void pali_mask_decode(pali_mask_decoder *d, const int codes[PALI_MASK_CODES],
                      float map[SIDE * SIDE]) {
    float *x = d->scratch[0], *y = d->scratch[1], *z = d->scratch[2];
    const layer *l = d->layers;
    size_t width = (size_t)d->width;
    for (size_t i = 0; i < PALI_MASK_CODES; i++)
        memcpy(y + i * width, d->book + (size_t)(codes[i] & (CODES - 1)) * width,
               width * sizeof *y);
    convolve(&l[FIRST], y, GRID, x);
    relu(x, (size_t)(GRID * GRID * l[FIRST].out));
    block(l + BLOCK1, x, y, z);
    block(l + BLOCK2, x, y, z);
    int side = GRID;
    for (int i = GROW; i < LAST; i++) {
        grow(&l[i], x, side, y);
        side *= 2;
        relu(y, (size_t)(side * side) * (size_t)l[i].out);
        float *t = x;
        x = y;
        y = t;
    }
    convolve(&l[LAST], x, SIDE, map);
}

/* --- into the picture ----------------------------------------------------------------------- */

void pali_mask_bytes(const float map[SIDE * SIDE], uint8_t bytes[SIDE * SIDE]) {
    for (int i = 0; i < SIDE * SIDE; i++) {
        float p = map[i] * 0.5f + 0.5f;
        bytes[i] = (uint8_t)(255 * (p > 0 ? p < 1 ? p : 1 : 0)); /* not a number: nothing there */
    }
}

static int clamp(float v, int high) {
    return v > 0 ? v < (float)high ? (int)lrintf(v) : high : 0;
}

int pali_mask_place(const uint8_t bytes[SIDE * SIDE], const float box[4], int image_width,
                    int image_height, pali_mask *out, pali_error *err) {
    *out = (pali_mask){0};
    int x0 = clamp(box[0], image_width), y0 = clamp(box[1], image_height);
    int x1 = clamp(box[2], image_width), y1 = clamp(box[3], image_height);
    if (x1 <= x0 || y1 <= y0)
        return 0;
    uint8_t rgb[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE; i++)
        memset(rgb + 3 * i, bytes[i], 3);
    pali_image small = {.width = SIDE, .height = SIDE, .rgb = rgb}, large;
    int rc = pali_image_resize(&small, x1 - x0, y1 - y0, &large, err);
    if (rc)
        return rc;
    /* The resize knows colours only: keep one of three, in the same memory. */
    size_t n = (size_t)large.width * (size_t)large.height;
    for (size_t i = 0; i < n; i++)
        large.rgb[i] = large.rgb[3 * i];
    uint8_t *less = realloc(large.rgb, n);
    *out = (pali_mask){x0, y0, large.width, large.height, less ? less : large.rgb};
    return 0;
}

void pali_mask_close(pali_mask *mask) {
    free(mask->soft);
    *mask = (pali_mask){0};
}
