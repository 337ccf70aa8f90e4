/* kernels.c - the kernels for any machine, and the choice among all tables. */
#include "core/cpu/kernels.h"

#include <stdint.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum {
    VN = 4
};
#define TILE_ROWS 6
#define TABLE     pali_kernels_plain
#define NAME      "plain"

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
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

#include "core/cpu/simd.h"

/* --- choice ------------------------------------------------------------------ */

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
    if (i == 3 && avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16))
        return &pali_kernels_avx512bf16;
#endif
    return i == 0 ? &pali_kernels_plain : NULL;
}

const pali_kernels *pali_kernels_pick(void) {
    int n = 1;
    while (pali_kernels_at(n))
        n++;
    return pali_kernels_at(n - 1);
}
