/* pull_meter.h - how fast a download goes, and one line that says so. */
#ifndef APP_PULL_METER_H
#define APP_PULL_METER_H

#include <stddef.h>
#include <stdint.h>

enum {
    METER_SAMPLES = 32
};

/* The last seconds, a sample each quarter of one. All zero: nothing seen yet. */
typedef struct {
    double at[METER_SAMPLES];
    uint64_t have[METER_SAMPLES];
    int n, first; /* of a ring */
} pull_meter;

/* have: bytes that are there at the time now, in seconds. Less than before: it starts afresh. */
void pull_meter_add(pull_meter *m, double now, uint64_t have);
/* Bytes a second; 0 while nothing is known. */
double pull_meter_rate(const pull_meter *m);
/* Percentage, bar, sizes, rate and the time left, in at most columns columns of ASCII; what has
 * no room is left out, the bar first. */
void pull_meter_line(const pull_meter *m, uint64_t have, uint64_t bytes, int columns, char *out,
                     size_t size);

#endif
