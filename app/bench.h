/* bench.h - `pali bench`: how fast a model runs here, and how far that is from the limit. */
#ifndef APP_BENCH_H
#define APP_BENCH_H

#include "app/options.h"

/* Measures the processor's limits, then loading, the picture, the prompt and decoding in every
 * precision, of the model that the options name or of a random PaliGemma 3B. A table on
 * standard output, or one JSON object with --json. PALI_ECANCEL when a signal came. */
int app_bench_run(const app_options *o, pali_error *err);

#endif
