/* test_worker.c - the inference thread with a tiny model: order of jobs, stopping, closing.
 *
 * Either thread may stand still at any point for as long as it likes. So an answer that is to be
 * stopped is held in its middle (ask_held) until the stop has been said, and limits are of
 * processor time, or so long that only silence reaches them.                                  */
#include "app/worker.h"
#include "tests/core/make_model.h"
#include "tests/test.h"

#include <poll.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#define MODEL "tests/data/hf/pg1-bf16"

static char other[64]; /* a PaliGemma 2 with the same tokenizer */

enum {
    WAIT_MS = 1500000, /* until a silent worker is a failure */
    CONTEXT = 8192,
    LONG = 7900, /* tokens: 20 s of computing */
    HELD_AT = 50 /* tokens */
};

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What this process has computed: no matter how often it had to wait for a processor. */
static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static worker *open_worker(void) {
    pali_error err = {0};
    worker *w = worker_open(&err);
    if (!w)
        fail_msg("%s", err.what);
    return w;
}

/* The next event, as the event loop gets it. Close it. */
static worker_event next(worker *w) {
    worker_event e;
    long until = now_ms() + WAIT_MS;
    while (!worker_take(w, &e)) {
        if (now_ms() > until)
            fail_msg("the worker is silent");
        poll(&(struct pollfd){worker_fd(w), POLLIN, 0}, 1, 100);
    }
    return e;
}

/* Passes over progress; the event must be of that type. Close it. */
static worker_event expect(worker *w, worker_event_type type) {
    worker_event e = next(w);
    while (e.type == WORKER_PROGRESS || (e.type == WORKER_PIECE && type != WORKER_PIECE)) {
        worker_event_close(&e);
        e = next(w);
    }
    if (e.type != type)
        fail_msg("event %d instead of %d: %s", e.type, type, e.error.what);
    return e;
}

/* The same, closed; returns the job's number. */
static int pass(worker *w, worker_event_type type) {
    worker_event e = expect(w, type);
    int job = e.job;
    worker_event_close(&e);
    return job;
}

static int load(worker *w, const char *dir) {
    pali_engine_options o = {
        .model_dir = dir, .threads = 1, .context = strcmp(dir, MODEL) ? 0 : CONTEXT};
    int job = worker_load(w, &o);
    assert_true(job > 0);
    return job;
}

static shared_image *picture(void) {
    pali_image im = {.width = 20, .height = 10, .rgb = malloc(600)};
    assert_non_null(im.rgb);
    for (int i = 0; i < 600; i++)
        im.rgb[i] = (uint8_t)(i * 7);
    shared_image *s = shared_image_new(&im);
    assert_non_null(s);
    return s;
}

static int image(worker *w) {
    shared_image *s = picture();
    int job = worker_images(w, &s, 1, false);
    assert_true(job > 0);
    shared_image_unref(s); /* the worker has its own reference */
    return job;
}

/* Waits until all jobs are over without taking an event: the last one, of ours, gives its
 * picture back. */
static void let_it_finish(worker *w) {
    shared_image *last = picture();
    long until = now_ms() + WAIT_MS;
    assert_true(worker_images(w, &last, 1, false) > 0);
    while (atomic_load(&last->refs) > 1) {
        assert_true(now_ms() < until);
        poll(NULL, 0, 1);
    }
    shared_image_unref(last);
}

static int ask(worker *w, const char *q, int tokens) {
    pali_ask a = {.max_tokens = tokens, .history = PALI_HISTORY_NONE};
    int job = worker_ask(w, q, &a);
    assert_true(job > 0);
    return job;
}

static atomic_bool held; /* answers of ask_held go no further */
static int steps;        /* of the one that runs; the worker thread's */

static void hold(void *user, const pali_traced *t) {
    (void)user;
    if (!strcmp(t->name, "prefix_ids"))
        steps = 0;
    if (!strcmp(t->name, "logits") && ++steps > HELD_AT)
        while (atomic_load(&held))
            poll(NULL, 0, 1);
}

/* A long answer that comes as far as its HELD_AT-th token until held is false. */
static int ask_held(worker *w, const char *q) {
    pali_ask a = {.max_tokens = LONG, .history = PALI_HISTORY_NONE, .on_tensor = hold};
    atomic_store(&held, true);
    int job = worker_ask(w, q, &a);
    assert_true(job > 0);
    return job;
}

