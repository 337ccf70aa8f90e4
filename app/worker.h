/* worker.h - the inference thread: owns the engine and the dialog; jobs in, events out.
 *
 * The event loop never waits for the model: it posts jobs (they run in order), polls
 * worker_fd together with the keyboard, and takes events. Pieces of an answer that pile up
 * between two looks arrive as one event. worker_stop ends the running answer within one
 * step of the model; jobs behind it are kept.                                              */
#ifndef APP_WORKER_H
#define APP_WORKER_H

#include "app/shared_image.h"
#include "core/pali.h"

#include <stdbool.h>

typedef struct worker worker;

typedef enum {
    WORKER_LOADED,   /* info is valid; text: the model's folder, as it was posted */
    WORKER_PROGRESS, /* stage, done, total */
    WORKER_STARTED,  /* a question is being worked on; picture, width, height */
    WORKER_PIECE,    /* text, n, count new tokens */
    WORKER_ANSWER,   /* result: the whole answer; the taker owns it */
    WORKER_FAILED,   /* error; the job that failed is over */
    WORKER_IDLE,     /* the queue is empty */
} worker_event_type;

typedef struct {
    worker_event_type type;
    int job; /* number that the post returned */
    pali_engine_info info;
    pali_stage stage;
    int done, total;
    unsigned picture;  /* serial of the first picture the question is about; 0 = none */
    int width, height; /* its size, pixels; 0 = none */
    char *text;        /* owned by the event */
    size_t n;
    int count;
    struct worker_token {
        size_t to; /* bytes of text up to its end */
        float p;   /* its probability */
    } * tokens;    /* [count], owned by the event */
    pali_result result;
    pali_error error;
} worker_event;

/* Starts the thread. NULL with err when the system refuses. */
worker *worker_open(pali_error *err);
/* Stops the running job, drops the others, ends the thread. */
void worker_close(worker *w);

/* Jobs. Arguments are copied (of an image a reference is taken). They return the job's
 * number, -1 when memory is out. Loading another model starts a fresh dialog; when it fails
 * the old model stays, and starts one too. Without a model only questions fail. */
int worker_load(worker *w, const pali_engine_options *o);
/* n > 0 images for one prompt. */
int worker_images(worker *w, shared_image *const *images, size_t n, bool forget);
int worker_ask(worker *w, const char *prompt, const pali_ask *ask);
int worker_drop_turns(worker *w, size_t n);
int worker_add_turn(worker *w, const char *question, const char *answer);

/* Asks the running answer (or encoding) to stop, never the loading of a model;
 * drop_waiting: also forgets the questions that wait, and returns how many those were. */
size_t worker_stop(worker *w, bool drop_waiting);

int worker_fd(const worker *w);
/* Takes the oldest event; false when there is none, and once after those that were there
 * together, so that a loop that takes all comes to an end. Release with worker_event_close. */
bool worker_take(worker *w, worker_event *out);
void worker_event_close(worker_event *e);

#endif
