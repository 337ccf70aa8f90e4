/* tiled.h - one question about a large picture, asked of each of its tiles (tiles.h).
 *
 * The tiles are asked one after another on the one dialog: no backend takes several pictures in one
 * step.                                                                                          */
#ifndef APP_TILED_H
#define APP_TILED_H

#include "app/tiles.h"
#include "core/pali.h"

/* As pali_dialog_ask, with the joined text. The dialog's picture is the last tile afterwards, and its
 * turns are forgotten. on_piece gets the text in one piece at the end. *out has the tokens of all
 * tiles, no objects, and the first stop that is not the model's own end. on_tensor is not called. */
int app_tiled_ask(pali_dialog *d, const pali_image *image, app_tiling t, const char *prompt,
                  const pali_ask *ask, const pali_run *run, pali_result *out, pali_error *err);

#endif
