/* command.c - slash commands: one table, its help and its completion. */
#include "app/chat_state.h"
#include "app/dropped.h"
#include "ui/term.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name, *args, *help;
    void (*run)(chat *c, const char *args);
    bool path; /* its argument is a file */
} command;

/* --- task prompts ------------------------------------------------------------------------ */

static void ask_with(chat *c, const char *before, const char *args, const char *missing) {
    char prompt[4096];
    if (!*args && missing) {
        chat_notice(c, "%s", missing);
        return;
    }
    if (snprintf(prompt, sizeof prompt, "%s%s%s", before, *args ? " " : "", args) >=
        (int)sizeof prompt) {
        chat_notice(c, "that is too long");
        return;
    }
    chat_ask(c, prompt);
}

static void run_caption(chat *c, const char *args) {
    ask_with(c, "caption", *args ? args : "en", NULL);
}

static void run_ocr(chat *c, const char *args) {
    ask_with(c, "ocr", args, NULL);
}

static void run_detect(chat *c, const char *args) {
    ask_with(c, "detect", args, "name what to find: /detect cat ; dog");
}

static void run_segment(chat *c, const char *args) {
    ask_with(c, "segment", args, "name what to outline: /segment the left cup");
}

static void run_ask(chat *c, const char *args) {
    if (*args)
        chat_ask(c, args);
    else
        chat_notice(c, "/ask QUESTION");
}

/* --- pictures ------------------------------------------------------------------------------ */

static void open_with(chat *c, const char *args, const char *usage,
                      void (*open)(chat *c, const char *path)) {
    if (!*args) {
        chat_notice(c, "%s", usage);
        return;
    }
    /* A path completed by readline may be quoted or escaped; "~" is for chat_open_image. */
    char path[PATH_MAX];
    bool found = dropped_path(args, strlen(args), dropped_is_file, path, sizeof path);
    open(c, found ? path : args);
}

static void run_image(chat *c, const char *args) {
    open_with(c, args, "/image PATH", chat_open_image);
}

static void run_add(chat *c, const char *args) {
    open_with(c, args, "/add PATH", chat_add_image);
}

static void run_paste(chat *c, const char *args) {
    (void)args;
    chat_open_image(c, NULL);
}

static void run_crop(chat *c, const char *args) {
    float x0, y0, x1, y1;
    if (!strcmp(args, "off")) {
        chat_uncrop(c);
        return;
    }
    if (!c->image)
        return;
    if (!*args && c->picture) { /* what is seen now */
        float box[4];
        ui_picture_crop(c->picture, box);
        chat_crop(c, box[0], box[1], box[2], box[3]);
    } else if (sscanf(args, "%f%*[ ,]%f%*[ ,]%f%*[ ,]%f", &x0, &y0, &x1, &y1) == 4) {
        float there[4];
        pali_image_place_box(&c->image->image, (float[]){x0, y0, x1, y1}, there);
        chat_crop(c, there[0], there[1], there[2], there[3]);
    } else {
        chat_notice(c, "/crop (what is shown), /crop X0 Y0 X1 Y1 (pixels) or /crop off");
    }
}

static void run_overlay(chat *c, const char *args) {
    c->overlay = *args ? strcmp(args, "off") != 0 : !c->overlay;
    chat_refresh_picture(c);
}

static void run_confidence(chat *c, const char *args) {
    bool on = !strcmp(args, "on");
    if (!on && strcmp(args, "off")) {
        chat_notice(c, "/confidence on or /confidence off");
        return;
    }
    ui_transcript_confidence(c->log, on);
    chat_notice(c, on ? "shaded: words with a probability below 90, 60, 30 %%"
                      : "words are not shaded");
}

static void run_graphics(chat *c, const char *args) {
    int g = ui_graphics_parse(args);
    if (g == -1) {
        chat_notice(c, "/graphics auto, kitty, iterm2, sixel, symbols, ascii or none");
        return;
    }
    ui_picture_hide(c->graphics);
    c->graphics = g == -2 ? c->caps.graphics : (ui_graphics)g;
    c->want.picture = c->graphics != UI_GRAPHICS_NONE;
    chat_forget_picture(c);
    chat_redraw(c);
}

/* --- the conversation ------------------------------------------------------------------------- */

static void run_retry(chat *c, const char *args) {
    (void)args;
    chat_retry(c);
}

