/* pull_meter.c - see pull_meter.h. */
#include "app/pull_meter.h"

#include "app/human.h"

#include <stdio.h>
#include <string.h>

static const double every_s = 0.25;

enum {
    BAR_MIN = 10,
    BAR_MAX = 40
};

void pull_meter_add(pull_meter *m, double now, uint64_t have) {
    int last = (m->first + m->n - 1) % METER_SAMPLES;
    if (m->n && have < m->have[last])
        *m = (pull_meter){0};
    else if (m->n && now - m->at[last] < every_s)
        return;
    if (m->n == METER_SAMPLES) {
        m->first = (m->first + 1) % METER_SAMPLES;
        m->n--;
    }
    int at = (m->first + m->n++) % METER_SAMPLES;
    m->at[at] = now;
    m->have[at] = have;
}

double pull_meter_rate(const pull_meter *m) {
    if (m->n < 2)
        return 0;
    int last = (m->first + m->n - 1) % METER_SAMPLES;
    double s = m->at[last] - m->at[m->first];
    return s > 0 ? (double)(m->have[last] - m->have[m->first]) / s : 0;
}

void pull_meter_line(const pull_meter *m, uint64_t have, uint64_t bytes, int columns, char *out,
                     size_t size) {
    char a[HUMAN_BYTES], b[HUMAN_BYTES], r[HUMAN_BYTES], t[HUMAN_BYTES];
    char left[16], sizes[64], rate[80] = "", bar[BAR_MAX + 4] = "";
    double share = bytes ? (double)have / (double)bytes : 1, speed = pull_meter_rate(m);
    snprintf(left, sizeof left, "%3d%%", (int)(100 * share));
    snprintf(sizes, sizeof sizes, "  %s of %s", human_bytes(have, a), human_bytes(bytes, b));
    if (speed >= 1)
        snprintf(rate, sizeof rate, "  %s/s  %s left", human_bytes((uint64_t)speed, r),
                 human_seconds((double)(bytes - have) / speed, t));
    int room = columns - (int)(strlen(left) + strlen(sizes) + strlen(rate)) - 3;
    int n = room > BAR_MAX ? BAR_MAX : room, full = (int)(share * n);
    if (n >= BAR_MIN) {
        memset(bar, ' ', (size_t)n + 3);
        memset(bar + 2, '=', (size_t)full);
        bar[1] = '[';
        bar[n + 2] = ']';
        bar[n + 3] = '\0';
    }
    if (room < -3) /* the time says more than the sizes */
        *sizes = '\0';
    snprintf(out, size, "%s%s%s%s", left, bar, sizes, rate);
    if (columns >= 0 && strlen(out) > (size_t)columns)
        out[columns < 4 ? 0 : 4] = '\0';
}
