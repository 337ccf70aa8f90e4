/* test_text.c - the sanitiser of ui/text: what it lets through, what it shows
 * instead, that cutting the bytes anywhere changes nothing, and widths.          */
#include "ui/text.h"
#include "tests/test.h"

#include <locale.h>

/* All of s by rule, malloc'ed, NUL at the end; fed `step` bytes at a time. */
static char *clean_n(ui_text_rule rule, const char *s, size_t n, size_t step, size_t *len) {
    ui_text t = {.rule = rule};
    char *out = malloc(UI_TEXT_ROOM(n) + 4);
    assert_non_null(out);
    size_t w = 0;
    for (size_t i = 0; i < n; i += step)
        w += ui_text_feed(&t, s + i, n - i < step ? n - i : step, out + w);
    w += ui_text_finish(&t, out + w);
    assert_true(w <= UI_TEXT_ROOM(n));
    out[w] = '\0';
    *len = w;
    return out;
}

static void expect(ui_text_rule rule, const char *in, const char *want) {
    size_t len;
    char *got = clean_n(rule, in, strlen(in), strlen(in) + 1, &len);
    assert_string_equal(got, want);
    free(got);
}

#define BAD "\xEF\xBF\xBD" /* U+FFFD */

static void text_keeps_ordinary_text(void **state) {
    (void)state;
    const char *plain[] = {
        "",
        "a red circle\nand\ta blue square",
        "Zo\xC3\xAB, \xE4\xB8\xAD\xE6\x96\x87, \xD0\xB4\xD0\xB0, \xF0\x9F\x98\x80",
        "\xD9\x86\xD9\x85\xDB\x8C\xE2\x80\x8C\xD8\xAE\xD9\x88\xD8\xA7\xD9\x87\xD9\x85", /* ZWNJ */
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB \xE2\x9D\xA4\xEF\xB8\x8F", /* ZWJ, FE0F */
        "e\xCC\x81",
        "<loc0001><loc0002><loc0500><loc1023> car",
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        for (ui_text_rule r = UI_TEXT_VALID; r <= UI_TEXT_TERMINAL; r++)
            expect(r, plain[i], plain[i]);
}

static void text_shows_controls(void **state) {
    (void)state;
    const char *in = "\x1B[2J\x1B]52;c;AA\x07 \x7F\r\n\t\xC2\x9B"
                     "31m";
    expect(UI_TEXT_VALID, in, in);
    expect(UI_TEXT_PIPE, in, "^[[2J^[]52;c;AA^G ^?^M\n\t" BAD "31m");
    expect(UI_TEXT_TERMINAL, in, "^[[2J^[]52;c;AA^G ^?^M\n\t" BAD "31m");
    expect(UI_TEXT_LINE, in, "^[[2J^[]52;c;AA^G ^?^M^J^I" BAD "31m");
    size_t len;
    char *nul = clean_n(UI_TEXT_TERMINAL, "a\0b", 3, 3, &len);
    assert_string_equal(nul, "a^@b");
    free(nul);
}

static void text_replaces_what_deceives(void **state) {
    (void)state;
    const char *bad[] = {
        "\xE2\x80\xAE", "\xE2\x81\xA6", "\xE2\x80\x8E",     "\xD8\x9C",     "\xE2\x80\xA8",
        "\xEF\xBB\xBF", "\xE2\x80\x8B", "\xC2\xAD",         "\xE2\x81\xA0", "\xF3\xA0\x81\x81",
        "\xEF\xBF\xBE", "\xEF\xB7\x90", "\xF4\x8F\xBF\xBF",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect(UI_TEXT_PIPE, bad[i], bad[i]);
        expect(UI_TEXT_TERMINAL, bad[i], BAD);
    }
    /* Unassigned: a terminal and wcwidth would disagree about its width. */
    expect(UI_TEXT_TERMINAL, "\xF0\x9F\xBF\xBA", BAD);
}

static void text_limits_marks(void **state) {
    (void)state;
    char in[64] = "e", want[64] = "e";
    for (int i = 0; i < 9; i++) {
        strcat(in, "\xCC\x81");
        if (i < 4)
            strcat(want, "\xCC\x81");
    }
    strcat(in, "f\xCC\x81");
    strcat(want, "f\xCC\x81");
    expect(UI_TEXT_TERMINAL, in, want);
    expect(UI_TEXT_PIPE, in, in);
}

/* Unicode 3.9, table 3-8 and the classic traps: one U+FFFD per maximal subpart. */
static void text_replaces_bad_bytes(void **state) {
    (void)state;
    expect(UI_TEXT_VALID,
           "\xF1\x80\x80\xE1\x80\xC2"
           "b\x80"
           "c\x80\xBF"
           "d",
           BAD BAD BAD "b" BAD "c" BAD BAD "d");
    expect(UI_TEXT_VALID,
           "\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
           "A",
           BAD BAD BAD BAD BAD BAD BAD BAD "A"); /* overlong */
    expect(UI_TEXT_VALID,
           "\xED\xA0\x80\xED\xBF\xBF"
           "A",
           BAD BAD BAD BAD BAD BAD "A"); /* surrogates */
    expect(UI_TEXT_VALID,
           "\xF4\x91\x92\x93\xFF\xF5"
           "A",
           BAD BAD BAD BAD BAD BAD "A");
    expect(UI_TEXT_VALID, "\xF4\x8F\xBF\xBF\xED\x9F\xBF", "\xF4\x8F\xBF\xBF\xED\x9F\xBF");
    expect(UI_TEXT_VALID, "ab\xE4\xB8", "ab" BAD); /* cut at the end */
    expect(UI_TEXT_TERMINAL, "\xE4\xB8\x1B[m", BAD "^[[m");
}

static uint32_t random_next(uint32_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 17;
    return *s ^= *s << 5;
}

static void text_is_the_same_however_it_is_cut(void **state) {
    (void)state;
    static const char *parts[] = {
        "a",
        " ",
        "\n",
        "\x1B",
        "\xC2",
        "\x9B",
        "\xE2\x80",
        "\xAE",
        "\xF0\x9F\x98",
        "\x80",
        "\xCC\x81",
        "\xE4\xB8\xAD",
        "\xF4",
        "\x90\x80",
        "\xED\xA0\x80",
        "\xF0\x9F\x98\x80",
        "\xFF",
        "\xE2\x80\x8D",
    };
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        char in[128] = "";
        size_t n = 0;
        for (uint32_t k = random_next(&seed) % 20; k; k--) {
            const char *p = parts[random_next(&seed) % (sizeof parts / sizeof *parts)];
            memcpy(in + n, p, strlen(p));
            n += strlen(p);
        }
        ui_text_rule rule = (ui_text_rule)(random_next(&seed) % 4);
        size_t whole_n, n2;
        char *whole = clean_n(rule, in, n, n + 1, &whole_n);
        for (size_t step = 1; step < 6; step++) {
            char *cut = clean_n(rule, in, n, step, &n2);
            assert_int_equal(n2, whole_n);
            assert_memory_equal(cut, whole, n2);
            free(cut);
        }
        /* A cleaned text is clean: doing it again changes nothing. */
        char *again = clean_n(rule, whole, whole_n, whole_n + 1, &n2);
        assert_int_equal(n2, whole_n);
        assert_memory_equal(again, whole, n2);
        free(again);
        free(whole);
    }
}

