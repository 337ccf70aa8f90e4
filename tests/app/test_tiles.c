/* test_tiles.c - where tiles lie, and how their texts are joined. */
#include "app/tiles.h"

#include "tests/test.h"

static void expect_join(int cols, int rows, const char *const *texts, const char *want) {
    char *got;
    pali_error err = {0};
    assert_ok(app_tiles_join(texts, (app_tiling){.cols = cols, .rows = rows}, &got, &err), err);
    assert_string_equal(got, want);
    free(got);
}

#define TEXTS(...) ((const char *const[]){__VA_ARGS__})

static void tiles_read_what_is_asked(void **state) {
    (void)state;
    static const char *const good[] = {"auto", "none", "1x1", "3x2", "32x32"};
    static const int want[][2] = {{0, 0}, {1, 1}, {1, 1}, {3, 2}, {32, 32}};
    app_tiling t;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(app_tiling_parse(good[i], &t));
        assert_int_equal(t.cols, want[i][0]);
        assert_int_equal(t.rows, want[i][1]);
    }
    static const char *const bad[] = {
        "", "x", "3", "3x", "x2", "0x1", "1x0", "33x1", "3X2", "3x2 ", "99999999999x1", "-1x1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(app_tiling_parse(bad[i], &t));
}

static void tiles_are_chosen_by_size(void **state) {
    (void)state;
    static const struct {
        int width, height, model;
        double across, down;
        int cols, rows;
    } cases[] = {
        {1920, 1080, 448, 0, 0, 1, 1}, /* no text */
        {1920, 1080, 448, 2, 2, 5, 3}, /* letters of 9 pixels */
        {1920, 1080, 896, 2, 2, 2, 1},   {1920, 1080, 448, 4, 4, 2, 1},
        {1920, 1080, 448, 40, 40, 1, 1}, /* large letters */
        {1920, 1080, 448, 1, 1, 6, 4},   /* smaller than a pixel: not enlarged */
        {1920, 1080, 448, 0, 2, 1, 3},   {168, 168, 112, 1.5, 1.5, 1, 1},
        {112, 112, 112, 1, 1, 1, 1},     {1, 65535, 448, 2, 2, 1, 32},
        {65535, 65535, 224, 2, 2, 6, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        app_tiling t =
            app_tiling_choose((app_tiling){0}, cases[i].width, cases[i].height, cases[i].model,
                              (app_tiles_detail){cases[i].across, cases[i].down});
        if (t.cols != cases[i].cols || t.rows != cases[i].rows)
            fail_msg("case %zu: %dx%d", i, t.cols, t.rows);
    }
    /* Three pixels wide. */
    app_tiling t =
        app_tiling_choose((app_tiling){.cols = 5, .rows = 4}, 3, 1000, 448, (app_tiles_detail){0});
    assert_int_equal(t.cols, 3);
    assert_int_equal(t.rows, 4);
}

/* Stripes of a given width across, and of another down, with noise, which moves the turning points. */
static void tiles_see_how_fine_strokes_are(void **state) {
    (void)state;
    enum {
        W = 300,
        H = 200
    };
    uint8_t *rgb = malloc(3 * W * H);
    assert_non_null(rgb);
    static const int widths[][2] = {{1, 1}, {2, 5}, {7, 3}, {20, 9}};
    for (size_t k = 0; k < 4; k++) {
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                bool dark = (x / widths[k][0] + y / widths[k][1]) % 2;
                memset(rgb + 3 * (y * W + x), (dark ? 40 : 200) + (x * 7 + y * 13) % 20, 3);
            }
        app_tiles_detail d = app_tiles_look(rgb, W, H);
        assert_true(d.across >= widths[k][0] * 0.5 && d.across <= widths[k][0] * 1.5);
        assert_true(d.down >= widths[k][1] * 0.5 && d.down <= widths[k][1] * 1.5);
    }
    /* Soft shading and noise below the threshold are no strokes. */
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            memset(rgb + 3 * (y * W + x), x * 180 / W + (x * 7 + y * 13) % 45, 3);
    app_tiles_detail d = app_tiles_look(rgb, W, H);
    assert_true(d.across == 0 && d.down == 0);
    d = app_tiles_look(rgb, 1, 1);
    assert_true(d.across == 0 && d.down == 0);
    free(rgb);
}