static bool silent(worker *w) {
    return poll(&(struct pollfd){worker_fd(w), POLLIN, 0}, 1, 0) == 0;
}

/* --- order ---------------------------------------------------------------------------- */

static void worker_does_jobs_in_order(void **state) {
    (void)state;
    worker *w = open_worker();
    assert_true(silent(w));
    int l = load(w, MODEL);
    image(w);
    int a = ask(w, "caption en", 5), b = ask(w, "ocr", 7);
    worker_event e = expect(w, WORKER_LOADED);
    assert_int_equal(e.job, l);
    assert_true(e.info.params > 0 && e.info.image_tokens > 0);
    worker_event_close(&e);
    assert_int_equal(pass(w, WORKER_STARTED), a);

    /* The pieces are the answer. */
    char text[4096] = "";
    int count = 0;
    for (;;) {
        e = next(w);
        if (e.type == WORKER_ANSWER)
            break;
        if (e.type == WORKER_PIECE) {
            assert_int_equal(e.job, a);
            assert_int_equal(strlen(e.text), e.n);
            strcat(text, e.text);
            count += e.count;
        }
        worker_event_close(&e);
    }
    assert_int_equal(e.job, a);
    assert_string_equal(text, e.result.text);
    assert_int_equal(count, (int)e.result.ntokens);
    worker_event_close(&e);

    assert_int_equal(pass(w, WORKER_STARTED), b);
    assert_int_equal(pass(w, WORKER_ANSWER), b);
    assert_int_equal(pass(w, WORKER_IDLE), 0);
    assert_true(silent(w));
    worker_close(w);
}

static void worker_merges_pieces(void **state) {
    (void)state;
    worker *w = open_worker();
    load(w, MODEL);
    image(w);
    ask(w, "x", 60);
    let_it_finish(w);
    int pieces = 0, tokens = 0;
    worker_event e;
    for (bool idle = false; !idle;) {
        e = next(w);
        pieces += e.type == WORKER_PIECE;
        tokens += e.type == WORKER_PIECE ? e.count : 0;
        idle = e.type == WORKER_IDLE;
        worker_event_close(&e);
    }
    assert_true(tokens >= 50);
    assert_int_equal(pieces, 1); /* tokens do not pile up */
    worker_close(w);
}

/* A word that all is done is stale once there is something to do. */
static void worker_is_not_idle_with_a_job(void **state) {
    (void)state;
    worker *w = open_worker();
    load(w, MODEL);
    image(w);
    pass(w, WORKER_LOADED);
    pass(w, WORKER_IDLE);
    for (int i = 0; i < 20; i++) {
        ask(w, "a", 1);
        pass(w, WORKER_STARTED);
        pass(w, WORKER_ANSWER);
        if (i % 2) /* it may be idle by then */
            poll(&(struct pollfd){worker_fd(w), POLLIN, 0}, 1, 20);
        int b = ask(w, "b", 1);
        if (i % 4 > 1) /* and this one over before anyone looks */
            let_it_finish(w);
        assert_int_equal(pass(w, WORKER_STARTED), b); /* no IDLE in between */
        pass(w, WORKER_ANSWER);
        pass(w, WORKER_IDLE);
        assert_true(silent(w));
    }
    worker_close(w);
}

/* --- stopping --------------------------------------------------------------------------- */

static void worker_stop_ends_one_answer(void **state) {
    (void)state;
    worker *w = open_worker();
    load(w, MODEL);
    image(w);
    int a = ask_held(w, "first"), b = ask(w, "second", 3);
    pass(w, WORKER_LOADED);
    assert_int_equal(pass(w, WORKER_STARTED), a);
    pass(w, WORKER_PIECE);
    assert_int_equal(worker_stop(w, false), 0);
    atomic_store(&held, false);
    worker_event e = expect(w, WORKER_ANSWER);
    assert_int_equal(e.job, a);
    assert_int_equal(e.result.stop, PALI_STOP_CANCEL);
    assert_in_range(e.result.ntokens, 1, HELD_AT + 1);
    worker_event_close(&e);
    assert_int_equal(pass(w, WORKER_STARTED), b);
    e = expect(w, WORKER_ANSWER); /* whole */
    assert_int_equal(e.job, b);
    assert_int_not_equal(e.result.stop, PALI_STOP_CANCEL);
    worker_event_close(&e);
    pass(w, WORKER_IDLE);
    worker_stop(w, true); /* nothing runs: nothing happens, now or to the next */
    int c = ask(w, "third", 3);
    pass(w, WORKER_STARTED);
    e = expect(w, WORKER_ANSWER);
    assert_int_equal(e.job, c);
    assert_int_not_equal(e.result.stop, PALI_STOP_CANCEL);
    worker_event_close(&e);
    worker_close(w);
}

