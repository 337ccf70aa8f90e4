/* kernels_avx512vnni.c - the same with VNNI, for products with quantised weights. */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#define TABLE pali_kernels_avx512vnni
#define NAME  "AVX-512 VNNI"
#include "core/cpu/vector_avx512.h"

#include "core/cpu/simd.h"
#endif
