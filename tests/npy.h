/* npy.h - reads the .npy files beside the tests, and writes none.
 *
 * Only what our goldens use: version 1 files, C order, '<f4', '<i4', '<i8', at most
 * 3 dimensions. Anything else fails the test that asked.                           */
#ifndef PALI_TESTS_NPY_H
#define PALI_TESTS_NPY_H

#include "tests/test.h"

typedef struct {
    size_t shape[3]; /* unused dimensions are 1 */
    int ndim;
    size_t n;   /* elements */
    void *data; /* owned: float, int32_t or int64_t */
} npy;

static inline void npy_close(npy *a) {
    free(a->data);
    a->data = NULL;
}

/* type: "f4", "i4" or "i8". */
static inline npy npy_open(const char *path, const char *type) {
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot be opened; tests run from the top of the tree", path);
    unsigned char head[10];
    char text[512] = "";
    if (fread(head, 1, 10, f) != 10 || memcmp(head, "\x93NUMPY\x01", 7) != 0)
        fail_msg("%s: not a version 1 .npy file", path);
    size_t len = head[8] | (size_t)head[9] << 8;
    if (len >= sizeof text || fread(text, 1, len, f) != len)
        fail_msg("%s: bad header", path);
    char descr[32];
    snprintf(descr, sizeof descr, "'descr': '<%s'", type);
    const char *at = strstr(text, "'shape': (");
    if (!strstr(text, descr) || !strstr(text, "'fortran_order': False") || !at)
        fail_msg("%s: not a C-order array of %s: %s", path, type, text);

    npy a = {{1, 1, 1}, 0, 1, NULL};
    at += strlen("'shape': (");
    while (*at != ')' && *at) {
        char *end;
        unsigned long v = strtoul(at, &end, 10);
        if (end == at || a.ndim == 3 || v > 1ul << 24)
            fail_msg("%s: bad shape: %s", path, text);
        a.shape[a.ndim++] = v;
        a.n *= v;
        at = end + strspn(end, ", ");
    }
    size_t width = type[1] == '8' ? 8 : 4;
    a.data = malloc(a.n * width + 1);
    if (!a.data || fread(a.data, width, a.n, f) != a.n || fgetc(f) != EOF)
        fail_msg("%s: the data does not fit the header", path);
    fclose(f);
    return a;
}

#endif
