/* oneshot.h - asking without a screen: questions in, answers on standard output.
 *
 * Plain answers stream as they are made. Each ends with exactly one newline.
 * Control characters never get out; on a terminal neither does other text that
 * deceives (ui/text.h). With --json a turn is one line, written when it is over.  */
#ifndef APP_ONESHOT_H
#define APP_ONESHOT_H

#include "app/options.h"

typedef enum {
    APP_ASK_PROMPTS, /* those of the command line */
    APP_ASK_LINES,   /* one a line from standard input */
    APP_ASK_DEMO,    /* those of the bundled demo, shown with their answers */
} app_questions;

/* Opens what the options name and asks all of them as one chat. Returns 0, PALI_ECANCEL after a
 * signal, or a failure; PALI_EARG when there was no question. */
int app_oneshot_run(const app_options *o, app_questions from, pali_error *err);

#endif
