/* Which precision a model gets in how much memory, and what the user reads about it. */
#include "tests/core/random_model.h"

#include "core/fit.h"

static random_model *r;
static pali_error err;
static char note[200];

static int choose(pali_quant quant, uint64_t available, pali_quant *got) {
    pali_backend_options o = {.threads = 1, .positions = 40, .quant = quant};
    memset(&err, 0, sizeof err);
    int rc = pali_fit_choose(pali_backend_cpu(), &r->w, available, &o, note, sizeof note, &err);
    *got = o.quant;
    return rc;
}

/* What the model takes in memory in that precision; of its own without the mapping. */
static uint64_t size_of(pali_quant quant, bool mapped) {
    pali_backend_options o = {.threads = 1, .positions = 40, .quant = quant};
    pali_memory m;
    assert_ok(pali_backend_cpu()->memory(&r->w, &o, &m, &err), err);
    return m.weights + m.kv + m.workspace + (mapped ? pali_fit_mapped(&r->w, &o) : 0);
}

static void fit_auto_takes_the_first_that_fits(void **unused) {
    (void)unused;
    uint64_t none = size_of(PALI_QUANT_NONE, true), int8 = size_of(PALI_QUANT_INT8, true);
    uint64_t nf4 = size_of(PALI_QUANT_NF4, true);
    assert_true(nf4 < int8 && int8 < none);
    pali_quant q;
    assert_ok(choose(PALI_QUANT_AUTO, 0, &q), err); /* nobody knows */
    assert_int_equal(q, PALI_QUANT_NONE);
    assert_string_equal(note, "");
    assert_ok(choose(PALI_QUANT_AUTO, none, &q), err);
    assert_int_equal(q, PALI_QUANT_NONE);
    assert_string_equal(note, "");
    assert_ok(choose(PALI_QUANT_AUTO, none - 1, &q), err);
    assert_int_equal(q, PALI_QUANT_INT8);
    assert_string_equal(note, "taking int8 weights: as stored the model needs 0.0 GB of memory, "
                              "and 0.0 GB are free");
    assert_ok(choose(PALI_QUANT_AUTO, int8 - 1, &q), err);
    assert_int_equal(q, PALI_QUANT_NF4);
    assert_non_null(strstr(note, "taking nf4 weights"));
    assert_ok(choose(PALI_QUANT_AUTO, nf4 - 1, &q), err); /* the tower waits for the disk */
    assert_int_equal(q, PALI_QUANT_NF4);
    assert_int_equal(choose(PALI_QUANT_AUTO, size_of(PALI_QUANT_NF4, false) - 1, &q), PALI_ELIMIT);
    assert_non_null(strstr(err.what, "the model needs 0.0 GB of memory for itself (nf4 weights)"));
}

/* With the tower and the projector less is mapped, by what they are as stored. */
static void fit_counts_all_modules(void **unused) {
    (void)unused;
    pali_backend_options o = {.quant = PALI_QUANT_NF4};
    uint64_t before = pali_fit_mapped(&r->w, &o);
    o.quant_all = 1;
    const pali_vision_config *v = &r->w.config.vision;
    uint64_t layer = 4 * (uint64_t)(v->D * v->D) + 2 * (uint64_t)(v->F * v->D);
    uint64_t tower = (uint64_t)v->layers * layer + (uint64_t)(r->w.config.text.D * v->D);
    assert_int_equal(pali_fit_mapped(&r->w, &o), before - 4 * tower);
    o.quant = PALI_QUANT_NONE;
    assert_int_equal(pali_fit_mapped(&r->w, &o), r->w.bytes);
}

static void fit_what_is_asked_for_is_kept_or_refused(void **unused) {
    (void)unused;
    pali_quant q;
    assert_ok(choose(PALI_QUANT_NONE, size_of(PALI_QUANT_NONE, true), &q), err);
    assert_string_equal(note, "");
    assert_ok(choose(PALI_QUANT_NONE, size_of(PALI_QUANT_NONE, false), &q), err);
    assert_int_equal(q, PALI_QUANT_NONE);
    assert_non_null(strstr(note, "it will wait for the disk; -q auto avoids that"));
    assert_ok(choose(PALI_QUANT_INT8, size_of(PALI_QUANT_INT8, true), &q), err);
    assert_int_equal(q, PALI_QUANT_INT8);
    assert_string_equal(note, "");
    assert_int_equal(choose(PALI_QUANT_INT8, size_of(PALI_QUANT_INT8, false) - 1, &q), PALI_ELIMIT);
    assert_string_equal(err.hint, "try -q auto, or close other programs");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fit_auto_takes_the_first_that_fits),
        cmocka_unit_test(fit_counts_all_modules),
        cmocka_unit_test(fit_what_is_asked_for_is_kept_or_refused),
    };
    pali_config c = gemma1; /* large enough that its weights outweigh the scratch */
    c.text.D = 256, c.text.F = 1024;
    r = make(c, PALI_F32);
    r->w.bytes = 100000; /* of the rest */
    for (int i = 0; i < c.text.layers; i++) {
        pali_matrix *list[PALI_QUANT_PER_LAYER];
        pali_quant_list(&r->w.text[i], list);
        for (int k = 0; k < PALI_QUANT_PER_LAYER; k++)
            r->w.bytes += 4 * (uint64_t)list[k]->rows * (uint64_t)list[k]->cols;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    drop(r);
    return rc;
}
