/* test_transcript.c - the conversation pane, read back from curses' own screen. curses writes
 * to /dev/null; cells outside the pane hold '#' and must keep it.                          */
#include "ui/transcript.h"
#include "tests/test.h"

#include <locale.h>
#include <ncurses.h>
#include <time.h>
#include <wchar.h>

enum {
    ROWS = 40,
    COLUMNS = 90,
    PANE_Y = 2,
    PANE_X = 3
};

static SCREEN *screen;
static FILE *null_in, *null_out;

static int set_up(void **state) {
    (void)state;
    null_in = fopen("/dev/null", "r");
    null_out = fopen("/dev/null", "w");
    setenv("LINES", "40", 1);
    setenv("COLUMNS", "90", 1);
    screen = newterm("xterm", null_out, null_in);
    return screen && LINES == ROWS && COLS == COLUMNS ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    endwin();
    delscreen(screen);
    fclose(null_in);
    fclose(null_out);
    return 0;
}

/* Row y of the screen as UTF-8. */
static void read_row(int y, char *out, size_t size) {
    wchar_t row[COLUMNS * 8];
    int n = mvinnwstr(y, 0, row, COLUMNS * 8 - 1);
    assert_true(n > 0);
    row[n] = 0;
    assert_true(wcstombs(out, row, size) < size);
}

/* Draws t in a pane of h x w and returns its rows, trailing blanks cut, joined by line feeds.
 * Fails when anything beside the pane was touched. Free it. */
static char *draw(ui_transcript *t, int h, int w) {
    ui_rect r = {PANE_Y, PANE_X, h, w};
    for (int y = 0; y < ROWS; y++)
        mvhline(y, 0, '#', COLUMNS);
    ui_transcript_draw(t, r);
    char *out = NULL, row[COLUMNS * 32];
    size_t size;
    FILE *f = open_memstream(&out, &size);
    for (int y = 0; y < ROWS; y++) {
        bool in_rows = y >= r.y && y < r.y + h;
        read_row(y, row, sizeof row);
        int column = 0;
        size_t start = 0, end = 0, last = 0;
        mbstate_t mb = {0};
        for (size_t at = 0; row[at];) {
            wchar_t c;
            size_t n = mbrtowc(&c, row + at, sizeof row - at, &mb);
            assert_true(n > 0 && n < 5);
            int cw = wcwidth(c);
            assert_true(cw >= 0);
            /* A mark belongs to the cell before it. */
            int cell = cw ? column : column - 1;
            if (in_rows && cell >= r.x && cell < r.x + w) {
                if (!end)
                    start = at;
                end = at + n;
                if (c != ' ')
                    last = end;
                assert_true(column + cw <= r.x + w);
            } else if (c != '#') {
                fail_msg("row %d, column %d is not the pane's: %s", y, column, row);
            }
            column += cw;
            at += n;
        }
        assert_int_equal(column, COLUMNS);
        if (in_rows) {
            fwrite(row + start, 1, last > start ? last - start : 0, f);
            fputc('\n', f);
        }
    }
    fclose(f);
    return out;
}

static void expect(ui_transcript *t, int h, int w, const char *want) {
    char *got = draw(t, h, w);
    if (strcmp(got, want)) {
        fprintf(stderr, "--- got\n%s--- want\n%s", got, want);
        fail_msg("%dx%d: another screen", w, h);
    }
    free(got);
}

static ui_transcript *open_transcript(void) {
    ui_transcript *t = ui_transcript_open();
    assert_non_null(t);
    return t;
}

static void add(ui_transcript *t, ui_from from, const char *s) {
    assert_int_equal(ui_transcript_add(t, from, s, strlen(s)), 0);
}

/* --- lines ----------------------------------------------------------------------------- */

static void transcript_wraps(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    expect(t, 2, 20, "\n\n");
    add(t, UI_FROM_YOU, "what is this");
    add(t, UI_FROM_MODEL, "a red circle on a wall");
    add(t, UI_FROM_PROGRAM, "saved");
    add(t, UI_FROM_ERROR, "no disk");
    expect(t, 9, 12, "> what is\n  this\n  a red\n  circle on\n  a wall\n\n  saved\n\n! no disk\n");
    /* The newest lines when there is no room for all; the oldest when there is too much. */
    expect(t, 2, 12, "\n! no disk\n");
    expect(t, 10, 30, "> what is this\n  a red circle on a wall\n\n  saved\n\n! no disk\n\n\n\n\n");
    ui_transcript_close(t);
}

