/* session.h - everything the options name, opened: picture, model, dialog.
 *
 * The picture comes first: a mistyped file name must not cost the loading of a
 * model. Every mode of the program works on one session.                         */
#ifndef APP_SESSION_H
#define APP_SESSION_H

#include "app/demo.h"
#include "app/options.h"
#include "core/pali.h"

#include <limits.h>

typedef struct {
    const app_options *options; /* borrowed */
    app_demo demo;              /* empty unless options->demo */
    const char *image_path;     /* borrowed; NULL with app_session_load alone */
    pali_image image;
    pali_image *further; /* [nfurther], those after the first, for one prompt about all */
    size_t nfurther;
    char model_dir[PATH_MAX]; /* once loaded */
    pali_engine *engine;
    pali_engine_info info;
    pali_dialog *dialog;
    double load_s; /* what opening the model took */
} app_session;

/* Only the demo, when the options ask for it; then, whenever the time has come, model and dialog
 * without a picture. Close *out in any case. */
int app_session_begin(app_session *out, const app_options *o, pali_error *err);
int app_session_load(app_session *s, const pali_run *run, pali_error *err);

/* All of it. Close *out in any case. PALI_ECANCEL when a signal came. */
int app_session_open(app_session *out, const app_options *o, const pali_run *run, pali_error *err);
void app_session_close(app_session *s);

/* The tiles that this picture is read in. */
app_tiling app_session_tiling(const app_session *s, const pali_image *image);

/* The folder of the model that the options name, without opening it; "" when they name none. */
int app_session_find_model(const app_options *o, char *dir, size_t size, pali_error *err);

/* Seconds of a clock that only moves forward. */
double app_clock(void);

#endif
