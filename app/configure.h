/* configure.h - `pali config`: the settings in effect, and where each comes from. */
#ifndef APP_CONFIGURE_H
#define APP_CONFIGURE_H

#include "app/options.h"

/* Prints them on standard output, in the form of the config file. PALI_EARG when that has
 * mistakes. */
int app_configure_list(const app_options *o, pali_error *err);

/* The mistakes of the config file on standard error, a line each. */
void app_configure_complain(const app_options *o);

#endif