static void transcript_wraps_wide_characters(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    add(t, UI_FROM_MODEL, "\u4e2d\u6587\u5b57\u7b26x"); /* two columns each */
    expect(t, 3, 8, "  \u4e2d\u6587\u5b57\n  \u7b26x\n\n");
    expect(t, 3, 9, "  \u4e2d\u6587\u5b57\n  \u7b26x\n\n"); /* half a cell is left over */
    expect(t, 3, 11, "  \u4e2d\u6587\u5b57\u7b26x\n\n\n");
    ui_transcript_clear(t);
    add(t, UI_FROM_MODEL, "abcde\u0301fg"); /* a mark stays with its letter */
    expect(t, 3, 7, "  abcde\u0301\n  fg\n\n");
    expect(t, 3, 6, "  abcd\n  e\u0301fg\n\n");
    ui_transcript_close(t);
}

static void transcript_keeps_line_breaks(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    add(t, UI_FROM_MODEL, "one\n\ntwo\n");
    expect(t, 5, 20, "  one\n\n  two\n\n\n");
    assert_int_equal(ui_transcript_append(t, "three", 5), 0);
    expect(t, 5, 20, "  one\n\n  two\n  three\n\n");
    ui_transcript_clear(t);
    assert_int_equal(ui_transcript_count(t), 0);
    add(t, UI_FROM_YOU, "\n");
    add(t, UI_FROM_MODEL, "");
    expect(t, 4, 20, ">\n\n\n\n");
    ui_transcript_close(t);
}

/* --- hostile text -------------------------------------------------------------------------- */

static void transcript_shows_hostile_text_harmlessly(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    static const char evil[] = "\033[2J\033]0;t\007\rA\0B\x9b\xc2\x9b"
                               "\u202egnp.exe\u2066\u200b\xff\x80";
    assert_int_equal(ui_transcript_add(t, UI_FROM_MODEL, evil, sizeof evil - 1), 0);
    expect(t, 3, 80,
           "  ^[[2J^[]0;t^G^MA^@B\ufffd\ufffd\ufffdgnp.exe\ufffd\ufffd\ufffd\ufffd\n\n\n");
    /* A tab is a blank wherever it stands: cells beside the pane stay as they are. */
    ui_transcript_clear(t);
    add(t, UI_FROM_MODEL, "\ta\tb\t\tc");
    expect(t, 2, 30, "   a b  c\n\n");
    add(t, UI_FROM_MODEL, "x\ty");
    ui_transcript_append(t, "\tz\t.", 4);
    expect(t, 3, 30, "   a b  c\n\n  x y z .\n");
    /* Marks without end do not pile up. */
    ui_transcript_clear(t);
    char many[2001] = "e";
    for (size_t i = 1; i + 2 < sizeof many; i += 2)
        memcpy(many + i, "\xCC\x81", 3);
    add(t, UI_FROM_MODEL, many);
    add(t, UI_FROM_MODEL, "next");
    expect(t, 3, 30, "  e\u0301\u0301\u0301\u0301\n\n  next\n");
    ui_transcript_close(t);
}

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Random text of everything that is hard about text. */
static size_t random_text(unsigned *seed, char *out, size_t pieces) {
    static const char *const bits[] = {
        "a",      "word ",    " ",         "longerword", "\n",     "\t",          "\u4e2d",
        "\u0301", "\u200d",   "\u202e",    "\033[31m",   "\r",     "\u00e9",      "\U0001f600",
        "\xff",   "\xe4\xb8", "<loc0012>", "-",          "\u0e33", "\u1100\u1161"};
    size_t n = 0;
    while (pieces--) {
        const char *b = bits[next_random(seed) % (sizeof bits / sizeof *bits)];
        memcpy(out + n, b, strlen(b));
        n += strlen(b);
    }
    return n;
}

/* However an answer arrives and whenever it is drawn, it looks the same in the end. */
static void transcript_streams_as_whole(void **state) {
    (void)state;
    unsigned seed = 5;
    char s[2048];
    for (int round = 0; round < 150; round++) {
        size_t n = random_text(&seed, s, next_random(&seed) % 120);
        int w = 4 + (int)(next_random(&seed) % 50), h = 1 + (int)(next_random(&seed) % 30);
        ui_transcript *whole = open_transcript(), *cut = open_transcript();
        add(whole, UI_FROM_YOU, "q");
        add(cut, UI_FROM_YOU, "q");
        ui_transcript_add(whole, UI_FROM_MODEL, s, n);
        add(cut, UI_FROM_MODEL, "");
        for (size_t i = 0; i < n; i++) {
            ui_transcript_append(cut, s + i, 1);
            if (next_random(&seed) % 4 == 0)
                free(draw(cut, h, w));
        }
        char *a = draw(whole, h, w), *b = draw(cut, h, w);
        if (strcmp(a, b)) {
            fprintf(stderr, "--- whole\n%s--- cut\n%s", a, b);
            fail_msg("round %d", round);
        }
        free(a);
        free(b);
        ui_transcript_close(whole);
        ui_transcript_close(cut);
    }
}

