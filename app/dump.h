/* dump.h - the tensors of a turn as .npy files, for comparison with a reference.
 *
 * Writes NAME.npy for every tensor that core hands out: pixel_values [3][S][S],
 * image_embeds [P][D], prefix_ids [T], logits [steps][V], output_ids; float32 or
 * int32, in the byte order of this machine (the file says which). The steps of
 * logits come one by one, so its header is written again at the end.            */
#ifndef APP_DUMP_H
#define APP_DUMP_H

#include "core/pali.h"

#include <limits.h>
#include <stdio.h>

typedef struct {
    char dir[PATH_MAX];
    FILE *logits; /* NULL before the first step */
    size_t steps, width;
    pali_error err; /* the first failure; nothing is written after it */
} app_dump;

/* Makes dir if it is missing and checks that files can be made in it. */
int app_dump_prepare(const char *dir, pali_error *err);

/* Starts a turn in dir/turn-N (turn > 0) or in dir itself (turn == 0). Files of an
 * earlier dump are removed. Close with app_dump_close. */
int app_dump_open(app_dump *d, const char *dir, int turn, pali_error *err);
/* One tensor. Returns nonzero when it could not be written: app_dump_close says why. */
int app_dump_tensor(app_dump *d, const pali_traced *tensor);
/* Finishes the files. Tells the first failure of all. */
int app_dump_close(app_dump *d, pali_error *err);

#endif
