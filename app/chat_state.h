/* chat_state.h - everything one running chat knows; for chat*.c and command.c only.
 *
 * chat.c is start, event loop and end; chat_turns.c questions and answers, chat_picture.c the
 * pictures, chat_keys.c keyboard and mouse, chat_screen.c draws, command.c holds the slash
 * commands, chat_save.c writes files. All on the UI thread.                                */
#ifndef APP_CHAT_STATE_H
#define APP_CHAT_STATE_H

#include "app/chat.h"
#include "app/chatfile.h"
#include "app/marks.h"
#include "app/painter.h"
#include "app/worker.h"
#include "ui/input.h"
#include "ui/keys.h"
#include "ui/layout.h"
#include "ui/picture.h"
#include "ui/term.h"
#include "ui/transcript.h"

typedef enum {
    POPUP_NONE,
    POPUP_HELP,
    POPUP_INFO
} chat_popup;

typedef struct {
    const chat_options *o;
    ui_term_caps caps;
    ui_layout_request want;
    ui_layout layout;
    ui_transcript *log;
    ui_keys *keys;
    worker *worker;
    painter *painter;
    chatfile *file; /* NULL: keep nothing */

    /* The model. */
    char *model_dir; /* owned; of the model that answers */
    char *loading;   /* owned; of the one that job load_job opens, NULL = none */
    int load_job;
    bool loaded, load_failed;
    pali_engine_info info;
    pali_ask ask;

    /* The picture: full as decoded, image what is asked about (full or a crop of it). */
    char *image_path; /* owned; NULL = none */
    shared_image *full, *image;
    shared_image **further; /* [nfurther], asked about too, not shown; owned */
    size_t nfurther;
    ui_view view;
    ui_graphics graphics;
    bool overlay;
    bool focus;     /* keys move the picture */
    bool dragging;  /* a crop is being drawn with the mouse */
    bool splitting; /* the divider is being dragged */
    float drag[4];  /* x0 y0 x1 y1 in pixels of image */
    app_masks masks;
    app_marks marks;     /* of the newest answer */
    ui_picture *picture; /* newest rendering; NULL = none yet */
    unsigned serial;     /* of the newest request; 0 = what is under way would not fit */
    bool stale;          /* something changed: ask for a rendering in the next frame */
    bool emit;           /* write the picture after the next doupdate */
    unsigned generation; /* of the placeholders */

    /* Turns so far, and the one under way. */
    chat_turn *turns;
    size_t nturns, turns_cap;
    char **waiting; /* questions not started, oldest first; the first nposted are the worker's, */
    size_t nwaiting, waiting_cap, nposted; /* the others wait for a picture to be opened */
    int opening;                           /* pictures being opened */
    bool recall;      /* the objects of the last turn, from a file, are yet to be marked */
    char *kept_image; /* owned; of that file; NULL = not known */
    struct chat_failed {
        size_t at;      /* turns before it */
        char *question; /* owned */
    } * failed;         /* [nfailed] that are in the conversation but got no answer: no turns */
    size_t nfailed;
    bool busy;            /* an answer is under way */
    bool orphan;          /* its picture and conversation are gone: neither shown nor kept */
    size_t orphans;       /* so many of the worker's questions, the oldest, will be that */
    bool working;         /* the worker has a job of any kind */
    char *question;       /* of the running answer; owned */
    unsigned about;       /* serial of what it is about: image may be another one by now */
    int about_w, about_h; /* its size */
    char *answer;         /* raw, so far; owned */
    size_t nanswer, answer_cap;
    int ntokens;
    pali_stage stage;
    int done, total;
    long started_ms, first_ms, stage_ms; /* when; first_ms 0 = no token yet */
    double tok_s, ttft_s;                /* of the last answer */
    int used;                            /* positions of the last turn */

    enum {
        THEN_NOTHING,
        THEN_UNDO,
        THEN_RETRY,
        THEN_CLEAR
    } then;   /* what was asked for during an answer; done when it has stopped */
    bool raw; /* show <loc> tokens */
    chat_popup popup;
    int popup_top, popup_most, popup_rows; /* lines scrolled away, at most so many; lines seen */
    char notice[512];                      /* in the status line */
    bool notice_error, notice_opening;     /* an error; one that goes when the picture is there */
    bool notice_new;                       /* not drawn yet */
    long notice_ms, notice_until; /* since when, and until when it is shown; 0 = there is none */
    bool dirty, quit;
    int signal; /* that ends the chat */
    long frame_ms;
    char **late; /* [nlate] errors that came during the answer, for the conversation after it */
    size_t nlate;
} chat;

long chat_now(void);
/* A remark in the status line for a few seconds. An error goes into the conversation; while an
 * answer streams it is a remark first, and follows the answer. */
void chat_notice(chat *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void chat_error(chat *c, const pali_error *err);

/* What commands do to the chat. */
void chat_ask(chat *c, const char *prompt);
void chat_open_image(chat *c, const char *path);                /* NULL: from the clipboard */
void chat_add_image(chat *c, const char *path);                 /* beside those there are */
void chat_set_image(chat *c, shared_image *image, bool forget); /* borrows image */
void chat_crop(chat *c, float x0, float y0, float x1, float y1);
void chat_uncrop(chat *c);
/* During an answer: stops it first. */
void chat_undo(chat *c);
void chat_retry(chat *c);
void chat_clear(chat *c);
void chat_load_model(chat *c, const char *dir);
void chat_stop(chat *c, bool all);
void chat_show_turns(chat *c, const saved_chat *saved);
void chat_redraw(chat *c); /* everything, from nothing */
void chat_refresh_picture(chat *c);
void chat_no_memory(chat *c);

/* chat_turns.c, for the others */
void chat_on_worker(chat *c, worker_event *e); /* closes e */
void chat_post_questions(chat *c);             /* to the worker, once their picture is there */
void chat_drop_unposted(chat *c);              /* their picture cannot be opened */
void chat_forget_turns(chat *c, size_t n);     /* the newest n */
void chat_forget_conversation(chat *c);        /* all turns, and what got no answer */
void chat_forget_objects(chat *c);
void chat_mark_last_turn(chat *c); /* of a chat that is gone on with, when it can be */

/* chat_picture.c, for the others */
void chat_on_painter(chat *c, painter_event *e);
void chat_post_images(chat *c, bool forget); /* to the worker */
void chat_forget_further(chat *c);

/* chat_keys.c */
void chat_event(chat *c, const ui_event *e);
/* A line was finished (user is the chat; frees line); NULL: Ctrl-D. */
void chat_line(void *user, char *line);

/* chat_screen.c */
void chat_layout(chat *c);
void chat_forget_picture(chat *c);
void chat_draw(chat *c);

/* command.c */
/* Runs "/name args". False when line is no command. */
bool command_run(chat *c, const char *line);
/* Completions as ui_input wants them. */
char **command_complete(void *chat_, const char *line, int start, int end, bool *is_path);
/* Lines of the help card: calls each(name, args, help). */
void command_each(void (*each)(void *user, const char *name, const char *args, const char *help),
                  void *user);

/* chat_save.c */
int chat_save(chat *c, const char *path, pali_error *err);
/* "cat at 12,40-210,380" lines for the objects, with colour marks for ui_transcript_pretty;
 * NULL when there are none. Caller frees. */
char *chat_pretty(const pali_object *objects, size_t n, const char *raw, bool marks);

#endif
