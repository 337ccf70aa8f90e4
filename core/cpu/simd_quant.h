/* simd_quant.h - int8 and NF4 weights: the second half of simd.h's text.
 *
 * One token. Weights meet activations as 16-bit integers, because a processor multiplies
 * those twice as fast as floats and needs no conversion of the weights: with floats the
 * 4-bit product waits for its table look-ups and not for memory. The activations are
 * rounded once a product, to 15 bits of the largest of every 64 (PALI_Q16), and NF4's 16
 * values to 15 bits; sums inside a block are exact integers and the same for every
 * instruction set, blocks add up in float32. That adds about 1e-4 of a result's size, where
 * 8 bits took 4e-3 and 4 bits 6e-2 (BENCHMARKS.md).
 *
 * NF4 goes in steps of 8 VN weights = 4 VN bytes, which the table expands to 4 vectors in
 * an order of its own; the activations are laid out in the same order. Eight steps use VN
 * blocks, so the scales of those are computed as one vector and stay in a register.
 *
 * Besides what simd.h asks for, the including file provides
 *   v_from8(p)              2 VN int8 at p as int16; v_from8_32: VN as int32, 8u: unsigned
 *   v_mac16(acc, a, b)      acc plus the products of 2 VN int16 each, two to a lane: lane i
 *                           gets 2i and 2i + 1, or where a step is within one block any two
 *   nf4_expand(p, out)      the 8 VN codes at p as 4 vectors of 2 VN values of nf4_q16
 *   nf4_element(v, i)       which of the 8 VN weights is element i of out[v]
 *   v_pick(s, j)            lane i: s[(VN j + i) / 8], the block of lane i of step j
 *   v_look16(i)             pali_nf4_code[i % 16]
 *   v_look8(t, i)           t[i % 8]                                                    */

typedef int16_t vs_any __attribute__((vector_size(4 * VN), aligned(1), may_alias));
typedef int16_t vs_half __attribute__((vector_size(2 * VN), aligned(1), may_alias));
typedef uint8_t vub_quarter __attribute__((vector_size(VN / 2), aligned(1), may_alias));
typedef uint16_t vus_quarter __attribute__((vector_size(VN), aligned(1), may_alias));

enum {
    BLOCK = PALI_NF4_BLOCK, /* also of the activations */
    STEP = 8 * VN,
    RUN = 8 * STEP /* VN blocks */
};

/* --- activations ------------------------------------------------------------------ */

/* out = x / the scale that it returns, |out| <= PALI_Q16; a BLOCK of both. Where x is no
 * number, the scale is none. */
INLINE float round_block(const float *x, int16_t *out) {
    vf top = {0}, bad = {0};
    for (int i = 0; i < BLOCK; i += VN) {
        vf v = v_load(x + i);
        top = v_max((vf)((vi)v & (vi)v_bits(INT32_MAX)), top);
        bad += v * v_set(0.0f);
    }
    float t[VN], most = 0;
    v_store(t, top);
    for (int i = 0; i < VN; i++)
        most = t[i] > most ? t[i] : most;
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const vf inv = v_set(most > 0x1p-110f ? (float)PALI_Q16 / most : 0.0f);
    for (int i = 0; i < BLOCK; i += VN) {
        vi n = (vi)v_fma(v_load(x + i), inv, magic) - (vi)magic;
        *(vs_half *)(void *)(out + i) = __builtin_convertvector(n, vs_half);
    }
    return most * (1.0f / (float)PALI_Q16) + v_sum(bad);
}

static void round16(size_t n, const float *x, pali_dtype dtype, int16_t *q, float *scale) {
    size_t room = pali_room16(n);
    for (size_t b = 0; b < room / BLOCK; b++)
        scale[b] = b < n / BLOCK ? round_block(x + b * BLOCK, q + b * BLOCK) : 0.0f;
    memset(q + n, 0, (room - n) * sizeof *q);
    if (dtype != PALI_NF4)
        return;
    for (size_t at = 0; at < n; at += STEP) { /* into the order of nf4_expand */
        int16_t from[STEP];
        memcpy(from, q + at, sizeof from);
        for (int v = 0; v < 4; v++)
            for (int i = 0; i < 2 * VN; i++)
                q[at + (size_t)(v * 2 * VN + i)] = from[nf4_element(v, i)];
    }
}

/* --- int8 ------------------------------------------------------------------------- */

