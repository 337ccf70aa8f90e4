/* kernels_amx.c - AVX-512 with AMX: products of bfloat16 go through the tile unit, 16 times the
 * rate of float32's multiply-add by the manuals; measured 6 times, with all of it in the caches.
 *
 * A tile is 16 rows of 64 bytes. What linear.c has is what the unit asks for: 16 rows of weights
 * with 32 columns each, as they lie, times 16 pairs of columns of 16 tokens, as pack_pairs lays
 * them. Two by two of those share their loads, for 32 rows and 32 tokens. Columns past a
 * multiple of 32 go through copies filled up with zeros.                                   */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#define TABLE      pali_kernels_amx
#define NAME       "AMX BF16"
#define PACK_PAIRS pack_pairs
#define TILE_PAIRS tile_pairs
#define NARROW     narrow
#define PAIR_ROWS  32
#include "core/cpu/vector_avx512.h"

static void pack_pairs(int k, const float *x, uint32_t *out);
static void tile_pairs(int rows, int used, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add);
static void narrow(size_t n, const float *x, uint32_t *out);

#include "core/cpu/simd.h"

#include "core/cpu/pairs_avx512.h"

enum {
    SIDE = 16, /* rows of a tile, and pairs of columns in a row */
};

/* What LDTILECFG reads. Tiles 0 to 3: sums, [two of rows][two of tokens]; 4 and 5: weights of
 * the upper and the lower rows; 6 and 7: tokens. */
typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config;

static void set_tile(tile_config *t, int tile, int rows) {
    t->rows[tile] = (uint8_t)rows;
    t->bytes[tile] = rows ? 4 * SIDE : 0;
}

/* Everything written so far is in memory: gcc 12 does not know what its intrinsics read there. */
INLINE void settle(void) {
    __asm__ volatile("" ::: "memory");
}

/* Adds SIDE pairs of columns to the sums. */
INLINE void multiply(bool two, bool wide, const uint32_t *w, size_t rs, const uint32_t *x) {
    _tile_loadd(4, w, 4 * rs);
    _tile_loadd(6, x, 4 * LANES);
    _tile_dpbf16ps(0, 4, 6);
    if (wide) {
        _tile_loadd(7, x + SIDE, 4 * LANES);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (two) {
        _tile_loadd(5, w + SIDE * rs, 4 * rs);
        _tile_dpbf16ps(2, 5, 6);
        if (wide)
            _tile_dpbf16ps(3, 5, 7);
    }
}

/* The sums from c, or zero, and back. */
INLINE void load_sums(bool two, bool wide, const float *c, bool add) {
    if (add)
        _tile_loadd(0, c, 4 * LANES);
    else
        _tile_zero(0);
    if (wide && add)
        _tile_loadd(1, c + SIDE, 4 * LANES);
    else if (wide)
        _tile_zero(1);
    if (two && add)
        _tile_loadd(2, c + SIDE * LANES, 4 * LANES);
    else if (two)
        _tile_zero(2);
    if (two && wide && add)
        _tile_loadd(3, c + SIDE * LANES + SIDE, 4 * LANES);
    else if (two && wide)
        _tile_zero(3);
}

INLINE void store_sums(bool two, bool wide, float *c) {
    _tile_stored(0, c, 4 * LANES);
    if (wide)
        _tile_stored(1, c + SIDE, 4 * LANES);
    if (two)
        _tile_stored(2, c + SIDE * LANES, 4 * LANES);
    if (two && wide)
        _tile_stored(3, c + SIDE * LANES + SIDE, 4 * LANES);
}

INLINE void pairs_body(bool two, bool wide, int rows, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add) {
    int i = 0, left = pairs % SIDE;
    load_sums(two, wide, c, add);
    for (; i + SIDE <= pairs; i += SIDE)
        multiply(two, wide, w + i, rs, x + (size_t)i * LANES);
    if (left) {
        uint32_t wt[PAIR_ROWS * SIDE] = {0}, xt[SIDE * LANES] = {0};
        for (int r = 0; r < rows; r++)
            memcpy(wt + r * SIDE, w + (size_t)r * rs + i, (size_t)left * sizeof *wt);
        memcpy(xt, x + (size_t)i * LANES, (size_t)left * LANES * sizeof *xt);
        settle();
        multiply(two, wide, wt, SIDE, xt);
    }
    store_sums(two, wide, c);
}

static void tile_pairs(int rows, int used, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add) {
    _Alignas(64) tile_config t = {.palette = 1};
    int top = rows < SIDE ? rows : SIDE, rest = rows - top;
    for (int i = 0; i < 8; i++)
        set_tile(&t, i, i == 2 || i == 3 || i == 5 ? rest : i < 5 ? top : SIDE);
    settle();
    _tile_loadconfig(&t);
    if (rest && used > VN)
        pairs_body(true, true, rows, pairs, w, rs, x, c, add);
    else if (rest)
        pairs_body(true, false, rows, pairs, w, rs, x, c, add);
    else if (used > VN)
        pairs_body(false, true, rows, pairs, w, rs, x, c, add);
    else
        pairs_body(false, false, rows, pairs, w, rs, x, c, add);
    _tile_release(); /* a thread without tiles costs less to switch and sleeps deeper */
}
#endif
