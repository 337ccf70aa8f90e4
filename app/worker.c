/* worker.c - the thread behind worker.h.
 *
 * Two queues under one mutex, jobs in and events out. cancel is the one flag the model polls;
 * it is cleared when a job starts, under the mutex, so that a stop can only hit the job it was
 * meant for. That all is done is said in the step in which it becomes so, and thrown away when
 * a job was posted before anyone read it.                                                    */
#include "app/worker.h"

#include "app/queue.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    NICER = 3 /* measured: halves the median of key to echo while tokens stream */
};

typedef enum {
    JOB_LOAD,
    JOB_IMAGE,
    JOB_ASK,
    JOB_DROP,
    JOB_ADD
} job_type;

typedef struct {
    queue_item item;
    job_type type;
    int number;
    pali_engine_options options;
    char *a, *b;           /* model_dir and backend; prompt; question and answer */
    shared_image **images; /* [nimages] */
    size_t nimages;
    bool forget;
    size_t n;
    pali_ask ask;
} job;

typedef struct {
    queue_item item;
    worker_event ev;
    int numbers; /* jobs posted by then */
} node;

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    queue jobs, events;     /* job, node */
    node *piece, *progress; /* that more can be added to; NULL = none in the queue */
    job *running;
    int numbers;
    bool quit;
    atomic_int cancel;
    /* The loop's own: nodes on their way out. */
    queue_item *batch;
    bool batch_ended;
    /* The worker thread's own: */
    pali_engine *engine;
    pali_dialog *dialog;
    unsigned picture; /* serial of the first picture */
    int width, height;
};

/* --- events ------------------------------------------------------------------------ */

void worker_event_close(worker_event *e) {
    free(e->text);
    free(e->tokens);
    pali_result_close(&e->result);
}

/* Under the lock. */
static void put_event(worker *w, node *n, const worker_event *ev) {
    n->ev = *ev;
    n->ev.job = w->running ? w->running->number : 0;
    n->numbers = w->numbers;
    queue_put(&w->events, &n->item);
    if (ev->type == WORKER_PROGRESS)
        w->progress = n;
    else if (ev->type == WORKER_PIECE)
        w->piece = n;
    else
        w->piece = w->progress = NULL;
}

/* Takes over what ev owns. An event that cannot be kept for want of memory is lost, save
 * for its effect on the queue; the answer's own event repeats the text. */
static void tell(worker *w, worker_event *ev) {
    node *n = malloc(sizeof *n);
    if (!n) {
        worker_event_close(ev);
        return;
    }
    pthread_mutex_lock(&w->lock);
    put_event(w, n, ev);
    pthread_mutex_unlock(&w->lock);
}

/* Hands out what had come by the first call, then says once that there is no more: a fast
 * model would else keep a loop that takes everything from ever drawing a frame. */
bool worker_take(worker *w, worker_event *out) {
    if (!w->batch && w->batch_ended) {
        w->batch_ended = false;
        return false;
    }
    pthread_mutex_lock(&w->lock);
    if (!w->batch) {
        w->batch = queue_take_all(&w->events);
        w->piece = w->progress = NULL;
    }
    node *n = (node *)w->batch;
    bool stale = n && n->ev.type == WORKER_IDLE && n->numbers != w->numbers;
    pthread_mutex_unlock(&w->lock);
    if (!n)
        return false;
    w->batch = n->item.next;
    w->batch_ended = !w->batch;
    *out = n->ev;
    free(n);
    return stale ? worker_take(w, out) : true;
}

static void on_progress(void *user, pali_stage stage, int done, int total) {
    worker *w = user;
    pthread_mutex_lock(&w->lock);
    bool merged = w->progress && w->progress->ev.stage == stage;
    if (merged) {
        w->progress->ev.done = done;
        w->progress->ev.total = total;
    }
    pthread_mutex_unlock(&w->lock);
    if (!merged)
        tell(w, &(worker_event){
                    .type = WORKER_PROGRESS, .stage = stage, .done = done, .total = total});
}

/* Adds a piece to what e holds; false when memory is out (e is as before). */
static bool add_piece(worker_event *e, const pali_piece *piece) {
    char *text = realloc(e->text, e->n + piece->n + 1);
    if (text)
        e->text = text;
    struct worker_token *tokens = realloc(e->tokens, ((size_t)e->count + 1) * sizeof *tokens);
    if (tokens)
        e->tokens = tokens;
    if (!text || !tokens)
        return false;
    memcpy(text + e->n, piece->text, piece->n);
    e->n += piece->n;
    text[e->n] = 0;
    if (piece->token >= 0)
        tokens[e->count++] = (struct worker_token){e->n, expf(piece->logprob)};
    return true;
}

