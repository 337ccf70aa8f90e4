/* quant.c - quantising; see quant.h for the formats. Reading back is in matrix.c.
 *
 * Plain loops, written so that a compiler turns them into vectors. Nothing here is fused
 * or reordered by it (-ffp-contract=off, no fast math): codes are the same everywhere. */
#include "core/quant.h"

#include "core/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const float pali_nf4_code[16] = {
    -1.0f,          -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.18477343f,
    -0.0910500363f, 0.0f,          0.0795802996f, 0.160930201f,  0.246112302f,  0.337915242f,
    0.440709829f,   0.562617004f,  0.722956836f,  1.0f,
};

const float pali_nf4_middle[15] = {
    -0.848096371f, -0.610632896f,  -0.45999527f,  -0.33967942f, -0.234607399f,
    -0.137911737f, -0.0455250181f, 0.0397901498f, 0.120255247f, 0.203521252f,
    0.292013764f,  0.389312536f,   0.501663446f,  0.64278692f,  0.861478448f,
};

/* 0, 1, and for i = 0..6 both signs of 10^(i-6) times the 2^i middles of 2^i equal parts
 * of [0.1, 1]; sorted. The last digits are those of bitsandbytes' float32 arithmetic. */
const float pali_nf4_map[256] = {
    -0.992968738f,    -0.978906274f,    -0.96484375f,     -0.950781226f,
    -0.936718762f,    -0.922656238f,    -0.908593774f,    -0.89453125f,
    -0.880468726f,    -0.866406262f,    -0.852343738f,    -0.838281274f,
    -0.82421875f,     -0.810156226f,    -0.796093762f,    -0.782031238f,
    -0.767968774f,    -0.75390625f,     -0.739843726f,    -0.725781262f,
    -0.711718798f,    -0.697656274f,    -0.68359375f,     -0.669531226f,
    -0.655468762f,    -0.641406298f,    -0.627343774f,    -0.61328125f,
    -0.599218726f,    -0.585156262f,    -0.571093798f,    -0.557031274f,
    -0.54296875f,     -0.528906226f,    -0.514843702f,    -0.500781238f,
    -0.486718714f,    -0.47265625f,     -0.458593726f,    -0.444531262f,
    -0.430468738f,    -0.416406244f,    -0.40234375f,     -0.388281226f,
    -0.374218762f,    -0.360156238f,    -0.346093744f,    -0.33203125f,
    -0.317968726f,    -0.303906262f,    -0.289843738f,    -0.275781274f,
    -0.26171875f,     -0.247656241f,    -0.233593747f,    -0.219531253f,
    -0.205468744f,    -0.19140625f,     -0.177343756f,    -0.163281247f,
    -0.149218753f,    -0.135156244f,    -0.12109375f,     -0.107031256f,
    -0.0985937491f,   -0.0957812592f,   -0.0929687545f,   -0.0901562497f,
    -0.0873437524f,   -0.0845312476f,   -0.0817187577f,   -0.078906253f,
    -0.0760937482f,   -0.0732812509f,   -0.0704687461f,   -0.0676562563f,
    -0.0648437515f,   -0.0620312504f,   -0.0592187531f,   -0.0564062484f,
    -0.053593751f,    -0.05078125f,     -0.047968749f,    -0.0451562516f,
    -0.0423437469f,   -0.0395312496f,   -0.0367187522f,   -0.0339062512f,
    -0.0310937501f,   -0.028281251f,    -0.0254687499f,   -0.0226562507f,
    -0.0198437516f,   -0.0170312505f,   -0.0142187504f,   -0.0114062503f,
    -0.00971874967f,  -0.00915624946f,  -0.00859375019f,  -0.00803124998f,
    -0.00746874977f,  -0.00690625003f,  -0.00634374982f,  -0.00578125007f,
    -0.00521875033f,  -0.00465624966f,  -0.00409374991f,  -0.00353124971f,
    -0.00296874996f,  -0.00240624999f,  -0.00184375001f,  -0.00128124992f,
    -0.000943750085f, -0.000831249985f, -0.00071875006f,  -0.000606250076f,
    -0.000493750034f, -0.000381250022f, -0.000268750038f, -0.000156250011f,
    -8.87499991e-05f, -6.62500024e-05f, -4.37499984e-05f, -2.12499981e-05f,
    -7.7499999e-06f,  -3.25000019e-06f, -5.50000038e-07f, 0.0f,
    5.50000038e-07f,  3.25000019e-06f,  7.7499999e-06f,   2.12499981e-05f,
    4.37499984e-05f,  6.62500024e-05f,  8.87499991e-05f,  0.000156250011f,
    0.000268750038f,  0.000381250022f,  0.000493750034f,  0.000606250076f,
    0.00071875006f,   0.000831249985f,  0.000943750085f,  0.00128124992f,
    0.00184375001f,   0.00240624999f,   0.00296874996f,   0.00353124971f,
    0.00409374991f,   0.00465624966f,   0.00521875033f,   0.00578125007f,
    0.00634374982f,   0.00690625003f,   0.00746874977f,   0.00803124998f,
    0.00859375019f,   0.00915624946f,   0.00971874967f,   0.0114062503f,
    0.0142187504f,    0.0170312505f,    0.0198437516f,    0.0226562507f,
    0.0254687499f,    0.028281251f,     0.0310937501f,    0.0339062512f,
    0.0367187522f,    0.0395312496f,    0.0423437469f,    0.0451562516f,
    0.047968749f,     0.05078125f,      0.053593751f,     0.0564062484f,
    0.0592187531f,    0.0620312504f,    0.0648437515f,    0.0676562563f,
    0.0704687461f,    0.0732812509f,    0.0760937482f,    0.078906253f,
    0.0817187577f,    0.0845312476f,    0.0873437524f,    0.0901562497f,
    0.0929687545f,    0.0957812592f,    0.0985937491f,    0.107031256f,
    0.12109375f,      0.135156244f,     0.149218753f,     0.163281247f,
    0.177343756f,     0.19140625f,      0.205468744f,     0.219531253f,
    0.233593747f,     0.247656241f,     0.26171875f,      0.275781274f,
    0.289843738f,     0.303906262f,     0.317968726f,     0.33203125f,
    0.346093744f,     0.360156238f,     0.374218762f,     0.388281226f,
    0.40234375f,      0.416406244f,     0.430468738f,     0.444531262f,
    0.458593726f,     0.47265625f,      0.486718714f,     0.500781238f,
    0.514843702f,     0.528906226f,     0.54296875f,      0.557031274f,
    0.571093798f,     0.585156262f,     0.599218726f,     0.61328125f,
    0.627343774f,     0.641406298f,     0.655468762f,     0.669531226f,
    0.68359375f,      0.697656274f,     0.711718798f,     0.725781262f,
    0.739843726f,     0.75390625f,      0.767968774f,     0.782031238f,
    0.796093762f,     0.810156226f,     0.82421875f,      0.838281274f,
    0.852343738f,     0.866406262f,     0.880468726f,     0.89453125f,
    0.908593774f,     0.922656238f,     0.936718762f,     0.950781226f,
    0.96484375f,      0.978906274f,     0.992968738f,     1.0f,
};