static void worker_stop_drops_what_waits(void **state) {
    (void)state;
    worker *w = open_worker();
    load(w, MODEL);
    image(w);
    int a = ask_held(w, "first");
    ask(w, "second", LONG);
    assert_true(worker_drop_turns(w, 1) > 0); /* no question: stays */
    ask(w, "third", LONG);
    pass(w, WORKER_LOADED);
    assert_int_equal(pass(w, WORKER_STARTED), a);
    pass(w, WORKER_PIECE);
    assert_int_equal(worker_stop(w, true), 2);
    atomic_store(&held, false);
    int d = ask(w, "fourth", 2);
    assert_int_equal(pass(w, WORKER_ANSWER), a);
    assert_int_equal(pass(w, WORKER_STARTED), d);
    worker_event e = expect(w, WORKER_ANSWER);
    assert_int_equal(e.job, d);
    assert_int_not_equal(e.result.stop, PALI_STOP_CANCEL);
    worker_event_close(&e);
    pass(w, WORKER_IDLE);
    worker_close(w);
}

/* Ctrl-C while the model loads takes back the questions, not the model. */
static void worker_stop_lets_a_model_load(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++) {
        worker *w = open_worker();
        load(w, MODEL);
        image(w);
        ask(w, "early", LONG);
        poll(NULL, 0, i % 3);
        worker_stop(w, true);
        pass(w, WORKER_LOADED);
        int b = ask(w, "later", 2);
        worker_event e = next(w);
        while (e.type != WORKER_ANSWER || e.job != b) { /* the early one may have begun */
            assert_int_not_equal(e.type, WORKER_FAILED);
            worker_event_close(&e);
            e = next(w);
        }
        assert_int_not_equal(e.result.stop, PALI_STOP_CANCEL);
        worker_event_close(&e);
        worker_close(w);
    }
}

/* --- closing ------------------------------------------------------------------------------ */

static void worker_closes_at_any_time(void **state) {
    (void)state;
    for (int i = 0, slow = 0; i < 12; i++) {
        worker *w = open_worker();
        if (i % 4) {
            load(w, MODEL);
            image(w);
            for (int k = 0; k < 3; k++)
                ask(w, "long", LONG);
            load(w, other);
        }
        if (i % 4 == 2)
            pass(w, WORKER_LOADED);
        if (i % 4 == 3) {
            pass(w, WORKER_LOADED);
            pass(w, WORKER_STARTED);
            pass(w, WORKER_PIECE);
        }
        /* Seen: 0.1; an answer that ends by itself: 20. A guest's clock goes on while its host
         * computes for others, and a late word finds an answer that was over: not three times. */
        double start = cpu_s();
        worker_close(w);
        if (cpu_s() - start >= 10) {
            assert_true(++slow < 3);
            i--;
        }
    }
    worker_close(NULL);
}

/* --- models --------------------------------------------------------------------------------- */

static void worker_changes_models(void **state) {
    (void)state;
    worker *w = open_worker();
    load(w, MODEL);
    image(w);
    ask(w, "x", 2);
    int l = load(w, other);
    image(w);
    assert_true(worker_add_turn(w, "x", "y") > 0);
    int b = ask(w, "x", 2);
    worker_event e = expect(w, WORKER_LOADED);
    assert_int_equal(e.info.generation, 1);
    assert_string_equal(e.text, MODEL);
    worker_event_close(&e);
    pass(w, WORKER_STARTED);
    pass(w, WORKER_ANSWER);
    e = expect(w, WORKER_LOADED);
    assert_int_equal(e.info.generation, 2);
    assert_int_equal(e.job, l);
    assert_string_equal(e.text, other);
    worker_event_close(&e);
    assert_int_equal(pass(w, WORKER_STARTED), b);
    assert_int_equal(pass(w, WORKER_ANSWER), b);
    pass(w, WORKER_IDLE);
    worker_close(w);
}

