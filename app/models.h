/* models.h - the verbs that look after models: `pali pull`, `pali models`, `pali rm`. */
#ifndef APP_MODELS_H
#define APP_MODELS_H

#include "app/options.h"

/* ID[@REVISION] from the hub; progress on standard error, the folder on standard output. */
int app_models_pull(const app_options *o, pali_error *err);

#endif
