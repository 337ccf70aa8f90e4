/* test.h - what every test program includes: cmocka, and paths of the fixtures.
 * Programs run from the top of the tree. Functions are named <module>_<behaviour>. */
#ifndef PALI_TEST_H
#define PALI_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEST_DATA "tests/data/"

/* Fails with pali's own sentence when a call that must succeed did not. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_ != 0)                                                                              \
            fail_msg("%s: %d %s (%s)", #call, rc_, (err).what, (err).hint);                        \
    } while (0)

#endif
