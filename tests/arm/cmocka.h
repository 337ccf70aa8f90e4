/* cmocka.h - as much of cmocka as the tests that check-arm runs use: an emulated program can
 * be linked with libc alone, and no package has this library for another processor beside
 * the machine's own. Results are printed as TAP, like cmocka's (tests/run.sh).           */
#ifndef PALI_TESTS_ARM_CMOCKA_H
#define PALI_TESTS_ARM_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf cm_end; /* of the running test, with 1 for a failure and 2 for a skip */

static inline _Noreturn void cm_fail(const char *file, int line, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    printf("# %s:%d: ", file, line);
    vprintf(format, ap);
    printf("\n");
    va_end(ap);
    longjmp(cm_end, 1);
}

static inline int cm_run(const struct CMUnitTest *tests, size_t n) {
    volatile int failed = 0; /* longjmp keeps it */
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        int how = setjmp(cm_end);
        if (how == 0) {
            void *state = NULL;
            tests[i].run(&state);
        }
        failed = failed + (how == 1);
        printf("%s %zu %s%s\n", how ? "not ok" : "ok", i + 1, how == 2 ? "# SKIP " : "- ",
               tests[i].name);
        fflush(stdout);
    }
    return failed;
}

#define cmocka_unit_test(f) ((struct CMUnitTest){#f, f})
#define cmocka_run_group_tests_name(group, tests, up, down)                                        \
    ((void)(up), (void)(down), cm_run(tests, sizeof(tests) / sizeof *(tests)))
#define cmocka_run_group_tests(tests, up, down) cmocka_run_group_tests_name(0, tests, up, down)

#define fail_msg(...)      cm_fail(__FILE__, __LINE__, __VA_ARGS__)
#define skip()             longjmp(cm_end, 2)
#define cm_check(ok, what) ((ok) ? (void)0 : cm_fail(__FILE__, __LINE__, "%s", what))

#define assert_true(x)                   cm_check(x, #x)
#define assert_false(x)                  cm_check(!(x), "not " #x)
#define assert_non_null(x)               cm_check((x) != NULL, #x)
#define assert_null(x)                   cm_check((x) == NULL, "no " #x)
#define assert_ptr_equal(a, b)           cm_check((a) == (b), #a " == " #b)
#define assert_memory_equal(a, b, n)     cm_check(!memcmp(a, b, n), #a " == " #b)
#define assert_memory_not_equal(a, b, n) cm_check(memcmp(a, b, n), #a " != " #b)
#define assert_string_equal(a, b)        cm_check(!strcmp(a, b), #a " == " #b)
#define assert_int_equal(a, b)           cm_check((intmax_t)(a) == (intmax_t)(b), #a " == " #b)
#define assert_int_not_equal(a, b)       cm_check((intmax_t)(a) != (intmax_t)(b), #a " != " #b)
#define assert_in_range(x, a, b)         cm_check((x) >= (a) && (x) <= (b), #x " within " #a " .. " #b)

#endif
