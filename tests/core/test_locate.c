/* test_locate.c - answers, whole, partial and broken, to boxes and mask codes. */
#include "tests/test.h"

#include "core/locate.h"

#include <time.h>

#define SEGS15                                                                                     \
    "<seg000><seg001><seg002><seg003><seg004><seg005><seg006><seg007>"                             \
    "<seg008><seg009><seg010><seg011><seg012><seg013><seg127>"
#define BOX "<loc0256><loc0128><loc0512><loc1023>"

static pali_object *find_in(const char *text, size_t n, size_t *count) {
    pali_error err = {0};
    pali_object *o;
    assert_ok(pali_locate(text, n, 640, 480, &o, count, &err), err);
    assert_true((*count == 0) == (o == NULL));
    return o;
}

/* The only object in text. Caller frees. */
static pali_object *only(const char *text) {
    size_t count;
    pali_object *o = find_in(text, strlen(text), &count);
    if (count != 1)
        fail_msg("%s: %zu objects, expected one", text, count);
    return o;
}

static void assert_count(const char *text, size_t want) {
    size_t count;
    free(find_in(text, strlen(text), &count));
    if (count != want)
        fail_msg("%s: %zu objects, expected %zu", text, count, want);
}

static void locate_reads_one_detection(void **state) {
    (void)state;
    pali_object *o = only("<loc0051><loc0309><loc0708><loc0646> shoe");
    int loc[4] = {51, 309, 708, 646};
    /* Exact: 1024ths times small sides fit a float. A bug (1023, swapped) is >= 0.2 off. */
    float box[4] = {309 / 1024.f * 640, 51 / 1024.f * 480, 646 / 1024.f * 640, 708 / 1024.f * 480};
    assert_memory_equal(o->loc, loc, sizeof loc);
    assert_memory_equal(o->box, box, sizeof box);
    assert_false(o->has_mask);
    assert_string_equal(o->label, "shoe");
    assert_int_equal(o->from, 0);
    assert_int_equal(o->to, 41);
    free(o);
}

