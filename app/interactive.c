/* interactive.c - see interactive.h. */
#include "app/interactive.h"

#include "app/chat.h"
#include "app/chatfile.h"
#include "app/demo.h"
#include "app/output.h"
#include "ui/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int find_model(void *user, const char *name, char *dir, size_t size, pali_error *err) {
    const app_options *o = user;
    return pali_hub_find(&o->hub, name, dir, size, err);
}

/* The model of the kept chat that is gone on with. */
static int find_kept_model(const app_options *o, const saved_chat *chat, char *dir, size_t size,
                           pali_error *err) {
    static const char hint[] = "name another one with -m";
    pali_error why = {0};
    if (!chat->model)
        return pali_fail(err, PALI_EUNSUPPORTED, hint, "chat %s does not tell its model", chat->id);
    if (pali_hub_find(&o->hub, chat->model, dir, size, &why))
        return pali_fail(err, PALI_EIO, strchr(chat->model, '/') == chat->model ? hint : why.hint,
                         "the model of chat %s is gone: %s", chat->id, why.what);
    return 0;
}

/* The folder of the model, by a whole path: it is kept with the chat, which may be gone on with from
 * another folder. */
static int choose_model(const app_options *o, const app_demo *demo, const saved_chat *chat,
                        char *dir, size_t size, pali_error *err) {
    char named[PATH_MAX], here[PATH_MAX];
    int rc = 0;
    if (o->demo)
        snprintf(named, sizeof named, "%s", demo->dir);
    else if (o->model)
        rc = pali_hub_find(&o->hub, o->model, named, sizeof named, err);
    else
        rc = find_kept_model(o, chat, named, sizeof named, err);
    if (rc)
        return rc;
    bool whole = *named == '/' || !getcwd(here, sizeof here);
    int n = snprintf(dir, size, "%s%s%s", whole ? "" : here, whole ? "" : "/", named);
    return n < (int)size ? 0 : pali_fail(err, PALI_EIO, NULL, "the path of the model is too long");
}

int app_interactive_run(const app_options *o, pali_error *err) {
    app_demo demo = {0};
    saved_chat chat = {0}; /* the one that is gone on with */
    char dir[PATH_MAX], state[PATH_MAX], image[PATH_MAX];
    int rc = 0;
    if (o->resume && o->no_save)
        rc = pali_fail(err, PALI_EARG, NULL,
                       "--resume goes on with a kept chat, and --no-save (or no-save in the config "
                       "file) keeps none");
    if (!rc && o->demo)
        rc = app_demo_open(&demo, err);
    if (!rc && !o->no_save)
        rc = chatfile_state_dir(o->env.xdg_state, o->env.home, state, sizeof state, err);
    if (!rc && o->resume)
        rc = chatfile_read(state, o->resume_id, &chat, err);
    if (!rc)
        rc = choose_model(o, &demo, &chat, dir, sizeof dir, err);
    chat_options c = {
        .engine = {.model_dir = dir,
                   .backend = o->backend,
                   .threads = o->threads,
                   .images = (int)o->nimages,
                   .context = o->context,
                   .math = o->math,
                   .quant = o->quant,
                   .quant_all = o->quant_all,
                   .head8 = o->head8,
                   .image_folder = o->image_folder},
        .image = o->nimages  ? o->images[0]
                 : o->resume ? NULL
                             : demo.picture,
        .further = o->nimages > 1 ? o->images + 1 : NULL,
        .nfurther = o->nimages > 1 ? o->nimages - 1 : 0,
        .confidence = o->logprobs,
        .ask = {.sampling = o->sampling, .max_tokens = o->max_tokens, .history = o->history},
        .mask_weights = o->mask_weights,
        .graphics = o->graphics,
        .theme = o->theme,
        .keys = o->keys,
        .state_dir = o->no_save ? NULL : state,
        .resume = o->resume,
        .resume_id = chat.id,
        .find_model = find_model,
        .user = (void *)o,
        .env = {.term = o->env.term,
                .colorterm = o->env.colorterm,
                .term_program = o->env.term_program,
                .tmux = o->env.tmux,
                .home = o->env.home},
    };
    /* A kept chat is found again from any folder. */
    if (c.image && realpath(c.image, image))
        c.image = image;
    if (!rc && chat_run(&c, err))
        rc = err->code;
    saved_chat_close(&chat);
    app_demo_close(&demo);
    return rc;
}

typedef struct {
    size_t n;
    pali_error *err;
} listing;

static void print_chat(void *user, const char *id, size_t nturns, const char *first) {
    listing *l = user;
    char clean[160], line[320];
    ui_text_clean(UI_TEXT_LINE, first, clean, sizeof clean);
    snprintf(line, sizeof line, "%s  %3zu turn%s  %s\n", id, nturns, nturns == 1 ? " " : "s",
             clean);
    app_out_string(line, l->err);
    l->n++;
}

int app_interactive_list(const app_options *o, pali_error *err) {
    char state[PATH_MAX];
    listing l = {.err = err};
    int rc = chatfile_state_dir(o->env.xdg_state, o->env.home, state, sizeof state, err);
    if (!rc)
        rc = chatfile_list(state, print_chat, &l, err);
    if (!rc && !l.n)
        app_err_note("no chat has been kept in %s/chats", state);
    return rc ? rc : err->code;
}
