/* painter.c - the thread behind painter.h. */
#include "app/painter.h"

#include "app/clipboard.h"
#include "app/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ui_picture_request r;
    shared_image *image;
    unsigned serial;
} paint;

typedef struct {
    queue_item item;
    char *path;
    bool clipboard, forget, add;
} open_job;

typedef struct {
    queue_item item;
    painter_event ev;
} done;

struct painter {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    queue opens;    /* open_job */
    paint *waiting; /* the newest preview request */
    queue out;      /* done */
    unsigned serials;
    bool quit;
};

/* --- requests -------------------------------------------------------------------------- */

static void paint_close(paint *p) {
    if (!p)
        return;
    ui_object *objects = (ui_object *)p->r.objects;
    for (int i = 0; i < p->r.nobjects; i++) {
        free((char *)objects[i].label);
        free((uint8_t *)objects[i].mask);
    }
    free(objects);
    shared_image_unref(p->image);
    free(p);
}

static paint *paint_new(shared_image *image, const ui_picture_request *r) {
    paint *p = calloc(1, sizeof *p);
    ui_object *objects = calloc((size_t)r->nobjects + 1, sizeof *objects);
    if (!p || !objects) {
        free(p);
        free(objects);
        return NULL;
    }
    p->image = shared_image_ref(image);
    p->r = *r;
    p->r.rgb = image->image.rgb;
    p->r.width = image->image.width;
    p->r.height = image->image.height;
    p->r.objects = objects;
    for (int i = 0; i < r->nobjects; i++) {
        objects[i] = r->objects[i];
        objects[i].label = r->objects[i].label ? strdup(r->objects[i].label) : NULL;
        size_t n = (size_t)objects[i].mask_w * (size_t)objects[i].mask_h;
        uint8_t *mask = r->objects[i].mask ? malloc(n) : NULL;
        if (mask)
            memcpy(mask, r->objects[i].mask, n);
        objects[i].mask = mask;
    }
    return p;
}

unsigned painter_render(painter *p, shared_image *image, const ui_picture_request *r) {
    paint *q = paint_new(image, r);
    if (!q)
        return 0;
    pthread_mutex_lock(&p->lock);
    unsigned serial = q->serial = ++p->serials;
    paint *old = p->waiting;
    p->waiting = q;
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    paint_close(old);
    return serial;
}

int painter_open_image(painter *p, const char *path, bool forget, bool add) {
    open_job *j = calloc(1, sizeof *j);
    if (j)
        j->path = strdup(path ? path : "clipboard");
    if (!j || !j->path) {
        free(j);
        return -1;
    }
    j->clipboard = !path;
    j->forget = forget;
    j->add = add;
    pthread_mutex_lock(&p->lock);
    queue_put(&p->opens, &j->item);
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

/* --- results ------------------------------------------------------------------------------ */

static void tell(painter *p, painter_event *ev) {
    done *d = malloc(sizeof *d);
    if (!d) {
        free(ev->path);
        shared_image_unref(ev->image);
        ui_picture_close(ev->picture);
        return;
    }
    d->ev = *ev;
    pthread_mutex_lock(&p->lock);
    queue_put(&p->out, &d->item);
    pthread_mutex_unlock(&p->lock);
}

bool painter_take(painter *p, painter_event *out) {
    pthread_mutex_lock(&p->lock);
    done *d = (done *)queue_take(&p->out);
    pthread_mutex_unlock(&p->lock);
    if (!d)
        return false;
    *out = d->ev;
    free(d);
    return true;
}

/* --- the thread ------------------------------------------------------------------------------ */

static int decode(const open_job *j, pali_image *image, pali_error *err) {
    if (!j->clipboard)
        return pali_image_open(j->path, image, err);
    uint8_t *bytes;
    size_t n;
    int rc = clipboard_read_png(&bytes, &n, err);
    if (!rc) {
        rc = pali_image_decode(bytes, n, "the clipboard's picture", image, err);
        free(bytes);
    }
    return rc;
}

static void open_image(painter *p, open_job *j) {
    painter_event ev = {.type = PAINTER_IMAGE,
                        .path = j->path,
                        .clipboard = j->clipboard,
                        .forget = j->forget,
                        .add = j->add};
    pali_image image;
    if (!decode(j, &image, &ev.error)) {
        ev.image = shared_image_new(&image);
        if (!ev.image)
            pali_fail_nomem(&ev.error, "opening the image");
    }
    if (!ev.image)
        ev.type = PAINTER_FAILED;
    tell(p, &ev);
    free(j);
}

static void render(painter *p, paint *q) {
    painter_event ev = {.type = PAINTER_PICTURE, .serial = q->serial};
    char why[200] = "";
    ev.picture = ui_picture_render(&q->r, why, sizeof why);
    if (!ev.picture) {
        ev.type = PAINTER_FAILED;
        pali_fail(&ev.error, PALI_ENOMEM, NULL, "the preview cannot be drawn: %s", why);
    }
    tell(p, &ev);
    paint_close(q);
}

static void *work(void *arg) {
    painter *p = arg;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        while (!p->opens.first && !p->waiting && !p->quit)
            pthread_cond_wait(&p->more, &p->lock);
        if (p->quit) {
            pthread_mutex_unlock(&p->lock);
            return NULL;
        }
        open_job *j = (open_job *)queue_take(&p->opens);
        paint *q = NULL;
        if (!j) {
            q = p->waiting;
            p->waiting = NULL;
        }
        pthread_mutex_unlock(&p->lock);
        if (j)
            open_image(p, j);
        else
            render(p, q);
    }
}

painter *painter_open(pali_error *err) {
    painter *p = calloc(1, sizeof *p);
    if (!p) {
        pali_fail_nomem(err, "starting the chat");
        return NULL;
    }
    queue_open(&p->opens, false);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    if (queue_open(&p->out, true) || pthread_create(&p->thread, NULL, work, p)) {
        pali_fail(err, PALI_EIO, "close other programs", "the system gives no thread: %s",
                  strerror(errno));
        queue_close(&p->out);
        free(p);
        return NULL;
    }
    return p;
}

int painter_fd(const painter *p) {
    return p->out.fd;
}

void painter_close(painter *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    painter_event ev;
    while (painter_take(p, &ev)) {
        free(ev.path);
        shared_image_unref(ev.image);
        ui_picture_close(ev.picture);
    }
    for (open_job *j; (j = (open_job *)queue_take(&p->opens));) {
        free(j->path);
        free(j);
    }
    paint_close(p->waiting);
    queue_close(&p->out);
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