/* As dot_rows in simd.h. */
INLINE void int8_rows(const pali_matrix *m, int row, int R, int apart, const int16_t *x,
                      const float *xs, float *y) {
    size_t n = (size_t)m->cols, blocks = n / BLOCK;
    const int8_t *w[ROWS];
    vf acc[ROWS];
    UNROLL for (int r = 0; r < R; r++) {
        w[r] = (const int8_t *)m->data + (size_t)(row + r * apart) * n;
        acc[r] = (vf){0};
    }
    for (size_t b = 0; b < blocks; b++) {
        vf scale = v_set(xs[b]);
        UNROLL for (int r = 0; r < R; r++) {
            vi sum = {0};
            UNROLL for (int i = 0; i < BLOCK; i += 2 * VN) {
                vs v = v_from8(w[r] + b * BLOCK + i);
                sum = v_mac16(sum, v, *(const vs_any *)(const void *)(x + b * BLOCK + i));
            }
            acc[r] = v_fma(__builtin_convertvector(sum, vf), scale, acc[r]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        y[r * apart] = v_sum(acc[r]) * (m->scales[row + r * apart] * PALI_INT8_STEP);
    }
}

static void dot_int8(const pali_matrix *m, int row, int rows, const int16_t *x, const float *xs,
                     float *y) {
    int apart = rows / ROWS, r = 0;
    for (; r < apart; r++)
        int8_rows(m, row + r, ROWS, apart, x, xs, y + r);
    for (r = apart * ROWS; r < rows; r++)
        int8_rows(m, row + r, 1, 0, x, xs, y + r);
}

INLINE void read_int8(const pali_matrix *m, size_t from, size_t n, float *dst) {
    size_t cols = (size_t)m->cols;
    for (size_t i = 0; i < n;) {
        size_t row = (from + i) / cols, end = (row + 1) * cols - from;
        vf scale = v_set(m->scales[row]), step = v_set(PALI_INT8_STEP);
        end = end < n ? end : n;
        const int8_t *w = (const int8_t *)m->data + from;
        for (; i + VN <= end; i += VN) {
            vi c = v_from8_32(w + i);
            v_store(dst + i, __builtin_convertvector(c, vf) * scale * step);
        }
        for (; i < end; i++)
            dst[i] = (float)w[i] * m->scales[row] * PALI_INT8_STEP;
    }
}

/* --- NF4 -------------------------------------------------------------------------- */

/* pali_nf4_map[127 + c] = slope c + start for c > 0, and odd: straight between powers of two,
 * these by floor(log2 c) modulo 8. With e of them it is 10^(e-6) times 0.9 and 0.1 + 0.45 / 2^e
 * along c / 2^e - 1; e = 7 is the 1 at the end. */
static const float map_slope[8] = {0.9e-5f / 2,  0.9e-4f / 4,  0.9e-3f / 8, 0.9e-2f / 16,
                                   0.9e-1f / 32, 0.9e-0f / 64, 0,           0.9e-6f};
static const float map_start[8] = {-0.575e-5f,     -0.6875e-4f,  -0.74375e-3f, -0.771875e-2f,
                                   -0.7859375e-1f, -0.79296875f, 1.0f,         -0.35e-6f};

/* The scales of blocks [block, block + VN), of which n are there; within 1e-6 of
 * pali_nf4_scale, by arithmetic because gathering from a table takes three times as long. */
INLINE vf nf4_scales(const pali_matrix *m, size_t block, size_t n, float offset) {
    unsigned char t[VN] = {0};
    const unsigned char *codes = m->scale_codes + block;
    if (n < VN)
        codes = memcpy(t, codes, n);
    vi c = v_from8u_32(codes) - 127;
    vf x = __builtin_convertvector(c, vf);
    vi e = (vi)x >> 23, sign = (vi)x & INT32_MIN;
    vf v = v_fma(v_look8(map_slope, e), x, (vf)((vi)v_look8(map_start, e) ^ sign));
    v = (vf)((vi)v & (vi)(c != 0));
    const float *top = m->scales + block / PALI_NF4_GROUP;
    int left = (int)(PALI_NF4_GROUP - block % PALI_NF4_GROUP); /* then the next group's top */
    vf scale = v_set(top[0]);
    if (left < VN)
        scale = v_select(v_iota() >= left, v_set(top[1]), scale);
    return v_fma(v, scale, v_set(offset));
}

/* acc + what a step's lanes come to, each times the scale of its block. */
INLINE vf nf4_step(const unsigned char *codes, const int16_t *x, vf scale, vf acc) {
    vs w[4];
    vi sum = {0};
    nf4_expand(codes, w);
    UNROLL for (int v = 0; v < 4; v++) {
        sum = v_mac16(sum, w[v], *(const vs_any *)(const void *)(x + v * 2 * VN));
    }
    return v_fma(__builtin_convertvector(sum, vf), scale, acc);
}

/* As dot_rows in simd.h. */
INLINE void nf4_rows(const pali_matrix *m, int row, int R, int apart, float offset,
                     const int16_t *x, const float *xs, float *y) {
    size_t n = (size_t)m->cols, blocks = n / BLOCK, b = 0, first[ROWS];
    const unsigned char *codes[ROWS];
    vf acc[ROWS], s[ROWS];
    UNROLL for (int r = 0; r < R; r++) {
        first[r] = (size_t)(row + r * apart) * blocks;
        codes[r] = (const unsigned char *)m->data + first[r] * (BLOCK / 2);
        acc[r] = (vf){0};
    }
    for (; b + VN <= blocks; b += VN) {
        UNROLL for (int r = 0; r < R; r++) {
            s[r] = nf4_scales(m, first[r] + b, VN, offset) * v_load(xs + b);
        }
        UNROLL for (int j = 0; j < 8; j++) {
            UNROLL for (int r = 0; r < R; r++) {
                acc[r] = nf4_step(codes[r] + b * 32 + j * 4 * VN, x + b * BLOCK + j * STEP,
                                  v_pick(s[r], j), acc[r]);
            }
        }
    }
    for (int r = 0; b < blocks && r < R; r++) {
        s[r] = nf4_scales(m, first[r] + b, blocks - b, offset) * v_load(xs + b);
        size_t left = (blocks - b) * 32;
        for (int j = 0; left > 0; j++) {
            unsigned char last[4 * VN] = {0};
            const unsigned char *p = codes[r] + b * 32 + j * 4 * VN;
            size_t now = left < 4 * VN ? left : 4 * VN;
            if (now < 4 * VN)
                p = memcpy(last, p, now);
            acc[r] = nf4_step(p, x + b * BLOCK + j * STEP, v_pick(s[r], j), acc[r]);
            left -= now;
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        y[r * apart] = v_sum(acc[r]) * (1.0f / (float)PALI_Q16);
    }
}

static void dot_nf4(const pali_matrix *m, int row, int rows, const int16_t *x, const float *xs,
                    float *y) {
    size_t blocks = (size_t)m->rows * (size_t)m->cols / BLOCK;
    float offset = m->scales[(blocks + PALI_NF4_GROUP - 1) / PALI_NF4_GROUP];
    int apart = rows / NF4_ROWS, r = 0;
    for (; r < apart; r++)
        nf4_rows(m, row + r, NF4_ROWS, apart, offset, x, xs, y + r);
    for (r = apart * NF4_ROWS; r < rows; r++)
        nf4_rows(m, row + r, 1, 0, offset, x, xs, y + r);
}

INLINE void read_nf4(const pali_matrix *m, size_t from, size_t n, float *dst) {
    const unsigned char *codes = (const unsigned char *)m->data + from / 2;
    for (size_t i = 0; i < n;) {
        size_t end = i + BLOCK < n ? i + BLOCK : n;
        vf scale = v_set(pali_nf4_scale(m, (from + i) / BLOCK));
        for (; i + VN <= end; i += VN) {
            /* Two codes a byte, the high one first: in 16 bits, the high one lowest. */
            vus_quarter b = __builtin_convertvector(
                *(const vub_quarter *)(const void *)(codes + i / 2), vus_quarter);
            vus_quarter two = b >> 4 | (b & 15) << 8;
            v_store(dst + i, v_look16(v_from8_32(&two)) * scale);
        }
        if (i < end)
            pali_matrix_read(m, from + i, end - i, dst + i);
        i = end;
    }
}

static void read_all(const pali_matrix *m, size_t from, size_t n, float *dst) {
    if (m->dtype == PALI_INT8)
        read_int8(m, from, n, dst);
    else if (m->dtype == PALI_NF4 && from % BLOCK == 0)
        read_nf4(m, from, n, dst);
    else if (m->dtype == PALI_NF4)
        pali_matrix_read(m, from, n, dst);
    else
        widen(m->dtype, (const unsigned char *)m->data + from * pali_dtype_size(m->dtype), n, dst);
}
