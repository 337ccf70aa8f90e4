/* demo.h - the bundled miniature model: where it is and what to ask it.
 *
 * Its folder holds a model as any other, a picture, and demo.txt: the picture's file
 * name on the first line, then one prompt a line.                                */
#ifndef APP_DEMO_H
#define APP_DEMO_H

#include "core/error.h"

#include <stddef.h>

typedef struct {
    char *dir;            /* owned path of the model */
    char *picture;        /* owned path */
    char *text;           /* owned; the prompts point into it */
    const char **prompts; /* owned array */
    size_t nprompts;
} app_demo;

/* Looks beside the running program: in a source tree, then as installed. Close with
 * app_demo_close. */
int app_demo_open(app_demo *out, pali_error *err);
void app_demo_close(app_demo *d);

#endif
