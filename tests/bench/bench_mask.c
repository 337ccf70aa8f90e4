/* bench_mask.c [FILE] - milliseconds from sixteen codes to a mask, and into a picture of 4000 x 3000.
 * FILE: weights; without it assets/demo/mask.npz. Medians of 101 runs on one core.                */
#include "core/mask.h"
#include "core/rle.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    RUNS = 101
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "assets/demo/mask.npz";
    static double decode[RUNS], place[RUNS], pack[RUNS];
    static float map[PALI_MASK_SIDE * PALI_MASK_SIDE];
    static uint8_t bytes[PALI_MASK_SIDE * PALI_MASK_SIDE];
    pali_error err = {0};
    pali_mask_decoder *d;
    if (pali_mask_decoder_open(path, &d, &err)) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    for (int i = 0; i < RUNS; i++) {
        int codes[PALI_MASK_CODES];
        for (int k = 0; k < PALI_MASK_CODES; k++)
            codes[k] = (i + 7 * k) % 128;
        double t0 = now();
        pali_mask_decode(d, codes, map);
        pali_mask_bytes(map, bytes);
        double t1 = now();
        pali_mask m;
        uint64_t area;
        if (pali_mask_place(bytes, (float[]){500, 500, 2500, 2000}, 4000, 3000, &m, &err))
            return 1;
        double t2 = now();
        free(pali_rle(&m, 4000, 3000, 1, &area));
        decode[i] = t1 - t0;
        place[i] = t2 - t1;
        pack[i] = now() - t2;
        pali_mask_close(&m);
    }
    qsort(decode, RUNS, sizeof *decode, by_size);
    qsort(place, RUNS, sizeof *place, by_size);
    qsort(pack, RUNS, sizeof *pack, by_size);
    printf("%s: decode %.2f ms, place 2000 x 1500 %.2f ms, run lengths %.2f ms\n", path,
           decode[RUNS / 2], place[RUNS / 2], pack[RUNS / 2]);
    pali_mask_decoder_close(d);
    return 0;
}
