/* gemm.h - the one door to matrix products of many rows (prefill and vision).
 *
 *   C[m][n] = scale * A[m][k] B' (+ bias[n]) (then gelu) (+ C)
 *
 * All row-major with leading dimensions in elements; B' is the transpose of B[n][k]
 * (a weight as stored, or keys), or B[k][n] itself when b_kn is set (values).
 * A batch repeats the product with strides in elements (0: the same matrix again).
 * A and B have one 16-bit type, sums are float32, C is of type `out`, and so is the bias.
 * gemm_cublaslt.cu implements this on the device; the emulator in tests/emu has a
 * plain one.                                                                        */
#ifndef PALI_GPU_GEMM_H
#define PALI_GPU_GEMM_H

#include "core/error.h"
#include "gpu/port.cuh"

#include <stddef.h>
#include <stdint.h>

enum gemm_type {
    GEMM_F32,
    GEMM_BF16,
    GEMM_F16
};

struct gemm_args {
    int m, n, k;
    gemm_type in, out;
    const void *a;
    int64_t lda, stride_a;
    const void *b;
    int64_t ldb, stride_b;
    bool b_kn;
    void *c;
    int64_t ldc, stride_c;
    int batch; /* >= 1 */
    float scale;
    const void *bias; /* [n] of type out, or NULL; only with batch == 1 */
    bool gelu;        /* tanh form; needs a bias */
    bool add;         /* C is read too: out must be GEMM_F32; not with gelu */
};

struct gemm_context;

/* Bytes of device memory that a context wants to work in. */
size_t gemm_workspace(void);

/* Can products be computed here at all? Loads the library; PALI_EUNSUPPORTED says why not. */
int gemm_available(pali_error *err);

/* Its version; 0 before it is loaded. */
size_t gemm_version(void);

/* workspace (device, gemm_workspace() bytes, 256-byte aligned) is borrowed. */
int gemm_open(gemm_context **out, void *workspace, pali_error *err);
void gemm_close(gemm_context *g);

/* Enqueues the product on stream. Checks its arguments; PALI_EUNSUPPORTED when the library
 * has no way to do it. */
int gemm(gemm_context *g, const gemm_args *args, cudaStream_t stream, pali_error *err);

#endif