static void on_piece(void *user, const pali_piece *piece) {
    worker *w = user;
    pthread_mutex_lock(&w->lock);
    /* A progress of the same answer may have come after it. */
    bool merged = w->piece && add_piece(&w->piece->ev, piece);
    pthread_mutex_unlock(&w->lock);
    worker_event e = {.type = WORKER_PIECE};
    if (merged)
        return;
    if (add_piece(&e, piece))
        tell(w, &e);
    else
        worker_event_close(&e);
}

/* --- the thread ---------------------------------------------------------------------- */

static int load(worker *w, job *j, const pali_run *run, pali_error *err) {
    pali_engine *e;
    if (w->dialog) /* fresh, also when the old model stays */
        pali_dialog_drop_turns(w->dialog, SIZE_MAX);
    int rc = pali_engine_open(&j->options, run, &e, err);
    if (rc)
        return rc;
    pali_dialog *d;
    rc = pali_dialog_open(e, &d, err);
    if (rc) {
        pali_engine_close(e);
        return rc;
    }
    pali_dialog_close(w->dialog);
    pali_engine_close(w->engine);
    w->engine = e;
    w->dialog = d;
    worker_event ev = {.type = WORKER_LOADED, .text = j->a};
    j->a = NULL;
    pali_engine_describe(e, &ev.info);
    tell(w, &ev);
    return 0;
}

static int ask(worker *w, job *j, const pali_run *run, pali_error *err) {
    tell(w, &(worker_event){.type = WORKER_STARTED,
                            .picture = w->picture,
                            .width = w->width,
                            .height = w->height});
    if (!w->dialog)
        return pali_fail(err, PALI_EARG, "choose one with /model", "there is no model loaded");
    j->ask.on_piece = on_piece;
    j->ask.user = w;
    worker_event ev = {.type = WORKER_ANSWER};
    int rc = pali_dialog_ask(w->dialog, j->a, &j->ask, run, &ev.result, err);
    if (!rc)
        tell(w, &ev);
    return rc;
}

static int set_images(pali_dialog *d, const job *j, pali_error *err) {
    const pali_image **list = malloc(j->nimages * sizeof *list);
    if (!list)
        return pali_fail_nomem(err, "opening the pictures");
    for (size_t i = 0; i < j->nimages; i++)
        list[i] = &j->images[i]->image;
    int rc = pali_dialog_set_images(d, list, j->nimages, j->forget, err);
    free(list);
    return rc;
}

static int run_job(worker *w, job *j, pali_error *err) {
    pali_run run = {&w->cancel, on_progress, w};
    if (j->type == JOB_LOAD)
        return load(w, j, &run, err);
    if (!w->dialog && j->type != JOB_ASK)
        return 0; /* that loading failed has been told; a model to come gets these anew */
    switch (j->type) {
    case JOB_IMAGE: {
        w->picture = j->images[0]->serial;
        w->width = pali_image_full_width(&j->images[0]->image);
        w->height = pali_image_full_height(&j->images[0]->image);
        int rc = set_images(w->dialog, j, err);
        /* Encoding now, while the question is being typed, makes the first answer soon. */
        if (!rc)
            rc = pali_dialog_encode(w->dialog, &run, err);
        return rc == PALI_ECANCEL ? 0 : rc;
    }
    case JOB_ASK:
        return ask(w, j, &run, err);
    case JOB_DROP:
        pali_dialog_drop_turns(w->dialog, j->n);
        return 0;
    case JOB_ADD:
        return pali_dialog_add_turn(w->dialog, j->a, j->b, err);
    default:
        return 0;
    }
}

static void job_close(job *j) {
    free(j->a);
    free(j->b);
    while (j->nimages)
        shared_image_unref(j->images[--j->nimages]);
    free(j->images);
    free(j);
}

/* A key typed meanwhile must not wait for a processor: this thread, and those that it starts
 * for the model, give way to the one that draws. */
static void give_way(void) {
    id_t self = (id_t)gettid();
    errno = 0;
    int nice_now = getpriority(PRIO_PROCESS, self);
    if (!errno)
        setpriority(PRIO_PROCESS, self, nice_now + NICER);
}

