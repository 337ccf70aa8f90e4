/* test_score.c - log-probabilities of texts, and several images, against transformers.
 *
 * Goldens: tests/data/score, by tests/reference/score.py, on the tiny random models of
 * tests/data/hf. Their texts are as unlikely as can be (20 nats a token), so that what is
 * compared are large numbers.
 *
 *   error                                    seen     bound    a bug would give
 *   backend: one token of 13 cases           6e-5     1e-4     5e-1 (a key too many)
 *   dialog: mean over a text's tokens        5e-5     1e-4     largest of the texts: 2e-1 (noise
 *                                                              rows in the sum), 5 (images swapped)
 *   two images: logits, relative             3e-6     1e-4     6e-1 (images swapped)            */
#include "core/pali.h"
#include "tests/npy.h"
#include "tests/test.h"

#include <math.h>

#define HF    TEST_DATA "hf/"
#define SCORE TEST_DATA "score/"

enum {
    TOKENS = 32,
    TEXTS = 9
};
static const double bound = 1e-4;

static pali_error err;

/* ---- the backend's extension ----------------------------------------------------------- */

/* Image k as pixels() of tests/reference/models.py makes it. */
static float *pixels(int S, int k) {
    float *out = malloc(3 * (size_t)S * (size_t)S * sizeof *out), *at = out;
    assert_non_null(out);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < S; y++)
            for (int x = 0; x < S; x++) {
                int v = (3 + k) * x + (5 - k) * y + 85 * c + 4 * ((x ^ y) & 31) + x * y / (7 + k);
                *at++ = (float)((v & 255) / 127.5 - 1);
            }
    return out;
}

static npy load(const char *model, int k, const char *what) {
    char path[256];
    snprintf(path, sizeof path, HF "%s/golden/case%d_%s.npy", model, k, what);
    return npy_open(path, "i4");
}

/* The largest error of one case of a model. */
static double case_error(const pali_backend *be, pali_model *m, const pali_config *c,
                         const char *model, int k) {
    char path[256];
    npy meta = load(model, k, "case"), ids = load(model, k, "ids");
    npy tokens = load(model, k, "tokens");
    snprintf(path, sizeof path, SCORE "%s_%d.npy", model, k);
    npy want = npy_open(path, "f4");
    assert_int_equal(tokens.n, TOKENS);
    assert_int_equal(want.n, TOKENS);
    pali_embeds *embeds[2];
    int n = (int)meta.n - 1;
    for (int i = 0; i < n; i++) {
        float *chw = pixels(c->vision.S, ((int32_t *)meta.data)[1 + i]);
        assert_ok(be->encode_image(m, chw, NULL, &embeds[i], &err), err);
        free(chw);
    }
    assert_ok(
        be->prefill(m, (const pali_embeds *const *)embeds, n, ids.data, (int)ids.n, NULL, &err),
        err);
    /* The first token's comes from the prefix's logits, as in core/score.c. */
    const float *logits = be->logits(m);
    int32_t *t = tokens.data;
    double got[TOKENS], top = -INFINITY, sum = 0, worst = 0;
    float rest[TOKENS];
    for (int i = 0; i < c->text.V; i++)
        top = fmax(top, logits[i]);
    for (int i = 0; i < c->text.V; i++)
        sum += exp(logits[i] - top);
    got[0] = logits[t[0]] - top - log(sum);
    assert_ok(be->extend(m, t, TOKENS - 1, t + 1, c->text.V, rest, NULL, &err), err);
    for (int i = 1; i < TOKENS; i++)
        got[i] = rest[i - 1];
    for (int i = 0; i < TOKENS; i++) {
        double off = fabs(got[i] - ((float *)want.data)[i]);
        worst = off > worst || isnan(off) ? off : worst;
    }
    for (int i = 0; i < n; i++)
        be->embeds_free(m, embeds[i]);
    npy_close(&meta), npy_close(&ids), npy_close(&tokens), npy_close(&want);
    return worst;
}

static void check_cases(const char *model, int cases) {
    char dir[256];
    const pali_backend *be = pali_backend_cpu();
    pali_weights *w;
    pali_model *m;
    snprintf(dir, sizeof dir, HF "%s", model);
    assert_ok(pali_weights_open(dir, &w, &err), err);
    pali_backend_options o = {.threads = 2, .positions = 2 * w->config.vision.P + 64};
    assert_ok(be->open(w, &o, NULL, &m, &err), err);
    for (int k = 0; k < cases; k++) {
        double off = case_error(be, m, &w->config, model, k);
        print_message("# %s case %d: %.1e\n", model, k, off);
        if (!(off <= bound))
            fail_msg("%s case %d: off by %.1e, allowed %.0e", model, k, off, bound);
    }
    be->close(m);
    pali_weights_close(w);
}

static void score_tokens_match_gemma1(void **state) {
    (void)state;
    check_cases("pg1-f32", 5);
    check_cases("pg1-bf16", 2);
}

static void score_tokens_match_gemma2(void **state) {
    (void)state;
    check_cases("pg2-sharded", 4);
    check_cases("pg2-f16", 2);
}

/* ---- texts and pictures in, numbers out --------------------------------------------------- */

typedef struct {
    pali_engine *engine;
    pali_dialog *dialog;
} scene;

