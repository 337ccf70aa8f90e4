/* convert.h - `pali convert SRC DST`: a model as a folder like those of the hub. */
#ifndef APP_CONVERT_H
#define APP_CONVERT_H

#include "app/options.h"

int app_convert_run(const app_options *o, pali_error *err);

#endif
