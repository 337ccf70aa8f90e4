/* human.h - sizes and times as a person reads them. */
#ifndef APP_HUMAN_H
#define APP_HUMAN_H

#include <stdint.h>

enum {
    HUMAN_BYTES = 24
};

/* "512 B", "4.2 MB", "11.7 GB": powers of 1000, as the hub and disks count. Returns buf. */
const char *human_bytes(uint64_t n, char buf[HUMAN_BYTES]);
/* "0:07", "12:40", "3:05:00". Returns buf. */
const char *human_seconds(double s, char buf[HUMAN_BYTES]);

#endif
