/* gemm_cublaslt.cu - products of many rows through cuBLASLt: the only file that knows it.
 *
 * The library is half a gigabyte and takes 0.1 to 0.7 s to load even where there is no
 * device, so it is not linked: it is opened when a device was found, and its functions are
 * looked up by name.
 *
 * cuBLAS counts by columns. A row-major C[m][n] is a column-major C' of n x m, and
 * C' = op(B) A', where a weight B[n][k] as stored is the column-major k x n to be transposed
 * and values B[k][n] are n x k as they are. The bias then runs along the rows of C', as
 * the library wants it.
 *
 * The library's choice of an algorithm is asked for once a shape and kept. Sums are float32
 * and each output is summed in one piece or in an order fixed by the algorithm, so equal
 * arguments give equal bits. Speed not measured.                                        */
#include "gpu/port.cuh"

#include "gpu/gemm.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT = 64, /* shapes whose algorithm is remembered; a turn has about 20 */
    WORKSPACE = 32 << 20
};

/* --- the library ---------------------------------------------------------------------- */

#define FUNCTIONS(F)                                                                               \
    F(cublasLtCreate)                                                                              \
    F(cublasLtDestroy)                                                                             \
    F(cublasLtGetVersion)                                                                          \
    F(cublasLtMatmul)                                                                              \
    F(cublasLtMatmulAlgoGetHeuristic)                                                              \
    F(cublasLtMatmulDescCreate)                                                                    \
    F(cublasLtMatmulDescDestroy)                                                                   \
    F(cublasLtMatmulDescSetAttribute)                                                              \
    F(cublasLtMatrixLayoutCreate)                                                                  \
    F(cublasLtMatrixLayoutDestroy)                                                                 \
    F(cublasLtMatrixLayoutSetAttribute)                                                            \
    F(cublasLtMatmulPreferenceCreate)                                                              \
    F(cublasLtMatmulPreferenceDestroy)                                                             \
    F(cublasLtMatmulPreferenceSetAttribute)

static struct {
    void *handle; /* kept open for the life of the process */
#define POINTER(name) decltype(&::name) name;
    FUNCTIONS(POINTER)
} lt;

int gemm_available(pali_error *err) {
    static const char hint[] = "install NVIDIA's cuBLAS for CUDA 13 (the package is called "
                               "libcublas-13-0 or the like), or use the CPU: --backend cpu";
    static const char *const places[] = {
        "libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
        "/usr/local/cuda-13/lib64/libcublasLt.so.13", "/opt/cuda/lib64/libcublasLt.so.13"};
    if (lt.handle)
        return 0;
    void *handle = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !handle; i++)
        handle = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return pali_fail(err, PALI_EUNSUPPORTED, hint,
                         "a graphics card is there, but cuBLAS is not: libcublasLt.so.13 was not "
                         "found");