static void locate_reads_items_joined_by_semicolons(void **state) {
    (void)state;
    const char *text = BOX " red car ; " BOX "tree;" BOX " ; " BOX " a > b";
    const char *labels[] = {"red car", "tree", "", "a"};
    size_t count;
    pali_object *o = find_in(text, strlen(text), &count);
    assert_int_equal(count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(o[i].label, labels[i]);
    assert_int_equal(o[0].to, strlen(BOX " red car"));
    assert_int_equal(o[1].from, strlen(BOX " red car ; "));
    assert_int_equal(o[2].to - o[2].from, strlen(BOX));
    free(o);
}

static void locate_reads_a_mask(void **state) {
    (void)state;
    const char *texts[] = {BOX SEGS15 "<seg014> cat", BOX " " SEGS15 "<seg014>cat",
                           BOX SEGS15 "<seg014><seg015> cat"};
    for (int t = 0; t < 3; t++) {
        pali_object *o = only(texts[t]);
        assert_true(o->has_mask);
        for (int i = 0; i < 16; i++)
            assert_int_equal(o->codes[i], i < 14 ? i : i == 14 ? 127 : 14);
        assert_string_equal(o->label, "cat");
        assert_int_equal(o->to, strlen(texts[t]));
        free(o);
    }
}

static void locate_takes_fewer_segs_as_no_mask(void **state) {
    (void)state;
    pali_object *o = only(BOX SEGS15 " cat");
    assert_false(o->has_mask);
    assert_string_equal(o->label, "cat");
    free(o);
    o = only(BOX SEGS15 "<seg128> cat"); /* 128 is no code */
    assert_false(o->has_mask);
    assert_string_equal(o->label, "");
    free(o);
}

static void locate_counts_an_item_from_its_fourth_loc_on(void **state) {
    (void)state;
    const char *text = "say " BOX SEGS15 "<seg014> cat ; " BOX " dog";
    size_t n = strlen(text), fourth = strlen("say " BOX);
    size_t again = fourth + strlen(SEGS15 "<seg014> cat ; " BOX);
    for (size_t i = 0; i <= n; i++) {
        size_t count, want = (i >= fourth) + (i >= again);
        pali_object *o = find_in(text, i, &count);
        assert_int_equal(count, want);
        if (count) {
            assert_int_equal(o[0].from, 4);
            assert_true(o[0].to <= i);
            assert_int_equal(o[0].has_mask, i >= fourth + strlen(SEGS15 "<seg014>"));
        }
        free(o);
    }
}

static void locate_skips_what_is_no_item(void **state) {
    (void)state;
    assert_count("", 0);
    assert_count("a cat on a mat", 0);
    assert_count("<loc0001><loc0002><loc0003> three", 0);
    assert_count("<loc0001> <loc0002><loc0300><loc0400> spaced", 0);
    assert_count("<loc0001><loc0002><loc9999><loc0400> big", 0);
    assert_count("<loc0001><loc0002><loc1024><loc0400> big", 0);
    assert_count("<loc001><loc002><loc0300><loc0400> short", 0);
    assert_count("<loc-001><loc0002><loc0300><loc0400> minus", 0);
    assert_count("<loc0300><loc0002><loc0001><loc0400> upside down", 0);
    assert_count("<loc0001><loc0400><loc0300><loc0002> mirrored", 0);
    assert_count("<loc0001><loc0002><loc0001><loc0400> flat", 0);
    assert_count("<seg000>" BOX, 1);
    assert_count("<loc" BOX, 1);
    assert_count("<loc0001><loc" BOX, 1);
    assert_count("<loc0001><loc0002><loc0003>x" BOX, 1);
    assert_count("<loc1024>" BOX, 1);
}

static void locate_takes_the_first_four_of_a_run(void **state) {
    (void)state;
    pali_object *o = only(BOX "<loc1000> x"); /* five */
    assert_int_equal(o->loc[3], 1023);
    assert_string_equal(o->label, "");
    free(o);
    /* The first four are used up even when they are no box. */
    assert_count("<loc0500><loc0000><loc0100><loc0300><loc0900> x", 0);
    assert_count(BOX BOX, 2);
    assert_count("<loc0500><loc0000><loc0100><loc0300>" BOX, 1);
}

static void locate_keeps_labels_clean(void **state) {
    (void)state;
    pali_object *o = only(BOX "\x1b \x01 caf\xC3\xA9\n\x1b[31m\xC2\x9B\t\xFF \x7F");
    assert_string_equal(o->label, "caf\xC3\xA9  [31m  \xEF\xBF\xBD");
    free(o);
    /* 126 bytes, then a character of three: it does not fit, nor does half of it. */
    char text[512] = BOX;
    memset(text + strlen(text), 'x', 126);
    strcat(text, "\xE7\x94\x9Fyz");
    o = only(text);
    assert_int_equal(strlen(o->label), 126);
    assert_int_equal(o->to, strlen(text));
    free(o);
    memset(text + strlen(BOX), 'x', 128);
    o = only(text);
    assert_int_equal(strlen(o->label), 127);
    free(o);
}

static void locate_wants_an_image(void **state) {
    (void)state;
    pali_error err = {0};
    pali_object *o;
    size_t count;
    assert_int_equal(pali_locate(BOX, strlen(BOX), 0, 5, &o, &count, &err), PALI_EARG);
    assert_null(o);
    assert_string_equal(err.what, "an image of 0 x 5 pixels has no boxes");
}

/* A quadratic reader would need minutes for what takes milliseconds. */
static void locate_is_linear(void **state) {
    (void)state;
    const char *parts[] = {"<",        "<loc0001>", "<loc0001><loc0002><loc0003>",
                           "<loc000",  BOX,         BOX "<seg001>",
                           BOX "  \n", "<seg000>",  "x"};
    size_t size = 4u << 20;
    char *text = malloc(size);
    assert_non_null(text);
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        size_t n = strlen(parts[p]), count;
        for (size_t i = 0; i < size; i++)
            text[i] = parts[p][i % n];
        /* Seen: 0.03, and 0.3 under the sanitizers. A guest's clock goes on while its host
         * computes for others: the best of three. */
        double seconds = 1e9;
        for (int i = 0; i < 3 && seconds > 3; i++) {
            clock_t start = clock();
            free(find_in(text, size, &count));
            double s = (double)(clock() - start) / CLOCKS_PER_SEC;
            seconds = s < seconds ? s : seconds;
        }
        if (seconds > 3)
            fail_msg("%s: %.1f s for 4 MiB", parts[p], seconds);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locate_reads_one_detection),
        cmocka_unit_test(locate_reads_items_joined_by_semicolons),
        cmocka_unit_test(locate_reads_a_mask),
        cmocka_unit_test(locate_takes_fewer_segs_as_no_mask),
        cmocka_unit_test(locate_counts_an_item_from_its_fourth_loc_on),
        cmocka_unit_test(locate_skips_what_is_no_item),
        cmocka_unit_test(locate_takes_the_first_four_of_a_run),
        cmocka_unit_test(locate_keeps_labels_clean),
        cmocka_unit_test(locate_wants_an_image),
        cmocka_unit_test(locate_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
