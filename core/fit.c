/* fit.c - see fit.h. */
#include "core/fit.h"

#include <stdio.h>

static const char *const names[] = {
    [PALI_QUANT_NONE] = "unquantised", [PALI_QUANT_INT8] = "int8", [PALI_QUANT_NF4] = "nf4"};

static uint64_t stored(const pali_matrix *m) { /* 0 for those that are quantised already */
    return (uint64_t)m->rows * (uint64_t)m->cols * pali_dtype_size(m->dtype);
}

uint64_t pali_fit_mapped(const pali_weights *w, const pali_backend_options *o) {
    uint64_t n = w->bytes - (o->head8 ? stored(&w->embed) : 0);
    pali_quant_set set = pali_quant_set_of(w, o->quant_all);
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    for (int i = 0, k; o->quant != PALI_QUANT_NONE && (k = pali_quant_layer(&set, i, list)); i++)
        while (k > 0)
            n -= stored(list[--k]);
    return n;
}

/* Copies and scratch, and with what is mapped. */
static int need(const pali_backend *be, const pali_weights *w, const pali_backend_options *o,
                uint64_t *own, uint64_t *all, pali_error *err) {
    pali_memory m;
    int rc = be->memory(w, o, &m, err);
    if (rc == 0) {
        *own = (uint64_t)m.weights + m.kv + m.workspace;
        *all = *own + pali_fit_mapped(w, o);
    }
    return rc;
}

int pali_fit_choose(const pali_backend *be, const pali_weights *w, uint64_t available,
                    pali_backend_options *o, char *note, size_t size, pali_error *err) {
    pali_dtype stored = w->text[0].q_w.dtype;
    bool automatic = o->quant == PALI_QUANT_AUTO;
    bool can = stored != PALI_INT8 && stored != PALI_NF4;
    uint64_t own, all, first = 0;
    *note = '\0';
    if (automatic)
        o->quant = PALI_QUANT_NONE;
    for (;; o->quant++) {
        int rc = need(be, w, o, &own, &all, err);
        if (rc != 0)
            return rc;
        first = first ? first : all;
        if (!available || all <= available || !automatic || !can || o->quant == PALI_QUANT_NF4)
            break;
    }
    if (available && own > available)
        return pali_fail(err, PALI_ELIMIT,
                         automatic || o->quant == PALI_QUANT_NF4
                             ? "close other programs, or choose a smaller context or model"
                             : "try -q auto, or close other programs",
                         "the model needs %.1f GB of memory for itself (%s weights), and %.1f GB "
                         "are free",
                         1e-9 * (double)own, names[o->quant], 1e-9 * (double)available);
    if (automatic && o->quant != PALI_QUANT_NONE)
        snprintf(note, size,
                 "taking %s weights: as stored the model needs %.1f GB of memory, and %.1f GB "
                 "are free",
                 names[o->quant], 1e-9 * (double)first, 1e-9 * (double)available);
    else if (available && all > available)
        snprintf(note, size,
                 "the model needs %.1f GB of memory, and %.1f GB are free: it will wait for the "
                 "disk%s",
                 1e-9 * (double)all, 1e-9 * (double)available, can ? "; -q auto avoids that" : "");
    return 0;
}
