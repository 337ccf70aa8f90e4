/* Models as JAX stores them (tests/reference/jax.py) against the safetensors of the same weights:
 * the same bytes in every matrix, so the same logits to the last bit. */
#include "core/backend.h"
#include "core/engine.h"
#include "core/file.h"
#include "core/jax.h"
#include "core/save.h"
#include "core/weights.h"

#include "tests/core/make_model.h"

#define JAX TEST_DATA "jax/"
#define HF  TEST_DATA "hf/"

static const char *const names[] = {"pg1-f32", "pg1-bf16", "pg2-f16", "pg2-sharded"};
enum {
    MODELS = sizeof names / sizeof *names
};

static char top[64];
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(top);
    memset(&err, 0, sizeof err);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

/* top/to gets the bytes of the file from. */
static void copy(const char *from, const char *to) {
    char *bytes;
    size_t n;
    assert_ok(pali_file_read(from, 1 << 20, &bytes, &n, &err), err);
    model_put(top, to, bytes, n);
    free(bytes);
}

/* A folder with the .npz and, when asked for, config.json of the model in it. */
static pali_weights *open_jax(const char *name, bool config) {
    char path[256];
    pali_weights *w;
    snprintf(path, sizeof path, JAX "%s.npz", name);
    copy(path, "weights.npz");
    snprintf(path, sizeof path, HF "%s/config.json", name);
    if (config)
        copy(path, "config.json");
    assert_ok(pali_weights_open(top, &w, &err), err);
    return w;
}

static pali_weights *open_hf(const char *name) {
    char path[256];
    pali_weights *w;
    snprintf(path, sizeof path, HF "%s", name);
    assert_ok(pali_weights_open(path, &w, &err), err);
    return w;
}

/* rows: of both; the first may have more. */
static void expect_same(const char *what, const pali_matrix *a, const pali_matrix *b) {
    size_t n = (size_t)b->rows * (size_t)b->cols * pali_dtype_size(b->dtype);
    if (a->dtype != b->dtype || a->rows < b->rows || a->cols != b->cols)
        fail_msg("%s: %d x %d, not %d x %d", what, b->rows, b->cols, a->rows, a->cols);
    if (memcmp(a->data, b->data, n))
        fail_msg("%s: other numbers", what);
}

#define SAME(field) expect_same(#field, &a->field, &b->field)

static void expect_same_weights(const pali_weights *a, const pali_weights *b) {
    const pali_config *x = &a->config, *y = &b->config;
    assert_memory_equal(&x->vision, &y->vision, sizeof x->vision);
    assert_int_equal(x->text.V, y->text.V + 64); /* rows that mean nothing */
    SAME(patch_w), SAME(patch_b), SAME(position), SAME(post_ln_w), SAME(post_ln_b);
    SAME(proj_w), SAME(proj_b), SAME(embed), SAME(norm);
    for (int i = 0; i < x->vision.layers; i++) {
        SAME(vision[i].ln1_w), SAME(vision[i].ln1_b), SAME(vision[i].ln2_w), SAME(vision[i].ln2_b);
        SAME(vision[i].q_w), SAME(vision[i].q_b), SAME(vision[i].k_w), SAME(vision[i].k_b);
        SAME(vision[i].v_w), SAME(vision[i].v_b), SAME(vision[i].o_w), SAME(vision[i].o_b);
        SAME(vision[i].fc1_w), SAME(vision[i].fc1_b), SAME(vision[i].fc2_w), SAME(vision[i].fc2_b);
    }
    for (int i = 0; i < x->text.layers; i++) {
        SAME(text[i].attn_norm), SAME(text[i].mlp_norm), SAME(text[i].q_w), SAME(text[i].k_w);
        SAME(text[i].v_w), SAME(text[i].o_w), SAME(text[i].gate_w), SAME(text[i].up_w);
        SAME(text[i].down_w);
        if (x->text.gemma == 2)
            SAME(text[i].post_attn_norm), SAME(text[i].post_mlp_norm);
    }
}

static void jax_gives_the_weights_of_the_safetensors(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++)
        for (int config = 0; config < 2; config++) {
            pali_weights *w = open_jax(names[i], config), *same = open_hf(names[i]);
            assert_ok(pali_weights_prepare(w, 2, NULL, &err), err);
            assert_ok(pali_weights_prepare(w, 2, NULL, &err), err);
            expect_same_weights(same, w);
            assert_int_equal(w->config.text.gemma, same->config.text.gemma);
            assert_int_equal(w->config.text.E, same->config.text.E);
            assert_true((pali_weights_config_json(w) != NULL) == !config);
            pali_weights_close(w);
            pali_weights_close(same);
            char path[128];
            snprintf(path, sizeof path, "%s/config.json", top);
            unlink(path);
        }
}