static void run_undo(chat *c, const char *args) {
    (void)args;
    chat_undo(c);
}

static void run_clear(chat *c, const char *args) {
    (void)args;
    chat_clear(c);
}

static void run_history(chat *c, const char *args) {
    char *end;
    long n = strtol(args, &end, 10);
    if (!strcmp(args, "none") || !strcmp(args, "auto"))
        c->ask.history = *args == 'n' ? PALI_HISTORY_NONE : PALI_HISTORY_AUTO;
    else if (*args && !*end && n >= 0 && n <= 1000)
        c->ask.history = (int)n;
    else {
        chat_notice(c, "/history none, auto, or the number of earlier turns to send along");
        return;
    }
    chat_notice(c, "history: %s", args);
}

static void run_copy(chat *c, const char *args) {
    (void)args;
    char why[200];
    if (!c->nturns)
        chat_notice(c, "there is no answer to copy");
    else if (ui_term_copy(c->turns[c->nturns - 1].answer, strlen(c->turns[c->nturns - 1].answer),
                          why, sizeof why))
        chat_notice(c, "%s", why);
    else
        chat_notice(c, "sent to the terminal's clipboard");
}

static void run_save(chat *c, const char *args) {
    pali_error err = {0};
    if (!*args)
        chat_notice(c, "/save FILE.md, FILE.json or FILE.png");
    else if (chat_save(c, args, &err))
        chat_error(c, &err);
    else
        chat_notice(c, "written: %s", args);
}

static void run_load(chat *c, const char *args) {
    pali_error err = {0};
    saved_chat saved;
    if (!*args) {
        chat_notice(c, "/load FILE.json");
    } else if (chatfile_read_path(args, &saved, &err)) {
        chat_error(c, &err);
    } else {
        if (saved.image && !c->image)
            chat_open_image(c, saved.image);
        chat_show_turns(c, &saved);
        chat_notice(c, "%zu turns", saved.nturns);
        saved_chat_close(&saved);
    }
}

/* --- settings ------------------------------------------------------------------------------------ */

static void run_set(chat *c, const char *args) {
    char name[32] = "", value[64] = "";
    sscanf(args, "%31s %63s", name, value);
    char *end = value;
    double v = *value ? strtod(value, &end) : NAN;
    bool number = *value && !*end && isfinite(v);
    pali_sampling *s = &c->ask.sampling;
    if (!strcmp(name, "temperature") && number && v >= 0 && v <= 100)
        s->temperature = (float)v;
    else if (!strcmp(name, "top-k") && number && v >= 0 && v <= 1e6)
        s->top_k = (int)v;
    else if (!strcmp(name, "top-p") && number && v > 0 && v <= 1)
        s->top_p = (float)v;
    else if (!strcmp(name, "seed") && number && v >= 0 && v <= 9e15)
        s->seed = (uint64_t)v;
    else if (!strcmp(name, "max-tokens") && number && v >= 1 && v <= 100000)
        c->ask.max_tokens = (int)v;
    else {
        chat_notice(c, "/set temperature, top-k, top-p, seed or max-tokens, and a number");
        return;
    }
    chat_notice(c, "%s: %s", name, value);
}

static void run_model(chat *c, const char *args) {
    char dir[4096];
    pali_error err = {0};
    if (!*args)
        chat_notice(c, "/model DIR or hub name");
    else if (c->o->find_model(c->o->user, args, dir, sizeof dir, &err))
        chat_error(c, &err);
    else
        chat_load_model(c, dir);
}

static void run_info(chat *c, const char *args) {
    (void)args;
    c->popup = POPUP_INFO;
}

static void run_help(chat *c, const char *args) {
    (void)args;
    c->popup = POPUP_HELP;
}

static void run_quit(chat *c, const char *args) {
    (void)args;
    c->quit = true;
}

