/* What an engine does not compute twice, on the tiny model with a tokenizer: every shortcut
 * must give, to the bit, what the long way gives.                                     */
#include "core/engine.h"
#include "tests/test.h"

enum {
    MOST_STEPS = 8
};

static pali_error err;
static pali_engine *engine;
static int encodes, prefills; /* work seen through progress */
static pali_run watch;

static void on_progress(void *user, pali_stage stage, int done, int total) {
    (void)user;
    (void)total;
    encodes += stage == PALI_STAGE_ENCODE && done == 0;
    prefills += stage == PALI_STAGE_PREFILL && done == 0;
}

static int setup(void **state) {
    (void)state;
    pali_engine_options o = {
        .model_dir = TEST_DATA "hf/pg1-bf16", .backend = "cpu", .threads = 2, .images = 3};
    watch = (pali_run){.progress = on_progress};
    encodes = prefills = 0;
    assert_ok(pali_engine_open(&o, NULL, &engine, &err), err);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pali_engine_close(engine);
    return 0;
}

/* A picture of one colour pattern a kind. */
static pali_image picture(int kind, int width) {
    pali_image p = {.width = width, .height = 20, .rgb = malloc((size_t)width * 20 * 3)};
    assert_non_null(p.rgb);
    for (int i = 0; i < width * 20 * 3; i++)
        p.rgb[i] = (uint8_t)(i * (kind + 1) + i / 7 * kind);
    return p;
}

static void show(pali_dialog *d, int kind) {
    pali_image p = picture(kind, 24);
    assert_ok(pali_dialog_set_image(d, &p, true, &err), err);
    pali_image_close(&p);
}

static pali_dialog *dialog(int kind) {
    pali_dialog *d;
    assert_ok(pali_dialog_open(engine, &d, &err), err);
    show(d, kind);
    return d;
}

typedef struct {
    int steps, cancel_at;
    atomic_int cancel;
    float *logits; /* [MOST_STEPS][V] */
    pali_result r;
} answer;

static void keep(void *user, const pali_traced *t) {
    answer *a = user;
    if (strcmp(t->name, "logits") || a->steps == MOST_STEPS)
        return;
    memcpy(a->logits + (size_t)a->steps * t->shape[0], t->data, t->shape[0] * sizeof(float));
    a->steps++;
    if (a->steps == a->cancel_at)
        atomic_store(&a->cancel, 1);
}

/* Every step's logits; the turn is forgotten. cancel_at > 0: stops after that step. */
static answer *ask(pali_dialog *d, const char *prompt, float temperature, int cancel_at) {
    answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->cancel_at = cancel_at;
    a->logits = calloc((size_t)MOST_STEPS * 2000, sizeof *a->logits);
    assert_non_null(a->logits);
    pali_run run = watch;
    run.cancel = &a->cancel;
    pali_ask how = {.sampling = {.temperature = temperature, .top_p = 1, .seed = 5},
                    .max_tokens = MOST_STEPS,
                    .on_tensor = keep,
                    .user = a};
    assert_ok(pali_dialog_ask(d, prompt, &how, &run, &a->r, &err), err);
    pali_dialog_drop_turns(d, 1);
    return a;
}

static void done(answer *a) {
    pali_result_close(&a->r);
    free(a->logits);
    free(a);
}

static void assert_same(const answer *a, const answer *b) {
    assert_int_equal(a->steps, b->steps);
    assert_memory_equal(a->logits, b->logits, (size_t)MOST_STEPS * 2000 * sizeof(float));
    assert_string_equal(a->r.text, b->r.text);
    assert_int_equal(a->r.ntokens, b->r.ntokens);
    assert_memory_equal(a->r.tokens, b->r.tokens, a->r.ntokens * sizeof(int32_t));
    assert_memory_equal(a->r.logprobs, b->r.logprobs, a->r.ntokens * sizeof(float));
}

/* --- tests ------------------------------------------------------------------------------ */

