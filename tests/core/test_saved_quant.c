/* Models quantised into a file: the same logits as quantising at open, bit for bit, and what
 * a damaged file says. */
#include "tests/core/make_model.h"
#include "tests/test.h"

#include "core/backend.h"
#include "core/save.h"

#include <unistd.h>

static const char source[] = "assets/demo";
static char top[64];
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(top);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static pali_weights *opened(const char *dir) {
    pali_weights *w;
    memset(&err, 0, sizeof err);
    assert_ok(pali_weights_open(dir, &w, &err), err);
    return w;
}

static char *whole(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = '\0';
    fclose(f);
    return p;
}

/* A folder of the source's config and its weights in that precision. */
static void save(pali_quant quant, bool all) {
    char path[128];
    size_t n;
    pali_weights *w = opened(source);
    snprintf(path, sizeof path, "%s/model.safetensors", top);
    assert_ok(pali_save(w, quant, all, path, NULL, &err), err);
    pali_weights_close(w);
    char *config = whole("assets/demo/config.json", &n);
    model_put(top, "config.json", config, n);
    free(config);
}

enum {
    STEPS = 5
};

/* To a picture and words. */
static float *answer(const pali_weights *w, pali_quant quant, bool all) {
    static const int32_t ids[4 + STEPS] = {2, 300, 1001, 108, 77, 512, 9, 1200, 44};
    const pali_backend *be = pali_backend_cpu();
    const pali_vision_config *v = &w->config.vision;
    pali_backend_options o = {
        .threads = 2, .positions = v->P + 32, .quant = quant, .quant_all = all};
    size_t V = (size_t)w->config.text.V, n = (size_t)(v->channels * v->S * v->S);
    pali_model *m;
    pali_embeds *e;
    float *pixels = malloc(n * sizeof *pixels);
    assert_non_null(pixels);
    for (size_t i = 0; i < n; i++)
        pixels[i] = (float)(i * 37 % 256) / 127.5f - 1;
    float *out = malloc((1 + STEPS) * V * sizeof *out);
    assert_non_null(out);
    assert_ok(be->open(w, &o, NULL, &m, &err), err);
    assert_ok(be->encode_image(m, pixels, NULL, &e, &err), err);
    free(pixels);
    const pali_embeds *one = e;
    assert_ok(be->prefill(m, &one, 1, ids, 4, NULL, &err), err);
    for (size_t s = 0; s <= STEPS; s++) {
        memcpy(out + s * V, be->logits(m), V * sizeof *out);
        if (s < STEPS)
            assert_ok(be->decode(m, ids[4 + s], NULL, &err), err);
    }
    be->embeds_free(m, e);
    be->close(m);
    return out;
}

/* Those matrices of w, and no others, are codes of that type. */
static void expect_coded(const pali_weights *w, bool all, pali_dtype type) {
    pali_quant_set set = pali_quant_set_of(w, all);
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    size_t coded = 0, meant = 0;
    for (size_t i = 0; i < w->ntensors; i++)
        coded += pali_is_coded(w->tensors[i].matrix);
    for (int i = 0, count; (count = pali_quant_layer(&set, i, list)); i++)
        for (int k = 0; k < count; k++, meant++)
            assert_int_equal(list[k]->dtype, type);
    assert_int_equal(coded, meant);
    assert_int_equal(meant,
                     7 * w->config.text.layers + (all ? 6 * w->config.vision.layers + 1 : 0));
}

