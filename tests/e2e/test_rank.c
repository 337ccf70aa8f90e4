/* test_rank.c - `pali rank` from outside, with the bundled model, on pictures drawn here. */
#include "tests/e2e/folder.h"

#include <jansson.h>
#include <math.h>

static char circle[64], square[64], damaged[64]; /* a red circle, a blue square, not a picture */

static int draw(const char *path, const char *colour, bool round) {
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    fputs("P6 200 200 255\n", f);
    for (int y = 0; y < 200; y++)
        for (int x = 0; x < 200; x++) {
            bool in = round ? (x - 90) * (x - 90) + (y - 100) * (y - 100) < 45 * 45
                            : x > 50 && x < 130 && y > 60 && y < 140;
            fwrite(in ? colour : "\xF5\xF5\xF5", 1, 3, f);
        }
    return fclose(f);
}

static int setup(void **state) {
    (void)state;
    if (folder_open())
        return -1;
    snprintf(circle, sizeof circle, "%s/circle.ppm", folder);
    snprintf(square, sizeof square, "%s/square.ppm", folder);
    snprintf(damaged, sizeof damaged, "%s/damaged.ppm", folder);
    FILE *f = fopen(damaged, "wb");
    if (!f || fputs("P6 200 200 255\nshort", f) < 0 || fclose(f))
        return -1;
    return draw(circle, "\xDC\x28\x28", true) | draw(square, "\x28\x3C\xDC", false);
}

/* Whether the lines of text begin and end like this, in this order. */
static void expect_lines(const char *text, const char *const *ends) {
    for (; *ends; ends++) {
        size_t n = strcspn(text, "\n"), m = strlen(*ends);
        if (!text[n] || n < m || strncmp(text + n - m, *ends, m))
            fail_msg("\"%.*s\" does not end with \"%s\"", (int)n, text, *ends);
        text += n + 1;
    }
    assert_string_equal(text, "");
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The right caption first; the one with the wrong colours near; nonsense last. */
static void rank_puts_the_right_text_first(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "rank", "--demo", "--text", "blue", "--text",
                    "a blue circle and a red star", "--text", "a red circle and a blue star");
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[1], "");
    expect_lines(s.text[0], LINES("\ta red circle and a blue star",
                                  "\ta blue circle and a red star", "\tblue"));
    spawn_free(&s);
    s = RUN("a blue square\n\n\r\na red circle\r\n", "rank", "--demo", "--texts", "-", circle,
            square);
    assert_int_equal(s.status, 0);
    expect_lines(s.text[0],
                 LINES("\ta red circle", "\ta blue square", "\ta blue square", "\ta red circle"));
    assert_memory_equal(s.text[0], circle, strlen(circle));
    spawn_free(&s);
}

static void rank_puts_the_right_picture_first(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "rank", "a red circle", "--demo", square, circle);
    assert_int_equal(s.status, 0);
    expect_lines(s.text[0], LINES(circle, square));
    spawn_free(&s);
    s = RUN(NULL, "rank", "--demo", "--prompt", "what color is the square?", "--text", "blue",
            circle, square);
    assert_int_equal(s.status, 0);
    expect_lines(s.text[0], LINES(square, circle));
    spawn_free(&s);
}

static void rank_tells_all_in_json(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "rank", "--demo", "--json", "--text", "a red circle", "--text",
                    "a \"green\"\x1B star", circle);
    assert_int_equal(s.status, 0);
    json_error_t e;
    json_t *j = json_loads(s.text[0], 0, &e);
    assert_non_null(j);
    const char *image, *prompt, *text[2];
    double score[2], share[2], sum[2];
    int tokens[2];
    assert_int_equal(json_unpack(j,
                                 "{s:s, s:s, s:[{s:s, s:F, s:F, s:F, s:i !}, {s:s, s:F, s:F, s:F, "
                                 "s:i !} !] !}",
                                 "image", &image, "prompt", &prompt, "ranking", "text", &text[0],
                                 "score", &score[0], "share", &share[0], "sum", &sum[0], "tokens",
                                 &tokens[0], "text", &text[1], "score", &score[1], "share",
                                 &share[1], "sum", &sum[1], "tokens", &tokens[1]),
                     0);
    assert_string_equal(image, circle);
    assert_string_equal(prompt, "caption en");
    assert_string_equal(text[0], "a red circle");
    assert_string_equal(text[1], "a \"green\"\x1B star");
    assert_true(score[0] > score[1] && share[0] > 0.99 && fabs(share[0] + share[1] - 1) < 1e-6);
    assert_true(fabs(score[0] * tokens[0] - sum[0]) < 1e-4);
    assert_true(tokens[0] > 1);
    json_decref(j);
    spawn_free(&s);
}

/* A picture that cannot be read costs its line and the exit status, not the others. */
static void rank_leaves_out_what_it_cannot_read(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "rank", "--demo", "a red circle", damaged, square, "/nowhere", circle);
    assert_int_equal(s.status, 1);
    expect_lines(s.text[0], LINES(circle, square));
    assert_non_null(strstr(s.text[1], "damaged.ppm"));
    assert_non_null(strstr(s.text[1], "/nowhere: cannot open"));
    assert_non_null(strstr(s.text[1], "pali: 2 of 4 pictures could not be read\n"));
    spawn_free(&s);
    s = RUN(NULL, "rank", "--demo", "a red circle", damaged);
    assert_int_equal(s.status, 1);
    assert_string_equal(s.text[0], "");
    spawn_free(&s);
}

static void rank_refuses_wrong_usage(void **state) {
    (void)state;
    need_demo();
    static const struct {
        const char *args[8], *sentence;
    } cases[] = {
        {{"rank", "--demo"}, "pali: no texts to rank\n"},
        {{"rank", "--demo", "a cat", "-p", "x", "-p", "y"}, "pali: rank takes one --prompt\n"},
        {{"rank", "--demo", "--text", "", circle}, "pali: a text to rank is empty\n"},
        {{"rank", "--demo", "", circle}, "pali: the text to rank pictures for is empty\n"},
        {{"rank", "-m", "x", "a cat"}, "pali: no image given\n"},
        {{"rank", "a cat", circle}, "pali: no model given\n"},
        {{"rank", "--demo", "-n", "3", "x", circle}, "pali: rank takes no --max-tokens\n"},
        {{"--demo", "--text", "x", circle}, "pali: --text goes with a verb\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spawned s = spawn_run(NULL, cases[i].args);
        assert_int_equal(s.status, 2);
        if (strncmp(s.text[1], cases[i].sentence, strlen(cases[i].sentence)))
            fail_msg("\"%s\" does not begin with \"%s\"", s.text[1], cases[i].sentence);
        assert_int_equal(s.n[0], 0);
        spawn_free(&s);
    }
    char *line = malloc(20001);
    assert_non_null(line);
    memset(line, 'x', 20000);
    line[20000] = '\0';
    spawned s = RUN(line, "rank", "--demo", "--texts", "-", circle);
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "text 1 of standard input is longer than 16384 bytes"));
    spawn_free(&s);
    free(line);
    s = RUN(NULL, "rank", "--demo", "--texts", "/dev/zero", circle); /* has no end */
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "/dev/zero: not text: there is a zero byte in it"));
    spawn_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_puts_the_right_text_first),
        cmocka_unit_test(rank_puts_the_right_picture_first),
        cmocka_unit_test(rank_tells_all_in_json),
        cmocka_unit_test(rank_leaves_out_what_it_cannot_read),
        cmocka_unit_test(rank_refuses_wrong_usage),
    };
    return cmocka_run_group_tests_name("rank", tests, setup, folder_remove);
}
