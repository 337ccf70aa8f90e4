/* Sizes, times, and the line that shows a download. */
#include "app/human.h"
#include "app/pull_meter.h"
#include "tests/test.h"

static void human_sizes_and_times(void **state) {
    (void)state;
    char b[HUMAN_BYTES];
    assert_string_equal(human_bytes(0, b), "0 B");
    assert_string_equal(human_bytes(999, b), "999 B");
    assert_string_equal(human_bytes(4242000, b), "4.2 MB");
    assert_string_equal(human_bytes(999960, b), "1.0 MB");
    assert_string_equal(human_bytes(11700000000, b), "11.7 GB");
    assert_string_equal(human_bytes(UINT64_MAX, b), "18.4 EB");
    assert_string_equal(human_seconds(7, b), "0:07");
    assert_string_equal(human_seconds(3599.7, b), "1:00:00");
    assert_string_equal(human_seconds(-1, b), "0:00");
    assert_string_equal(human_seconds(1e300, b), "2777:46:40");
}

static void pull_meter_measures_the_last_seconds(void **state) {
    (void)state;
    pull_meter m = {0};
    assert_true(pull_meter_rate(&m) == 0);
    pull_meter_add(&m, 100, 5000000); /* what was there before does not count */
    assert_true(pull_meter_rate(&m) == 0);
    for (int i = 1; i <= 1000; i++) /* 1 MB/s */
        pull_meter_add(&m, 100 + 0.1 * i, 5000000 + (uint64_t)i * 100000);
    assert_true(pull_meter_rate(&m) > 0.99e6 && pull_meter_rate(&m) < 1.01e6);
    for (int i = 1; i <= 100; i++) /* nothing for ten seconds: 0, not a tenth */
        pull_meter_add(&m, 200 + 0.1 * i, 105000000);
    assert_true(pull_meter_rate(&m) == 0);
    pull_meter_add(&m, 300, 1000); /* a damaged file comes again */
    assert_true(pull_meter_rate(&m) == 0);
    assert_int_equal(m.n, 1);
}

static void expect_line(const pull_meter *m, uint64_t have, uint64_t bytes, int columns,
                        const char *expected) {
    char line[256];
    pull_meter_line(m, have, bytes, columns, line, sizeof line);
    assert_string_equal(line, expected);
}

static void pull_meter_line_fits(void **state) {
    (void)state;
    pull_meter m = {0};
    char line[256];
    expect_line(&m, 0, 100, 30, "  0%  0 B of 100 B");
    pull_meter_add(&m, 0, 0);
    pull_meter_add(&m, 1, 100000000);
    expect_line(&m, 1500000000, 6000000000, 79,
                " 25% [========                         ]  1.5 GB of 6.0 GB  100 MB/s  0:45 left");
    expect_line(&m, 1500000000, 6000000000, 50, " 25%  1.5 GB of 6.0 GB  100 MB/s  0:45 left");
    expect_line(&m, 1500000000, 6000000000, 30, " 25%  100 MB/s  0:45 left");
    expect_line(&m, 1500000000, 6000000000, 10, " 25%");
    expect_line(&m, 6000000000, 6000000000, 200,
                "100% [========================================]  6.0 GB of 6.0 GB  100 MB/s  0:00 "
                "left");
    for (int columns = 0; columns < 200; columns++) {
        pull_meter_line(&m, UINT64_MAX / 3, UINT64_MAX, columns, line, sizeof line);
        assert_true(strlen(line) <= (size_t)columns);
    }
    pull_meter_line(&m, 0, 0, 80, line, sizeof line);
    assert_memory_equal(line, "100%", 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(human_sizes_and_times),
        cmocka_unit_test(pull_meter_measures_the_last_seconds),
        cmocka_unit_test(pull_meter_line_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