static const command commands[] = {
    {"caption", "[LANG]", "a short caption", run_caption, false},
    {"ocr", "", "read the text", run_ocr, false},
    {"detect", "A ; B", "boxes around things", run_detect, false},
    {"segment", "THING", "box and outline of a thing", run_segment, false},
    {"ask", "QUESTION", "anything; a plain line is a question too", run_ask, false},
    {"image", "PATH", "another picture", run_image, true},
    {"add", "PATH", "a picture beside it, for the same questions", run_add, true},
    {"paste", "", "the picture on the clipboard", run_paste, false},
    {"crop", "[X0 Y0 X1 Y1|off]", "ask about a part (what is shown)", run_crop, false},
    {"overlay", "on|off", "boxes on the picture", run_overlay, false},
    {"confidence", "on|off", "shade words by probability", run_confidence, false},
    {"graphics", "KIND", "auto kitty iterm2 sixel symbols ascii none", run_graphics, false},
    {"retry", "", "ask the last question again", run_retry, false},
    {"undo", "", "take the last turn back", run_undo, false},
    {"clear", "", "forget the conversation", run_clear, false},
    {"history", "none|auto|N", "earlier turns sent along", run_history, false},
    {"set", "NAME VALUE", "temperature top-k top-p seed max-tokens", run_set, false},
    {"model", "DIR", "another model", run_model, true},
    {"copy", "", "the last answer to the clipboard", run_copy, false},
    {"save", "FILE", ".md .json, or .png of the picture", run_save, true},
    {"load", "FILE", "a saved conversation", run_load, true},
    {"info", "", "model, picture, terminal", run_info, false},
    {"help", "", "this card", run_help, false},
    {"quit", "", "leave", run_quit, false},
};
enum {
    COMMANDS = sizeof commands / sizeof *commands
};

void command_each(void (*each)(void *user, const char *name, const char *args, const char *help),
                  void *user) {
    for (size_t i = 0; i < COMMANDS; i++)
        each(user, commands[i].name, commands[i].args, commands[i].help);
}

static const command *find(const char *name, size_t n) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strlen(commands[i].name) == n && !memcmp(commands[i].name, name, n))
            return &commands[i];
    return NULL;
}

bool command_run(chat *c, const char *line) {
    if (*line != '/')
        return false;
    size_t n = strcspn(line + 1, " ");
    const command *cmd = find(line + 1, n);
    if (!cmd) {
        /* "/usr/share/x.png" is a path somebody typed, not a command. */
        if (memchr(line + 1, '/', n)) {
            chat_open_image(c, line);
            return true;
        }
        chat_notice(c, "there is no command %.*s; ? shows them", (int)n + 1, line);
        return true;
    }
    const char *args = line + 1 + n;
    while (*args == ' ')
        args++;
    char copy[4096];
    size_t m = strlen(args);
    while (m && args[m - 1] == ' ')
        m--;
    if (m >= sizeof copy) {
        chat_notice(c, "that is too long");
        return true;
    }
    memcpy(copy, args, m);
    copy[m] = 0;
    cmd->run(c, copy);
    return true;
}

/* --- completion ------------------------------------------------------------------------------------- */

static const char *const prompts[] = {"caption en", "describe en", "ocr",
                                      "answer en ", "detect ",     "segment "};

static bool add(char ***list, size_t *n, const char *prefix, const char *word) {
    char **more = realloc(*list, (*n + 2) * sizeof **list);
    if (!more)
        return false;
    *list = more;
    size_t size = strlen(prefix) + strlen(word) + 1;
    char *s = malloc(size);
    if (!s)
        return false;
    snprintf(s, size, "%s%s", prefix, word);
    more[(*n)++] = s;
    more[*n] = NULL;
    return true;
}

char **command_complete(void *chat_, const char *line, int start, int end, bool *is_path) {
    (void)chat_;
    char **list = NULL;
    size_t n = 0, typed = (size_t)(end - start);
    const char *word = line + start;
    if (start == 0 && *word == '/' && !memchr(word + 1, '/', typed > 0 ? typed - 1 : 0)) {
        for (size_t i = 0; i < COMMANDS; i++)
            if (!strncmp(commands[i].name, word + 1, typed - 1))
                add(&list, &n, "/", commands[i].name);
        if (n)
            return list;
    }
    if (start == 0 && typed) {
        for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
            if (!strncmp(prompts[i], word, typed))
                add(&list, &n, "", prompts[i]);
        if (n)
            return list;
    }
    const command *cmd = *line == '/' ? find(line + 1, strcspn(line + 1, " ")) : NULL;
    if (cmd && !strcmp(cmd->name, "set")) {
        static const char *const names[] = {"temperature", "top-k", "top-p", "seed", "max-tokens"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (!strncmp(names[i], word, typed))
                add(&list, &n, "", names[i]);
        return list;
    }
    *is_path = (cmd && cmd->path) || (typed && (*word == '/' || *word == '~' || *word == '.'));
    return NULL;
}