/* Whatever the size, tiles cover every pixel, lie inside, and overlap by about as much as asked. */
static void tiles_cover_the_picture(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 7, 100, 1080, 1920, 65535};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int n = 1; n <= 32 && n <= sizes[s]; n++) {
            int end = 0;
            for (int i = 0; i < n; i++) {
                app_tile t = app_tile_at((app_tiling){n, 1, 0.33}, sizes[s], 50, i);
                assert_true(t.x >= 0 && t.width > 0 && t.x + t.width <= sizes[s]);
                assert_true(t.y == 0 && t.height == 50);
                assert_true(t.x <= end);
                if (i && t.width > 16)
                    assert_in_range(100 * (end - t.x) / t.width, 23, 43);
                end = t.x + t.width;
                app_tile down = app_tile_at((app_tiling){1, n, 0.33}, 50, sizes[s], i);
                assert_true(down.y == t.x && down.height == t.width && down.x == 0);
            }
            assert_int_equal(end, sizes[s]);
        }
}

static void tiles_join_a_line(void **state) {
    (void)state;
    expect_join(1, 1, TEXTS("one tile"), "one tile");
    /* The overlap comes once. */
    expect_join(2, 1, TEXTS("the quick brown", "brown fox"), "the quick brown fox");
    expect_join(3, 1, TEXTS("the quick br", "ick brown fo", "n fox jumps"),
                "the quick brown fox jumps");
    /* The letters at the edges are cut and read wrong. */
    expect_join(2, 1, TEXTS("the quick browi", "]uick brown fox"), "the quick brown fox");
    expect_join(2, 1, TEXTS("the quick brown f.", "l brown fox"), "the quick brown fox");
    /* One is wrong in the middle: each half comes from the tile that saw it farther inside. */
    expect_join(2, 1, TEXTS("a total of 1234567", "1234S67 euros"), "a total of 1234S67 euros");
    expect_join(2, 1, TEXTS("a total of 1234567", "12E4567 euros"), "a total of 1234567 euros");
    /* A letter too many, one too few. */
    expect_join(2, 1, TEXTS("see the manuaal page", "the manual page 12"),
                "see the manual page 12");
    /* A line that stands wholly in the overlap. */
    expect_join(2, 1, TEXTS("OK", "OK"), "OK");
    expect_join(2, 1, TEXTS("7", "7"), "7");
    expect_join(2, 1, TEXTS("Cancel", "Cancel"), "Cancel");
}

static void tiles_keep_what_does_not_agree(void **state) {
    (void)state;
    expect_join(2, 1, TEXTS("File Edit", "Help"), "File Edit Help");
    expect_join(2, 1, TEXTS("left", ""), "left");
    expect_join(2, 1, TEXTS("", "right"), "right");
    expect_join(2, 2, TEXTS("", "", "", ""), "");
    expect_join(2, 1, TEXTS("ab", "bc"), "ab bc"); /* one letter is chance */
    expect_join(2, 1, TEXTS("one\ntwo\nthree", "x"), "one\ntwo\nthree\nx");
}

static void tiles_join_lines_with_their_partners(void **state) {
    (void)state;
    expect_join(2, 1, TEXTS("first line of te\nsecond line he", "ine of text\nine here"),
                "first line of text\nsecond line here");
    /* The right tile has a line more, the left one too. */
    expect_join(2, 1,
                TEXTS("only left\nalpha beta gam\ndelta epsil", "eta gamma\nonly right\nepsilon"),
                "only left\nalpha beta gamma\nonly right\ndelta epsilon");
    /* Strangers between partners stand beside each other when they are as many. */
    expect_join(2, 1, TEXTS("alpha beta\nA\ndelta epsilon", "a beta c\nB\nepsilon d"),
                "alpha beta c\nA B\ndelta epsilon d");
    /* Empty lines and blanks at the ends do not count. */
    expect_join(2, 1, TEXTS("\n alpha beta \n\n", "\r\nbeta gamma\n"), "alpha beta gamma");
}