static void check_saved(pali_quant q, bool all) {
    save(q, all);
    pali_weights *a = opened(source), *b = opened(top);
    expect_coded(b, all, q == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8);
    assert_int_equal(b->embed.dtype, a->embed.dtype);
    assert_int_equal(b->params, a->params);
    assert_true(b->bytes < a->bytes);
    float *want = answer(a, q, all), *got = answer(b, PALI_QUANT_NONE, false);
    assert_memory_equal(want, got, (1 + STEPS) * (size_t)a->config.text.V * sizeof *got);
    /* Saved as it is once more: the same file. */
    char first[128], second[128];
    size_t n, m;
    snprintf(first, sizeof first, "%s/model.safetensors", top);
    snprintf(second, sizeof second, "%s/again.safetensors", top);
    assert_ok(pali_save(b, PALI_QUANT_NONE, false, second, NULL, &err), err);
    char *x = whole(first, &n), *y = whole(second, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    assert_int_equal(pali_save(b, q == PALI_QUANT_NF4 ? PALI_QUANT_INT8 : PALI_QUANT_NF4, false,
                               second, NULL, NULL),
                     PALI_EUNSUPPORTED);
    char says[64];
    snprintf(says, sizeof says, "\"pali.quant.modules\":\"%s\"", all ? "all" : "decoder");
    assert_non_null(strstr(x + 8, says));
    free(x), free(y), free(want), free(got);
    pali_weights_close(a);
    pali_weights_close(b);
}

static void saved_quant_is_quantising_at_open(void **unused) {
    (void)unused;
    for (pali_quant q = PALI_QUANT_INT8; q <= PALI_QUANT_NF4; q++)
        for (int all = 0; all < 2; all++)
            check_saved(q, all);
}

/* A file with the decoder in codes, and the rest made when it is opened. */
static void saved_quant_tower_can_follow(void **unused) {
    (void)unused;
    save(PALI_QUANT_NF4, false);
    pali_weights *a = opened(source), *b = opened(top);
    float *want = answer(a, PALI_QUANT_NF4, true), *got = answer(b, PALI_QUANT_NF4, true);
    assert_memory_equal(want, got, (1 + STEPS) * (size_t)a->config.text.V * sizeof *got);
    free(want), free(got);
    pali_weights_close(a);
    pali_weights_close(b);
}

/* Every `from` in the header becomes `to`, of the same length; what opening then says. */
static void expect(const char *from, const char *to, int code, const char *words) {
    char path[128];
    size_t n, len = strlen(from);
    assert_int_equal(len, strlen(to));
    save(PALI_QUANT_NF4, true);
    snprintf(path, sizeof path, "%s/model.safetensors", top);
    char *p = whole(path, &n);
    uint64_t header;
    memcpy(&header, p, 8);
    int count = 0;
    for (size_t i = 8; i + len <= 8 + header; i++)
        if (memcmp(p + i, from, len) == 0) {
            memcpy(p + i, to, len);
            count++;
        }
    assert_true(count > 0);
    model_put(top, "model.safetensors", p, n);
    free(p);
    pali_weights *w = NULL;
    memset(&err, 0, sizeof err);
    assert_int_equal(pali_weights_open(top, &w, &err), code);
    if (!strstr(err.what, words))
        fail_msg("\"%s\" does not say \"%s\"", err.what, words);
    assert_null(w);
}

static void saved_quant_damaged_files_are_refused(void **unused) {
    (void)unused;
    static const char format[] = "in a number format pali does not compute with";
    expect("\"pali.quant\":\"1\"", "\"pali.quant\":\"2\"", PALI_EUNSUPPORTED, format);
    expect("\"pali.quant\":\"1\"", "\"pali.other\":\"1\"", PALI_EUNSUPPORTED, format);
    expect(".scale_codes\"", ".scale_cades\"", PALI_EFORMAT,
           "layers.0.self_attn.q_proj.weight.scale_codes, scales of quantised weights, is missing");
    expect("down_proj.weight.scales\"", "down_proj.weight.scalos\"", PALI_EFORMAT,
           "layers.0.mlp.down_proj.weight.scales, scales of quantised weights, is missing");
    expect("{\"dtype\":\"U8\",\"shape\":[256]", "{\"dtype\":\"I8\",\"shape\":[256]", PALI_EFORMAT,
           "scales of quantised weights, is missing or damaged");
    expect("multi_modal_projector.linear.weight.scales\"",
           "multi_modal_projector.linear.weight.scalos\"", PALI_EFORMAT,
           "linear.weight.scales, scales of quantised weights, is missing");
    expect("encoder.layers.0.mlp.fc2.weight.scale_codes\"",
           "encoder.layers.0.mlp.fc2.weight.scale_cades\"", PALI_EFORMAT,
           "fc2.weight.scale_codes, scales of quantised weights, is missing");
    /* Codes of one byte a weight where two belong into one. */
    expect("\"dtype\":\"U8\",\"shape\":[128,64]", "\"dtype\":\"I8\",\"shape\":[128,64]",
           PALI_EFORMAT, "is [128, 64], expected [128, 128]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_quant_is_quantising_at_open, setup, teardown),
        cmocka_unit_test_setup_teardown(saved_quant_tower_can_follow, setup, teardown),
        cmocka_unit_test_setup_teardown(saved_quant_damaged_files_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