/* A megabyte without a break, in pieces as a model makes them, drawn as it comes. Re-wrapping
 * all of it for every frame would take 2000 * 1 MB / 2 steps: half a minute at the least. */
static void transcript_is_fast_with_one_long_line(void **state) {
    (void)state;
    for (int kind = 0, slow = 0; kind < 2; kind++) {
        ui_transcript *t = open_transcript();
        add(t, UI_FROM_MODEL, "");
        char piece[512];
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = kind && i % 7 == 0 ? ' ' : 'x';
        clock_t start = clock();
        for (int i = 0; i < 2048; i++) {
            assert_int_equal(ui_transcript_append(t, piece, sizeof piece), 0);
            ui_transcript_draw(t, (ui_rect){PANE_Y, PANE_X, 20, 50});
        }
        for (int i = 0; i < 50; i++) { /* and read from end to end */
            ui_transcript_scroll(t, i % 2 ? 1 : -700);
            ui_transcript_draw(t, (ui_rect){PANE_Y, PANE_X, 20, 50});
        }
        double s = (double)(clock() - start) / CLOCKS_PER_SEC;
        ui_transcript_close(t);
        if (s <= 8) /* seen: 0.2 s, 1 s under the sanitizers */
            continue;
        /* A guest's clock goes on while its host computes for others: not three times. */
        if (++slow == 3)
            fail_msg("%.1f s", s);
        kind--;
    }
}

/* --- scrolling --------------------------------------------------------------------------------- */

static ui_transcript *long_chat(int turns) {
    ui_transcript *t = open_transcript();
    char line[200];
    for (int i = 0; i < turns; i++) {
        snprintf(line, sizeof line, "question %d?", i);
        add(t, UI_FROM_YOU, line);
        snprintf(line, sizeof line, "answer %d goes on for a while so that it takes lines", i);
        add(t, UI_FROM_MODEL, line);
        if (i % 3 == 0)
            ui_transcript_note(t, "[stopped]");
    }
    return t;
}

static void transcript_keeps_the_view_while_text_comes(void **state) {
    (void)state;
    ui_transcript *t = long_chat(40);
    free(draw(t, 10, 30));
    ui_transcript_scroll(t, -41);
    char *before = draw(t, 10, 30), *wide = draw(t, 10, 60);
    assert_int_equal(ui_transcript_below(t) > 20, 1);
    char *row = strrchr(before, '\n'); /* a word of the bottom line stays in view */
    row[0] = 0;
    char *last = strdup(strrchr(before, '\n') + 1);
    row[0] = '\n';
    size_t below = ui_transcript_below(t);
    for (int i = 0; i < 50; i++) {
        ui_transcript_append(t, " more and more", 14);
        if (i % 10 == 0)
            add(t, UI_FROM_MODEL, "another");
    }
    expect(t, 10, 60, wide);
    assert_true(ui_transcript_below(t) > below);
    static const int widths[] = {20, 13, 85, 30};
    for (size_t i = 0; i < 4; i++) {
        char *now = draw(t, 10, widths[i]);
        char word[32];
        assert_int_equal(sscanf(last, " %31s", word), 1);
        assert_non_null(strstr(now, word));
        free(now);
    }
    expect(t, 10, 30, before);
    ui_transcript_bottom(t);
    char *end = draw(t, 10, 30);
    assert_int_equal(ui_transcript_below(t), 0);
    assert_non_null(strstr(end, "another"));
    ui_transcript_append(t, " tail", 5); /* follows again */
    char *followed = draw(t, 10, 30);
    assert_non_null(strstr(followed, "tail"));
    free(followed);
    free(end);
    free(last);
    free(before);
    free(wide);
    ui_transcript_close(t);
}

