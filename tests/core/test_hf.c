/* test_hf.c - the CPU backend against transformers.
 *
 * tests/data/hf holds tiny models with random weights, and what transformers computes
 * with them in float32 (tests/reference/models.py; the command is in its README.md).
 * Sizes are awkward on purpose: heads that do not fill the width, several key/value
 * heads, widths that no vector divides.
 *
 * Error = max |ours - theirs| / max |theirs| over a tensor.
 *
 *   seen here                      embeds 2e-6     prefill 6e-6     decode 3e-5
 *   transformers, one pass against step by step                     2e-6 .. 8e-6
 *   bound                          embeds 1e-5     logits  1e-4
 *
 * The largest difference is not ours: transformers computes the angles of RoPE in
 * float32, pali in double. With double angles in transformers its own logits move by
 * 2e-5 (pg1-bf16, position 290).
 *
 * What a bug would give, smallest over the models (models.py --check):
 *
 *   causal instead of full prefix                  prefill 2e-1     decode 4e-1
 *   image rows scaled by sqrt(D)   embeds 4        prefill 2e-1     decode 3e-1
 *   sqrt(D) rounded to bf16                        prefill 7e-4     decode 2e-3
 *   decode position off by one                                      decode 5e-1
 *   rope on interleaved pairs                      prefill 5e-1     decode 2
 *   query heads on the wrong kv head (pg2-sharded) prefill 1        decode 2
 *   norm weight w for 1 + w                        prefill 1        decode 1
 *   exact GELU in the decoder                      prefill 2e-4     decode 4e-4
 *   exact GELU in the tower        embeds 1e-4     prefill 6e-5     decode 4e-4
 *   no soft-cap in attention (pg2)                 prefill 1e-2     decode 1e-1
 *   no soft-cap on the logits (pg2)                prefill 7e-1     decode 1
 *   decoder scores 1 % off                         prefill 7e-3     decode 3e-2      */
#include "core/backend.h"
#include "core/pali.h"
#include "core/weights.h"
#include "tests/npy.h"
#include "tests/core/hf_golden.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>

#define HF TEST_DATA "hf/"

enum {
    STEPS = 32,
    MAX_IMAGES = 2
};

static const double EMBEDS_BOUND = 1e-5, LOGITS_BOUND = 1e-4;

static const pali_run quiet = {0};

/* One tiny model, open. */
typedef struct {
    const char *name;
    const pali_backend *be;
    pali_weights *w;
    pali_model *m;
    pali_embeds *image[MAX_IMAGES];
    int nimages;
} fixture;

/* One golden case of it. */
typedef struct {
    npy meta, ids, tokens, logits;
} golden;

/* ---- goldens --------------------------------------------------------------------- */

static npy load(const char *model, const char *file, const char *type) {
    char path[256];
    snprintf(path, sizeof path, HF "%s/golden/%s.npy", model, file);
    return npy_open(path, type);
}

