/* The sampler on the device against core/sample.c: the same token and the same bits of its
 * log-probability, for every logit row, seed and setting, in every scheduling order. */
#include "core/sample.h"
#include "gpu/kernels.h"
#include "gpu/rule.cuh"
#include "tests/emu/control.h"

extern "C" {
#include "tests/test.h"
}

#include <math.h>

static uint64_t draws;
static float uniform(void) {
    return pali_random_uniform(77, draws++);
}
static float normal(float spread) {
    double u = uniform() + 0x1p-25, v = uniform();
    return (float)(spread * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* What a sampler works on, with room for V logits. */
typedef struct {
    sample_args a;
    float *logits;
    void *scratch;
} bench;

static void *device(size_t bytes) {
    void *p = NULL;
    assert_int_equal(cudaMalloc((void **)&p, bytes), cudaSuccess);
    return p;
}

static bench bench_open(int V) {
    bench b = {};
    b.a.logits = (float *)device((size_t)V * sizeof(float));
    b.a.V = V;
    b.a.draw = (draw_state *)device(sizeof(draw_state));
    b.a.keys = (unsigned long long *)device((size_t)V * sizeof(unsigned long long));
    b.a.state = (step_state *)device(sizeof(step_state));
    assert_int_equal(cudaHostAlloc((void **)&b.a.ring, RING * sizeof(drawn), cudaHostAllocMapped),
                     cudaSuccess);
    b.logits = (float *)malloc((size_t)V * sizeof(float));
    b.scratch = malloc((size_t)V * 8);
    assert_true(b.logits && b.scratch);
    return b;
}

static void bench_close(bench *b) {
    cudaFree((void *)(uintptr_t)b->a.logits);
    cudaFree(b->a.draw);
    cudaFree(b->a.keys);
    cudaFree(b->a.state);
    cudaFreeHost(b->a.ring);
    free(b->logits);
    free(b->scratch);
    assert_int_equal(emu_allocated(), 0);
}

/* Three draws in a row, as a turn makes them, each against the CPU's. */
static void compare(bench *b, int vocab, const pali_sampling *s, uint64_t counter, int sms,
                    const char *what) {
    draw_rule r = draw_rule_of(s, vocab, counter);
    step_state now = {5, 40};
    memset(b->a.ring, 0x5a, RING * sizeof(drawn));
    assert_int_equal(cudaMemcpy((void *)(uintptr_t)b->a.logits, b->logits,
                                (size_t)b->a.V * sizeof(float), cudaMemcpyHostToDevice),
                     cudaSuccess);
    assert_int_equal(cudaMemset(b->a.draw, 0, sizeof(draw_state)), cudaSuccess);
    assert_int_equal(cudaMemcpy(b->a.draw, &r, sizeof r, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(cudaMemcpy(b->a.state, &now, sizeof now, cudaMemcpyHostToDevice), cudaSuccess);
    tuning t = tuning_of(90, sms);
    for (int i = 0; i < 3; i++)
        sample_step(&b->a, s->temperature > 0, &t, 0);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    int32_t want = -1;
    for (int i = 0; i < 3; i++) {
        float lp = 0, got = 0;
        want = pali_sample(b->logits, vocab, s, counter + (uint64_t)i, b->scratch, &lp);
        drawn d = b->a.ring[i];
        if (d.token >= 0)
            got = pali_rule_logprob(d.logit, d.top, d.sum, r.bits);
        if (d.token != want || (want >= 0 && memcmp(&got, &lp, sizeof lp) != 0))
            fail_msg("%s (V %d, T %g, k %d, p %g, draw %d): token %d with %.9g, not %d with %.9g",
                     what, vocab, (double)s->temperature, s->top_k, (double)s->top_p, i, d.token,
                     (double)got, want, (double)lp);
    }
    assert_int_equal(cudaMemcpy(&now, b->a.state, sizeof now, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(now.position, 43);
    assert_int_equal(now.token, want < 0 ? 0 : want);
    assert_int_equal((uint8_t)b->a.ring[3].token, 0x5a);
}

static void cuda_sample_picks_what_the_cpu_picks(void **unused) {
    (void)unused;
    bench b = bench_open(2048);
    for (int trial = 0; trial < 500; trial++) {
        emu_set_order((emu_order)(trial % EMU_ORDERS), (unsigned)trial);
        int V = 1 + (int)(uniform() * (trial % 10 ? 64 : 2040)), kind = trial / 4 % 6;
        float spread = 0.1f + 8 * uniform();
        for (int i = 0; i < 2048; i++)
            b.logits[i] = 1e30f; /* not of the vocabulary */
        for (int i = 0; i < V; i++) {
            float x = normal(spread);
            if (kind == 1) /* many ties */
                x = roundf(x);
            if (kind == 2) /* few values, -0 and +0 among them */
                x = uniform() < 0.5f ? -0.0f : uniform() < 0.5f ? 0.0f : -1;
            if (kind == 3 && uniform() < 0.3f)
                x = uniform() < 0.5f ? NAN : -INFINITY;
            if (kind == 4) /* far apart, denormal and huge */
                x *= exp2f(roundf(uniform() * 200 - 140));
            if (kind == 5) /* a flat floor and a few peaks */
                x = uniform() < 0.05f ? 5 + x : -3;
            b.logits[i] = x;
        }
        if (trial % 50 == 7)
            for (int i = 0; i < V; i++)
                b.logits[i] = i % 2 ? NAN : -INFINITY;
        if (trial % 50 == 8)
            b.logits[V / 2] = b.logits[V - 1] = INFINITY;
        pali_sampling s = {};
        s.temperature = trial % 9 == 0 ? 0 : 0.05f + 2 * uniform();
        if (trial % 40 == 11)
            s.temperature = INFINITY;
        if (trial % 40 == 12)
            s.temperature = 1e-45f;
        s.top_p = 1;
        s.seed = 0x123456789abcull * (uint64_t)trial;
        if (trial & 1)
            s.top_k = 1 + (int)(uniform() * 1.2f * (float)V);
        if (trial & 2)
            s.top_p = trial % 16 == 2 ? 0.5f : trial % 16 == 6 ? 0 : uniform();
        compare(&b, V, &s, (uint64_t)trial << 32, 1 + trial % 3, "random rows");
    }
    emu_reset();
    emu_set_order(EMU_ASCENDING, 1);
    bench_close(&b);
}

/* The real size; and all of it in one bin, which the last block works off alone. */
static void cuda_sample_takes_a_whole_vocabulary(void **unused) {
    (void)unused;
    enum {
        V = 257216
    };
    static const pali_sampling settings[] = {{0, 0, 1, 1},
                                             {1, 0, 1, 2},
                                             {0.7f, 50, 0.9f, 3},
                                             {1.3f, 0, 0.95f, 4},
                                             {INFINITY, 1000, 0.5f, 5}};
    bench b = bench_open(V);
    for (int i = 0; i < V; i++)
        b.logits[i] = normal(3);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++)
        compare(&b, V - 64, &settings[k], 9, 4, "a vocabulary");
    for (int i = 0; i < V; i++)
        b.logits[i] = 2.5f;
    compare(&b, V, &settings[2], 9, 4, "all alike");
    bench_close(&b);
}

int main(void) {
    emu_reset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuda_sample_picks_what_the_cpu_picks),
        cmocka_unit_test(cuda_sample_takes_a_whole_vocabulary),
    };
    return cmocka_run_group_tests_name("cuda_sample", tests, NULL, NULL);
}
