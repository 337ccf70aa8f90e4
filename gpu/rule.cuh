/* rule.cuh - core/sample_rule.h for kernels: a product and a sum are each rounded. */
#ifndef PALI_GPU_RULE_CUH
#define PALI_GPU_RULE_CUH

#include "gpu/port.cuh"

#define PALI_RULE static __host__ __device__ inline
#ifdef __CUDA_ARCH__ /* a product and a sum, each rounded: not one fused operation */
#define PALI_RULE_MUL(a, b) __dmul_rn(a, b)
#define PALI_RULE_ADD(a, b) __dadd_rn(a, b)
#else
#define PALI_RULE_MUL(a, b) ((a) * (b))
#define PALI_RULE_ADD(a, b) ((a) + (b))
#endif
#include "core/sample_rule.h"

#endif
