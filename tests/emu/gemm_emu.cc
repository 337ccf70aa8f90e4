/* gemm_emu.cc - gpu/gemm.h for the emulator: float32 sums on the CPU, queued in the stream.
 *
 * Both operands are widened once, B always to [n][k]; a sum is kept in sixteen lanes that
 * are added in one fixed shape, so results do not depend on the sizes around them.       */
#include "gpu/gemm.h"
#include "tests/emu/control.h"

#include <vector>

enum {
    LANES = 16
};

struct gemm_context {
    void *workspace;
};

size_t gemm_workspace(void) {
    return 4096;
}
int gemm_available(pali_error *err) {
    return emu_settings()->no_gemm ? pali_fail(err, PALI_EUNSUPPORTED, "install it",
                                               "the library of matrix products was not found")
                                   : 0;
}
size_t gemm_version(void) {
    return 1;
}
int gemm_open(gemm_context **out, void *workspace, pali_error *err) {
    *out = nullptr;
    if (workspace == nullptr || reinterpret_cast<uintptr_t>(workspace) % 256 != 0)
        return pali_fail(err, PALI_EARG, nullptr, "gemm: the workspace is not 256-byte aligned");
    *out = new gemm_context{workspace};
    return 0;
}
void gemm_close(gemm_context *g) {
    delete g;
}

static float load(const void *p, gemm_type type, int64_t i) {
    switch (type) {
    case GEMM_BF16:
        return bf16_to_float(static_cast<const bf16 *>(p)[i]);
    case GEMM_F16:
        return f16_to_float(static_cast<const f16 *>(p)[i]);
    default:
        return static_cast<const float *>(p)[i];
    }
}

static void store(void *p, gemm_type type, int64_t i, float v) {
    switch (type) {
    case GEMM_BF16:
        static_cast<bf16 *>(p)[i] = float_to_bf16(v);
        break;
    case GEMM_F16:
        static_cast<f16 *>(p)[i] = float_to_f16(v);
        break;
    default:
        static_cast<float *>(p)[i] = v;
    }
}

static float dot(const float *a, const float *b, size_t n) { /* n a multiple of LANES */
    float sums[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            sums[l] += a[i + l] * b[i + l];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            sums[l] += sums[l + half];
    return sums[0];
}

static float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

static void multiply(const gemm_args &g) {
    size_t m = (size_t)g.m, n = (size_t)g.n, k = (size_t)g.k;
    size_t padded = (k + LANES - 1) / LANES * LANES;
    std::vector<float> a(m * padded), b(n * padded);
    for (int64_t batch = 0; batch < g.batch; batch++) {
        int64_t base_a = batch * g.stride_a, base_b = batch * g.stride_b,
                base_c = batch * g.stride_c;
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < k; j++)
                a[i * padded + j] = load(g.a, g.in, base_a + (int64_t)i * g.lda + (int64_t)j);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < k; j++)
                b[i * padded + j] =
                    load(g.b, g.in,
                         base_b + (int64_t)(g.b_kn ? j : i) * g.ldb + (int64_t)(g.b_kn ? i : j));
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                int64_t at = base_c + (int64_t)i * g.ldc + (int64_t)j;
                float v = g.scale * dot(&a[i * padded], &b[j * padded], padded);
                if (g.bias != nullptr)
                    v += load(g.bias, g.out, (int64_t)j);
                if (g.gelu)
                    v = gelu_tanh(v);
                if (g.add)
                    v += load(g.c, g.out, at);
                store(g.c, g.out, at, v);
            }
    }
}

int gemm(gemm_context *g, const gemm_args *args, cudaStream_t stream, pali_error *err) {
    const gemm_args &x = *args;
    const char *wrong = nullptr;
    if (g == nullptr || x.a == nullptr || x.b == nullptr || x.c == nullptr)
        wrong = "a null pointer";
    else if (x.m < 1 || x.n < 1 || x.k < 1 || x.batch < 1)
        wrong = "an empty product";
    else if (x.lda < x.k || x.ldb < (x.b_kn ? x.n : x.k) || x.ldc < x.n)
        wrong = "a leading dimension below the row length";
    else if (x.in == GEMM_F32)
        wrong = "operands are 16-bit";
    else if (x.lda % 8 != 0 || x.ldb % 8 != 0 || x.stride_a % 8 != 0 || x.stride_b % 8 != 0 ||
             reinterpret_cast<uintptr_t>(x.a) % 16 != 0 ||
             reinterpret_cast<uintptr_t>(x.b) % 16 != 0)
        wrong = "rows of A or B that do not begin at multiples of 16 bytes";
    else if (x.bias != nullptr && x.batch != 1)
        wrong = "a bias on a batch";
    else if (x.gelu && x.bias == nullptr)
        wrong = "gelu without a bias";
    else if (x.add && (x.out != GEMM_F32 || x.gelu))
        wrong = "adding to a 16-bit C, or after gelu";
    if (wrong != nullptr)
        return pali_fail(err, PALI_EARG, nullptr, "gemm %dx%dx%d: %s", x.m, x.n, x.k, wrong);
    gemm_args copy = x;
    cudaError_t e = emu_enqueue(stream, [copy] { multiply(copy); });
    if (e != cudaSuccess)
        return pali_fail(err, PALI_EIO, nullptr, "gemm: %s", cudaGetErrorString(e));
    return 0;
}
