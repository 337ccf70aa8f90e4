/* pictures_out.h - the files that answers leave behind: overlays, masks, crops.
 *
 * Names are made of the picture's own name and of the object's number and label, with all but
 * plain letters, digits, '.', '-' and '_' replaced; names of one run never meet, files of an
 * earlier run are replaced. A file that cannot be written costs that file: the first of its kind
 * is complained about on standard error, the others are counted.                              */
#ifndef APP_PICTURES_OUT_H
#define APP_PICTURES_OUT_H

#include "app/marks.h"
#include "core/image.h"

typedef struct {
    const char *overlay;  /* file, or a folder with many pictures; NULL: none */
    const char *mask_dir; /* NULL: none */
    const char *crop_dir; /* NULL: none */
    bool many;            /* pictures */
} app_pictures_wish;

typedef struct app_pictures app_pictures;

/* The folders are made when they are not there. The strings are borrowed. NULL: no memory. */
app_pictures *app_pictures_open(const app_pictures_wish *wish);
void app_pictures_close(app_pictures *p);
/* Files that could not be written so far. */
size_t app_pictures_failed(const app_pictures *p);

/* What one answer left behind: paths, NULL where there is none. Owns all. */
typedef struct {
    char *overlay;
    char **masks, **crops; /* [n] */
    size_t n;
} app_left;
void app_left_close(app_left *left);

/* The picture's name without folder and ending, cleaned for a file name, and unlike all that were
 * given out before. Caller frees. NULL: no memory. */
char *app_pictures_stem(app_pictures *p, const char *path);

/* Writes what is wished for of a picture that goes by stem, and its marks; placed[i] is the mask of
 * object i in the picture (soft NULL: none). PALI_ENOMEM only. Close *left in any case. */
int app_pictures_write(app_pictures *p, const char *stem, const pali_image *image,
                       const app_marks *marks, const pali_mask *placed, app_left *left,
                       pali_error *err);

#endif
