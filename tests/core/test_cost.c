/* test_cost.c - the work of PaliGemma's sizes, against figures worked out by hand; and a
 * model of random weights. */
#include "core/cost.h"
#include "tests/test.h"

static const pali_config paligemma_3b = {
    .vision = {.S = 224,
               .patch = 14,
               .channels = 3,
               .P = 256,
               .layers = 27,
               .D = 1152,
               .H = 16,
               .E = 72,
               .F = 4304},
    .text =
        {.gemma = 1, .layers = 18, .D = 2048, .H = 8, .K = 1, .E = 256, .F = 16384, .V = 257216},
};

static void assert_near(double got, double want, double share) {
    if (!(got > want * (1 - share) && got < want * (1 + share)))
        fail_msg("%g, not %g", got, want);
}

/* 210.5 GFLOP of linear layers, 8.2 of attention, 1.2 of the projector; at 448 pixels 841.9,
 * 130.5 and 4.8. */
static void cost_of_a_picture(void **unused) {
    (void)unused;
    pali_config c = paligemma_3b;
    assert_near(pali_cost_picture(&c), 219.9e9, 0.002);
    c.vision.S = 448;
    c.vision.P = 1024;
    assert_near(pali_cost_picture(&c), 977.2e9, 0.002);
}

/* 2 * 288 * 1,981,808,640 and 18 * 4 * 288^2 * 2048 less all but keys, values and one row of a
 * layer, and the head for one position. */
static void cost_of_a_prompt(void **unused) {
    (void)unused;
    double layer = 2 * 110100480.0 + 4 * 288.0 * 2048, keys = 2 * 2.0 * 2048 * 256;
    double want = 17 * 288 * layer + 287 * keys + layer + 2 * 2048.0 * 257216;
    assert_near(pali_cost_prompt(&paligemma_3b, 288), want, 1e-9);
    assert_near(want, 1.0915e12, 0.001);
}

static void cost_of_a_token(void **unused) {
    (void)unused;
    pali_config c = paligemma_3b;
    c.vision.layers = 1;
    c.text.layers = 2;
    c.text.V = 1000;
    pali_weights *w;
    pali_error err = {0};
    assert_ok(pali_weights_random(&c, &w, &err), err);
    double layer = 110100480, head = 2048.0 * 1000 * 2, cache = 300.0 * 2 * 2 * 256 * 4;
    pali_backend_options o = {.quant = PALI_QUANT_NONE};
    assert_near(pali_cost_token(w, &o, 300), 2 * 2 * layer + head + cache, 1e-9);
    o.quant = PALI_QUANT_INT8;
    assert_near(pali_cost_token(w, &o, 300), 2 * layer + head + cache, 0.002);
    o.quant = PALI_QUANT_NF4;
    assert_near(pali_cost_token(w, &o, 300), 0.51587 * 2 * layer + head + cache, 0.002);
    double with_head = pali_cost_token(w, &o, 300);
    o.head8 = 1;
    assert_near(with_head - pali_cost_token(w, &o, 300), head / 2, 0.003); /* and scales */

    /* The model itself: every tensor there, apart from the others, and of plausible numbers. */
    assert_int_equal(w->bytes, 2 * w->params);
    assert_int_equal(w->text[1].down_w.rows, 2048);
    assert_int_equal(w->text[1].down_w.cols, 16384);
    assert_null(w->text[0].post_attn_norm.data);
    assert_true((const char *)w->norm.data - (const char *)w->text[1].down_w.data >=
                2048L * 16384 * 2);
    float x[64];
    pali_matrix_read(&w->embed, 500, 64, x);
    for (int i = 0; i < 64; i++)
        assert_true(x[i] * x[i] > 0.0009f && x[i] * x[i] < 0.02f);
    pali_weights_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cost_of_a_picture),
        cmocka_unit_test(cost_of_a_prompt),
        cmocka_unit_test(cost_of_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