/* /retry: the prefix is there, whatever the sampling and whatever was said after it. */
static void reuse_prefix_gives_the_same_answer(void **state) {
    (void)state;
    pali_dialog *d = dialog(1);
    answer *first = ask(d, "what is this", 0, 0), *other = ask(d, "what is this", 3, 0);
    answer *again = ask(d, "what is this", 0, 0), *third = ask(d, "what is that", 0, 0);
    answer *fresh = ask(d, "what is this", 0, 0);
    assert_int_equal(prefills, 3);
    assert_int_equal(encodes, 1);
    assert_false(first->r.reused || third->r.reused || fresh->r.reused);
    assert_true(other->r.reused && again->r.reused);
    assert_true(again->r.prefill_s == 0 && first->r.prefill_s > 0);
    assert_same(first, again);
    assert_same(first, fresh);
    assert_memory_equal(first->logits, other->logits, 1000 * sizeof(float));
    assert_string_not_equal(first->r.text, other->r.text);
    done(first), done(other), done(again), done(third), done(fresh);
    pali_dialog_close(d);
}

/* Stopped at any step, asked again. */
static void reuse_prefix_survives_a_stop(void **state) {
    (void)state;
    pali_dialog *d = dialog(2);
    answer *whole = ask(d, "caption en", 0, 0);
    for (int stop = 1; stop < 4; stop++) {
        answer *part = ask(d, "caption en", 0, stop), *again = ask(d, "caption en", 0, 0);
        assert_int_equal(part->r.stop, PALI_STOP_CANCEL);
        assert_true(again->r.reused);
        assert_same(whole, again);
        done(part), done(again);
    }
    done(whole);
    pali_dialog_close(d);
}

/* Stopped while the prefix was read: there is nothing to go back to. */
static void reuse_prefix_needs_a_whole_one(void **state) {
    (void)state;
    pali_dialog *d = dialog(2);
    answer *whole = ask(d, "caption en", 0, 0);
    atomic_int cancel = 1;
    pali_run run = {.cancel = &cancel};
    pali_result r;
    pali_ask how = {.sampling = {.top_p = 1}, .max_tokens = 2};
    assert_ok(pali_dialog_ask(d, "caption de", &how, &run, &r, &err), err);
    assert_int_equal(r.stop, PALI_STOP_CANCEL);
    pali_result_close(&r);
    answer *again = ask(d, "caption en", 0, 0);
    assert_false(again->r.reused);
    assert_same(whole, again);
    done(whole), done(again);
    pali_dialog_close(d);
}

/* One timeline, two dialogs and their scores in turns. */
static void reuse_prefix_is_not_taken_for_another(void **state) {
    (void)state;
    pali_dialog *a = dialog(1), *b = dialog(2);
    answer *a1 = ask(a, "ocr", 0, 0), *b1 = ask(b, "ocr", 0, 0);
    answer *a2 = ask(a, "ocr", 0, 0);
    const char *texts[] = {"a cat", "a dog on a cat"};
    pali_score first[2], second[2];
    assert_ok(pali_dialog_score(a, "ocr", texts, 2, &watch, first, &err), err);
    answer *a3 = ask(a, "ocr", 0, 0);
    assert_ok(pali_dialog_score(a, "ocr", texts, 2, &watch, second, &err), err);
    answer *b2 = ask(b, "ocr", 0, 0);
    assert_int_equal(prefills, 4);
    assert_int_equal(encodes, 2);
    assert_true(a3->r.reused);
    assert_same(a1, a2);
    assert_same(a1, a3);
    assert_same(b1, b2);
    assert_memory_not_equal(a1->logits, b1->logits, 1000 * sizeof(float));
    assert_true(first[0].sum == second[0].sum && first[1].sum == second[1].sum);
    done(a1), done(a2), done(a3), done(b1), done(b2);
    pali_dialog_close(a);
    pali_dialog_close(b);
}

/* Back to an earlier picture: not encoded again, nor when another dialog shows it. A picture
 * like it in all but a pixel is. */
