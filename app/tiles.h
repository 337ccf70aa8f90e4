/* tiles.h - reading a large picture in parts: where the parts lie, and one text from theirs.
 *
 * A model sees a square of S x S pixels, so a page squeezed into it may have letters of two pixels.
 * The picture is cut into tiles that overlap, each is read alone, and the texts are joined: in each
 * column of tiles from top to bottom, then the columns line by line. (Rows first would be worse: a line
 * cut by an edge is read differently by every tile of a row, so that none of it fits together.)
 * What stands in an overlap comes twice, and letters on an edge are cut and often read wrong; so two
 * texts are joined where they agree best, allowing for wrong letters in between and for a few at the
 * edges. Nothing is known of where in a tile a line stands; texts are all there is. Pure functions. */
#ifndef APP_TILES_H
#define APP_TILES_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    APP_TILES_MAX = 32, /* in all when chosen by itself; a side when given */
};

typedef struct {
    int cols, rows; /* 0 x 0: auto */
    double overlap; /* of two neighbours, as a share of a side; app_tiling_choose knows */
} app_tiling;

typedef struct {
    int x, y, width, height;
} app_tile;

/* "auto", "none" (1 x 1) or "CxR". False for anything else. */
bool app_tiling_parse(const char *s, app_tiling *out);

/* How fine the strokes in a picture (8-bit RGB, rows top to bottom) are, across and down: pixels from
 * one strong change of brightness to the next, the third that is finest; 0: there are too few to
 * tell of text. */
typedef struct {
    double across, down;
} app_tiles_detail;
app_tiles_detail app_tiles_look(const uint8_t *rgb, int width, int height);

/* Columns and rows for a picture of this size: those asked for, at most one a pixel. auto: as few as
 * leave its strokes at least 1.5 pixels wide in the model's square, or keep all its pixels, but
 * at most APP_TILES_MAX tiles; one where there are no strokes, and for models so small that a tile holds a
 * dozen letters: they read worse in tiles (BENCHMARKS.md). All sizes positive. */
app_tiling app_tiling_choose(app_tiling want, int width, int height, int model_size,
                             app_tiles_detail detail);

/* Tile number i of cols * rows, row by row. */
app_tile app_tile_at(app_tiling t, int width, int height, int i);

/* One text from texts[cols * rows], row by row, lines separated by \n, no empty ones. Caller frees
 * *out. PALI_ENOMEM. */
int app_tiles_join(const char *const *texts, app_tiling t, char **out, pali_error *err);

#endif