static void text_clean_cuts_at_a_character(void **state) {
    (void)state;
    char out[8];
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "abcdefg", out, sizeof out), "abcdefg");
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "abcdefgh", out, sizeof out), "abcdefg");
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "abcde\xE4\xB8\xAD", out, sizeof out), "abcde");
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "abcdef\n", out, sizeof out), "abcdef");
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "ab\xE4\xB8", out, sizeof out), "ab" BAD);
    assert_string_equal(ui_text_clean(UI_TEXT_LINE, "ab", out, 1), "");
}

static void text_width_counts_columns(void **state) {
    (void)state;
    const struct {
        const char *s;
        size_t columns;
    } cases[] = {
        {"", 0},           {"abc", 3},
        {"Zo\xC3\xAB", 3}, {"\xE4\xB8\xAD\xE6\x96\x87!", 5},
        {"e\xCC\x81", 1},  {"\xF0\x9F\x98\x80", 2},
        {BAD, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(ui_text_width(cases[i].s, strlen(cases[i].s)), cases[i].columns);
}

static void text_is_safe_without_a_utf8_locale(void **state) {
    (void)state;
    assert_non_null(setlocale(LC_CTYPE, "C"));
    expect(UI_TEXT_TERMINAL, "\xE4\xB8\xAD\x1B[m\xE2\x80\xAE", "\xE4\xB8\xAD^[[m" BAD);
    assert_int_equal(ui_text_width("\xC3\xAB!", 3), 2);
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
}

int main(void) {
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_keeps_ordinary_text),
        cmocka_unit_test(text_shows_controls),
        cmocka_unit_test(text_replaces_what_deceives),
        cmocka_unit_test(text_limits_marks),
        cmocka_unit_test(text_replaces_bad_bytes),
        cmocka_unit_test(text_is_the_same_however_it_is_cut),
        cmocka_unit_test(text_clean_cuts_at_a_character),
        cmocka_unit_test(text_width_counts_columns),
        cmocka_unit_test(text_is_safe_without_a_utf8_locale),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