static void reuse_pictures_by_content(void **state) {
    (void)state;
    pali_dialog *d = dialog(1);
    answer *one = ask(d, "ocr", 0, 0);
    show(d, 2);
    done(ask(d, "ocr", 0, 0));
    show(d, 1);
    answer *back = ask(d, "ocr", 0, 0);
    assert_int_equal(encodes, 2);
    assert_true(back->r.encode_s == 0);
    assert_same(one, back);
    pali_dialog *other = dialog(1);
    done(ask(other, "ocr", 0, 0));
    assert_int_equal(encodes, 2);
    pali_image p = picture(1, 24);
    p.rgb[700] ^= 255;
    assert_ok(pali_dialog_set_image(d, &p, true, &err), err);
    pali_image_close(&p);
    answer *near = ask(d, "ocr", 0, 0);
    assert_int_equal(encodes, 3);
    assert_memory_not_equal(near->logits, one->logits, 1000 * sizeof(float));
    done(one), done(back), done(near);
    pali_dialog_close(d);
    pali_dialog_close(other);
}

/* Only so many are kept; the one in use always is. */
static void reuse_forgets_the_oldest_pictures(void **state) {
    (void)state;
    pali_dialog *held = dialog(0), *d = dialog(100);
    assert_ok(pali_dialog_encode(held, &watch, &err), err);
    for (int i = 1; i <= 40; i++) {
        show(d, i);
        assert_ok(pali_dialog_encode(d, &watch, &err), err);
        assert_in_range(engine->reuse.nseen, 1, 16);
    }
    assert_int_equal(encodes, 41);
    show(d, 40), show(d, 39), show(d, 30);
    assert_ok(pali_dialog_encode(d, &watch, &err), err);
    assert_ok(pali_dialog_encode(held, &watch, &err), err);
    assert_int_equal(encodes, 41);
    show(d, 1);
    assert_ok(pali_dialog_encode(d, &watch, &err), err);
    assert_int_equal(encodes, 42);
    pali_dialog_close(d);
    pali_dialog_close(held);
}

/* Several pictures: their order counts, one may come twice, and too many are refused without
 * a change. */
static void reuse_several_pictures(void **state) {
    (void)state;
    pali_image p[2] = {picture(1, 24), picture(2, 30)};
    const pali_image *list[] = {&p[0], &p[1], &p[0], &p[1], &p[0], &p[1], &p[0], &p[1]};
    pali_dialog *d;
    assert_ok(pali_dialog_open(engine, &d, &err), err);
    assert_ok(pali_dialog_set_images(d, list, 2, true, &err), err);
    answer *ab = ask(d, "ocr", 0, 0);
    assert_ok(pali_dialog_set_images(d, list + 1, 2, true, &err), err);
    answer *ba = ask(d, "ocr", 0, 0);
    assert_false(ba->r.reused);
    assert_memory_not_equal(ab->logits, ba->logits, 1000 * sizeof(float));
    assert_ok(pali_dialog_set_images(d, list, 3, true, &err), err);
    answer *aba = ask(d, "ocr", 0, 0);
    assert_int_equal(encodes, 2);
    assert_int_equal(aba->r.prefix_tokens, ab->r.prefix_tokens + 256);
    pali_error why = {0};
    assert_int_equal(pali_dialog_set_images(d, list, 8, true, &why), PALI_ELIMIT);
    assert_string_equal(why.what,
                        "8 images take 256 positions each, but the context has only 1792");
    answer *again = ask(d, "ocr", 0, 0);
    assert_true(again->r.reused);
    assert_same(aba, again);
    done(ab), done(ba), done(aba), done(again);
    pali_dialog_close(d);
    pali_image_close(&p[0]);
    pali_image_close(&p[1]);

    pali_engine *none;
    pali_engine_options o = {.model_dir = TEST_DATA "hf/pg1-bf16", .backend = "cpu", .images = 40};
    assert_int_equal(pali_engine_open(&o, NULL, &none, &why), PALI_EARG);
    assert_null(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reuse_prefix_gives_the_same_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_prefix_survives_a_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_prefix_needs_a_whole_one, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_prefix_is_not_taken_for_another, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_pictures_by_content, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_forgets_the_oldest_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(reuse_several_pictures, setup, teardown),
    };
    return cmocka_run_group_tests_name("reuse", tests, NULL, NULL);
}
