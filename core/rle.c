/* rle.c - see rle.h. */
#include "core/rle.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    FILE *out;
    int64_t run, before, last; /* being counted; the two before it */
    size_t runs;
    bool value;
} packer;

static void put_run(packer *p) {
    int64_t x = p->run - (p->runs > 2 ? p->before : 0);
    for (bool more = true; more;) {
        int c = (int)(x & 31);
        x >>= 5; /* keeps the sign */
        more = c & 16 ? x != -1 : x != 0;
        fputc(48 + (c | (more ? 32 : 0)), p->out);
    }
    p->before = p->last;
    p->last = p->run;
    p->run = 0;
    p->runs++;
}

static void count(packer *p, bool value, int64_t n) {
    if (n && value != p->value) {
        put_run(p);
        p->value = value;
    }
    p->run += n;
}

char *pali_rle(const pali_mask *m, int width, int height, uint64_t *area) {
    char *string = NULL;
    size_t n;
    packer p = {.out = open_memstream(&string, &n)};
    if (!p.out)
        return NULL;
    *area = 0;
    count(&p, false, (int64_t)m->x * height);
    for (int x = 0; x < m->width; x++) {
        count(&p, false, m->y);
        for (int y = 0; y < m->height; y++) {
            bool value = m->soft[(size_t)y * (size_t)m->width + (size_t)x] >= 128;
            count(&p, value, 1);
            *area += value;
        }
        count(&p, false, height - m->y - m->height);
    }
    count(&p, false, (int64_t)(width - m->x - m->width) * height);
    put_run(&p);
    bool bad = ferror(p.out);
    if (fclose(p.out) || bad) {
        free(string);
        return NULL;
    }
    return string;
}
