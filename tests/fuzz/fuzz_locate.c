/* fuzz_locate.c - any answer to boxes. */
#include "core/locate.h"
#include "core/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void require(int holds) {
    if (!holds)
        abort();
}

static void check(const pali_object *o, size_t n) {
    require(o->from < o->to && o->to <= n && o->to - o->from >= 36);
    require(o->loc[0] >= 0 && o->loc[0] < o->loc[2] && o->loc[2] < 1024);
    require(o->loc[1] >= 0 && o->loc[1] < o->loc[3] && o->loc[3] < 1024);
    require(o->box[0] >= 0 && o->box[0] < o->box[2] && o->box[2] < 640);
    require(o->box[1] >= 0 && o->box[1] < o->box[3] && o->box[3] < 480);
    for (int i = 0; o->has_mask && i < PALI_MASK_CODES; i++)
        require(o->codes[i] >= 0 && o->codes[i] < 128);
    const char *end = memchr(o->label, 0, sizeof o->label);
    require(end != NULL);
    for (const char *p = o->label; p < end;) {
        int step = pali_utf8_step((const unsigned char *)p, (size_t)(end - p));
        require(step > 0 && (unsigned char)*p >= ' ' && !strchr(";<>\x7F", *p));
        p += step;
    }
    require(end == o->label || (o->label[0] != ' ' && end[-1] != ' '));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    pali_object *o, *part;
    size_t count, some;
    require(pali_locate((const char *)bytes, n, 640, 480, &o, &count, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        check(&o[i], n);
        require(i == 0 || o[i].from >= o[i - 1].to);
    }
    /* What a stream has shown it does not take back. */
    require(pali_locate((const char *)bytes, n / 2, 640, 480, &part, &some, NULL) == 0);
    require(some <= count);
    for (size_t i = 0; i < some; i++)
        require(part[i].from == o[i].from && !memcmp(part[i].loc, o[i].loc, sizeof o[i].loc));
    free(part);
    free(o);
    return 0;
}
