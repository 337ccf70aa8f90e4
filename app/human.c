/* human.c - see human.h. */
#include "app/human.h"

#include <stdio.h>

const char *human_bytes(uint64_t n, char buf[HUMAN_BYTES]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    int u = 0;
    double v = (double)n;
    for (; v >= 999.5 && u < 6; u++)
        v /= 1000;
    snprintf(buf, HUMAN_BYTES, u && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return buf;
}

const char *human_seconds(double s, char buf[HUMAN_BYTES]) {
    long t = s < 0 ? 0 : s > 1e7 ? 10000000 : (long)(s + 0.5);
    if (t < 3600)
        snprintf(buf, HUMAN_BYTES, "%ld:%02ld", t / 60, t % 60);
    else
        snprintf(buf, HUMAN_BYTES, "%ld:%02ld:%02ld", t / 3600, t / 60 % 60, t % 60);
    return buf;
}
