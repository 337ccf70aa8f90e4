/* `pali convert`: what it makes answers as what it was made from. */
#include "tests/core/make_model.h"
#include "tests/e2e/spawn.h"

static char top[64], to[128];

static int setup(void **state) {
    (void)state;
    model_folder(top);
    snprintf(to, sizeof to, "%s/new", top);
    unsetenv("PALI_MODEL");
    setenv("PALI_CONFIG", "", 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static void expect(spawned *s, int status, int stream, const char *words) {
    if (s->status != status || !strstr(s->text[stream], words))
        fail_msg("status %d, stdout \"%s\", stderr \"%s\"; expected %d and \"%s\"", s->status,
                 s->text[0], s->text[1], status, words);
}

#define QUESTIONS                                                                                  \
    "-p", "caption en", "-p", "detect square", "tests/data/hf/pg1-bf16/text/picture.png"

static void convert_makes_a_model_that_answers_the_same(void **state) {
    (void)state;
    spawned s = RUN(NULL, "convert", "assets/demo", to);
    expect(&s, 0, 1, " of weights");
    spawn_free(&s);
    spawned first = RUN(NULL, "-m", "assets/demo", QUESTIONS),
            second = RUN(NULL, "-m", to, QUESTIONS);
    assert_int_equal(first.status, 0);
    assert_string_equal(first.text[0], second.text[0]);
    spawn_free(&first);
    spawn_free(&second);
    s = RUN(NULL, "convert", "assets/demo", to);
    expect(&s, 1, 1, "there is a model in it already");
    spawn_free(&s);
}

static void convert_quantises(void **state) {
    (void)state;
    spawned s = RUN(NULL, "convert", "-q", "nf4", "assets/demo", to);
    expect(&s, 0, 1, " of weights");
    spawn_free(&s);
    spawned first = RUN(NULL, "-m", "assets/demo", "-q", "nf4", QUESTIONS),
            second = RUN(NULL, "-m", to, "-v", QUESTIONS);
    assert_int_equal(first.status, 0);
    assert_string_equal(first.text[0], second.text[0]);
    expect(&second, 0, 1, "NF4");
    spawn_free(&first);
    spawn_free(&second);
    s = RUN(NULL, "-m", to, "-q", "int8", QUESTIONS);
    expect(&s, 1, 1, "the weights are stored as NF4 already");
    spawn_free(&s);
}

static void convert_quantises_the_encoder_too(void **state) {
    (void)state;
    spawned s = RUN(NULL, "convert", "-q", "int8", "--quantize-modules", "all", "assets/demo", to);
    expect(&s, 0, 1, " of weights");
    spawn_free(&s);
    spawned first = RUN(NULL, "-m", "assets/demo", "-b", "cpu", "-q", "int8", "--quantize-modules",
                        "all", "-v", QUESTIONS),
            second = RUN(NULL, "-m", to, "-b", "cpu", "-v", QUESTIONS);
    assert_string_equal(first.text[0], second.text[0]);
    expect(&first, 0, 1, "INT8 (the encoder too)");
    expect(&second, 0, 1, "INT8 (the encoder too)");
    spawn_free(&first);
    spawn_free(&second);
    s = RUN(NULL, "-m", to, "-b", "cpu", "-q", "nf4", "--quantize-modules", "all", QUESTIONS);
    expect(&s, 1, 1, "the weights are stored as INT8 already");
    spawn_free(&s);
}

/* The tiny model of tests/core/test_hf.c, from JAX's file and from its safetensors. */
static void convert_reads_jax(void **state) {
    (void)state;
    char command[256];
    spawned s = RUN(NULL, "convert", "tests/data/jax/pg1-bf16.npz", to);
    expect(&s, 0, 1, "there is no tokenizer.model");
    spawn_free(&s);
    snprintf(command, sizeof command, "cp tests/data/hf/pg1-bf16/tokenizer.model %s", to);
    assert_int_equal(system(command), 0);
    spawned first = RUN(NULL, "-m", "tests/data/hf/pg1-bf16", QUESTIONS),
            second = RUN(NULL, "-m", to, QUESTIONS);
    assert_int_equal(first.status, 0);
    assert_int_equal(second.status, 0);
    assert_string_equal(first.text[0], second.text[0]);
    spawn_free(&first);
    spawn_free(&second);
}

static void convert_says_what_is_wrong(void **state) {
    (void)state;
    spawned s = RUN(NULL, "convert", "assets/demo");
    expect(&s, 2, 1, "convert wants SRC DST");
    spawn_free(&s);
    s = RUN(NULL, "convert", "--quantize-modules", "all", "/nowhere", to);
    expect(&s, 1, 1, "nothing is quantised: --quantize-modules goes with -q int8");
    spawn_free(&s);
    s = RUN(NULL, "convert", "/nowhere", to);
    expect(&s, 1, 1, "no such folder");
    spawn_free(&s);
    assert_int_equal(access(to, F_OK), -1);
    s = RUN(NULL, "convert", "assets/demo", "/nowhere/new");
    expect(&s, 1, 1, "cannot make this folder");
    spawn_free(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(convert_makes_a_model_that_answers_the_same),
        TEST(convert_quantises),
        TEST(convert_quantises_the_encoder_too),
        TEST(convert_reads_jax),
        TEST(convert_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