/* What it says of itself is what released files say, but for rows that mean nothing. */
static void jax_tells_its_own_config(void **state) {
    (void)state;
    static const char *const released[] = {"pg1-f32", "pg1-bf16",
                                           "pg2-f16"}; /* not pg2-sharded: 20^-0.5 */
    for (int i = 0; i < 3; i++) {
        pali_weights *w = open_jax(released[i], false), *same = open_hf(released[i]);
        same->config.text.V = w->config.text.V;
        assert_memory_equal(&w->config.text, &same->config.text, sizeof w->config.text);
        assert_int_equal(w->config.bos, same->config.bos);
        assert_int_equal(w->config.eos, same->config.eos);
        assert_int_equal(w->config.image_token, same->config.image_token);
        pali_weights_close(w);
        pali_weights_close(same);
    }
}

/* Prefill and ten tokens of both. */
static void jax_gives_the_same_logits_to_the_bit(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        pali_weights *w[2] = {open_hf(names[i]), open_jax(names[i], true)};
        pali_model *m[2];
        pali_embeds *e[2];
        const pali_backend *be = pali_backend_cpu();
        const pali_backend_options o = {.threads = 2, .positions = 300};
        const pali_run quiet = {0};
        int S = w[0]->config.vision.S, V = w[1]->config.text.V;
        float *pixels = calloc((size_t)(3 * S * S), sizeof *pixels);
        for (int k = 0; k < 3 * S * S; k++)
            pixels[k] = (float)(k * 37 % 256) / 127.5f - 1;
        for (int k = 0; k < 2; k++) {
            static const int32_t ids[] = {2, 17, 33, 50, 4};
            assert_ok(pali_weights_prepare(w[k], 2, NULL, &err), err);
            assert_ok(be->open(w[k], &o, &quiet, &m[k], &err), err);
            assert_ok(be->encode_image(m[k], pixels, &quiet, &e[k], &err), err);
            assert_ok(be->prefill(m[k], (const pali_embeds *const *)&e[k], 1, ids, 5, &quiet, &err),
                      err);
        }
        for (int step = 0; step < 10; step++) {
            assert_memory_equal(be->logits(m[0]), be->logits(m[1]), (size_t)V * sizeof(float));
            for (int k = 0; k < 2; k++)
                assert_ok(be->decode(m[k], 10 + 7 * step, &quiet, &err), err);
        }
        for (int k = 0; k < 2; k++) {
            be->embeds_free(m[k], e[k]);
            be->close(m[k]);
            pali_weights_close(w[k]);
        }
        free(pixels);
    }
}

static void jax_uses_in_place_what_it_can(void **state) {
    (void)state;
    pali_jax *j;
    assert_ok(pali_jax_open(JAX "pg1-f32.npz", &j, &err), err);
    const pali_tensor *embed = pali_jax_find(j, "language_model.model.embed_tokens.weight");
    assert_non_null(embed);
    uint64_t all = 0;
    for (size_t i = 0; i < pali_jax_count(j); i++)
        all += pali_jax_peek(j, i)->bytes;
    assert_true(pali_jax_converted_bytes(j) < all - embed->bytes + 64 * pali_jax_count(j));
    /* Its bytes are there without converting anything. */
    pali_weights *same = open_hf("pg1-f32");
    assert_memory_equal(embed->data, same->embed.data, embed->bytes);
    pali_weights_close(same);
    assert_null(pali_jax_find(j, "language_model.model.layers.0.pre_feedforward_layernorm.weight"));
    assert_null(pali_jax_find(j, ""));
    pali_jax_close(j);
}

