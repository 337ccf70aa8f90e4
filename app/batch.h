/* batch.h - one prompt about many pictures, one line of results for each.
 *
 * The model is loaded once, after the first picture that can be read. One thread decodes a few
 * pictures ahead while the model works. A picture that cannot be read costs one sentence on standard
 * error, and in the end the exit status. A signal drops the answer that is under way; finished lines
 * are there.                                                                                       */
#ifndef APP_BATCH_H
#define APP_BATCH_H

#include "app/options.h"

/* The pictures are o->images (or the demo's own) and o->files_from; results.h says what is written.
 * 0; PALI_ECANCEL; a failure; PALI_EFORMAT when all went well but some pictures did not. */
int app_batch_run(const app_options *o, const char *prompt, pali_error *err);

#endif
