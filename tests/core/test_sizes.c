/* test_sizes.c - decoders with the head counts and widths of every released PaliGemma, thin
 * otherwise, against transformers (tests/reference/sizes.py): prefill and two more tokens. */
#include "core/backend.h"
#include "tests/test.h"

#include <math.h>

enum {
    VOCAB = 64,
    PREFIX = 7,
    STEPS = 2
};
static const int32_t prefix[PREFIX] = {2, 17, 40, 5, 63, 9, 30}, steps[STEPS] = {11, 50};

static const struct {
    const char *name;
    int gemma, D, H, K, E;
    float scalar; /* query_pre_attn_scalar */
} sizes[] = {
    {"pg1-3b", 1, 2048, 8, 1, 256, 256},
    {"pg2-3b", 2, 2304, 8, 4, 256, 256},
    {"pg2-10b", 2, 3584, 16, 8, 256, 256},
    {"pg2-28b", 2, 4608, 32, 16, 128, 144},
};

/* The script's formula; bfloat16 holds every value. */
static void fill(const pali_matrix *m, uint32_t *number, double scale) {
    uint16_t *to = (uint16_t *)(uintptr_t)m->data;
    uint32_t tensor = ++*number * 0x85EBCA77u;
    for (size_t i = 0; i < (size_t)m->rows * (size_t)m->cols; i++) {
        uint32_t x = (uint32_t)i * 0x9E3779B1u + tensor;
        x ^= x >> 15;
        x *= 0x2C1B3C6Du;
        x ^= x >> 12;
        float v = (float)((2.0 * (x >> 25) - 127) / 128 * scale);
        uint32_t bits;
        memcpy(&bits, &v, 4);
        assert_int_equal(bits & 0xffff, 0);
        to[i] = (uint16_t)(bits >> 16);
    }
}

static void fill_wide(const pali_matrix *m, uint32_t *number) {
    fill(m, number, exp2(floor(1 - 0.5 * log2(m->cols))));
}

static pali_weights *build(int which) {
    pali_config c = {
        .vision = {.S = 4,
                   .patch = 4,
                   .channels = 3,
                   .P = 1,
                   .layers = 1,
                   .D = 8,
                   .H = 1,
                   .E = 8,
                   .F = 8,
                   .eps = 1e-6f},
        .text = {.gemma = sizes[which].gemma,
                 .layers = 2,
                 .D = sizes[which].D,
                 .H = sizes[which].H,
                 .K = sizes[which].K,
                 .E = sizes[which].E,
                 .F = 96,
                 .V = VOCAB,
                 .max_positions = 8192,
                 .eps = 1e-6f,
                 .rope_theta = 10000},
    };
    pali_config_set_gemma(&c, sizes[which].gemma);
    c.text.query_scale = 1 / sqrtf(sizes[which].scalar);
    pali_weights *w;
    pali_error err = {0};
    assert_ok(pali_weights_random(&c, &w, &err), err);
    uint32_t number = 0;
    fill_wide(&w->embed, &number);
    for (int i = 0; i < c.text.layers; i++) {
        const pali_text_layer *l = &w->text[i];
        const pali_matrix *norms[] = {&l->attn_norm, &l->post_attn_norm, &l->mlp_norm,
                                      &l->post_mlp_norm};
        const pali_matrix *wide[] = {&l->q_w,    &l->k_w,  &l->v_w,   &l->o_w,
                                     &l->gate_w, &l->up_w, &l->down_w};
        for (int k = 0; k < 4; k++)
            if (norms[k]->data)
                fill(norms[k], &number, 0.25);
        for (int k = 0; k < 7; k++)
            fill_wide(wide[k], &number);
    }
    fill(&w->norm, &number, 0.25);
    return w;
}

static void expect_row(FILE *golden, const char *name, const float *got) {
    double worst = 0, top = 0;
    for (int i = 0; i < VOCAB; i++) {
        double want;
        assert_int_equal(fscanf(golden, "%lf", &want), 1);
        double off = fabs(got[i] - want);
        worst = off > worst || isnan(off) ? off : worst;
        top = fmax(top, fabs(want));
    }
    /* Seen: 4e-7. A head read from the wrong place, or D / H for the head size: 1e-1; the
     * scale of q.k by the head size where it is not: 3e-3. */
    if (!(worst <= 1e-5 * top))
        fail_msg("%s: off by %g of %g", name, worst, top);
}

static void sizes_of_every_release_equal_transformers(void **unused) {
    (void)unused;
    FILE *golden = fopen(TEST_DATA "sizes/logits.golden", "r");
    assert_non_null(golden);
    const pali_backend *be = pali_backend_cpu();
    for (int i = 0; i < 4; i++) {
        char name[16];
        assert_int_equal(fscanf(golden, "%15s", name), 1);
        assert_string_equal(name, sizes[i].name);
        pali_weights *w = build(i);
        pali_backend_options o = {.positions = PREFIX + STEPS};
        pali_model *m;
        pali_error err = {0};
        assert_ok(be->open(w, &o, NULL, &m, &err), err);
        assert_ok(be->prefill(m, NULL, 0, prefix, PREFIX, NULL, &err), err);
        expect_row(golden, name, be->logits(m));
        for (int s = 0; s < STEPS; s++) {
            assert_ok(be->decode(m, steps[s], NULL, &err), err);
            expect_row(golden, name, be->logits(m));
        }
        be->close(m);
        pali_weights_close(w);
    }
    fclose(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_every_release_equal_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
