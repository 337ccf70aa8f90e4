/* test_keys.c - bytes of a terminal into events: every sequence known, cut anywhere; the
 * clock; pastes; replies; and that no bytes whatever make the parser deaf.              */
#include "ui/keys.h"
#include "tests/test.h"

#include <stdbool.h>

enum {
    LATER = 60000 /* ms: whatever is held must have come out by then */
};

static ui_keys *keys_open(void) {
    ui_keys *k = ui_keys_open();
    assert_non_null(k);
    return k;
}

/* Writes an event as a word and its text. */
static void note(FILE *f, const ui_event *e) {
    switch (e->type) {
    case UI_EV_BYTES:
        fprintf(f, "B%d", e->key);
        break;
    case UI_EV_KEY:
        fprintf(f, "K%d ", e->key);
        return;
    case UI_EV_MOUSE:
        fprintf(f, "M%d,%d,%d,%d ", e->mouse.what, e->mouse.button, e->mouse.y, e->mouse.x);
        return;
    case UI_EV_PASTE:
        fprintf(f, "P%zu", e->n);
        break;
    case UI_EV_REPLY:
        fprintf(f, "R");
        break;
    case UI_EV_FOCUS:
        fprintf(f, "F%d ", e->key);
        return;
    }
    fputc(':', f);
    fwrite(e->text, 1, e->n, f);
    fputc(' ', f);
}

static void drain(ui_keys *k, FILE *f, long now) {
    ui_event e;
    while (ui_keys_next(k, now, &e))
        note(f, &e);
}

/* Lets the clock run as poll() would, until nothing is held. Fails when it never ends. */
static long settle(ui_keys *k, FILE *f, long now) {
    for (int i = 0; i < 20000; i++) {
        drain(k, f, now);
        int wait = ui_keys_wait(k, now);
        if (wait < 0)
            return now;
        now += wait;
    }
    fail_msg("the parser never comes to rest");
    return now;
}

/* All events of s, fed `step` bytes at a time, 1 ms apart. Free it. */
static char *events(const char *s, size_t n, size_t step, bool vi) {
    char *out = NULL;
    size_t size;
    FILE *f = open_memstream(&out, &size);
    assert_non_null(f);
    ui_keys *k = keys_open();
    ui_keys_vi(k, vi);
    long now = 1000;
    for (size_t i = 0; i < n; i += step, now++) {
        assert_int_equal(ui_keys_feed(k, s + i, n - i < step ? n - i : step, now), 0);
        drain(k, f, now);
    }
    settle(k, f, now);
    ui_keys_close(k);
    fclose(f);
    return out;
}

static void expect_n(const char *s, size_t n, const char *want) {
    for (size_t step = 1; step <= n; step = step < 4 ? step + 1 : n > step ? n : n + 1) {
        char *got = events(s, n, step, false);
        if (strcmp(got, want))
            fail_msg("%zu bytes at a time: \"%s\" instead of \"%s\"", step, got, want);
        free(got);
    }
}

static void expect(const char *s, const char *want) {
    expect_n(s, strlen(s), want);
}

/* --- sequences ------------------------------------------------------------------------- */

static void expect_key(const char *s, int key) {
    char want[16];
    snprintf(want, sizeof want, "K%d ", key);
    expect(s, want);
}

/* Goes to readline as it is; key is what it means to the picture. */
static void expect_bytes(const char *s, int key) {
    char want[64];
    snprintf(want, sizeof want, "B%d:%s ", key, s);
    expect(s, want);
}