static bool exists(const char *model, const char *file) {
    char path[256];
    snprintf(path, sizeof path, HF "%s/golden/%s.npy", model, file);
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

static bool golden_open(const char *model, int k, golden *g) {
    char file[32];
    snprintf(file, sizeof file, "case%d_case", k);
    if (!exists(model, file))
        return false;
    g->meta = load(model, file, "i4");
    snprintf(file, sizeof file, "case%d_ids", k);
    g->ids = load(model, file, "i4");
    snprintf(file, sizeof file, "case%d_tokens", k);
    g->tokens = load(model, file, "i4");
    snprintf(file, sizeof file, "case%d_logits", k);
    g->logits = load(model, file, "f4");
    assert_int_equal(g->tokens.n, STEPS);
    assert_int_equal(g->logits.shape[0], STEPS + 1);
    return true;
}

static void golden_close(golden *g) {
    npy_close(&g->meta);
    npy_close(&g->ids);
    npy_close(&g->tokens);
    npy_close(&g->logits);
}

/* ---- measures ---------------------------------------------------------------------- */

static int32_t largest(const float *v, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

/* ---- fixture ------------------------------------------------------------------------- */

static void fixture_open(fixture *f, const char *name, int threads) {
    char dir[256];
    pali_error err = {0};
    snprintf(dir, sizeof dir, HF "%s", name);
    *f = (fixture){.name = name, .be = pali_backend_cpu()};
    assert_ok(pali_weights_open(dir, &f->w, &err), err);
    const pali_config *c = &f->w->config;
    pali_backend_options o = {.threads = threads, .positions = 2 * c->vision.P + 64};
    assert_ok(f->be->open(f->w, &o, &quiet, &f->m, &err), err);

    npy sums = load(name, "images", "i8");
    assert_in_range(sums.n, 1, MAX_IMAGES);
    for (size_t i = 0; i < sums.n; i++) {
        int64_t sum;
        float *chw = hf_pixels(c->vision.S, (int)i, &sum);
        assert_int_equal(sum, ((int64_t *)sums.data)[i]);
        assert_ok(f->be->encode_image(f->m, chw, &quiet, &f->image[i], &err), err);
        f->nimages++;
        free(chw);
    }
    npy_close(&sums);
}

static void fixture_close(fixture *f) {
    for (int i = 0; i < f->nimages; i++)
        f->be->embeds_free(f->m, f->image[i]);
    f->be->close(f->m);
    pali_weights_close(f->w);
}

static void prefill(fixture *f, const golden *g) {
    pali_error err = {0};
    const pali_embeds *images[MAX_IMAGES];
    int n = (int)g->meta.n - 1;
    for (int i = 0; i < n; i++)
        images[i] = f->image[((int32_t *)g->meta.data)[1 + i]];
    assert_ok(f->be->prefill(f->m, images, n, g->ids.data, (int)g->ids.n, &quiet, &err), err);
}

/* ---- tests ----------------------------------------------------------------------------- */

static void check_embeds(const char *name) {
    fixture f;
    fixture_open(&f, name, 2);
    size_t n = (size_t)f.w->config.vision.P * (size_t)f.w->config.text.D;
    float *got = malloc(n * sizeof *got);
    double worst = 0, each = 0;
    for (int i = 0; i < f.nimages; i++) {
        char file[32];
        pali_error err = {0};
        snprintf(file, sizeof file, "embeds%d", i);
        npy want = load(name, file, "f4");
        assert_int_equal(want.n, n);
        assert_ok(f.be->embeds_read(f.m, f.image[i], got, &err), err);
        worst = fmax(worst, hf_error(got, 1, want.data, n, &each));
        npy_close(&want);
    }
    free(got);
    fixture_close(&f);
    print_message("# %s: embeds %.1e (elementwise %.1e)\n", name, worst, each);
    if (!(worst <= EMBEDS_BOUND))
        fail_msg("%s: embeds differ by %.1e, allowed %.0e", name, worst, EMBEDS_BOUND);
}

/* All cases one after another on one timeline, so that every case but the first also
 * shows that nothing of the turn before it is left. */
static void check_logits(const char *name) {
    fixture f;
    fixture_open(&f, name, 2);
    int V = f.w->config.text.V;
    double first = 0, later = 0, each = 0;
    int cases = 0, wrong = 0;
    golden g;
    for (; golden_open(name, cases, &g); cases++) {
        size_t stride = (size_t)((int32_t *)g.meta.data)[0], cols = g.logits.shape[1];
        assert_int_equal(cols, ((size_t)V + stride - 1) / stride);
        const float *want = g.logits.data;
        const int32_t *tokens = g.tokens.data;
        prefill(&f, &g);
        for (int step = 0;; step++) {
            pali_error err = {0};
            const float *got = f.be->logits(f.m);
            double e = hf_error(got, stride, want + (size_t)step * cols, cols, &each);
            if (step == 0)
                first = fmax(first, e);
            else
                later = fmax(later, e);
            if (step == STEPS)
                break;
            wrong += largest(got, V) != tokens[step];
            assert_ok(f.be->decode(f.m, tokens[step], &quiet, &err), err);
        }
        golden_close(&g);
    }
    fixture_close(&f);
    print_message("# %s: %d cases, prefill %.1e, decode %.1e (elementwise %.1e)\n", name, cases,
                  first, later, each);
    assert_in_range(cases, 2, 100);
    assert_int_equal(wrong, 0);
    if (!(first <= LOGITS_BOUND && later <= LOGITS_BOUND))
        fail_msg("%s: logits differ by %.1e after prefill and %.1e later, allowed %.0e", name,
                 first, later, LOGITS_BOUND);
}

/* A prefix after another turn gives the bits it gives on a new timeline. */
static void check_second_turn(const char *name) {
    fixture used, fresh;
    golden a, b;
    pali_error err = {0};
    fixture_open(&used, name, 2);
    fixture_open(&fresh, name, 2);
    assert_true(golden_open(name, 0, &a));
    assert_true(golden_open(name, 1, &b));
    size_t bytes = (size_t)used.w->config.text.V * sizeof(float);

    prefill(&used, &a);
    for (int i = 0; i < STEPS; i++)
        assert_ok(used.be->decode(used.m, ((int32_t *)a.tokens.data)[i], &quiet, &err), err);
    prefill(&used, &b);
    prefill(&fresh, &b);
    for (int i = 0;; i++) {
        assert_memory_equal(used.be->logits(used.m), fresh.be->logits(fresh.m), bytes);
        if (i == 5)
            break;
        int32_t token = ((int32_t *)b.tokens.data)[i];
        assert_ok(used.be->decode(used.m, token, &quiet, &err), err);
        assert_ok(fresh.be->decode(fresh.m, token, &quiet, &err), err);
    }
    golden_close(&a);
    golden_close(&b);
    fixture_close(&used);
    fixture_close(&fresh);
}

/* The same run in bfloat16 arithmetic is what a library does with a BF16 file by default.
 * Its own distance from float32 is 8e-2 (roundings of 2^-9 through 4 peaked layers): ours
 * from it is 7e-2 and may not be more. A norm or mask bug is above 2e-1. */
static void hf_bf16_arithmetic_is_near(void **state) {
    (void)state;
    fixture f;
    golden g;
    fixture_open(&f, "pg1-bf16", 2);
    assert_true(golden_open("pg1-bf16", 0, &g));
    npy want = load("pg1-bf16", "bf16_logits", "f4");
    prefill(&f, &g);
    double e =
        hf_error(f.be->logits(f.m), (size_t)((int32_t *)g.meta.data)[0], want.data, want.n, NULL);
    print_message("# pg1-bf16: bfloat16 arithmetic is %.1e away\n", e);
    assert_true(e < 0.1);
    npy_close(&want);
    golden_close(&g);
    fixture_close(&f);
}

/* ---- the same as text ------------------------------------------------------------------ */

typedef struct {
    int32_t prefix[512];
    size_t n;
} traced_prefix;

static void keep_prefix(void *user, const pali_traced *t) {
    traced_prefix *p = user;
    if (strcmp(t->name, "prefix_ids") != 0)
        return;
    assert_in_range(t->shape[0], 1, 512);
    p->n = t->shape[0];
    memcpy(p->prefix, t->data, p->n * sizeof *p->prefix);
}

static char *read_text(const char *name, int k, char *out, size_t room) {
    char path[256];
    snprintf(path, sizeof path, HF "pg1-bf16/text/%s%d.txt", name, k);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t n = fread(out, 1, room - 1, f);
    fclose(f);
    out[n] = 0;
    return out;
}

/* Picture file and question in, answer out: decoding, resizing, tokenizer, prefix,
 * sampling and detokenizer are ours, the expected bytes are not. */
static void hf_answers_match(void **state) {
    (void)state;
    pali_error err = {0};
    pali_engine *engine = NULL;
    pali_dialog *dialog = NULL;
    pali_image image = {0};
    const pali_engine_options o = {.model_dir = HF "pg1-bf16", .backend = "cpu", .threads = 2};
    assert_ok(pali_engine_open(&o, &quiet, &engine, &err), err);
    assert_ok(pali_dialog_open(engine, &dialog, &err), err);
    assert_ok(pali_image_open(HF "pg1-bf16/text/picture.png", &image, &err), err);
    assert_ok(pali_dialog_set_image(dialog, &image, true, &err), err);
    pali_image_close(&image);

    int k = 0;
    char question[256], answer[1024];
    for (; read_text("q", k, question, sizeof question); k++) {
        char path[256];
        assert_non_null(read_text("a", k, answer, sizeof answer));
        snprintf(path, sizeof path, HF "pg1-bf16/text/q%d_ids.npy", k);
        npy ids = npy_open(path, "i4");
        snprintf(path, sizeof path, HF "pg1-bf16/text/a%d_ids.npy", k);
        npy tokens = npy_open(path, "i4");

        traced_prefix got = {.n = 0};
        pali_result r;
        pali_ask ask = {.sampling = {.temperature = 0, .top_p = 1},
                        .max_tokens = (int)tokens.n,
                        .history = PALI_HISTORY_NONE,
                        .on_tensor = keep_prefix,
                        .user = &got};
        assert_ok(pali_dialog_ask(dialog, question, &ask, &quiet, &r, &err), err);
        assert_int_equal(got.n, 256 + ids.n);
        for (int i = 0; i < 256; i++)
            assert_int_equal(got.prefix[i], 1572);
        assert_memory_equal(got.prefix + 256, ids.data, ids.n * sizeof(int32_t));
        assert_int_equal(r.ntokens, tokens.n);
        assert_memory_equal(r.tokens, tokens.data, tokens.n * sizeof(int32_t));
        assert_string_equal(r.text, answer);
        pali_result_close(&r);
        npy_close(&ids);
        npy_close(&tokens);
    }
    assert_int_equal(k, 3);
    pali_dialog_close(dialog);
    pali_engine_close(engine);
}

#define CASES(X)                                                                                   \
    X(pg1_f32, "pg1-f32")                                                                          \
    X(pg1_bf16, "pg1-bf16")                                                                        \
    X(pg2_sharded, "pg2-sharded")                                                                  \
    X(pg2_f16, "pg2-f16")

#define DEFINE(id, name)                                                                           \
    static void hf_embeds_match_##id(void **state) {                                               \
        (void)state;                                                                               \
        check_embeds(name);                                                                        \
    }                                                                                              \
    static void hf_logits_match_##id(void **state) {                                               \
        (void)state;                                                                               \
        check_logits(name);                                                                        \
    }                                                                                              \
    static void hf_second_turn_is_fresh_##id(void **state) {                                       \
        (void)state;                                                                               \
        check_second_turn(name);                                                                   \
    }
#define LIST(id, name)                                                                             \
    cmocka_unit_test(hf_embeds_match_##id), cmocka_unit_test(hf_logits_match_##id),                \
        cmocka_unit_test(hf_second_turn_is_fresh_##id),

CASES(DEFINE)

int main(void) {
    const struct CMUnitTest tests[] = {CASES(LIST) cmocka_unit_test(hf_bf16_arithmetic_is_near),
                                       cmocka_unit_test(hf_answers_match)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