/* The two loops that see every weight are compiled for wider vectors too, and the fitting one
 * is chosen when the program starts. */
#if defined(__x86_64__) && defined(__gnu_linux__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The bits of |x|, which order as the numbers do and, unlike floats, may be compared in any
 * order; 0 for NaN. */
static int magnitude(float x) {
    int a = (int)(bits_of(x) & 0x7fffffffu);
    return a > 0x7f800000 ? 0 : a;
}

/* --- memory ---------------------------------------------------------------------- */

enum {
    GROUP_WEIGHTS = PALI_NF4_BLOCK * PALI_NF4_GROUP
};

static bool add_part(size_t count, size_t size, size_t *at) {
    size_t n;
    if (!pali_size_mul(count, size, &n) || !pali_size_add(n, PALI_QUANT_ALIGN - 1, &n))
        return false;
    return pali_size_add(*at, n / PALI_QUANT_ALIGN * PALI_QUANT_ALIGN, at);
}

/* Fills q's sizes; the offsets of its parts go to at[0..2] and the end to at[3]. */
static bool plan(pali_dtype dtype, int rows, int cols, pali_quant_parts *q, size_t at[4]) {
    size_t n, end = 0;
    *q = (pali_quant_parts){.dtype = dtype, .rows = rows, .cols = cols};
    if (rows < 1 || cols < 1 || !pali_size_mul((size_t)rows, (size_t)cols, &n) || n > SIZE_MAX / 2)
        return false;
    if (dtype == PALI_NF4) {
        q->blocks = (n + PALI_NF4_BLOCK - 1) / PALI_NF4_BLOCK;
        q->groups = (n + GROUP_WEIGHTS - 1) / GROUP_WEIGHTS;
    } else if (dtype != PALI_INT8) {
        return false;
    }
    at[0] = 0;
    if (!add_part(dtype == PALI_NF4 ? (n + 1) / 2 : n, 1, &end))
        return false;
    at[1] = end;
    if (!add_part(q->blocks, 1, &end))
        return false;
    at[2] = end;
    if (!add_part(dtype == PALI_NF4 ? q->groups + 1 : (size_t)rows, sizeof(float), &end))
        return false;
    at[3] = end;
    return true;
}

