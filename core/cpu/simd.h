/* simd.h - the text of the kernel table; see kernels.h for what each one means.
 *
 * The including file sets, before the include:
 *   VN            floats of a vector (4, 8, 16)
 *   TILE_ROWS     rows of a tile: TILE_ROWS * 2 accumulators must stay in registers
 *   ROWS          rows of weights that meet one vector together, two accumulators each;
 *   NF4_ROWS      the same of NF4, at most ROWS
 *   v_fma(a,b,c)  a * b + c, fused where the machine can
 *   v_max(a,b)    the larger; b when either is NaN (so a NaN in a is passed over)
 *   v_half(p)     VN IEEE halves at p, any alignment, as floats
 *   v_bf16(p)     VN bfloat16 at p, likewise
 *   v_sum(x)      sum of the lanes, the upper half added to the lower until one is left
 *   TABLE, NAME   the table to define and its name
 *   PACK_PAIRS, TILE_PAIRS, NARROW   functions for bfloat16 pairs, where there are, and
 *   PAIR_ROWS                        rows of TILE_PAIRS
 * and what simd_quant.h, at its end, asks for.
 * All else is the compilers' vector extension: the usual operators on whole
 * vectors, comparisons giving 0 or -1 per lane.                               */
#include "core/cpu/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* Arrays of vectors live in registers only when every loop over them is unrolled. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    LANES = 2 * VN
};

/* --- vectors --------------------------------------------------------------- */

INLINE vf v_load(const void *p) {
    return *(const vf_any *)p;
}
INLINE void v_store(float *p, vf x) {
    *(vf_any *)p = x;
}
INLINE vf v_set(float x) {
    return x - (vf){0}; /* subtracting keeps the sign of zero */
}
INLINE vf v_select(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}
INLINE vf v_bits(int32_t x) {
    return (vf)(x - (vi){0});
}
INLINE vi v_iota(void) {
    vi x;
    for (int i = 0; i < VN; i++)
        x[i] = i;
    return x;
}

/* VN elements of dtype at p as floats. */
INLINE vf v_widen(pali_dtype dtype, const unsigned char *p) {
    if (dtype == PALI_F32)
        return v_load(p);
    if (dtype == PALI_F16)
        return v_half(p);
    return v_bf16(p);
}

/* The same for n < VN elements; the rest is 0. */
INLINE vf v_widen_part(pali_dtype dtype, const unsigned char *p, size_t n) {
    unsigned char t[4 * VN] = {0};
    memcpy(t, p, n * (dtype == PALI_F32 ? 4 : 2));
    return v_widen(dtype, t);
}
INLINE vf v_load_part(const float *p, size_t n) {
    float t[VN] = {0};
    memcpy(t, p, n * sizeof *t);
    return v_load(t);
}
INLINE void v_store_part(float *p, vf x, size_t n) {
    float t[VN];
    v_store(t, x);
    memcpy(p, t, n * sizeof *t);
}

/* e^x, within 2 units in the last place; 0 from -104 down, infinity from 89 up, NaN
 * stays. x = n ln2 + r with |r| <= ln2 / 2, a polynomial for e^r (Cephes' expf), and
 * 2^n in two factors, because 2^n alone leaves the exponent's range at both ends. */
INLINE vf v_exp(vf x) {
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf z = v_max(x, v_set(-104.0f));
    z = v_select(z > v_set(89.0f), v_set(89.0f), z);
    vf t = v_fma(z, v_set(1.44269504088896341f), magic);
    vf n = t - magic;
    vi k = (vi)t - (vi)magic;
    vf r = v_fma(n, v_set(-0.693359375f), z);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    vf y = v_fma(p, r * r, r) + v_set(1.0f);
    vi k1 = k >> 1, k2 = k - k1;
    y = y * (vf)((k1 + 127) << 23) * (vf)((k2 + 127) << 23);
    return v_select(x == x, y, x);
}

/* tanh within 3 units in the last place: Cephes' odd polynomial near 0, where
 * 1 - 2 / (e^2x + 1) would lose everything, that formula elsewhere. */
