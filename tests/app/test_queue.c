/* The queue between threads: order, and a descriptor that is readable while there is something. */
#include "app/queue.h"

#include "tests/test.h"

#include <poll.h>
#include <pthread.h>

typedef struct {
    queue_item item;
    int number;
} message;

static bool readable(const queue *q) {
    struct pollfd p = {.fd = q->fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static int take(queue *q) {
    message *m = (message *)queue_take(q);
    return m ? m->number : -1;
}

static void queue_gives_back_in_order(void **state) {
    (void)state;
    queue q;
    message m[5];
    assert_int_equal(queue_open(&q, true), 0);
    assert_int_equal(take(&q), -1);
    assert_false(readable(&q));
    for (int i = 0; i < 5; i++) {
        m[i].number = i;
        queue_put(&q, &m[i].item);
        assert_true(readable(&q));
    }
    assert_int_equal(take(&q), 0);
    assert_int_equal(take(&q), 1);
    assert_true(readable(&q));
    queue_put(&q, &m[0].item); /* again, behind the others */
    queue_item *all = queue_take_all(&q);
    assert_false(readable(&q));
    static const int rest[] = {2, 3, 4, 0};
    for (int i = 0; i < 4; i++, all = all->next)
        assert_int_equal(((message *)all)->number, rest[i]);
    assert_null(all);
    assert_null(queue_take_all(&q));
    queue_put(&q, &m[1].item);
    assert_true(readable(&q));
    assert_int_equal(take(&q), 1);
    assert_false(readable(&q));
    queue_close(&q);
}

static void queue_without_descriptor_works(void **state) {
    (void)state;
    queue q;
    message m = {.number = 7};
    assert_int_equal(queue_open(&q, false), 0);
    assert_int_equal(q.fd, -1);
    queue_put(&q, &m.item);
    assert_int_equal(take(&q), 7);
    assert_int_equal(take(&q), -1);
    queue_close(&q);
}

enum {
    MESSAGES = 20000,
    WAIT_MS = 1500000 /* until silence is a failure: the other thread may stand still */
};

typedef struct {
    queue q;
    pthread_mutex_t lock;
    message m[MESSAGES];
} shared;

static void *put_all(void *user) {
    shared *s = user;
    for (int i = 0; i < MESSAGES; i++) {
        s->m[i].number = i;
        pthread_mutex_lock(&s->lock);
        queue_put(&s->q, &s->m[i].item);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* A loop that sleeps in poll misses nothing. */
static void queue_wakes_a_loop(void **state) {
    (void)state;
    static shared s = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    assert_int_equal(queue_open(&s.q, true), 0);
    assert_int_equal(pthread_create(&thread, NULL, put_all, &s), 0);
    for (int next = 0; next < MESSAGES;) {
        struct pollfd p = {.fd = s.q.fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        pthread_mutex_lock(&s.lock);
        queue_item *all = next % 3 ? queue_take_all(&s.q) : queue_take(&s.q);
        bool one = next % 3 == 0;
        pthread_mutex_unlock(&s.lock);
        for (; all; all = one ? NULL : all->next)
            assert_int_equal(((message *)all)->number, next++);
    }
    pthread_join(thread, NULL);
    queue_close(&s.q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_gives_back_in_order),
        cmocka_unit_test(queue_without_descriptor_works),
        cmocka_unit_test(queue_wakes_a_loop),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
