/* main.c - parse, open, choose a mode, close. */
#include "app/configure.h"
#include "app/interactive.h"
#include "app/oneshot.h"
#include "app/options.h"
#include "app/output.h"
#include "app/process.h"
#include "core/image_sandbox.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A person at a terminal who asked nothing yet. */
static bool wants_chat(const app_options *o) {
    return !o->nprompts && o->format == APP_FORMAT_TEXT && !o->overlay && !o->mask_dir &&
           !o->crop_dir && !o->dump && !o->frames && isatty(STDIN_FILENO) &&
           isatty(STDOUT_FILENO) && !(o->nimages && !strcmp(o->images[0], "-"));
}

/* Where the questions come from; refuses what could only wait for ever. */
static int choose(const app_options *o, app_questions *out, pali_error *err) {
    bool piped_image = o->nimages && !strcmp(o->images[0], "-");
    if (o->resume)
        return pali_fail(err, PALI_EARG, "run it on a terminal, without -p, --json and --dump",
                         "--resume goes on with a chat, and this would not be one");
    if (!o->demo && !o->nimages)
        return pali_fail(err, PALI_EARG, NULL, "no image given");
    *out = o->nprompts ? APP_ASK_PROMPTS : o->demo && !o->nimages ? APP_ASK_DEMO : APP_ASK_LINES;
    if (*out == APP_ASK_LINES && (piped_image || isatty(STDIN_FILENO)))
        return pali_fail(err, PALI_EARG, "ask with -p \"what is in the picture?\"",
                         "no prompt given");
    return 0;
}

static int finish(int rc, const app_verb *verb, const pali_error *err) {
    pali_error late = {0};
    if (rc == 0 || rc == PALI_ECANCEL) {
        int status = rc ? APP_STOPPED : APP_OK;
        if (!app_out_close(&late))
            return status;
        err = &late;
    } else if (rc == PALI_EARG) {
        app_err_usage(err, verb ? verb->name : NULL);
        return APP_USAGE;
    }
    app_err_complain(err);
    return APP_FAILED;
}

static int print_help(const app_verb *verb, pali_error *err) {
    char *text = app_options_help(verb);
    int rc = text ? app_out_string(text, err) : pali_fail_nomem(err, "printing the help");
    free(text);
    return rc;
}

/* The chat, a question, and the verbs that ask a model. */
static bool sees_pictures(const app_options *o) {
    return !o->verb || o->verb->needs_model;
}

/* The first word is no verb, and no file either: "pali captoin photo.jpg". Says so in place of what
 * else is wrong with that command line. */
static int check_first_word(const app_options *o, int rc, pali_error *err) {
    const char *word = o->nwords ? o->words[0] : "";
    const char *meant = o->verb || o->help || o->version ? NULL : app_verb_meant(word);
    if (!meant || !strcmp(word, meant) || !access(word, F_OK)) /* the same: behind -- */
        return rc;
    *err = (pali_error){0};
    return pali_fail(err, PALI_EARG, NULL, "%s is neither a picture nor a verb; is it `pali %s`?",
                     word, meant);
}

int main(int argc, char **argv) {
    app_options options;
    app_questions from;
    pali_error err = {0};
    app_process_start();
    int rc = app_options_parse(argc, argv, &options, &err);
    rc = check_first_word(&options, rc, &err);
    app_configure_complain(&options);
    if (!rc && !options.help && !options.version && sees_pictures(&options))
        pali_image_sandbox_start(NULL); /* without it pictures are decoded here; `-v` says so */
    if (!rc && options.help)
        rc = print_help(options.verb, &err);
    else if (!rc && options.version)
        rc = app_out_string("pali " PALI_VERSION "\n", &err);
    else if (!rc && options.verb)
        rc = options.verb->run(&options, &err);
    else if (!rc && wants_chat(&options))
        rc = app_interactive_run(&options, &err);
    else if (!rc && !(rc = choose(&options, &from, &err)))
        rc = app_oneshot_run(&options, from, &err);
    app_options_close(&options);
    return finish(rc, options.verb, &err);
}