/* A question knows its picture from another one of the same size. */
static void worker_tells_pictures_apart(void **state) {
    (void)state;
    worker *w = open_worker();
    shared_image *s[2] = {picture(), picture()};
    assert_true(s[0]->serial && s[1]->serial && s[0]->serial != s[1]->serial);
    load(w, MODEL);
    for (int i = 0; i < 4; i++) { /* the first comes back */
        assert_true(worker_images(w, &s[i % 2], 1, false) > 0);
        ask(w, "x", 1);
    }
    pass(w, WORKER_LOADED);
    for (int i = 0; i < 4; i++) {
        worker_event e = expect(w, WORKER_STARTED);
        assert_int_equal(e.picture, s[i % 2]->serial);
        worker_event_close(&e);
        pass(w, WORKER_ANSWER);
    }
    worker_close(w);
    for (int i = 0; i < 2; i++)
        shared_image_unref(s[i]);
}

/* One failure is told once, and a model that stays starts afresh. */
static void worker_survives_a_bad_model(void **state) {
    (void)state;
    worker *w = open_worker();
    int l = load(w, "/nonexistent");
    image(w);
    worker_add_turn(w, "q", "a");
    worker_drop_turns(w, 1);
    worker_event e = expect(w, WORKER_FAILED);
    assert_int_equal(e.job, l);
    assert_non_null(strstr(e.error.what, "/nonexistent"));
    worker_event_close(&e);
    pass(w, WORKER_IDLE);
    int a = ask(w, "x", 2);
    pass(w, WORKER_STARTED); /* the question was taken, and shows */
    e = expect(w, WORKER_FAILED);
    assert_int_equal(e.job, a);
    assert_non_null(strstr(e.error.what, "no model"));
    worker_event_close(&e);
    pass(w, WORKER_IDLE);

    load(w, MODEL);
    image(w);
    pali_ask options = {.max_tokens = 2, .history = PALI_HISTORY_AUTO};
    for (int i = 0; i < 2; i++)
        worker_ask(w, "x", &options);
    load(w, "/nonexistent");
    image(w);
    worker_add_turn(w, "q", "a"); /* what the chat knows, once */
    worker_ask(w, "x", &options);
    pass(w, WORKER_LOADED);
    for (int i = 0; i < 2; i++) {
        e = expect(w, WORKER_STARTED);
        assert_true(e.width > 0 && e.height > 0); /* of the picture */
        worker_event_close(&e);
        e = expect(w, WORKER_ANSWER);
        assert_int_equal(e.result.turns_used, i);
        worker_event_close(&e);
    }
    pass(w, WORKER_FAILED);
    pass(w, WORKER_STARTED);
    e = expect(w, WORKER_ANSWER);
    assert_int_equal(e.result.turns_used, 1);
    worker_event_close(&e);
    pass(w, WORKER_IDLE);
    worker_close(w);
}

static int set_up(void **state) {
    (void)state;
    model_folder(other);
    model_plan *p = model_tiny(2);
    p->V = 1664; /* the tokenizer has 1572 */
    model_list(p);
    model_write(p, other);
    free(p);
    char to[96], *whole = realpath(MODEL "/tokenizer.model", NULL);
    snprintf(to, sizeof to, "%s/tokenizer.model", other);
    int rc = whole ? symlink(whole, to) : -1;
    free(whole);
    return rc;
}

static int tear_down(void **state) {
    (void)state;
    model_remove(other);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_does_jobs_in_order),
        cmocka_unit_test(worker_merges_pieces),
        cmocka_unit_test(worker_is_not_idle_with_a_job),
        cmocka_unit_test(worker_stop_ends_one_answer),
        cmocka_unit_test(worker_stop_drops_what_waits),
        cmocka_unit_test(worker_stop_lets_a_model_load),
        cmocka_unit_test(worker_closes_at_any_time),
        cmocka_unit_test(worker_changes_models),
        cmocka_unit_test(worker_tells_pictures_apart),
        cmocka_unit_test(worker_survives_a_bad_model),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
