/* test_detokenizer.c - streaming bytes into whole characters. */
#include "tests/test.h"

#include "core/tokenizer.h"

#include <stdbool.h>

/* Feeds in pieces of size step; the result is NUL-terminated, caller frees. */
static char *run(const char *bytes, size_t n, size_t step) {
    pali_detokenizer d = {0};
    char *out = malloc(3 * n + PALI_DETOKENIZER_ROOM + 1);
    assert_non_null(out);
    size_t used = 0;
    for (size_t i = 0; i < n; i += step) {
        size_t part = n - i < step ? n - i : step;
        used += pali_detokenizer_feed(&d, bytes + i, part, out + used);
        assert_true(d.ntail >= 0 && d.ntail <= 3);
    }
    used += pali_detokenizer_finish(&d, out + used);
    assert_int_equal(d.ntail, 0);
    out[used] = 0;
    return out;
}

static void assert_text(const char *bytes, const char *want) {
    for (size_t step = 1; step <= 5; step++) {
        char *got = run(bytes, strlen(bytes), step);
        assert_string_equal(got, want);
        free(got);
    }
}

#define BAD "\xEF\xBF\xBD"

static void detokenizer_keeps_valid_text(void **state) {
    (void)state;
    const char *texts[] = {"", "plain\n\ttext", "caf\xC3\xA9 \xE7\x94\x9F \xF0\x9F\x98\x80",
                           "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF",
                           "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_text(texts[i], texts[i]);
}

static void detokenizer_marks_each_byte_of_no_character(void **state) {
    (void)state;
    assert_text("a\x80z", "a" BAD "z");
    assert_text("\xFF\xFE", BAD BAD);
    assert_text("\xC0\x80", BAD BAD);                 /* overlong */
    assert_text("\xE0\x80\x80", BAD BAD BAD);         /* overlong */
    assert_text("\xED\xA0\x80", BAD BAD BAD);         /* surrogate */
    assert_text("\xF4\x90\x80\x80", BAD BAD BAD BAD); /* above U+10FFFF */
    assert_text("\xE7\x94z", BAD BAD "z");            /* broken off by a letter */
    assert_text("\xE7\x94\xC3\xA9", BAD BAD "\xC3\xA9");
    assert_text("\xF0\x9F\xF0\x9F\x98\x80", BAD BAD "\xF0\x9F\x98\x80");
}

static void detokenizer_marks_an_unfinished_end_once(void **state) {
    (void)state;
    assert_text("a\xC3", "a" BAD);
    assert_text("a\xF0\x9F\x98", "a" BAD);
}

static void detokenizer_holds_back_half_a_character(void **state) {
    (void)state;
    pali_detokenizer d = {0};
    char out[3 * 4 + PALI_DETOKENIZER_ROOM];
    assert_int_equal(pali_detokenizer_feed(&d, "x\xF0\x9F", 3, out), 1);
    assert_int_equal(pali_detokenizer_feed(&d, "\x98", 1, out), 0);
    assert_int_equal(pali_detokenizer_feed(&d, "\x80y", 2, out), 5);
    assert_memory_equal(out, "\xF0\x9F\x98\x80y", 5);
    assert_int_equal(pali_detokenizer_finish(&d, out), 0);
}

static void detokenizer_does_not_care_how_bytes_are_cut(void **state) {
    (void)state;
    uint32_t s = 1;
    char bytes[300];
    for (int trial = 0; trial < 500; trial++) {
        /* Bytes that often begin or go on with something, rarely finish it. */
        static const unsigned char likely[] = {0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xAC, 0xF0, 0x9F,
                                               0x98, 0xED, 0xA0, 0xF4, 0x90, 'a',  0xFF, 0xE0};
        for (size_t i = 0; i < sizeof bytes; i++) {
            s = s * 1664525u + 1013904223u;
            bytes[i] = (char)likely[s >> 28];
        }
        char *whole = run(bytes, sizeof bytes, sizeof bytes);
        for (size_t step = 1; step < 8; step++) {
            char *cut = run(bytes, sizeof bytes, step);
            assert_string_equal(cut, whole);
            free(cut);
        }
        /* And what comes out is valid: it goes through unchanged. */
        char *again = run(whole, strlen(whole), 1);
        assert_string_equal(again, whole);
        free(again);
        free(whole);
    }
}

static void detokenizer_decodes_what_was_encoded(void **state) {
    (void)state;
    const char *texts[] = {
        "a cat  on\n\n a   mat.", "  leading and trailing  ",
        "<loc0051><loc0309><loc0708><loc0646> shoe ; <seg000>",
        "\xE7\x94\x9F\xE6\xB4\xBB \xF0\x9F\x98\x80 caf\xC3\xA9 <bos> <table> 3.14",
        "\t\x01 control"};
    const char *models[] = {"inside", "added"};
    for (int m = 0; m < 2; m++) {
        char path[128];
        pali_error err = {0};
        pali_tokenizer *tok;
        snprintf(path, sizeof path, TEST_DATA "tokenizer/%s.model", models[m]);
        assert_ok(pali_tokenizer_open(path, &tok, &err), err);
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
            int32_t *ids;
            size_t count, used = 0;
            assert_ok(pali_tokenizer_encode(tok, texts[t], strlen(texts[t]), &ids, &count, &err),
                      err);
            char out[512];
            pali_detokenizer d = {0};
            for (size_t i = 0; i < count; i++) {
                size_t n;
                const char *bytes = pali_tokenizer_peek(tok, ids[i], &n);
                assert_true(used + 3 * n + PALI_DETOKENIZER_ROOM < sizeof out);
                used += pali_detokenizer_feed(&d, bytes, n, out + used);
            }
            used += pali_detokenizer_finish(&d, out + used);
            out[used] = 0;
            assert_string_equal(out, texts[t]);
            free(ids);
        }
        pali_tokenizer_close(tok);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detokenizer_keeps_valid_text),
        cmocka_unit_test(detokenizer_marks_each_byte_of_no_character),
        cmocka_unit_test(detokenizer_marks_an_unfinished_end_once),
        cmocka_unit_test(detokenizer_holds_back_half_a_character),
        cmocka_unit_test(detokenizer_does_not_care_how_bytes_are_cut),
        cmocka_unit_test(detokenizer_decodes_what_was_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
