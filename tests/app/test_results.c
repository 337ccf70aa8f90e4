/* test_results.c - lines of results: escaping, files, going on after a crash. */
#include "app/results.h"

#include "tests/test.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

static char path[] = "/tmp/pali-results-XXXXXX";

static int setup(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

static void put(const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#define PUT(text) put(text, sizeof(text) - 1)

static void expect_file(const char *want) {
    char got[1024];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(got, 1, sizeof got - 1, f);
    got[n] = '\0';
    fclose(f);
    assert_string_equal(got, want);
}

static void expect_line(const char *name, const char *text, const char *want) {
    char *line = results_line(name, text);
    assert_non_null(line);
    assert_string_equal(line, want);
    free(line);
}

static void results_lines_are_lines(void **state) {
    (void)state;
    expect_line("a.png", "text", "a.png\ttext\n");
    expect_line("a\tb\nc\\d.png", "one\ntwo\tthree\n\r\n",
                "a\\tb\\nc\\\\d.png\tone\\ntwo\\tthree\n");
    expect_line("\x1B[31m\x7F", "caf\xC3\xA9 \xFF\r", "\\x1B[31m\\x7F\tcaf\xC3\xA9 \xFF\n");
    expect_line("", "", "\t\n");
    expect_line("a", "\n", "a\t\n");
}

static void results_go_on_after_a_crash(void **state) {
    (void)state;
    /* The third line was cut off, so its picture is not known. */
    PUT("b.png\ttwo\n{\"image\": \"c\\td.png\", \"prompt\": \"ocr\"}\na.png\to");
    results *r;
    pali_error err = {0};
    assert_ok(results_open(path, true, "ocr", &r, &err), err);
    assert_true(results_have(r, "b.png"));
    assert_true(results_have(r, "c\td.png"));
    assert_false(results_have(r, "a.png"));
    assert_false(results_have(r, "b"));
    assert_ok(results_write(r, "a.png\tone\n", 10, &err), err);
    assert_ok(results_close(r, &err), err);
    expect_file("b.png\ttwo\n{\"image\": \"c\\td.png\", \"prompt\": \"ocr\"}\na.png\tone\n");
    /* Another prompt: the JSON says what it answers. */
    assert_ok(results_open(path, true, "caption en", &r, &err), err);
    assert_true(results_have(r, "a.png"));
    assert_false(results_have(r, "c\td.png"));
    assert_ok(results_close(r, &err), err);
}

/* Names are found again however odd they are. */
static void results_know_odd_names(void **state) {
    (void)state;
    static const char *const odd[] = {"a\tb", "a\\tb", "{x}", "\x01\xFF", "n\nl", " "};
    results *r;
    pali_error err = {0};
    PUT("");
    assert_ok(results_open(path, false, "ocr", &r, &err), err);
    for (size_t i = 0; i < 6; i++) {
        char *line = results_line(odd[i], "x");
        assert_ok(results_write(r, line, strlen(line), &err), err);
        assert_false(results_have(r, odd[i])); /* from the start only */
        free(line);
    }
    assert_ok(results_close(r, &err), err);
    assert_ok(results_open(path, true, "ocr", &r, &err), err);
    for (size_t i = 0; i < 6; i++)
        assert_true(results_have(r, odd[i]));
    assert_false(results_have(r, "b"));
    assert_ok(results_close(r, &err), err);
}

static void expect_refusal(bool resume, int code, const char *part) {
    results *r;
    pali_error err = {0};
    assert_int_equal(results_open(path, resume, "ocr", &r, &err), code);
    assert_null(r);
    if (!strstr(err.what, part))
        fail_msg("no \"%s\" in \"%s\"", part, err.what);
}

static void results_never_touch_other_files(void **state) {
    (void)state;
    PUT("a.png\tone\n");
    expect_refusal(false, PALI_EIO, "not empty");
    expect_file("a.png\tone\n");
    PUT("a.png\tone\n# my notes\nmore");
    expect_refusal(true, PALI_EFORMAT, ":2: not a line of results");
    expect_file("a.png\tone\n# my notes\nmore");
    static const char *const others[] = {"{\"image\": 3}\n", "{\"a\": [\n", "\t\n", "[]\n", "\n"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put(others[i], strlen(others[i]));
        expect_refusal(true, PALI_EFORMAT, ":1: not a line of results");
        expect_file(others[i]);
    }
    put("a\0b\tc\n", 6);
    expect_refusal(true, PALI_EFORMAT, ":1: not a line of results");
}

static void results_have_one_writer(void **state) {
    (void)state;
    PUT("");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && !flock(fd, LOCK_EX));
    expect_refusal(true, PALI_EIO, "another pali writes to this file");
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_lines_are_lines),
        cmocka_unit_test(results_go_on_after_a_crash),
        cmocka_unit_test(results_know_odd_names),
        cmocka_unit_test(results_never_touch_other_files),
        cmocka_unit_test(results_have_one_writer),
    };
    return cmocka_run_group_tests_name("results", tests, setup, teardown);
}
