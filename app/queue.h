/* queue.h - messages from one thread to another, oldest first.
 *
 * A message is a struct whose first member is a queue_item. The queue has no lock: whoever
 * shares one guards it with the mutex that guards what belongs to it, so that a message and
 * the state it tells of change together. A polled queue has a descriptor for an event loop,
 * readable as long as the queue is not empty.                                             */
#ifndef APP_QUEUE_H
#define APP_QUEUE_H

#include <stdbool.h>

typedef struct queue_item {
    struct queue_item *next;
} queue_item;

typedef struct {
    queue_item *first, **end;
    int fd; /* -1: not polled */
} queue;

/* -1 when the system gives no descriptor (errno says why). Must not be copied afterwards. */
int queue_open(queue *q, bool polled);
/* The queue must be empty. */
void queue_close(queue *q);

void queue_put(queue *q, queue_item *item);
/* The oldest message, or NULL. */
queue_item *queue_take(queue *q);
/* All of them, linked by next. */
queue_item *queue_take_all(queue *q);

#endif
