/* test_layout.c - the arithmetic of panes, by property over every size of screen. */
#include "ui/layout.h"
#include "tests/test.h"

static bool shown(ui_rect r) {
    return r.h > 0 && r.w > 0;
}

static void expect_inside(ui_rect r, const ui_layout_request *q) {
    if (r.y < 0 || r.x < 0 || r.h < 0 || r.w < 0 || r.y + r.h > q->rows || r.x + r.w > q->cols)
        fail_msg("%dx%d: pane at %d,%d of %dx%d", q->cols, q->rows, r.x, r.y, r.w, r.h);
}

static bool overlap(ui_rect a, ui_rect b) {
    return a.y < b.y + b.h && b.y < a.y + a.h && a.x < b.x + b.w && b.x < a.x + a.w;
}

/* Everything that holds for any request. */
static void expect_sound(const ui_layout_request *q) {
    ui_layout l;
    memset(&l, 0x55, sizeof l);
    ui_layout_compute(q, &l);
    const ui_rect panes[] = {l.picture, l.divider, l.transcript, l.input, l.status};
    enum {
        N = sizeof panes / sizeof *panes
    };
    assert_int_equal(l.too_small,
                     q->rows < UI_LAYOUT_MIN_ROWS || q->cols < UI_LAYOUT_MIN_COLS ? 1 : 0);
    if (l.too_small) {
        for (int i = 0; i < N; i++)
            assert_false(shown(panes[i]));
        return;
    }
    int cells = 0;
    for (int i = 0; i < N; i++) {
        expect_inside(panes[i], q);
        cells += panes[i].h * panes[i].w;
        for (int j = 0; j < i; j++)
            assert_false(overlap(panes[i], panes[j]));
    }
    assert_int_equal(cells, q->rows * q->cols); /* no cell is left to nobody */
    assert_int_equal(l.status.y, q->rows - 1);
    assert_int_equal(l.status.w, q->cols);
    assert_int_equal(l.status.h, 1);
    assert_int_equal(l.input.y + l.input.h, q->rows - 1);
    assert_in_range(l.input.h, 1, q->rows / 3);
    assert_int_equal(l.input.x, l.transcript.x);
    assert_int_equal(l.input.w, l.transcript.w);
    assert_true(l.transcript.h >= 4);
    assert_true(l.transcript.w >= 28);
    assert_int_equal(shown(l.picture), q->picture ? 1 : 0);
    assert_int_equal(shown(l.divider), q->picture ? 1 : 0);
    if (!q->picture)
        return;
    assert_true(l.picture.h >= 4 && l.picture.w >= 12);
    assert_true(l.picture.y + l.picture.h <= q->rows - 1); /* never on the last row */
    if (l.stacked) {
        assert_int_equal(l.divider.y, l.picture.y + l.picture.h);
        assert_int_equal(l.divider.w, q->cols);
    } else {
        assert_int_equal(l.divider.x, l.picture.x + l.picture.w);
        assert_int_equal(l.divider.h, q->rows - 1);
    }

    /* A divider dropped where it is, or anywhere it may go, lands there. */
    int at = l.stacked ? l.divider.y : l.divider.x;
    int most = l.stacked ? q->rows - 1 : q->cols;
    for (int to = at; to < most; to += 7) {
        ui_layout_request moved = *q;
        moved.split = ui_layout_split_at(&l, q, to, to);
        assert_in_range(moved.split, 1, 999);
        ui_layout m;
        ui_layout_compute(&moved, &m);
        assert_int_equal(m.stacked, l.stacked);
        int now = m.stacked ? m.divider.y : m.divider.x;
        int limit = m.stacked ? m.transcript.h : m.transcript.w;
        int lowest = m.stacked ? 4 : 28;
        if (now != to && limit > lowest)
            fail_msg("%dx%d: divider moved to %d is at %d", q->cols, q->rows, to, now);
    }
}

static void layout_is_sound_at_every_size(void **state) {
    (void)state;
    static const int splits[] = {0, 1, 300, 999}, inputs[] = {-3, 1, 2, 1000};
    for (int cols = 1; cols <= 250; cols++)
        for (int rows = 1; rows <= 100; rows++)
            for (int k = 0; k < 5; k++) {
                ui_layout_request q = {.rows = rows,
                                       .cols = cols,
                                       .picture = k < 4,
                                       .split = splits[k & 3],
                                       .input_rows = inputs[(k + rows) & 3]};
                expect_sound(&q);
            }
}

static void layout_picks_the_shape(void **state) {
    (void)state;
    static const struct {
        int rows, cols;
        bool stacked;
    } shapes[] = {{24, 80, false}, {12, 40, true},  {50, 200, false},
                  {40, 60, true},  {60, 100, true}, {100, 250, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        ui_layout_request q = {
            .rows = shapes[i].rows, .cols = shapes[i].cols, .picture = true, .input_rows = 1};
        ui_layout l;
        ui_layout_compute(&q, &l);
        assert_int_equal(l.stacked, shapes[i].stacked);
    }
}

/* The window may shrink to nothing while the divider is held. */
static void layout_split_survives_no_screen(void **state) {
    (void)state;
    for (int rows = 0; rows < 3; rows++)
        for (int cols = 0; cols < 3; cols++)
            for (int stacked = 0; stacked < 2; stacked++) {
                ui_layout_request q = {.rows = rows, .cols = cols, .picture = true};
                ui_layout l = {.stacked = stacked};
                assert_in_range(ui_layout_split_at(&l, &q, 0, 0), 1, 999);
                assert_in_range(ui_layout_split_at(&l, &q, 99999, 99999), 1, 999);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_sound_at_every_size),
        cmocka_unit_test(layout_picks_the_shape),
        cmocka_unit_test(layout_split_survives_no_screen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
