/* pairs_avx512.h - rounding to bfloat16, for the tables that multiply it; after simd.h. */

/* Both rounded to bfloat16: first in the low half of each lane, second in the high. */
static inline vu v_pairs(vf first, vf second) {
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    __m512i i = _mm512_add_epi32(_mm512_set1_epi32(16 << 16),
                                 _mm512_mullo_epi32(_mm512_set1_epi32(65537), (__m512i)v_iota()));
    return (vu)_mm512_permutexvar_epi16(i, both);
}

static void narrow(size_t n, const float *x, uint32_t *out) {
    for (size_t i = 0; i < n; i += VN) {
        size_t m = n - i < VN ? n - i : VN;
        vf v = m < VN ? v_load_part(x + i, m) : v_load(x + i);
        __m256i h = (__m256i)_mm512_cvtneps_pbh((__m512)v);
        memcpy((uint16_t *)out + i, &h, m * 2);
    }
}

static void pack_pairs(int k, const float *x, uint32_t *out) {
    for (int i = 0; i + 1 < k; i += 2)
        for (int v = 0; v < LANES; v += VN) {
            const float *from = x + (size_t)i * LANES + v;
            vu pair = v_pairs(v_load(from), v_load(from + LANES));
            memcpy(out + (size_t)(i / 2) * LANES + v, &pair, sizeof pair);
        }
}
