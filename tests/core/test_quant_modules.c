/* test_quant_modules.c - --quantize-modules all against transformers and bitsandbytes.
 *
 * tests/data/quant/modules holds which modules transformers quantises in the tiny models of
 * tests/data/hf, and what these models compute with the weights that bitsandbytes makes of them
 * (tests/reference/quant_modules.py). Error = max |ours - theirs| / max |theirs|.
 *
 *                                  embeds          logits after prefill and 4 tokens
 *   seen here                      1e-6            2e-4 (one token meets codes as integers)
 *   bound                          1e-5            1e-3
 *   int8: the decoder alone        1e-2 .. 3e-2    2e-2 .. 2e-1
 *   nf4: the decoder alone         3e-1 .. 5e-1    2e-1 .. 8e-1                            */
#include "core/backend.h"
#include "core/weights.h"
#include "tests/core/hf_golden.h"
#include "tests/npy.h"
#include "tests/test.h"

#include <math.h>

static const double EMBEDS_BOUND = 1e-5, LOGITS_BOUND = 1e-3;

static npy load(const char *folder, const char *name, const char *file, const char *type) {
    char path[256];
    snprintf(path, sizeof path, TEST_DATA "%s%s%s.npy", folder, name, file);
    return npy_open(path, type);
}

static pali_weights *opened(const char *name) {
    char dir[256];
    pali_weights *w;
    pali_error err = {0};
    snprintf(dir, sizeof dir, TEST_DATA "hf/%s", name);
    assert_ok(pali_weights_open(dir, &w, &err), err);
    return w;
}

/* The tensor that holds the weights of a module, by the name of either generation of files. */
static const pali_matrix *module(const pali_weights *w, const char *name) {
    char full[280];
    snprintf(full, sizeof full, "%s.weight", name);
    for (size_t i = 0; i < w->ntensors; i++)
        if (strcmp(w->tensors[i].name, full) == 0)
            return w->tensors[i].matrix;
    return NULL;
}

/* The library's list is ours: each of its modules once, and as many. */
static void check_list(const char *name) {
    char path[256], line[256];
    snprintf(path, sizeof path, TEST_DATA "quant/modules/%s.txt", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    pali_weights *w = opened(name);
    pali_quant_set set = pali_quant_set_of(w, true);
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    int ours = 0, theirs = 0;
    for (int i = 0, count; (count = pali_quant_layer(&set, i, list)); i++)
        ours += count;
    for (; fgets(line, sizeof line, f); theirs++) {
        line[strcspn(line, "\n")] = '\0';
        const pali_matrix *m = module(w, line);
        int hits = 0;
        for (int i = 0, count; (count = pali_quant_layer(&set, i, list)); i++)
            for (int k = 0; k < count; k++)
                hits += list[k] == m;
        if (hits != 1)
            fail_msg("%s: %s is %d times among ours", name, line, hits);
    }
    assert_int_equal(ours, theirs);
    assert_true(theirs > 20);
    fclose(f);
    pali_weights_close(w);
}

static void quant_modules_are_those_of_transformers(void **unused) {
    (void)unused;
    check_list("pg1-f32");
    check_list("pg1-bf16");
    check_list("pg2-f16");
}

static void check(const char *name, pali_quant quant) {
    const char *kind = quant == PALI_QUANT_NF4 ? "nf4" : "int8";
    char file[64];
    pali_weights *w = opened(name);
    const pali_backend *be = pali_backend_cpu();
    pali_backend_options o = {
        .threads = 2, .positions = w->config.vision.P + 64, .quant = quant, .quant_all = 1};
    pali_model *m;
    pali_embeds *e;
    pali_error err = {0};
    snprintf(file, sizeof file, "-%s_embeds", kind);
    npy embeds = load("quant/modules/", name, file, "f4");
    snprintf(file, sizeof file, "-%s_logits", kind);
    npy logits = load("quant/modules/", name, file, "f4");
    npy meta = load("hf/", name, "/golden/case0_case", "i4");
    npy ids = load("hf/", name, "/golden/case0_ids", "i4");
    npy tokens = load("hf/", name, "/golden/case0_tokens", "i4");
    assert_int_equal(meta.n, 2); /* one image, */
    assert_int_equal(((int32_t *)meta.data)[1], 0);

    float *chw = hf_pixels(w->config.vision.S, 0, NULL), *got = malloc(embeds.n * sizeof *got);
    assert_non_null(got);
    assert_int_equal(embeds.n, (size_t)w->config.vision.P * (size_t)w->config.text.D);
    assert_ok(be->open(w, &o, NULL, &m, &err), err);
    assert_ok(be->encode_image(m, chw, NULL, &e, &err), err);
    assert_ok(be->embeds_read(m, e, got, &err), err);
    double seen = hf_error(got, 1, embeds.data, embeds.n, NULL), later = 0;
    const pali_embeds *one = e;
    assert_ok(be->prefill(m, &one, 1, ids.data, (int)ids.n, NULL, &err), err);
    size_t stride = (size_t)((int32_t *)meta.data)[0], cols = logits.shape[1];
    assert_int_equal(cols, ((size_t)w->config.text.V + stride - 1) / stride);
    for (size_t s = 0; s < logits.shape[0]; s++) {
        if (s)
            assert_ok(be->decode(m, ((int32_t *)tokens.data)[s - 1], NULL, &err), err);
        later = fmax(later,
                     hf_error(be->logits(m), stride, (float *)logits.data + s * cols, cols, NULL));
    }
    print_message("# %s %s: embeds %.1e, logits %.1e\n", name, kind, seen, later);
    if (!(seen <= EMBEDS_BOUND && later <= LOGITS_BOUND))
        fail_msg("%s %s: embeds are off by %.1e, logits by %.1e", name, kind, seen, later);

    be->embeds_free(m, e);
    be->close(m);
    free(chw), free(got);
    npy_close(&embeds), npy_close(&logits), npy_close(&meta), npy_close(&ids), npy_close(&tokens);
    pali_weights_close(w);
}

static void quant_modules_compute_as_in_transformers(void **unused) {
    (void)unused;
    for (pali_quant q = PALI_QUANT_INT8; q <= PALI_QUANT_NF4; q++) {
        check("pg1-f32", q);
        check("pg1-bf16", q);
        check("pg2-f16", q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quant_modules_are_those_of_transformers),
        cmocka_unit_test(quant_modules_compute_as_in_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
