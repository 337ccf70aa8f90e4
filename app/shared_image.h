/* shared_image.h - a decoded picture that several threads read. */
#ifndef APP_SHARED_IMAGE_H
#define APP_SHARED_IMAGE_H

#include "core/image.h"

#include <stdatomic.h>

/* The pixels never change once shared. */
typedef struct {
    pali_image image;
    unsigned serial; /* which picture: no other one of this program has it; never 0 */
    atomic_int refs;
} shared_image;

/* Takes over *image (empty afterwards). NULL when memory is out (*image is closed). */
shared_image *shared_image_new(pali_image *image);
shared_image *shared_image_ref(shared_image *s);
void shared_image_unref(shared_image *s); /* NULL is fine */

#endif