static void tiles_join_below_each_other(void **state) {
    (void)state;
    expect_join(1, 2, TEXTS("one\ntwo", "three\nfour"), "one\ntwo\nthree\nfour");
    expect_join(1, 2, TEXTS("first\nsecond\nthird", "second\nthird\nfourth"),
                "first\nsecond\nthird\nfourth");
    /* Misread here and there. */
    expect_join(1, 2, TEXTS("first line\nsecond lime", "sccond line\nthird"),
                "first line\nsecond lime\nthird");
    /* The upper tile ends in the middle of a line, which the lower has whole ... */
    expect_join(1, 2, TEXTS("first\nsecond\n~.-~", "second\nthird\nfourth"),
                "first\nsecond\nthird\nfourth");
    /* ... the lower begins in the middle of one, which the upper has whole ... */
    expect_join(1, 2, TEXTS("first\nsecond\nthird", "_,.\nthird\nfourth"),
                "first\nsecond\nthird\nfourth");
    /* ... or the line lost some letters. */
    expect_join(1, 2, TEXTS("first\nthe last li", "the last line\nnext"),
                "first\nthe last line\nnext");
    /* Equal lines that are a pattern are not eaten but for the overlap. */
    expect_join(1, 3, TEXTS("a row\nb row of it", "b row of it\nc then", "d at last"),
                "a row\nb row of it\nc then\nd at last");
    expect_join(2, 2,
                TEXTS("name and add\nof t", "nd address\nf them all", "of the", "f them all\nend"),
                "name and address\nof them all\nend");
}

static void tiles_never_split_a_character(void **state) {
    (void)state;
    expect_join(2, 1,
                TEXTS("gr\xC3\xBC\xC3\x9F"
                      "e aus K\xC3\xB6",
                      "e aus K\xC3\xB6ln"),
                "gr\xC3\xBC\xC3\x9F"
                "e aus K\xC3\xB6ln");
    /* o-umlaut and u-umlaut share their first byte. */
    expect_join(2, 1, TEXTS("xyz \xC3\xB6\xC3\xB6\xC3\xB6", "\xC3\xBC\xC3\xBC\xC3\xBC abc"),
                "xyz \xC3\xB6\xC3\xB6\xC3\xB6 \xC3\xBC\xC3\xBC\xC3\xBC abc");
    expect_join(2, 1, TEXTS("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", "\xE8\xAA\x9E\xE3\x81\xAE"),
                "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xAE");
}

/* Long and odd texts: everything stays within its arrays, and no line is lost. */
static void tiles_take_any_text(void **state) {
    (void)state;
    char *longer = calloc(1, 20001), *many = calloc(1, 20001);
    assert_non_null(longer);
    assert_non_null(many);
    memset(longer, 'a', 20000);
    for (int i = 0; i < 20000; i++)
        many[i] = i % 3 == 2 ? '\n' : (char)('a' + i % 23);
    char *got;
    pali_error err = {0};
    assert_ok(app_tiles_join(TEXTS(longer, longer, many, many), (app_tiling){.cols = 2, .rows = 2},
                             &got, &err),
              err);
    assert_true(strlen(got) > 20000);
    free(got);
    unsigned seed = 7;
    for (int round = 0; round < 300; round++) {
        for (char *t = longer; t; t = t == longer ? many : NULL) {
            size_t n = (seed = seed * 1103515245 + 12345) >> 16 & 255;
            for (size_t i = 0; i < n; i++)
                t[i] = "ab \n\xC3\xA9\xFF"[(seed = seed * 1103515245 + 12345) >> 16 & 7 % 7];
            t[n] = '\0';
        }
        assert_ok(app_tiles_join(TEXTS(longer, many),
                                 (app_tiling){.cols = 2 - round % 2, .rows = 1 + round % 2}, &got,
                                 &err),
                  err);
        assert_true(strlen(got) <= strlen(longer) + strlen(many) + 1);
        free(got);
    }
    free(longer);
    free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_read_what_is_asked),
        cmocka_unit_test(tiles_are_chosen_by_size),
        cmocka_unit_test(tiles_see_how_fine_strokes_are),
        cmocka_unit_test(tiles_cover_the_picture),
        cmocka_unit_test(tiles_join_a_line),
        cmocka_unit_test(tiles_keep_what_does_not_agree),
        cmocka_unit_test(tiles_join_lines_with_their_partners),
        cmocka_unit_test(tiles_join_below_each_other),
        cmocka_unit_test(tiles_never_split_a_character),
        cmocka_unit_test(tiles_take_any_text),
    };
    return cmocka_run_group_tests_name("tiles", tests, NULL, NULL);
}
