/* save.h - a model's weights into one .safetensors file. */
#ifndef PALI_SAVE_H
#define PALI_SAVE_H

#include "core/backend.h"
#include "core/weights.h"

/* Writes every tensor of w (prepared) under its released name and in its dtype to path, by way
 * of path.incomplete, which is gone after a failure. quant NONE keeps matrices as they are,
 * quantised ones too; INT8 and NF4 quantise those of the decoder's layers on the way, with `all`
 * those of the tower and the projector too (layout and list are in quant.h). run (may be NULL) tells of the progress in MiB, as of loading, and may
 * stop it. PALI_EIO, PALI_EUNSUPPORTED (quantised otherwise, or rows of an odd length),
 * PALI_ENOMEM, PALI_ECANCEL. */
int pali_save(const pali_weights *w, pali_quant quant, bool all, const char *path,
              const pali_run *run, pali_error *err);

#endif