size_t pali_quant_bytes(pali_dtype dtype, int rows, int cols) {
    pali_quant_parts q;
    size_t at[4];
    return plan(dtype, rows, cols, &q, at) ? at[3] : 0;
}

pali_quant_parts pali_quant_place(pali_dtype dtype, int rows, int cols, void *mem) {
    pali_quant_parts q;
    size_t at[4];
    if (!plan(dtype, rows, cols, &q, at))
        return (pali_quant_parts){.dtype = PALI_DTYPE_OTHER};
    q.codes = mem;
    q.scale_codes = dtype == PALI_NF4 ? q.codes + at[1] : NULL;
    q.scales = (float *)(void *)(q.codes + at[2]);
    return q;
}

pali_matrix pali_quant_matrix(const pali_quant_parts *q) {
    return (pali_matrix){.dtype = q->dtype,
                         .rows = q->rows,
                         .cols = q->cols,
                         .data = q->codes,
                         .scale_codes = q->scale_codes,
                         .scales = q->scales};
}

size_t pali_quant_pieces(const pali_quant_parts *q) {
    return q->dtype == PALI_NF4 ? q->groups : (size_t)q->rows;
}

/* --- int8 ------------------------------------------------------------------------- */

/* x as float16 has it, half to even; what is too large, infinite or NaN becomes +-65504.
 * Masks, not conditions: those would keep compilers from making vectors of it. */
static float round_f16(float x) {
    uint32_t u = bits_of(x), sign = u & 0x80000000u, a = u & 0x7fffffffu;
    /* 13 bits go; below 2^-14 half floats lie 2^-24 apart, as floats do in [0.5, 1). */
    uint32_t normal = (a + 0xfff + (a >> 13 & 1)) & ~0x1fffu;
    uint32_t small = bits_of((of_bits(a) + 0.75f) - 0.75f);
    uint32_t is_small = -(uint32_t)(a < 0x38800000u), is_large = -(uint32_t)(a >= 0x477fe000u);
    uint32_t r = (small & is_small) | (normal & ~is_small);
    return of_bits(sign | (r & ~is_large) | (0x477fe000u & is_large));
}

enum {
    CHUNK = 256 /* weights widened at a time */
};

/* The largest |x| in float16, or top. */
WIDE static float int8_top(const float *x, float top) {
    int most = (int)bits_of(top);
    for (int i = 0; i < CHUNK; i++) {
        int a = magnitude(round_f16(x[i]));
        most = a > most ? a : most;
    }
    return of_bits((uint32_t)most);
}

WIDE static void int8_codes(const float *x, float scale, signed char *codes) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    for (int i = 0; i < CHUNK; i++)
        codes[i] = (signed char)(int)((round_f16(x[i]) * scale + magic) - magic);
}

void pali_int8_row(const pali_matrix *src, size_t row, const pali_quant_parts *q) {
    size_t cols = (size_t)q->cols, from = row * cols;
    float x[CHUNK] = {0}, top = 0;
    for (size_t c = 0, n; c < cols; c += n) {
        n = cols - c < CHUNK ? cols - c : CHUNK;
        pali_matrix_read(src, from + c, n, x); /* what is left of an earlier one changes no top */
        top = int8_top(x, top);
    }
    const float scale = top > 0 ? 1.0f / top * 127.0f : 0.0f;
    for (size_t c = 0, n; c < cols; c += n) {
        signed char codes[CHUNK];
        n = cols - c < CHUNK ? cols - c : CHUNK;
        pali_matrix_read(src, from + c, n, x);
        int8_codes(x, scale, codes);
        memcpy(q->codes + from + c, codes, n);
    }
    q->scales[row] = top;
}

