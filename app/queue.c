/* queue.c - see queue.h. */
#include "app/queue.h"

#include <stdint.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

int queue_open(queue *q, bool polled) {
    *q = (queue){.end = &q->first, .fd = -1};
    if (polled)
        q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return polled && q->fd < 0 ? -1 : 0;
}

void queue_close(queue *q) {
    if (q->fd >= 0)
        close(q->fd);
}

void queue_put(queue *q, queue_item *item) {
    bool was_empty = !q->first;
    item->next = NULL;
    *q->end = item;
    q->end = &item->next;
    const uint64_t one = 1;
    if (was_empty && q->fd >= 0 && write(q->fd, &one, sizeof one) < 0)
        return; /* only when it is readable already */
}

queue_item *queue_take_all(queue *q) {
    queue_item *all = q->first;
    q->first = NULL;
    q->end = &q->first;
    uint64_t count;
    if (all && q->fd >= 0 && read(q->fd, &count, sizeof count) < 0)
        return all; /* only when it was not readable */
    return all;
}

queue_item *queue_take(queue *q) {
    queue_item *item = q->first;
    if (!item || !item->next)
        return queue_take_all(q);
    q->first = item->next;
    return item;
}
