/* kernels_avx512.c - the kernels for x86 with AVX-512 F, BW, VL and DQ; compiled with
 * them enabled, run only where the processor has them. */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#define TABLE pali_kernels_avx512
#define NAME  "AVX-512"
#include "core/cpu/vector_avx512.h"

#include "core/cpu/simd.h"
#endif
