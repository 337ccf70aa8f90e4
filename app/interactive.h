/* interactive.h - from options to a running chat, and the list of kept chats. */
#ifndef APP_INTERACTIVE_H
#define APP_INTERACTIVE_H

#include "app/options.h"

/* Runs the terminal chat. */
int app_interactive_run(const app_options *o, pali_error *err);

/* `pali chats`: one line a kept chat on standard output, newest first. */
int app_interactive_list(const app_options *o, pali_error *err);

#endif
