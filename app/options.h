/* options.h - argv, environment and config file -> one struct. The only reader of them.
 *
 * An option beats the environment, which beats the file, which beats the default. Strings are
 * borrowed from argv, the environment and settings. Nothing else is opened or looked up here; what is written here is checked here, so that a typing mistake is told
 * before anything slow begins.                                                   */
#ifndef APP_OPTIONS_H
#define APP_OPTIONS_H

#include "app/keymap.h"
#include "app/settings.h"
#include "app/tiles.h"
#include "app/verbs.h"
#include "core/hub.h"
#include "core/pali.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    APP_FROM_DEFAULT,
    APP_FROM_FILE,
    APP_FROM_ENVIRONMENT,
    APP_FROM_OPTION
} app_from;

/* What became of one setting that the config file may make. */
typedef struct {
    const char *name;
    char initially[64]; /* the default, for a person */
    const char *value;  /* as it was written; "" for the default */
    app_from from;
    int line;             /* of the file */
    const char *variable; /* of the environment */
} app_effective;

typedef enum {
    APP_FORMAT_TEXT,
    APP_FORMAT_JSONL,
    APP_FORMAT_COCO,
    APP_FORMAT_YOLO
} app_format; /* see app/emit.h */

typedef struct app_options {
    const app_verb *verb; /* NULL: none, so a chat or questions */
    const char **words;   /* owned array of borrowed strings: what is no option and not the verb */
    size_t nwords;
    const char *const *images; /* those of the words that are pictures: path, or "-" for stdin */
    size_t nimages;

    const char *model; /* directory or hub id, from -m or PALI_MODEL; NULL: none */
    bool demo;         /* the bundled model; its picture too when there are no images */

    const char **prompts; /* owned array of borrowed strings */
    size_t nprompts;

    const char **texts; /* owned array of borrowed strings, for rank */
    size_t ntexts;
    const char *texts_from; /* file of more, "-" for stdin; NULL: none */

    const char *mask_weights; /* file; NULL: beside the model */
    const char *backend;
    int threads;
    int context;    /* positions; 0: the default */
    bool head8;     /* --head int8 */
    bool quant_all; /* --quantize-modules all */
    pali_math math;
    pali_quant quant;
    int max_tokens;
    pali_sampling sampling;
    int history;

    int graphics; /* a ui_graphics; -2: ask the terminal */
    app_keymap keys;
    const char *theme;     /* dark, light, none; NULL: by the terminal */
    bool resume;           /* go on with a kept chat, or with the file of output */
    const char *resume_id; /* of the chat; NULL: the newest */
    bool no_save;

    const char *lang;       /* of a task prompt; NULL: English */
    const char *files_from; /* a list of pictures; "-": standard input; NULL: none */
    const char *output;     /* file for the results; NULL: standard output */
    app_tiling tile;        /* how a picture is cut; 1 x 1 with all but ocr */

    const char *revision; /* of a model on the hub; NULL: none */
    bool yes;             /* no questions back */

    bool cache_images;  /* embeddings are kept on disk, */
    char *image_folder; /* in this folder, then; owned */

    int frames; /* pictures of each animation or video; 0: the first of one */

    bool json, verbose, logprobs;
    app_format format;               /* JSONL exactly when json is set */
    const char *overlay;             /* file or folder; NULL: none */
    const char *mask_dir, *crop_dir; /* NULL: none */
    const char *dump;                /* directory; NULL: none */
    bool help, version;

    app_settings settings;    /* the config file; its problems are for the user */
    app_effective *effective; /* owned */
    size_t neffective;

    pali_hub_env hub; /* where the hub's cache may be */
    struct {
        const char *term, *colorterm, *term_program, *tmux, *home, *xdg_state; /* may be NULL */
        const char *hf_endpoint, *hf_token, *hf_token_path, *hf_hub_offline;
    } env;
} app_options;

/* PALI_EARG names the option and the bad value, or says that the config file has mistakes, which
 * are in out->settings.problems; with the verb that lists the settings they are no error. Close *out in any case. With help or
 * version set nothing after it was checked. The verb is set as soon as it was read. */
int app_options_parse(int argc, char **argv, app_options *out, pali_error *err);
void app_options_close(app_options *o);

/* The text of --help, or of `pali VERB --help`; free it with free(). NULL when memory is short. */
char *app_options_help(const app_verb *verb);

#endif