INLINE vf v_tanh(vf x) {
    vi sign = (vi)x & (vi)v_bits(INT32_MIN);
    vf a = (vf)((vi)x & (vi)v_bits(INT32_MAX));
    vf z = x * x;
    vf p = v_set(-5.70498872745e-3f);
    p = v_fma(p, z, v_set(2.06390887954e-2f));
    p = v_fma(p, z, v_set(-5.37397155531e-2f));
    p = v_fma(p, z, v_set(1.33314422036e-1f));
    p = v_fma(p, z, v_set(-3.33332819422e-1f));
    vf small = v_fma(p * z, x, x);
    vf big = v_set(1.0f) - v_set(2.0f) / (v_exp(a + a) + v_set(1.0f));
    return v_select(a < v_set(0.625f), small, (vf)((vi)big | sign));
}

/* 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). The right
 * side has no cancellation for negative x. */
INLINE vf v_gelu(vf x) {
    vf e = v_exp(x * v_fma(x * x, v_set(-0.071354816272f), v_set(-1.5957691216057308f)));
    return x / (v_set(1.0f) + e);
}

INLINE vf v_softcap(vf x, vf cap, vf inv) {
    return cap * v_tanh(x * inv);
}

/* --- matrix tile ----------------------------------------------------------- */

/* One element of w broadcast against one or two vectors of x: TILE_ROWS * 2 fused
 * multiply-adds for TILE_ROWS + 2 loads, so the multipliers are the bound. One pointer
 * serves three rows (base, base + rs, base + 2 rs), or the addresses would not fit
 * the integer registers. The sum starts at 0 in every call and is added to c once:
 * over many calls that is a blocked sum, with a smaller error than a plain one. */
INLINE void tile_body(int rows, int nv, int k, const float *w, size_t rs, size_t cs, const float *x,
                      float *c, bool add) {
    vf acc[TILE_ROWS][2];
    const float *p[(TILE_ROWS + 2) / 3];
    UNROLL for (int r = 0; r < rows; r++) {
        acc[r][0] = acc[r][1] = (vf){0};
    }
    UNROLL for (int g = 0; g * 3 < rows; g++) {
        p[g] = w + (size_t)g * 3 * rs;
    }
    for (int i = 0; i < k; i++) {
        vf x0 = v_load(x), x1 = nv > 1 ? v_load(x + VN) : x0;
        UNROLL for (int r = 0; r < rows; r++) {
            vf b = v_set(p[r / 3][(size_t)(r % 3) * rs]);
            acc[r][0] = v_fma(b, x0, acc[r][0]);
            if (nv > 1)
                acc[r][1] = v_fma(b, x1, acc[r][1]);
        }
        x += LANES;
        UNROLL for (int g = 0; g * 3 < rows; g++) {
            p[g] += cs;
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < nv; v++) {
            float *d = c + r * LANES + v * VN;
            v_store(d, add ? v_load(d) + acc[r][v] : acc[r][v]);
        }
    }
}

#define TILE_CASE(n)                                                                               \
    case n:                                                                                        \
        if (used > VN)                                                                             \
            tile_body(n, 2, k, w, rs, cs, x, c, add);                                              \
        else                                                                                       \
            tile_body(n, 1, k, w, rs, cs, x, c, add);                                              \
        break;

static void tile(int rows, int used, int k, const float *w, size_t rs, size_t cs, const float *x,
                 float *c, bool add) {
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
#if TILE_ROWS > 6
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
#endif
    }
}

/* --- one token: rows of weights against one vector ---------------------------- */

INLINE void widen_body(pali_dtype dtype, const unsigned char *s, size_t n, float *dst) {
    size_t size = dtype == PALI_F32 ? 4 : 2, i = 0;
    for (; i + VN <= n; i += VN)
        v_store(dst + i, v_widen(dtype, s + i * size));
    if (i < n)
        v_store_part(dst + i, v_widen_part(dtype, s + i * size, n - i), n - i);
}

static void widen(pali_dtype dtype, const void *src, size_t n, float *dst) {
    if (dtype == PALI_BF16)
        widen_body(PALI_BF16, src, n, dst);
    else if (dtype == PALI_F16)
        widen_body(PALI_F16, src, n, dst);
    else
        widen_body(PALI_F32, src, n, dst);
}