/* --- NF4 -------------------------------------------------------------------------- */

/* 1 / absmax, or 1e38 where that would be no number. */
static float inverse(float absmax) {
    return 1.0f / (absmax > 1e-38f ? absmax : 1e-38f);
}

/* A block: two codes a byte to out, max |x| back. */
WIDE static float nf4_block(const float x[PALI_NF4_BLOCK], unsigned char out[PALI_NF4_BLOCK / 2]) {
    int code[PALI_NF4_BLOCK], most = 0;
    for (int i = 0; i < PALI_NF4_BLOCK; i++) {
        int a = magnitude(x[i]);
        most = a > most ? a : most;
    }
    const float top = of_bits((uint32_t)most), inv = inverse(top);
    for (int i = 0; i < PALI_NF4_BLOCK; i++) {
        float y = x[i] * inv;
        int c = 0;
        for (int k = 0; k < 15; k++)
            c += y > pali_nf4_middle[k];
        code[i] = c;
    }
    for (int i = 0; i < PALI_NF4_BLOCK / 2; i++)
        out[i] = (unsigned char)(code[2 * i] << 4 | code[2 * i + 1]);
    return top;
}

void pali_nf4_codes(const pali_matrix *src, size_t group, const pali_quant_parts *q,
                    float *absmax) {
    enum {
        B = PALI_NF4_BLOCK
    };
    size_t all = (size_t)q->rows * (size_t)q->cols, first = group * PALI_NF4_GROUP;
    size_t last = q->blocks - first < PALI_NF4_GROUP ? q->blocks : first + PALI_NF4_GROUP;
    for (size_t b = first; b < last; b++) {
        size_t n = all - b * B < B ? all - b * B : B;
        float x[B] = {0};
        unsigned char codes[B / 2];
        pali_matrix_read(src, b * B, n, x);
        absmax[b] = nf4_block(x, codes);
        memcpy(q->codes + b * (B / 2), codes, (n + 1) / 2);
    }
}

void pali_nf4_offset(const pali_quant_parts *q, const float *absmax) {
    double all = 0;
    for (size_t b = 0; b < q->blocks;) {
        double sum = 0;
        for (size_t end = b + PALI_NF4_GROUP; b < end && b < q->blocks; b++)
            sum += (double)absmax[b];
        all += sum;
    }
    q->scales[q->groups] = (float)(all / (double)q->blocks);
}

/* The nearest entry of the map. */
static unsigned char map_code(float x) {
    int at = 0;
    for (int step = 128; step > 0; step /= 2) {
        float middle = (pali_nf4_map[at + step - 1] + pali_nf4_map[at + step]) / 2;
        at += x > middle ? step : 0;
    }
    return (unsigned char)at;
}

void pali_nf4_scales(size_t group, const pali_quant_parts *q, const float *absmax) {
    size_t first = group * PALI_NF4_GROUP;
    size_t last = q->blocks - first < PALI_NF4_GROUP ? q->blocks : first + PALI_NF4_GROUP;
    float offset = q->scales[q->groups], top = 0;
    for (size_t b = first; b < last; b++) {
        float a = fabsf(absmax[b] - offset);
        top = a > top ? a : top;
    }
    q->scales[group] = top;
    const float inv = inverse(top);
    for (size_t b = first; b < last; b++)
        q->scale_codes[b] = map_code((absmax[b] - offset) * inv);
}

/* --- everything --------------------------------------------------------------------- */

int pali_quantize(const pali_matrix *src, const pali_quant_parts *q, pali_error *err) {
    size_t pieces = pali_quant_pieces(q);
    if (q->dtype == PALI_INT8) {
        for (size_t i = 0; i < pieces; i++)
            pali_int8_row(src, i, q);
        return 0;
    }
    float *absmax = malloc(q->blocks * sizeof *absmax);
    if (!absmax)
        return pali_fail_nomem(err, "quantising a matrix");
    for (size_t i = 0; i < pieces; i++)
        pali_nf4_codes(src, i, q, absmax);
    pali_nf4_offset(q, absmax);
    for (size_t i = 0; i < pieces; i++)
        pali_nf4_scales(i, q, absmax);
    free(absmax);
    return 0;
}