static void keys_ours(void **state) {
    (void)state;
    static const struct {
        const char *s;
        int key;
    } all[] = {
        {"\003", UI_KEY_CTRL_C},        {"\014", UI_KEY_CTRL_L},
        {"\032", UI_KEY_CTRL_Z},        {"\033", UI_KEY_ESC},
        {"\033[5~", UI_KEY_PAGE_UP},    {"\033[6~", UI_KEY_PAGE_DOWN},
        {"\033[5;2~", UI_KEY_PAGE_UP},  {"\033[1;5H", UI_KEY_CTRL_HOME},
        {"\033[1;5F", UI_KEY_CTRL_END}, {"\033[Z", UI_KEY_SHIFT_TAB},
        {"\033OP", UI_KEY_F1},          {"\033OQ", UI_KEY_F2},
        {"\033OR", UI_KEY_F3},          {"\033OS", UI_KEY_F4},
        {"\033[P", UI_KEY_F1},          {"\033[1;2P", UI_KEY_F1},
        {"\033[Q", UI_KEY_F2},          {"\033[S", UI_KEY_F4},
        {"\033[11~", UI_KEY_F1},        {"\033[12~", UI_KEY_F2},
        {"\033[13~", UI_KEY_F3},        {"\033[14~", UI_KEY_F4},
        {"\033[15~", UI_KEY_F5},        {"\033[17~", UI_KEY_F6},
        {"\033[[A", UI_KEY_F1},         {"\033[[E", UI_KEY_F5},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        expect_key(all[i].s, all[i].key);
}

static void keys_for_readline(void **state) {
    (void)state;
    static const struct {
        const char *s;
        int key;
    } all[] = {
        {"a", 0},
        {"\t", 0},
        {"\r", 0},
        {"\n", 0},
        {"\004", 0},
        {"\177", 0},
        {"\xC3\xA9", 0},
        {"\xE4\xB8\xAD", 0},
        {"\xF0\x9F\x98\x80", 0},
        {"\033b", 0},
        {"\033\r", 0},
        {"\033\177", 0},
        {"\033[A", UI_KEY_UP},
        {"\033[B", UI_KEY_DOWN},
        {"\033[C", UI_KEY_RIGHT},
        {"\033[D", UI_KEY_LEFT},
        {"\033OA", UI_KEY_UP},
        {"\033OD", UI_KEY_LEFT},
        {"\033[1;5C", UI_KEY_RIGHT},
        {"\033[H", 0},
        {"\033[F", 0},
        {"\033OH", 0},
        {"\033OF", 0},
        {"\033[1~", 0},
        {"\033[3~", 0},
        {"\033[4~", 0},
        {"\033[7~", 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        expect_bytes(all[i].s, all[i].key);
    expect("\033[13;2u", "B0:\n ");
    expect("\033[27;2;13~", "B0:\n ");
    expect_n("\0", 1, "B0:"); /* NUL is Ctrl-Space; it ends this string */
}

static void keys_mouse(void **state) {
    (void)state;
    expect("\033[<0;5;9M", "M0,1,8,4 ");
    expect("\033[<0;5;9m", "M1,1,8,4 ");
    expect("\033[<2;1;1M", "M0,3,0,0 ");
    expect("\033[<32;300;200M", "M2,1,199,299 ");
    expect("\033[<35;3;4M", "M2,0,3,2 ");
    expect("\033[<64;3;4M", "M3,0,3,2 ");
    expect("\033[<65;3;4M", "M4,0,3,2 ");
    expect("\033[<66;3;4Mx", "B0:x "); /* sideways */
    expect("\033[<0;0;0Mx", "B0:x ");  /* nowhere */
    expect("\033[<0;99999999999999999999;1Mx", "M0,1,0,999998 B0:x ");
    expect("\033[I\033[O", "F1 F0 ");
}

static void keys_unknown_sequences_are_dropped(void **state) {
    (void)state;
    expect("\033[99~x", "B0:x ");
    expect("\033[1;2;3;4;5Wx", "B0:x ");
    expect("\033[97;5ux", "B0:x ");
    expect("\033Oxy", "B0:y ");
    expect("\033[[Zx", "B0:x ");
}

/* What cuts a sequence short is a key of its own. */
static void keys_broken_sequences_spare_what_follows(void **state) {
    (void)state;
    expect("\033[1;\003", "K2 ");
    expect("\033[\033[5~", "K5 ");
    expect("\033[[\033[5~", "K5 ");
    expect("\033[[\003", "K2 ");
    expect("\033O\033[5~", "K5 ");
    expect("\033O\003", "K2 ");
    expect("\033]11;rgb:\003x", "K2 B0:x ");
    expect("\033]11;rgb:\rx", "B0:\r B0:x ");
    expect("\033P>|foot\033[5~", "K5 ");
    expect("\033[1\xC3\xA9", "B0:\xC3\xA9 ");
    expect("\033\xC3\xA9", "B0:\xC3\xA9 "); /* Alt-e-acute */
    char many[200] = "\033[";
    memset(many + 2, '1', 100);
    strcpy(many + 102, "x");
    char *got = events(many, strlen(many), strlen(many), false);
    assert_non_null(strstr(got, "B0:x "));
    free(got);
}

static void keys_drop_invalid_utf8(void **state) {
    (void)state;
    expect("\xff\xfe\xc3(ok", "B0:( B0:o B0:k ");
    expect("\xF4\x90\x80\x80x", "B0:x ");
    expect("\xED\xA0\x80x", "B0:x ");
    expect("\xC0\x80x", "B0:x ");
    expect("\xE4\xB8", ""); /* waits for its third byte */
    expect("\xE4\xB8\033[5~", "K5 ");
}

/* --- the clock --------------------------------------------------------------------------- */

static void keys_hold_escape(void **state) {
    (void)state;
    ui_keys *k = keys_open();
    ui_event e;
    assert_int_equal(ui_keys_wait(k, 0), -1);
    ui_keys_feed(k, "\033", 1, 1000);
    assert_false(ui_keys_next(k, 1000, &e));
    assert_int_equal(ui_keys_wait(k, 1000), UI_KEYS_ESC_MS);
    assert_int_equal(ui_keys_wait(k, 1020), UI_KEYS_ESC_MS - 20);
    assert_false(ui_keys_next(k, 1000 + UI_KEYS_ESC_MS - 1, &e));
    assert_int_equal(ui_keys_wait(k, 5000), 0);
    assert_true(ui_keys_next(k, 1000 + UI_KEYS_ESC_MS, &e));
    assert_int_equal(e.type, UI_EV_KEY);
    assert_int_equal(e.key, UI_KEY_ESC);
    assert_int_equal(ui_keys_wait(k, 5000), -1);

    /* In time: Alt-b. */
    ui_keys_feed(k, "\033", 1, 6000);
    assert_false(ui_keys_next(k, 6000, &e));
    ui_keys_feed(k, "b", 1, 6030);
    assert_true(ui_keys_next(k, 6030, &e));
    assert_int_equal(e.type, UI_EV_BYTES);
    assert_int_equal(e.n, 2);

    /* Two presses are two keys, the first at once. */
    ui_keys_feed(k, "\033\033", 2, 7000);
    assert_true(ui_keys_next(k, 7000, &e));
    assert_int_equal(e.key, UI_KEY_ESC);
    assert_false(ui_keys_next(k, 7000, &e));
    assert_true(ui_keys_next(k, 7050, &e));
    assert_int_equal(e.key, UI_KEY_ESC);

    /* Alt-[ typed by hand comes out, and a slow line may take its time. */
    ui_keys_feed(k, "\033[", 2, 8000);
    assert_false(ui_keys_next(k, 8010, &e));
    assert_true(ui_keys_next(k, 8050, &e));
    assert_int_equal(e.type, UI_EV_BYTES);
    ui_keys_feed(k, "\033[5", 3, 9000);
    assert_false(ui_keys_next(k, 9300, &e));
    ui_keys_feed(k, "~", 1, 9300);
    assert_true(ui_keys_next(k, 9300, &e));
    assert_int_equal(e.key, UI_KEY_PAGE_UP);
    ui_keys_close(k);
}

static void keys_vi_gets_its_escape(void **state) {
    (void)state;
    char *got = events("\033", 1, 1, true);
    assert_string_equal(got, "B1:\033 ");
    free(got);
    got = events("\033[A", 3, 1, true);
    char want[32];
    snprintf(want, sizeof want, "B%d:\033[A ", UI_KEY_UP);
    assert_string_equal(got, want);
    free(got);
}

/* --- replies ------------------------------------------------------------------------------- */

static void keys_take_out_replies(void **state) {
    (void)state;
    static const char *const replies[] = {
        "\033[?62;4;22c",                 /* DA1 */
        "\033[>41;379;0c",                /* DA2 */
        "\033[12;40R",                    /* cursor */
        "\033[6;16;8t",                   /* cell size */
        "\033[?2026;2$y",                 /* DECRPM */
        "\033[?1u",                       /* kitty keyboard */
        "\033P>|XTerm(379)\033\\",        /* XTVERSION */
        "\033_Gi=31;OK\033\\",            /* kitty graphics */
        "\033]11;rgb:1111/2222/33\033\\", /* OSC 11, ended either way */
        "\033]11;rgb:1111/2222/33\007",
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        char line[256], want[256];
        snprintf(line, sizeof line, "a%sb", replies[i]);
        snprintf(want, sizeof want, "B0:a R:%s B0:b ", replies[i]);
        expect(line, want);
    }
}

/* A reply that breaks off, and one that is too long, cost what came with them and no more. */
static void keys_replies_have_limits(void **state) {
    (void)state;
    ui_event e;
    ui_keys *k = keys_open();
    ui_keys_feed(k, "\033]11;rgb:", 9, 0);
    assert_false(ui_keys_next(k, 400, &e));
    assert_false(ui_keys_next(k, 600, &e));
    ui_keys_feed(k, "x", 1, 700);
    assert_true(ui_keys_next(k, 700, &e));
    assert_memory_equal(e.text, "x", 1);
    ui_keys_close(k);

    size_t n = 300000;
    char *s = malloc(n);
    assert_non_null(s);
    memset(s, 'r', n);
    memcpy(s, "\033]11;", 5);
    memcpy(s + n - 3, "\033\\x", 3);
    for (size_t step = 1; step <= n; step = step == 1 ? 4095 : step == 4095 ? n : n + 1) {
        char *got = events(s, n, step, false);
        assert_string_equal(got, "B0:x ");
        free(got);
    }
    /* Its end never comes, the user does. */
    k = keys_open();
    ui_keys_feed(k, s, n - 3, 0);
    assert_false(ui_keys_next(k, 0, &e));
    assert_false(ui_keys_next(k, 100, &e));
    ui_keys_feed(k, "x", 1, 2000);
    assert_true(ui_keys_next(k, 2000, &e));
    assert_memory_equal(e.text, "x", 1);
    ui_keys_close(k);
    free(s);
}

/* --- pastes ---------------------------------------------------------------------------------- */

#define PASTE "\033[200~"
#define END   "\033[201~"

static void keys_paste(void **state) {
    (void)state;
    expect(PASTE "one" END "x", "P3:one B0:x ");
    expect(PASTE END, "P0: ");
    expect(PASTE "a\rb\r\nc\nd\r" END, "P8:a\nb\nc\nd\n ");
    expect(PASTE "\003\033[5~\033[201" END "x", "P10:\003\033[5~\033[201 B0:x ");
    expect(PASTE "\033\033[201~", "P1:\033 ");
    expect(PASTE "\xff\xfe" END, "P2:\xff\xfe ");
    expect(END "x", "B0:x "); /* an end without a start */
}

static void keys_huge_paste_is_cut(void **state) {
    (void)state;
    size_t n = UI_KEYS_MAX_PASTE + 300000;
    char *s = malloc(n);
    assert_non_null(s);
    for (size_t i = 0; i < n; i++)
        s[i] = (char)('a' + i % 26);
    /* Terminators at every place relative to the limit and to the cut of the feed. */
    for (int end = -8; end <= 8; end += 4)
        for (size_t step = 65536; step <= n; step = step == 65536 ? n : n + 1) {
            size_t len = end < 0   ? UI_KEYS_MAX_PASTE + (size_t)(8 + end)
                         : end > 0 ? n - (size_t)end
                                   : 1000;
            ui_keys *k = keys_open();
            ui_event e;
            ui_keys_feed(k, PASTE, 6, 0);
            for (size_t i = 0; i < len; i += step) {
                ui_keys_feed(k, s + i, len - i < step ? len - i : step, 0);
                assert_false(ui_keys_next(k, 0, &e));
            }
            ui_keys_feed(k, END "x", 7, 0);
            assert_true(ui_keys_next(k, 0, &e));
            assert_int_equal(e.type, UI_EV_PASTE);
            size_t want = len < UI_KEYS_MAX_PASTE ? len : UI_KEYS_MAX_PASTE;
            assert_int_equal(e.n, want);
            assert_int_equal(memcmp(e.text, s, want), 0);
            assert_true(ui_keys_next(k, 0, &e));
            assert_memory_equal(e.text, "x", 1);
            ui_keys_close(k);
        }
    free(s);
}

/* Its end was lost on the line: what came is pasted, keys work again. */
static void keys_paste_without_end(void **state) {
    (void)state;
    ui_keys *k = keys_open();
    ui_event e;
    ui_keys_feed(k, PASTE "text", 10, 0);
    assert_false(ui_keys_next(k, 0, &e));
    assert_true(ui_keys_wait(k, 0) > 1000);
    assert_false(ui_keys_next(k, 1000, &e));
    assert_true(ui_keys_next(k, LATER, &e));
    assert_int_equal(e.type, UI_EV_PASTE);
    assert_memory_equal(e.text, "text", 4);
    assert_int_equal(ui_keys_wait(k, LATER), -1);
    ui_keys_feed(k, "\003", 1, LATER);
    assert_true(ui_keys_next(k, LATER, &e));
    assert_int_equal(e.key, UI_KEY_CTRL_C);
    ui_keys_close(k);
}

/* --- any bytes -------------------------------------------------------------------------------- */

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Random bytes, and random orders of the pieces of real sequences: never a hang, cutting
 * changes nothing, and after a pause a typed x is an x. */
static void keys_survive_anything(void **state) {
    (void)state;
    static const char *const bits[] = {"\033", "[",      "O", "]",    "P",    "_",        "200~",
                                       "201~", "<0;1;2", "M", "m",    "?",    "1;5",      "~",
                                       "\\",   "\007",   "A", "\xC3", "\xA9", "\xF0\x9F", "x",
                                       "\r",   "\003",   "u", "R",    ";",    "["};
    unsigned seed = 4711;
    for (int round = 0; round < 4000; round++) {
        char s[160];
        size_t n = 0, want = next_random(&seed) % 100;
        while (n < want) {
            if (round % 2) {
                s[n++] = (char)next_random(&seed);
                continue;
            }
            const char *b = bits[next_random(&seed) % (sizeof bits / sizeof *bits)];
            memcpy(s + n, b, strlen(b));
            n += strlen(b);
        }
        char *whole = events(s, n, n + 1, round % 3 == 0);
        for (size_t step = 1; step < 4; step += 2) {
            char *cut = events(s, n, step, round % 3 == 0);
            if (strcmp(whole, cut))
                fail_msg("round %d, %zu at a time: \"%s\" instead of \"%s\"", round, step, cut,
                         whole);
            free(cut);
        }
        free(whole);

        char *out = NULL;
        size_t size;
        FILE *f = open_memstream(&out, &size);
        ui_keys *k = keys_open();
        ui_keys_feed(k, s, n, 0);
        long now = settle(k, f, 0) + LATER;
        ui_event e;
        ui_keys_feed(k, "x", 1, now);
        assert_true(ui_keys_next(k, now, &e));
        assert_int_equal(e.type, UI_EV_BYTES);
        assert_memory_equal(e.text + e.n - 1, "x", 1);
        assert_false(ui_keys_next(k, now, &e));
        ui_keys_close(k);
        fclose(f);
        free(out);
    }
}

/* A million keys in one read are handed out one by one without moving the rest each time. */
static void keys_are_linear(void **state) {
    (void)state;
    size_t n = 1000000, got = 0;
    char *s = malloc(n);
    assert_non_null(s);
    memset(s, 'k', n);
    ui_keys *k = keys_open();
    ui_event e;
    ui_keys_feed(k, s, n, 0);
    while (ui_keys_next(k, 0, &e))
        got += e.n;
    assert_int_equal(got, n);
    ui_keys_close(k);
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_ours),
        cmocka_unit_test(keys_for_readline),
        cmocka_unit_test(keys_mouse),
        cmocka_unit_test(keys_unknown_sequences_are_dropped),
        cmocka_unit_test(keys_broken_sequences_spare_what_follows),
        cmocka_unit_test(keys_drop_invalid_utf8),
        cmocka_unit_test(keys_hold_escape),
        cmocka_unit_test(keys_vi_gets_its_escape),
        cmocka_unit_test(keys_take_out_replies),
        cmocka_unit_test(keys_replies_have_limits),
        cmocka_unit_test(keys_paste),
        cmocka_unit_test(keys_huge_paste_is_cut),
        cmocka_unit_test(keys_paste_without_end),
        cmocka_unit_test(keys_survive_anything),
        cmocka_unit_test(keys_are_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