/* Rows of weights against x, several at a time (ROWS): rows [0, rows / ROWS), and with each the
 * row so many further on, and so on. Each of these streams is then a long one, which the
 * processor foresees, and what is loaded of x serves all of them: an x of 16384 elements does
 * not fit the first cache beside the weights, and loading it for every row halved the speed.
 * A row's sum does not depend on how it is grouped. Software prefetch was slower. */

/* y[r * apart] = row r * apart of w, for R rows; the rows of w are ld bytes apart. Two sums,
 * because one fused multiply-add waits for the last. */
INLINE void dot_rows(pali_dtype dtype, const unsigned char *w, size_t ld, int R, int apart,
                     size_t n, const float *x, float *y) {
    size_t size = dtype == PALI_F32 ? 4 : 2, i = 0;
    const unsigned char *p[ROWS];
    vf acc[ROWS][2];
    UNROLL for (int r = 0; r < R; r++) {
        p[r] = w + (size_t)(r * apart) * ld;
        acc[r][0] = acc[r][1] = (vf){0};
    }
    for (; i + 2 * VN <= n; i += 2 * VN) {
        vf x0 = v_load(x + i), x1 = v_load(x + i + VN);
        UNROLL for (int r = 0; r < R; r++) {
            acc[r][0] = v_fma(v_widen(dtype, p[r] + i * size), x0, acc[r][0]);
            acc[r][1] = v_fma(v_widen(dtype, p[r] + (i + VN) * size), x1, acc[r][1]);
        }
    }
    for (; i < n; i += VN) {
        size_t m = n - i < VN ? n - i : VN;
        vf part = v_load_part(x + i, m);
        UNROLL for (int r = 0; r < R; r++) {
            acc[r][0] = v_fma(v_widen_part(dtype, p[r] + i * size, m), part, acc[r][0]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        y[r * apart] = v_sum(acc[r][0] + acc[r][1]);
    }
}

INLINE void dot_of(pali_dtype dtype, const unsigned char *w, size_t ld, int rows, size_t n,
                   const float *x, float *y) {
    int apart = rows / ROWS, r = 0;
    for (; r < apart; r++)
        dot_rows(dtype, w + (size_t)r * ld, ld, ROWS, apart, n, x, y + r);
    for (r = apart * ROWS; r < rows; r++)
        dot_rows(dtype, w + (size_t)r * ld, ld, 1, 0, n, x, y + r);
}

static void dot(pali_dtype dtype, const void *w, size_t ld, int rows, size_t n, const float *x,
                float *y) {
    if (dtype == PALI_BF16)
        dot_of(PALI_BF16, w, ld, rows, n, x, y);
    else if (dtype == PALI_F16)
        dot_of(PALI_F16, w, ld, rows, n, x, y);
    else
        dot_of(PALI_F32, w, ld, rows, n, x, y);
}

static void mix(size_t keys, size_t n, const float *p, const float *v, size_t ld, float *out) {
    size_t e = 0;
    for (; e + 4 * VN <= n; e += 4 * VN) {
        vf acc[4] = {{0}};
        for (size_t i = 0; i < keys; i++) {
            vf b = v_set(p[i]);
            UNROLL for (int j = 0; j < 4; j++) {
                acc[j] = v_fma(b, v_load(v + i * ld + e + (size_t)j * VN), acc[j]);
            }
        }
        UNROLL for (int j = 0; j < 4; j++) {
            v_store(out + e + (size_t)j * VN, acc[j]);
        }
    }
    for (; e < n; e += VN) {
        size_t m = n - e < VN ? n - e : VN;
        vf acc = {0};
        for (size_t i = 0; i < keys; i++)
            acc = v_fma(v_set(p[i]), v_load_part(v + i * ld + e, m), acc);
        v_store_part(out + e, acc, m);
    }
}

/* --- elementwise ------------------------------------------------------------ */

/* x[i] = f(x[i]) for n elements. */
#define MAP(n, x, expr)                                                                            \
    do {                                                                                           \
        size_t i_ = 0;                                                                             \
        for (; i_ + VN <= (n); i_ += VN) {                                                         \
            vf v = v_load((x) + i_);                                                               \
            v_store((x) + i_, expr);                                                               \
        }                                                                                          \
        if (i_ < (n)) {                                                                            \
            vf v = v_load_part((x) + i_, (n)-i_);                                                  \
            v_store_part((x) + i_, expr, (n)-i_);                                                  \
        }                                                                                          \
    } while (0)

static void exp_all(size_t n, float *x) {
    MAP(n, x, v_exp(v));
}

static void gelu(size_t n, float *x) {
    MAP(n, x, v_gelu(v));
}

static void softcap(size_t n, float cap, float *x) {
    vf c = v_set(cap), inv = v_set(1.0f / cap);
    MAP(n, x, v_softcap(v, c, inv));
}

static void geglu(size_t n, const float *g, const float *u, float *out) {
    size_t i = 0;
    for (; i + VN <= n; i += VN)
        v_store(out + i, v_gelu(v_load(g + i)) * v_load(u + i));
    if (i < n)
        v_store_part(out + i, v_gelu(v_load_part(g + i, n - i)) * v_load_part(u + i, n - i), n - i);
}

/* --- softmax ----------------------------------------------------------------- */

/* e^x of a score below the largest. Where that has no normal number it is 0: beside the largest's
 * 1 it is nothing, and multiplying such numbers takes Intel's processors a hundred times as long. */
INLINE vf v_weight(vf x) {
    return v_select(x < v_set(-87.0f), (vf){0}, v_exp(x));
}

static void softmax_lanes(size_t keys, int used, float scale, float cap, float *s, float *inv) {
    vf sc = v_set(scale), c = v_set(cap), ic = v_set(cap > 0 ? 1.0f / cap : 0.0f);
    for (int from = 0; from < used; from += VN) {
        float *col = s + from;
        vf top = v_set(-INFINITY), sum = {0};
        for (size_t i = 0; i < keys; i++) {
            vf z = v_load(col + i * LANES) * sc;
            if (cap > 0)
                z = v_softcap(z, c, ic);
            v_store(col + i * LANES, z);
            top = v_max(z, top);
        }
        for (size_t i = 0; i < keys; i++) {
            vf e = v_weight(v_load(col + i * LANES) - top);
            v_store(col + i * LANES, e);
            sum += e;
        }
        v_store(inv + from, v_set(1.0f) / sum);
    }
}

static void softmax_row(size_t n, float scale, float cap, float *s) {
    vf sc = v_set(scale), c = v_set(cap), ic = v_set(cap > 0 ? 1.0f / cap : 0.0f);
    if (cap > 0)
        MAP(n, s, v_softcap(v * sc, c, ic));
    else
        MAP(n, s, v * sc);
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        top = s[i] > top ? s[i] : top;
    vf t = v_set(top), sum = {0};
    MAP(n, s, v_weight(v - t));
    size_t i = 0;
    for (; i + VN <= n; i += VN)
        sum += v_load(s + i);
    if (i < n)
        sum += v_load_part(s + i, n - i);
    vf inv = v_set(1.0f / v_sum(sum));
    MAP(n, s, v * inv);
}

#include "core/cpu/simd_quant.h"

const pali_kernels TABLE = {
    .name = NAME,
    .lanes = LANES,
    .rows = TILE_ROWS,
    .tile = tile,
#ifdef TILE_PAIRS
    .pack_pairs = PACK_PAIRS,
    .tile_pairs = TILE_PAIRS,
    .narrow = NARROW,
    .pair_rows = PAIR_ROWS,
#endif
    .widen = widen,
    .read = read_all,
    .dot = dot,
    .round16 = round16,
    .dot_int8 = dot_int8,
    .dot_nf4 = dot_nf4,
    .mix = mix,
    .exp = exp_all,
    .gelu = gelu,
    .geglu = geglu,
    .softcap = softcap,
    .softmax_lanes = softmax_lanes,
    .softmax_row = softmax_row,
};
