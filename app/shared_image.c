/* shared_image.c - counting the readers of a picture. */
#include "app/shared_image.h"

#include <stdlib.h>

shared_image *shared_image_new(pali_image *image) {
    static atomic_uint made;
    shared_image *s = malloc(sizeof *s);
    if (!s) {
        pali_image_close(image);
        return NULL;
    }
    s->image = *image;
    s->serial = atomic_fetch_add(&made, 1) + 1;
    atomic_init(&s->refs, 1);
    *image = (pali_image){0};
    return s;
}

shared_image *shared_image_ref(shared_image *s) {
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void shared_image_unref(shared_image *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    pali_image_close(&s->image);
    free(s);
}