#define LOOK_UP(name)                                                                              \
    lt.name = (decltype(lt.name))dlsym(handle, #name);                                             \
    if (!lt.name) {                                                                                \
        dlclose(handle);                                                                           \
        return pali_fail(err, PALI_EUNSUPPORTED, hint,                                             \
                         "libcublasLt.so.13 is not the library pali knows: it lacks " #name);      \
    }
    FUNCTIONS(LOOK_UP)
    lt.handle = handle;
    return 0;
}

size_t gemm_version(void) {
    return lt.handle ? lt.cublasLtGetVersion() : 0;
}

/* --- a context ------------------------------------------------------------------------- */

/* What an algorithm was chosen for: the arguments with pointers replaced by alignments. */
typedef struct {
    gemm_args shape;
    cublasLtMatmulAlgo_t algo;
} kept;

struct gemm_context {
    cublasLtHandle_t handle;
    void *workspace;
    kept known[KEPT];
    int count, oldest;
};

size_t gemm_workspace(void) {
    return WORKSPACE;
}

static int refuse(cublasStatus_t status, pali_error *err) {
    return pali_fail(err, status == CUBLAS_STATUS_NOT_SUPPORTED ? PALI_EUNSUPPORTED : PALI_EIO,
                     "use the CPU: --backend cpu", "cuBLAS failed with status %d", (int)status);
}

int gemm_open(gemm_context **out, void *workspace, pali_error *err) {
    *out = NULL;
    int rc = gemm_available(err);
    if (rc)
        return rc;
    gemm_context *g = (gemm_context *)calloc(1, sizeof *g);
    if (!g)
        return pali_fail_nomem(err, "opening the model");
    g->workspace = workspace;
    cublasStatus_t status = lt.cublasLtCreate(&g->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        free(g);
        return refuse(status, err);
    }
    *out = g;
    return 0;
}

void gemm_close(gemm_context *g) {
    if (!g)
        return;
    lt.cublasLtDestroy(g->handle);
    free(g);
}

/* --- a product ---------------------------------------------------------------------------- */

static cudaDataType_t data_type(gemm_type t) {
    return t == GEMM_F32 ? CUDA_R_32F : t == GEMM_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* The largest power of two, at most 256, that divides an address. */
static uint32_t alignment(const void *p) {
    uintptr_t a = (uintptr_t)p | 256;
    return (uint32_t)(a & (~a + 1));
}

typedef struct {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* as cuBLAS sees them: weight, activations, result */
    cublasLtMatmulPreference_t preference;
} described;

static cublasStatus_t layout(cublasLtMatrixLayout_t *l, gemm_type type, int64_t rows, int64_t cols,
                             int64_t ld, int batch, int64_t stride) {
    cublasStatus_t s =
        lt.cublasLtMatrixLayoutCreate(l, data_type(type), (uint64_t)rows, (uint64_t)cols, ld);
    int32_t n = batch;
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1)
        s = lt.cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n,
                                                sizeof n);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1)
        s = lt.cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                &stride, sizeof stride);
    return s;
}

static cublasStatus_t describe(const gemm_args *g, described *d) {
    cublasOperation_t op = g->b_kn ? CUBLAS_OP_N : CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = g->gelu   ? CUBLASLT_EPILOGUE_GELU_BIAS
                                  : g->bias ? CUBLASLT_EPILOGUE_BIAS
                                            : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t s = lt.cublasLtMatmulDescCreate(&d->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
#define SET(attribute, value)                                                                      \
    if (s == CUBLAS_STATUS_SUCCESS)                                                                \
    s = lt.cublasLtMatmulDescSetAttribute(d->desc, attribute, &(value), sizeof(value))
    SET(CUBLASLT_MATMUL_DESC_TRANSA, op);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (g->bias) {
        cudaDataType_t type = data_type(g->out);
        SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g->bias);
        SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    }
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(&d->a, g->in, g->b_kn ? g->n : g->k, g->b_kn ? g->k : g->n, g->ldb, g->batch,
                   g->stride_b);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(&d->b, g->in, g->k, g->m, g->lda, g->batch, g->stride_a);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(&d->c, g->out, g->n, g->m, g->ldc, g->batch, g->stride_c);
    return s;
}

static cublasStatus_t choose(gemm_context *g, const gemm_args *args, described *d,
                             cublasLtMatmulAlgo_t *algo) {
    size_t space = WORKSPACE;
    uint32_t a = alignment(args->b), b = alignment(args->a), c = alignment(args->c);
    cublasStatus_t s = lt.cublasLtMatmulPreferenceCreate(&d->preference);
#define PREFER(attribute, value)                                                                   \
    if (s == CUBLAS_STATUS_SUCCESS)                                                                \
    s = lt.cublasLtMatmulPreferenceSetAttribute(d->preference, attribute, &(value), sizeof(value))
    PREFER(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, space);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c);
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt.cublasLtMatmulAlgoGetHeuristic(g->handle, d->desc, d->a, d->b, d->c, d->c,
                                              d->preference, 1, &found, &n);
    if (s == CUBLAS_STATUS_SUCCESS && n == 0)
        s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS) /* the rest of found means nothing otherwise (cublasLt.h) */
        s = found.state;
    if (s == CUBLAS_STATUS_SUCCESS)
        *algo = found.algo;
    return s;
}