static scene scene_open(int nimages) {
    static const char *const paths[] = {HF "pg1-bf16/text/picture.png", SCORE "picture2.png"};
    scene s;
    pali_image images[2] = {0};
    const pali_image *list[] = {&images[0], &images[1]};
    pali_engine_options o = {
        .model_dir = HF "pg1-bf16", .backend = "cpu", .threads = 2, .images = nimages};
    assert_ok(pali_engine_open(&o, NULL, &s.engine, &err), err);
    assert_ok(pali_dialog_open(s.engine, &s.dialog, &err), err);
    for (int i = 0; i < nimages; i++)
        assert_ok(pali_image_open(paths[i], &images[i], &err), err);
    assert_ok(pali_dialog_set_images(s.dialog, list, (size_t)nimages, true, &err), err);
    for (int i = 0; i < nimages; i++)
        pali_image_close(&images[i]);
    return s;
}

static void scene_close(scene *s) {
    pali_dialog_close(s->dialog);
    pali_engine_close(s->engine);
}

static void check_texts(int nimages, const char *golden) {
    char lines[TEXTS][256], path[256];
    const char *texts[TEXTS];
    pali_score got[TEXTS], alone;
    snprintf(path, sizeof path, SCORE "%s.npy", golden);
    npy want = npy_open(path, "f4");
    assert_int_equal(want.n, TEXTS * 2);
    FILE *f = fopen(SCORE "texts.txt", "r");
    assert_non_null(f);
    for (int i = 0; i < TEXTS; i++) {
        assert_non_null(fgets(lines[i], sizeof lines[i], f));
        lines[i][strcspn(lines[i], "\n")] = 0;
        texts[i] = lines[i];
    }
    fclose(f);
    scene s = scene_open(nimages);
    assert_ok(pali_dialog_score(s.dialog, "caption en", texts, TEXTS, NULL, got, &err), err);
    for (int i = 0; i < TEXTS; i++) {
        const float *w = (float *)want.data + 2 * i;
        assert_int_equal(got[i].tokens, (int)w[1]);
        double off = fabs(got[i].sum - w[0]) / got[i].tokens;
        print_message("# %s: %.1e of %.2f a token: %s\n", golden, off, w[0] / w[1], texts[i]);
        if (!(off <= bound))
            fail_msg("\"%s\": off by %.1e a token", texts[i], off);
    }
    /* A text's score does not depend on its company. */
    for (int i = TEXTS - 1; i >= 0; i--) {
        assert_ok(pali_dialog_score(s.dialog, "caption en", &texts[i], 1, NULL, &alone, &err), err);
        assert_true(alone.sum == got[i].sum);
    }
    scene_close(&s);
    npy_close(&want);
}

static void score_texts_match(void **state) {
    (void)state;
    check_texts(1, "one");
}

static void score_texts_match_with_two_images(void **state) {
    (void)state;
    check_texts(2, "two");
}

typedef struct {
    npy ids, logits;
    int seen;
    double off;
} expected;

static void on_tensor(void *user, const pali_traced *t) {
    expected *x = user;
    static const char *const inputs[] = {"pixel_values", "image_embeds", "pixel_values2",
                                         "image_embeds2"};
    for (size_t i = 0; i < 4; i++)
        x->seen += !strcmp(t->name, inputs[i]);
    if (!strcmp(t->name, "prefix_ids")) {
        assert_int_equal(t->shape[0], x->ids.n);
        assert_memory_equal(t->data, x->ids.data, x->ids.n * sizeof(int32_t));
    } else if (!strcmp(t->name, "logits")) {
        const float *got = t->data, *want = x->logits.data;
        double top = 0;
        assert_int_equal(t->shape[0], x->logits.n);
        for (size_t i = 0; i < x->logits.n; i++) {
            x->off = fmax(x->off, fabs((double)got[i] - want[i]));
            top = fmax(top, fabs((double)want[i]));
        }
        x->off /= top;
    }
}

/* The prefix of two images is PaliGemmaProcessor's, and so are the logits after it. */
static void score_two_images_match(void **state) {
    (void)state;
    scene s = scene_open(2);
    expected x = {npy_open(SCORE "two_ids.npy", "i4"), npy_open(SCORE "two_logits.npy", "f4"), 0,
                  0};
    pali_ask ask = {.sampling = {.top_p = 1}, .max_tokens = 1, .on_tensor = on_tensor, .user = &x};
    pali_result r;
    assert_ok(pali_dialog_ask(s.dialog, "caption en", &ask, NULL, &r, &err), err);
    assert_int_equal(r.prefix_tokens, x.ids.n);
    assert_int_equal(x.seen, 4);
    print_message("# two images: logits %.1e\n", x.off);
    assert_true(x.off > 0 && x.off <= bound);
    pali_result_close(&r);
    scene_close(&s);
    npy_close(&x.ids), npy_close(&x.logits);
}

static void score_refuses_what_does_not_fit(void **state) {
    (void)state;
    scene s = scene_open(1);
    char *text = calloc(8001, 1);
    assert_non_null(text);
    memset(text, 'q', 8000);
    const char *texts[] = {"a cat", text};
    pali_score out[2], again;
    pali_error why = {0};
    int rc = pali_dialog_score(s.dialog, "caption en", texts, 2, NULL, out, &why);
    assert_int_equal(rc, PALI_ELIMIT);
    assert_non_null(strstr(why.what, "does not fit: there is room for"));
    assert_ok(pali_dialog_score(s.dialog, "caption en", texts, 1, NULL, &again, &err), err);
    assert_true(again.sum == out[0].sum);
    assert_int_equal(pali_dialog_score(s.dialog, text, texts, 1, NULL, out, &why), PALI_ELIMIT);
    free(text);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(score_tokens_match_gemma1),
        cmocka_unit_test(score_tokens_match_gemma2),
        cmocka_unit_test(score_texts_match),
        cmocka_unit_test(score_texts_match_with_two_images),
        cmocka_unit_test(score_two_images_match),
        cmocka_unit_test(score_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("score", tests, NULL, NULL);
}
