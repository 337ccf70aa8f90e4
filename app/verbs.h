/* verbs.h - `pali VERB ...`: one table of what pali can be told to do, beside the chat.
 *
 * The first word of the command line that is a verb's name, exactly, is the verb; a picture of
 * that name is reached as ./name or after "--". A row is all there is to a verb: options.c reads
 * the words by it, refuses options it does not take, and makes `pali VERB --help` from it.      */
#ifndef APP_VERBS_H
#define APP_VERBS_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

struct app_options;

/* Groups of options: what a verb takes, and where an option belongs (options.c). An option that
 * belongs to two groups is taken with either. -v, --help and --version go with every verb. */
enum {
    APP_TAKES_MODEL = 1 << 0,  /* -m, --demo, --backend, --threads, -q */
    APP_TAKES_QUANT = 1 << 16, /* -q alone */
    APP_TAKES_ASKING = 1 << 1, /* -p, --history, --dump */
    APP_TAKES_ANSWER = 1 << 2, /* -n, -t, --top-k, --top-p, --seed */
    APP_TAKES_CHAT = 1 << 3,   /* --graphics, --theme, --resume, --no-save */
    APP_TAKES_JSON = 1 << 4,   /* --json */
    APP_TAKES_REVISION = 1 << 5,
    APP_TAKES_YES = 1 << 6,
    APP_TAKES_RANK = 1 << 8,   /* --text, --texts; -p too */
    APP_TAKES_LANG = 1 << 7,   /* --lang */
    APP_TAKES_TILE = 1 << 14,  /* --tile */
    APP_TAKES_MANY = 1 << 13,  /* --files-from, --output, --resume */
    APP_TAKES_FILES = 1 << 15, /* --format, --overlay, --mask-dir, --crop-dir */

    APP_TAKES_TASK =
        APP_TAKES_MODEL | APP_TAKES_ANSWER | APP_TAKES_JSON | APP_TAKES_MANY | APP_TAKES_FILES,
};

enum {
    APP_ANY_NUMBER = -1, /* of words */
};

typedef struct app_verb {
    const char *name;
    const char *args;  /* as in the line of usage */
    const char *help;  /* one line of --help */
    const char *about; /* more lines for `pali VERB --help`, each ended by \n; may be NULL */
    unsigned takes;
    bool lists_settings; /* mistakes in the config file do not keep it from running */
    bool needs_model;    /* -m, --demo or PALI_MODEL must be there */
    /* Words after the verb: how many, and which of them are pictures: from the texts-th on when
     * has_images (then there must be one, or --demo brings its own), else none. */
    int min_words, max_words, texts;
    bool has_images;
    /* Does it. The words are in o->words, the pictures in o->images. 0 or an error: PALI_EARG
     * tells of a wrong command line (exit status 2), PALI_ECANCEL of a signal (130). */
    int (*run)(const struct app_options *o, pali_error *err);
} app_verb;

/* The verb of this name, or NULL. */
const app_verb *app_verb_find(const char *name);
/* What a word was probably meant to be after "pali": the name of a verb, or --help, --version and
 * --demo written as one; NULL: nothing known. */
const char *app_verb_meant(const char *word);
/* The i-th, for --help; NULL after the last. */
const app_verb *app_verb_at(size_t i);

#endif
