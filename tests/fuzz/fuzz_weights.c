/* A model folder from four texts with a NUL between them: config.json, the shard index,
 * the header of model-00001-of-00001.safetensors and the number of its data bytes
 * (which are a hole: opening a model reads none of them). An empty index means one
 * model.safetensors. Either one clear failure, or a model of complete sizes. */
#include "core/weights.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char dir[64];
static const char *const names[] = {"config.json", "model.safetensors.index.json",
                                    "model-00001-of-00001.safetensors", "model.safetensors"};

static const char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void remove_folder(void) {
    for (int i = 0; i < 4; i++)
        unlink(path_of(names[i]));
    rmdir(dir);
}

/* name with the bytes a, then b, then size bytes of nothing. */
static void put(const char *name, const void *a, size_t na, const void *b, size_t nb,
                uint64_t size) {
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, a, na) != (ssize_t)na || write(fd, b, nb) != (ssize_t)nb ||
        ftruncate(fd, (off_t)(na + nb + size)) != 0)
        abort();
    close(fd);
}

static void demand(int good) {
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "%s/pali-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"); /* memory is faster */
        demand(mkdtemp(dir) != NULL);
        atexit(remove_folder);
    }
    const uint8_t *part[4] = {data, data, data, data};
    size_t size[4] = {0};
    for (int i = 0; i < 4; i++) {
        const uint8_t *end = i < 3 ? memchr(data, 0, n) : NULL;
        part[i] = data;
        size[i] = end ? (size_t)(end - data) : n;
        data += size[i] + (end ? 1 : 0);
        n -= size[i] + (end ? 1 : 0);
    }
    char number[16] = "";
    memcpy(number, part[3], size[3] < 15 ? size[3] : 15);
    uint64_t hole = strtoull(number, NULL, 10) & 0xffffffffff, header = size[2];

    put(names[0], part[0], size[0], "", 0, 0);
    int sharded = size[1] > 0;
    if (sharded)
        put(names[1], part[1], size[1], "", 0, 0);
    else
        unlink(path_of(names[1]));
    put(names[sharded ? 2 : 3], &header, 8, part[2], size[2], hole);
    unlink(path_of(names[sharded ? 3 : 2]));

    pali_weights *w;
    pali_error err = {0};
    int rc = pali_weights_open(dir, &w, &err);
    if (rc) {
        demand(!w && err.code == rc && err.what[0]);
        return 0;
    }
    const pali_text_config *t = &w->config.text;
    const pali_vision_config *v = &w->config.vision;
    demand(t->layers > 0 && t->D > 0 && t->H > 0 && t->K > 0 && t->H % t->K == 0 && t->E > 0 &&
           t->F > 0 && t->V > 0 && t->gemma > 0 && t->query_scale > 0);
    demand(v->layers > 0 && v->D == v->H * v->E && v->F > 0 && v->P > 0 && v->S > 0);
    float first, last; /* both ends of the largest tensor are there */
    pali_matrix_read(&w->embed, 0, 1, &first);
    pali_matrix_read(&w->embed, (size_t)t->V * (size_t)t->D - 1, 1, &last);
    const pali_matrix *down = &w->text[t->layers - 1].down_w; /* may be quantised */
    pali_matrix_read(down, (size_t)t->D * (size_t)t->F - 1, 1, &last);
    demand(down->data && w->vision[v->layers - 1].fc2_b.data);
    pali_weights_close(w);
    return 0;
}
