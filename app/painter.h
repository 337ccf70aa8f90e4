/* painter.h - the thread that decodes pictures and renders previews.
 *
 * Decoding a photo or turning it into a sixel takes longer than a key may wait. Requests go
 * in, finished things come out; of several preview requests only the newest is worked on.   */
#ifndef APP_PAINTER_H
#define APP_PAINTER_H

#include "app/shared_image.h"
#include "ui/picture.h"

#include <stdbool.h>

typedef struct painter painter;

typedef enum {
    PAINTER_IMAGE,
    PAINTER_PICTURE,
    PAINTER_FAILED
} painter_event_type;

typedef struct {
    painter_event_type type;
    char *path;          /* IMAGE, FAILED while opening (else NULL): owned */
    bool clipboard;      /* IMAGE: path is only a word for it */
    bool forget, add;    /* as given to painter_open_image */
    shared_image *image; /* IMAGE: one reference, the taker's */
    ui_picture *picture; /* PICTURE: the taker's */
    unsigned serial;     /* PICTURE: of its request */
    pali_error error;    /* FAILED */
} painter_event;

painter *painter_open(pali_error *err);
void painter_close(painter *p);

/* Decodes path (copied); NULL: the picture on the clipboard, whose path then is "clipboard".
 * forget: the turns so far; add: beside the pictures there are. Both are for the taker of the
 * event. -1 when memory is out. */
int painter_open_image(painter *p, const char *path, bool forget, bool add);
/* Renders r with the pixels of image (a reference is taken); r's objects, labels and masks
 * are copied. Replaces a request that waits. Returns its serial, 0 when memory is out. */
unsigned painter_render(painter *p, shared_image *image, const ui_picture_request *r);

int painter_fd(const painter *p);
bool painter_take(painter *p, painter_event *out);

#endif