/* Line by line to the top and back: each step moves by exactly one line. */
static void transcript_scrolls_by_lines(void **state) {
    (void)state;
    ui_transcript *t = long_chat(6);
    char *all = draw(t, ROWS - PANE_Y, 40); /* fits */
    size_t lines = 0;
    assert_int_equal(ui_transcript_below(t), 0);
    const char *starts[ROWS + 1];
    for (const char *p = all; *p; p = strchr(p, '\n') + 1)
        starts[lines++] = p;
    while (lines && *starts[lines - 1] == '\n')
        lines--;
    enum {
        H = 7
    };
    for (int way = -1; way <= 1; way += 2) {
        for (size_t i = 0; i + H <= lines; i++) {
            size_t top = way < 0 ? lines - H - i : i;
            char *now = draw(t, H, 40);
            size_t n = (size_t)(starts[top + H - 1] - starts[top]);
            n += (size_t)(strchr(starts[top + H - 1], '\n') + 1 - starts[top + H - 1]);
            if (strlen(now) != n || memcmp(now, starts[top], n)) {
                fprintf(stderr, "--- got\n%s--- want\n%.*s", now, (int)n, starts[top]);
                fail_msg("step %zu, way %d", i, way);
            }
            free(now);
            if (i + H < lines)
                ui_transcript_scroll(t, way);
        }
    }
    assert_int_equal(ui_transcript_below(t), 0);
    ui_transcript_top(t);
    char *now = draw(t, H, 40);
    assert_memory_equal(now, all, 11);
    free(now);
    ui_transcript_scroll(t, 1000);
    free(draw(t, H, 40));
    assert_int_equal(ui_transcript_below(t), 0);
    ui_transcript_scroll(t, -3); /* what fits does not scroll */
    now = draw(t, ROWS - PANE_Y, 40);
    assert_string_equal(now, all);
    free(now);
    free(all);
    ui_transcript_close(t);
}

static void transcript_survives_any_order_of_calls(void **state) {
    (void)state;
    unsigned seed = 31;
    char s[2048];
    ui_transcript *t = open_transcript();
    for (int i = 0; i < 3000; i++) {
        size_t n = random_text(&seed, s, next_random(&seed) % 20);
        s[n] = 0;
        switch (next_random(&seed) % 14) {
        case 0:
        case 1:
            ui_transcript_add(t, (ui_from)(next_random(&seed) % 4), s, n);
            break;
        case 2:
        case 3:
        case 4:
            ui_transcript_append(t, s, n);
            break;
        case 5:
            ui_transcript_pretty(t, next_random(&seed) % 3 ? "\1 cat at 1,2-3,4" : NULL,
                                 strlen("\1 cat at 1,2-3,4"));
            break;
        case 6:
            ui_transcript_note(t, "[note]");
            break;
        case 7:
            ui_transcript_drop(t, next_random(&seed) % 3);
            break;
        case 8:
            ui_transcript_drop_turn(t);
            break;
        case 9:
            ui_transcript_raw(t, next_random(&seed) % 2);
            break;
        case 10:
            ui_transcript_top(t);
            break;
        case 11:
            ui_transcript_bottom(t);
            break;
        default:
            ui_transcript_scroll(t, (long)(next_random(&seed) % 40) - 20);
        }
        free(draw(t, 1 + (int)(next_random(&seed) % 30), 5 + (int)(next_random(&seed) % 60)));
        if (i % 500 == 499)
            ui_transcript_clear(t);
    }
    ui_transcript_draw(t, (ui_rect){0, 0, 0, 0});
    ui_transcript_close(t);
}

/* --- forms and turns ------------------------------------------------------------------------------ */

static void transcript_shows_pretty_or_raw(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    add(t, UI_FROM_MODEL, "<loc0001><loc0002><loc0003><loc0004> cat");
    static const char pretty[] = "\1 cat at 1,2-3,4\n\2 dog at 5,6-7,8";
    assert_int_equal(ui_transcript_pretty(t, pretty, sizeof pretty - 1), 0);
    expect(t, 3, 60, "  \u25a0 cat at 1,2-3,4\n  \u25a0 dog at 5,6-7,8\n\n");
    ui_transcript_raw(t, true);
    expect(t, 3, 60, "  <loc0001><loc0002><loc0003><loc0004> cat\n\n\n");
    ui_transcript_append(t, " ;", 2);
    expect(t, 3, 60, "  <loc0001><loc0002><loc0003><loc0004> cat ;\n\n\n");
    ui_transcript_raw(t, false);
    expect(t, 3, 60, "  \u25a0 cat at 1,2-3,4\n  \u25a0 dog at 5,6-7,8\n\n");
    ui_transcript_pretty(t, NULL, 0);
    expect(t, 3, 60, "  <loc0001><loc0002><loc0003><loc0004> cat ;\n\n\n");
    /* More marks than there is room for are squares without a colour. */
    char many[400];
    memset(many, '\3', sizeof many);
    assert_int_equal(ui_transcript_pretty(t, many, sizeof many), 0);
    char *got = draw(t, 10, 60);
    free(got);
    ui_transcript_close(t);
}