/* The remembered algorithm, or a new one in place of the oldest. */
static cublasStatus_t algorithm(gemm_context *g, const gemm_args *args, described *d,
                                const cublasLtMatmulAlgo_t **out) {
    gemm_args key;
    memset(&key, 0, sizeof key); /* the padding too: keys are compared as bytes */
    key.m = args->m, key.n = args->n, key.k = args->k;
    key.in = args->in, key.out = args->out;
    key.a = (const void *)(uintptr_t)alignment(args->a);
    key.b = (const void *)(uintptr_t)alignment(args->b);
    key.c = (void *)(uintptr_t)alignment(args->c);
    key.lda = args->lda, key.ldb = args->ldb, key.ldc = args->ldc;
    key.stride_a = args->stride_a, key.stride_b = args->stride_b, key.stride_c = args->stride_c;
    key.batch = args->batch;
    key.b_kn = args->b_kn, key.gelu = args->gelu, key.add = args->add;
    key.bias = (const void *)(uintptr_t)(args->bias != NULL);
    for (int i = 0; i < g->count; i++)
        if (memcmp(&g->known[i].shape, &key, sizeof key) == 0) {
            *out = &g->known[i].algo;
            return CUBLAS_STATUS_SUCCESS;
        }
    int at = g->count < KEPT ? g->count : g->oldest;
    cublasLtMatmulAlgo_t algo;
    cublasStatus_t s = choose(g, args, d, &algo);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    if (g->count < KEPT)
        g->count++;
    else
        g->oldest = (g->oldest + 1) % KEPT;
    memcpy(&g->known[at].shape, &key, sizeof key);
    g->known[at].algo = algo;
    *out = &g->known[at].algo;
    return CUBLAS_STATUS_SUCCESS;
}

/* With the shape, which is what one wants to know then. */
static int refuse_product(const gemm_args *g, cublasStatus_t status, pali_error *err) {
    static const char *const types[] = {"float32", "bfloat16", "float16"};
    return pali_fail(
        err, status == CUBLAS_STATUS_NOT_SUPPORTED ? PALI_EUNSUPPORTED : PALI_EIO,
        "use the CPU: --backend cpu",
        "cuBLAS failed with status %d on a product of m %d, n %d, k %d, batch %d, %s to "
        "%s%s%s%s%s",
        (int)status, g->m, g->n, g->k, g->batch, types[g->in], types[g->out],
        g->b_kn ? ", as it is" : "", g->bias ? ", bias" : "", g->gelu ? ", gelu" : "",
        g->add ? ", added" : "");
}

int gemm(gemm_context *g, const gemm_args *args, cudaStream_t stream, pali_error *err) {
    described d = {};
    const cublasLtMatmulAlgo_t *algo = NULL;
    const float one = args->scale, beta = args->add ? 1.0f : 0.0f;
    cublasStatus_t s = describe(args, &d);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = algorithm(g, args, &d, &algo);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt.cublasLtMatmul(g->handle, d.desc, &one, args->b, d.a, args->a, d.b, &beta, args->c,
                              d.c, args->c, d.c, algo, g->workspace, WORKSPACE, stream);
    if (d.preference)
        lt.cublasLtMatmulPreferenceDestroy(d.preference);
    if (d.c)
        lt.cublasLtMatrixLayoutDestroy(d.c);
    if (d.b)
        lt.cublasLtMatrixLayoutDestroy(d.b);
    if (d.a)
        lt.cublasLtMatrixLayoutDestroy(d.a);
    if (d.desc)
        lt.cublasLtMatmulDescDestroy(d.desc);
    return s == CUBLAS_STATUS_SUCCESS ? 0 : refuse_product(args, s, err);
}