static void *work(void *arg) {
    worker *w = arg;
    give_way();
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (!w->jobs.first && !w->quit)
            pthread_cond_wait(&w->more, &w->lock);
        if (w->quit) {
            pthread_mutex_unlock(&w->lock);
            return NULL;
        }
        job *j = (job *)queue_take(&w->jobs);
        w->running = j;
        atomic_store(&w->cancel, 0);
        pthread_mutex_unlock(&w->lock);

        worker_event ev = {.type = WORKER_FAILED};
        int rc = run_job(w, j, &ev.error);
        if (rc == PALI_ECANCEL)
            pali_fail(&ev.error, rc, NULL, "stopped");
        if (rc)
            tell(w, &ev);

        node *idle = malloc(sizeof *idle);
        pthread_mutex_lock(&w->lock);
        w->running = NULL;
        if (idle && !w->jobs.first) {
            put_event(w, idle, &(worker_event){.type = WORKER_IDLE});
            idle = NULL;
        }
        pthread_mutex_unlock(&w->lock);
        free(idle);
        job_close(j);
    }
}

/* --- the loop's side ------------------------------------------------------------------ */

worker *worker_open(pali_error *err) {
    worker *w = calloc(1, sizeof *w);
    if (!w) {
        pali_fail_nomem(err, "starting the chat");
        return NULL;
    }
    queue_open(&w->jobs, false);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    if (queue_open(&w->events, true) || pthread_create(&w->thread, NULL, work, w)) {
        pali_fail(err, PALI_EIO, "close other programs", "the system gives no thread: %s",
                  strerror(errno));
        queue_close(&w->events);
        free(w);
        return NULL;
    }
    return w;
}

static int post(worker *w, job *j, bool copied) {
    if (!j || !copied) {
        if (j)
            job_close(j);
        return -1;
    }
    pthread_mutex_lock(&w->lock);
    int number = j->number = ++w->numbers;
    queue_put(&w->jobs, &j->item);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    return number;
}

static job *job_new(job_type type) {
    job *j = calloc(1, sizeof *j);
    if (j)
        j->type = type;
    return j;
}

int worker_load(worker *w, const pali_engine_options *o) {
    job *j = job_new(JOB_LOAD);
    if (!j)
        return -1;
    j->options = *o;
    j->options.model_dir = j->a = strdup(o->model_dir);
    j->options.backend = j->b = strdup(o->backend ? o->backend : "auto");
    return post(w, j, j->a && j->b);
}

int worker_images(worker *w, shared_image *const *images, size_t n, bool forget) {
    job *j = job_new(JOB_IMAGE);
    if (!j)
        return -1;
    j->images = calloc(n, sizeof *j->images);
    for (; j->images && j->nimages < n; j->nimages++)
        j->images[j->nimages] = shared_image_ref(images[j->nimages]);
    j->forget = forget;
    return post(w, j, j->images != NULL);
}

int worker_ask(worker *w, const char *prompt, const pali_ask *ask_options) {
    job *j = job_new(JOB_ASK);
    if (!j)
        return -1;
    j->a = strdup(prompt);
    j->ask = *ask_options;
    return post(w, j, j->a != NULL);
}

int worker_drop_turns(worker *w, size_t n) {
    job *j = job_new(JOB_DROP);
    if (j)
        j->n = n;
    return post(w, j, true);
}

int worker_add_turn(worker *w, const char *question, const char *answer) {
    job *j = job_new(JOB_ADD);
    if (!j)
        return -1;
    j->a = strdup(question);
    j->b = strdup(answer);
    return post(w, j, j->a && j->b);
}

size_t worker_stop(worker *w, bool drop_waiting) {
    queue_item *dropped = NULL, *waiting, *next;
    size_t n = 0;
    pthread_mutex_lock(&w->lock);
    if (w->running && w->running->type != JOB_LOAD)
        atomic_store(&w->cancel, 1);
    for (waiting = drop_waiting ? queue_take_all(&w->jobs) : NULL; waiting; waiting = next) {
        next = waiting->next;
        if (((job *)waiting)->type != JOB_ASK) {
            queue_put(&w->jobs, waiting);
            continue;
        }
        waiting->next = dropped;
        dropped = waiting;
        n++;
    }
    pthread_mutex_unlock(&w->lock);
    for (; dropped; dropped = next) {
        next = dropped->next;
        job_close((job *)dropped);
    }
    return n;
}

int worker_fd(const worker *w) {
    return w->events.fd;
}

void worker_close(worker *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true; /* in one go with cancel: no other job may start in between */
    atomic_store(&w->cancel, 1);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    for (job *j; (j = (job *)queue_take(&w->jobs));)
        job_close(j);
    worker_event ev;
    while (w->batch || w->events.first)
        if (worker_take(w, &ev))
            worker_event_close(&ev);
    pali_dialog_close(w->dialog);
    pali_engine_close(w->engine);
    queue_close(&w->events);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