static void transcript_drops_turns(void **state) {
    (void)state;
    ui_transcript *t = open_transcript();
    add(t, UI_FROM_PROGRAM, "hello");
    ui_transcript_drop_turn(t); /* no question: nothing to drop */
    assert_int_equal(ui_transcript_count(t), 1);
    add(t, UI_FROM_YOU, "one");
    add(t, UI_FROM_MODEL, "1");
    add(t, UI_FROM_YOU, "two");
    add(t, UI_FROM_MODEL, "2");
    add(t, UI_FROM_ERROR, "oops");
    ui_transcript_drop_turn(t);
    expect(t, 5, 20, "  hello\n\n> one\n  1\n\n");
    ui_transcript_drop_turn(t);
    ui_transcript_drop_turn(t);
    expect(t, 3, 20, "  hello\n\n\n");
    ui_transcript_drop(t, 100);
    assert_int_equal(ui_transcript_count(t), 0);
    assert_int_equal(ui_transcript_append(t, "x", 1), -1);
    assert_int_equal(ui_transcript_note(t, "x"), -1);
    ui_transcript_close(t);
}

/* The attributes of the first column of each of n rows of the pane, from column x on. */
static void expect_shades(int x, int n, const attr_t *want) {
    for (int i = 0; i < n; i++) {
        cchar_t cell;
        wchar_t c[CCHARW_MAX];
        attr_t attr;
        short pair;
        assert_int_equal(mvin_wch(PANE_Y, PANE_X + x + i, &cell), OK);
        assert_int_equal(getcchar(&cell, c, &attr, &pair, NULL), OK);
        if ((attr & (A_DIM | A_UNDERLINE | A_REVERSE)) != want[i])
            fail_msg("column %d has attributes %lx, not %lx", x + i, (unsigned long)attr,
                     (unsigned long)want[i]);
    }
}

/* Without colours: dim, underlined, reversed; a word that nobody vouches for is plain. */
static void transcript_shades_by_probability(void **state) {
    (void)state;
    static const attr_t plain[10] = {0};
    static const attr_t shaded[] = {0, A_DIM, A_DIM, A_UNDERLINE, A_REVERSE, 0, 0, 0};
    ui_transcript *t = open_transcript();
    ui_transcript_probability(t, 0.5f); /* no message: nothing */
    add(t, UI_FROM_MODEL, "");
    static const float p[] = {0.97f, 0.89f, 0.6f, 0.31f, 0.01f, 1};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(ui_transcript_append(t, &"abcdef"[i], 1), 0);
        ui_transcript_probability(t, p[i]);
    }
    ui_transcript_append(t, "gh", 2);
    expect(t, 2, 20, "  abcdefgh\n\n");
    expect_shades(2, 8, plain);
    ui_transcript_confidence(t, true);
    expect(t, 2, 20, "  abcdefgh\n\n");
    expect_shades(2, 8, shaded);
    /* Where a line breaks does not matter. */
    expect(t, 4, 5, "  abc\n  def\n  gh\n\n");
    expect_shades(2, 3, shaded);
    for (int width = 3; width < 9; width++)
        free(draw(t, 9, width));
    ui_transcript_pretty(t, "\1 box", 5);
    expect(t, 2, 20, "  \u25a0 box\n\n");
    ui_transcript_raw(t, true);
    expect(t, 2, 20, "  abcdefgh\n\n");
    expect_shades(2, 8, shaded);
    ui_transcript_confidence(t, false);
    free(draw(t, 2, 20));
    expect_shades(2, 8, plain);
    ui_transcript_close(t);
}

int main(void) {
    setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transcript_wraps),
        cmocka_unit_test(transcript_wraps_wide_characters),
        cmocka_unit_test(transcript_keeps_line_breaks),
        cmocka_unit_test(transcript_shows_hostile_text_harmlessly),
        cmocka_unit_test(transcript_streams_as_whole),
        cmocka_unit_test(transcript_is_fast_with_one_long_line),
        cmocka_unit_test(transcript_keeps_the_view_while_text_comes),
        cmocka_unit_test(transcript_scrolls_by_lines),
        cmocka_unit_test(transcript_survives_any_order_of_calls),
        cmocka_unit_test(transcript_shows_pretty_or_raw),
        cmocka_unit_test(transcript_drops_turns),
        cmocka_unit_test(transcript_shades_by_probability),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