static void jax_opens_with_the_engine(void **state) {
    (void)state;
    char path[128];
    pali_engine *e;
    copy(HF "pg1-bf16/tokenizer.model", "paligemma_tokenizer.model");
    copy(JAX "pg1-bf16.npz", "a.npz");
    pali_engine_options o = {.model_dir = top, .backend = "cpu", .threads = 1};
    assert_ok(pali_engine_open(&o, NULL, &e, &err), err);
    pali_engine_close(e);
    copy(JAX "pg1-bf16.npz", "vae-oid.npz"); /* is no model */
    assert_ok(pali_engine_open(&o, NULL, &e, &err), err);
    pali_engine_close(e);
    snprintf(path, sizeof path, "%s/a.npz", top);
    copy(JAX "pg1-bf16.npz", "b.npz");
    o.model_dir = path; /* the file, beside another one */
    assert_ok(pali_engine_open(&o, NULL, &e, &err), err);
    pali_engine_close(e);
    o.model_dir = top;
    assert_int_equal(pali_engine_open(&o, NULL, &e, &err), PALI_EARG);
    assert_non_null(strstr(err.what, "more than one .npz"));
}

static void jax_is_saved_as_safetensors(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        char path[128];
        pali_weights *w = open_jax(names[i], false), *again;
        assert_ok(pali_weights_prepare(w, 2, NULL, &err), err);
        model_put(top, "config.json", pali_weights_config_json(w),
                  strlen(pali_weights_config_json(w)));
        snprintf(path, sizeof path, "%s/model.safetensors", top);
        assert_ok(pali_save(w, PALI_QUANT_NONE, false, path, NULL, &err), err);
        assert_ok(pali_weights_open(top, &again, &err), err); /* not the .npz beside it */
        assert_null(pali_weights_config_json(again));
        assert_int_equal(again->params, w->params);
        again->config.text.V += 64; /* as expect_same_weights has it */
        expect_same_weights(again, w);
        pali_weights_close(again);
        pali_weights_close(w);
        assert_int_equal(unlink(path), 0);
        snprintf(path, sizeof path, "%s/config.json", top);
        assert_int_equal(unlink(path), 0);
    }
}

static void jax_saves_nothing_when_it_cannot(void **state) {
    (void)state;
    char path[128];
    pali_weights *w = open_hf("pg2-sharded");
    atomic_int cancel = 1;
    const pali_run run = {.cancel = &cancel};
    snprintf(path, sizeof path, "%s/model.safetensors", top);
    assert_int_equal(pali_save(w, PALI_QUANT_NONE, false, path, &run, &err), PALI_ECANCEL);
    memset(&err, 0, sizeof err);
    assert_int_equal(pali_save(w, PALI_QUANT_NONE, false, "/nowhere/model.safetensors", NULL, &err),
                     PALI_EIO);
    assert_int_equal(rmdir(top), 0); /* it is empty */
    pali_weights_close(w);
}

static void jax_stops_when_told(void **state) {
    (void)state;
    atomic_int cancel = 1;
    const pali_run run = {.cancel = &cancel};
    for (int i = 0; i < MODELS; i++) {
        pali_weights *w = open_jax(names[i], true), *same = open_hf(names[i]);
        assert_int_equal(pali_weights_prepare(w, 1, &run, &err), PALI_ECANCEL);
        assert_ok(pali_weights_prepare(w, 1, NULL, &err), err); /* and goes on */
        expect_same_weights(same, w);
        pali_weights_close(w);
        pali_weights_close(same);
        memset(&err, 0, sizeof err);
    }
}

static void jax_says_what_is_wrong(void **state) {
    (void)state;
    pali_weights *w;
    copy(TEST_DATA "npz/stored.npz", "x.npz"); /* some other archive */
    assert_int_equal(pali_weights_open(top, &w, &err), PALI_EFORMAT);
    assert_non_null(strstr(err.what, "no PaliGemma of JAX's"));
    memset(&err, 0, sizeof err);
    copy(HF "pg1-f32/config.json", "x.npz");
    assert_int_equal(pali_weights_open(top, &w, &err), PALI_EFORMAT);
    memset(&err, 0, sizeof err);
    copy(JAX "pg1-f32.npz", "x.npz");
    copy(HF "pg2-f16/config.json", "config.json"); /* of another model */
    assert_int_equal(pali_weights_open(top, &w, &err), PALI_EFORMAT);
    assert_non_null(strstr(err.what, "config.json says"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(jax_gives_the_weights_of_the_safetensors),
        TEST(jax_tells_its_own_config),
        TEST(jax_gives_the_same_logits_to_the_bit),
        TEST(jax_uses_in_place_what_it_can),
        TEST(jax_opens_with_the_engine),
        TEST(jax_is_saved_as_safetensors),
        TEST(jax_saves_nothing_when_it_cannot),
        TEST(jax_stops_when_told),
        TEST(jax_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
