/* test_dropped.c - pasted file names, as terminals write them. */
#include "app/dropped.h"
#include "tests/test.h"

#include <unistd.h>

static const char *wanted;

static bool is_wanted(const char *path) {
    return !strcmp(path, wanted);
}

static void expect(const char *text, const char *path) {
    char got[256];
    wanted = path;
    if (!dropped_path(text, strlen(text), is_wanted, got, sizeof got))
        fail_msg("%s is not understood", text);
    assert_string_equal(got, path);
}

static void expect_none(const char *text, size_t n, const char *path) {
    char got[256];
    wanted = path;
    assert_false(dropped_path(text, n, is_wanted, got, sizeof got));
}

static void dropped_understands_every_terminal(void **state) {
    (void)state;
    expect("/a/b.png", "/a/b.png");
    expect("  /a/b.png \n", "/a/b.png");
    expect("/a/with space.png", "/a/with space.png");
    expect("'/a/with space.png'", "/a/with space.png");
    expect("'/a/it'\\''s.png' ", "/a/it's.png");
    expect("\"/a/b\\\"c.png\"", "/a/b\"c.png");
    expect("/a/with\\ space\\(1\\).png", "/a/with space(1).png");
    expect("file:///a/with%20space.png", "/a/with space.png");
    expect("file://localhost/a/b.png", "/a/b.png");
    expect("file:///a/%C3%A9.png", "/a/\xC3\xA9.png");
    expect("/a/100%25.png", "/a/100%25.png"); /* not a URI */
    expect("/a/'odd.png", "/a/'odd.png");     /* as it is comes first */
}

static void dropped_leaves_other_text_alone(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "what is this?",
                                        "/a/b.png\n/a/c.png",
                                        "file://other/a.png",
                                        "file:///a%00b",
                                        "file:///a%0",
                                        "file:///a%zz",
                                        "'",
                                        "\\"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect_none(texts[i], strlen(texts[i]), "/a/b.png");
    expect_none("/a\0b", 4, "/a");
    char *big = malloc(1 << 20);
    memset(big, 'x', 1 << 20);
    expect_none(big, 1 << 20, "/a/b.png");
    free(big);
}

static void dropped_knows_pictures(void **state) {
    (void)state;
    assert_true(dropped_is_picture("assets/demo/demo.png"));
    assert_false(dropped_is_picture("README.md"));
    assert_false(dropped_is_picture("assets"));
    assert_false(dropped_is_picture("/nonexistent"));
    assert_true(dropped_is_file("README.md"));
    assert_false(dropped_is_file("assets"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropped_understands_every_terminal),
        cmocka_unit_test(dropped_leaves_other_text_alone),
        cmocka_unit_test(dropped_knows_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
