/* kernels.c - the kernels for any machine, and the choice among all tables. */
#include "core/cpu/kernels.h"

#include <stdint.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

const int16_t pali_nf4_q16[16] = {-16383, -11406, -8602, -6470, -4660, -3027, -1492, 0,
                                  1304,   2637,   4032,  5536,  7220,  9217,  11844, 16383};

enum {
    VN = 4
};
#define TILE_ROWS 6
#define ROWS      4
#define NF4_ROWS  2
#define TABLE     pali_kernels_plain
#define NAME      "plain"

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int16_t vs __attribute__((vector_size(16)));
typedef float vf_any __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(8), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return a * b + c;
}
static inline vf v_max(vf a, vf b) {
    vi m = a > b;
    return (vf)((m & (vi)a) | (~m & (vi)b));
}

/* Exponent and fraction move to their float32 place and 2^112 repairs the exponent's
 * bias, for subnormal halves too; infinity and NaN then still need a full exponent. */
static inline vf v_half(const void *p) {
    vu h = __builtin_convertvector(*(const vh_any *)p, vu);
    vu sign = (h & 0x8000u) << 16, rest = (h & 0x7fffu) << 13;
    vf x = (vf)rest * 0x1p112f;
    vu special = (vu)(rest >= (0x7c00u << 13)) & 0x7f800000u;
    return (vf)((vu)x | sign | special);
}
static inline vf v_bf16(const void *p) {
    return (vf)(__builtin_convertvector(*(const vh_any *)p, vu) << 16);
}
static inline float v_sum(vf x) {
    return (x[0] + x[2]) + (x[1] + x[3]);
}

static inline vs v_from8(const void *p) {
    vs x;
    for (int i = 0; i < 8; i++)
        x[i] = ((const int8_t *)p)[i];
    return x;
}
static inline vi v_from8_32(const void *p) {
    const int8_t *s = p;
    return (vi){s[0], s[1], s[2], s[3]};
}
static inline vi v_from8u_32(const void *p) {
    const uint8_t *s = p;
    return (vi){s[0], s[1], s[2], s[3]};
}
static inline vi v_mac16(vi acc, vs a, vs b) {
    vi x = (vi)a, y = (vi)b; /* pairs: the odd one is the upper half */
    vi xl = (vi)((vu)x << 16) >> 16, yl = (vi)((vu)y << 16) >> 16;
    return acc + (x >> 16) * (y >> 16) + xl * yl;
}
static inline vf v_pick(vf s, int j) {
    return s[j / 2] - (vf){0};
}
static inline vf v_look16(vi i) {
    return (vf){pali_nf4_code[i[0] & 15], pali_nf4_code[i[1] & 15], pali_nf4_code[i[2] & 15],
                pali_nf4_code[i[3] & 15]};
}
static inline vf v_look8(const float *t, vi i) {
    return (vf){t[i[0] & 7], t[i[1] & 7], t[i[2] & 7], t[i[3] & 7]};
}
static inline void nf4_expand(const unsigned char *p, vs out[4]) {
    for (int i = 0; i < 32; i++)
        out[i / 8][i % 8] = pali_nf4_q16[i % 2 ? p[i / 2] & 15 : p[i / 2] >> 4];
}
static inline int nf4_element(int v, int i) {
    return 8 * v + i;
}

#include "core/cpu/simd.h"

/* --- choice ------------------------------------------------------------------ */

#if defined(__x86_64__)
/* Whether the processor has tiles of bfloat16 and the system lets this process use them, which
 * it wants to be asked for: their registers are 8 KB that every switch of threads then saves. */
static bool amx(void) {
    enum {
        REQUEST = 0x1023 /* ARCH_REQ_XCOMP_PERM */,
        TILE_DATA = 18,
        HAS = 1 << 22 | 1 << 24 /* AMX_BF16 and AMX_TILE, which clang 14 has no names for */
    };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & HAS) == HAS &&
           syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

const pali_kernels *pali_kernels_at(int i) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a, b, c = 0, d; /* clang 14 cannot be asked for F16C by name */
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (i == 1 && avx2)
        return &pali_kernels_avx2;
    if (i == 2 && avx512)
        return &pali_kernels_avx512;
    bool vnni = avx512 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VNNI);
    if (i == 3 && vnni)
        return &pali_kernels_avx512vnni;
    bool bf16 = vnni && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
    if (i == 4 && bf16)
        return &pali_kernels_avx512bf16;
    if (i == 5 && bf16 && amx())
        return &pali_kernels_amx;
#elif defined(__aarch64__)
    if (i == 1 && (getauxval(AT_HWCAP) & HWCAP_ASIMD))
        return &pali_kernels_neon;
#endif
    return i == 0 ? &pali_kernels_plain : NULL;
}

const pali_kernels *pali_kernels_pick(void) {
    int n = 1;
    while (pali_kernels_at(n))
        n++;
    const pali_kernels *k = pali_kernels_at(n - 1);
#if defined(__x86_64__)
    /* Intel's VDPBF16PS has half the rate of its float32 products (Sapphire Rapids: 164 and 290
     * GFLOP/s with two cores). Without the tiles it is better not used. */
    if (k == &pali_kernels_avx512bf16 && __builtin_cpu_is("intel"))
        k = &pali_kernels_avx512vnni;
#endif
    return k;
}
