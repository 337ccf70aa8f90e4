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

/* Of the picture's length, what pixels [from, to) of the mask cover. */
static int64_t covered(int from, int to, int factor, int length) {
    int64_t a = (int64_t)from * factor, b = (int64_t)to * factor;
    return (b < length ? b : length) - (a < length ? a : length);
}

char *pali_rle(const pali_mask *m, int width, int height, int factor, uint64_t *area) {
    char *string = NULL;
    size_t n;
    packer p = {.out = open_memstream(&string, &n)};
    if (!p.out)
        return NULL;
    *area = 0;
    int64_t above = covered(0, m->y, factor, height);
    int64_t inside = covered(m->y, m->y + m->height, factor, height);
    int64_t done = covered(0, m->x, factor, width);
    count(&p, false, done * height);
    for (int x = 0; x < m->width; x++) {
        int64_t columns = covered(m->x + x, m->x + x + 1, factor, width);
        done += columns;
        for (; columns > 0; columns--) {
            count(&p, false, above);
            for (int y = 0; y < m->height; y++) {
                bool value = m->soft[(size_t)y * (size_t)m->width + (size_t)x] >= 128;
                int64_t rows = covered(m->y + y, m->y + y + 1, factor, height);
                count(&p, value, rows);
                *area += value ? (uint64_t)rows : 0;
            }
            count(&p, false, height - above - inside);
        }
    }
    count(&p, false, (width - done) * height);
    put_run(&p);
    bool bad = ferror(p.out);
    if (fclose(p.out) || bad) {
        free(string);
        return NULL;
    }
    return string;
}
