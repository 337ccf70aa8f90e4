/* models.h - the verbs that look after models: `pali pull`, `pali models`, `pali rm`. */
#ifndef APP_MODELS_H
#define APP_MODELS_H

#include "app/options.h"

/* ID[@REVISION] from the hub; progress on standard error, the folder on standard output. */
int app_models_pull(const app_options *o, pali_error *err);
/* Every commit of every PaliGemma in the cache, a line each. */
int app_models_list(const app_options *o, pali_error *err);
/* Takes ID[@REVISION] out of the cache, after asking. */
int app_models_remove(const app_options *o, pali_error *err);

/* The id that is the first word, with --revision. PALI_EARG. */
int app_models_id(const app_options *o, pali_hub_id *id, pali_error *err);

#endif
