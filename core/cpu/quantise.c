/* quantise.c - a layer's matrices as the model uses them: stored, or quantised at open.
 *
 * All quantised matrices share one anonymous block, in large pages where the system has
 * them: decoding walks through all of it for every token, and finding 4 KB pages costs a
 * quarter of the speed. One matrix at a time, its rows or groups spread over the pool; what
 * was read of the files is given back after every layer, so the peak is the quantised size
 * and the layer at work.                                                            */
#include "core/cpu/model.h"

#include "core/size.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    TASK_WEIGHTS = 128 * 1024
};

/* What m will be. */
static pali_dtype becomes(const pali_matrix *m, pali_quant quant) {
    if (pali_is_coded(m) || quant == PALI_QUANT_NONE)
        return m->dtype;
    return quant == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8;
}

static int too_large(pali_error *err) {
    return pali_fail(err, PALI_ELIMIT, NULL, "a matrix is too large to be quantised");
}

int pali_quantise_plan(const pali_weights *w, const pali_backend_options *o, size_t *bytes,
                       pali_error *err) {
    pali_quant quant = o->quant;
    pali_quant_set set = pali_quant_set_of(w, o->quant_all);
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    *bytes = o->head8 ? pali_quant_bytes(PALI_INT8, w->embed.rows, w->embed.cols) : 0;
    if (o->head8 && *bytes == 0)
        return too_large(err);
    for (int i = 0, count; (count = pali_quant_layer(&set, i, list)); i++) {
        pali_dtype to[PALI_QUANT_PER_LAYER];
        bool any = false;
        for (int k = 0; k < count; k++) {
            const pali_matrix *m = list[k];
            to[k] = becomes(m, quant);
            any = any || to[k] != m->dtype || pali_is_coded(m);
            if (pali_is_coded(m) && quant != PALI_QUANT_NONE &&
                (quant == PALI_QUANT_NF4) != (m->dtype == PALI_NF4))
                return pali_fail(err, PALI_EUNSUPPORTED, "leave the precision as it is stored",
                                 "the weights are stored as %s already", pali_dtype_name(m->dtype));
            size_t n = to[k] != m->dtype ? pali_quant_bytes(to[k], m->rows, m->cols) : 0;
            if ((to[k] != m->dtype && n == 0) || !pali_size_add(*bytes, n, bytes))
                return too_large(err);
        }
        /* Products of one token that share an input round it once: q k v, gate up. */
        if (any && i < set.ntext && (to[0] != to[1] || to[0] != to[2] || to[4] != to[5]))
            return pali_fail(err, PALI_EUNSUPPORTED, "convert the model again",
                             "layer %d mixes precisions where they must be alike", i);
    }
    return 0;
}

typedef struct {
    const pali_matrix *src;
    pali_quant_parts q;
    float *absmax;
    size_t pieces, each; /* pieces of a task */
    bool scales;         /* the second pass of NF4 */
} quantise_job;

static void quantise_task(void *arg, int task, int worker) {
    (void)worker;
    const quantise_job *j = arg;
    size_t from = (size_t)task * j->each;
    for (size_t i = from; i < from + j->each && i < j->pieces; i++) {
        if (j->q.dtype == PALI_INT8)
            pali_int8_row(j->src, i, &j->q);
        else if (j->scales)
            pali_nf4_scales(i, &j->q, j->absmax);
        else
            pali_nf4_codes(j->src, i, &j->q, j->absmax);
    }
}

/* *m into mem, and *m then is that. */
static bool quantise_matrix(pali_model *model, pali_matrix *m, pali_dtype to, void *mem,
                            float *absmax) {
    quantise_job j = {.src = m, .q = pali_quant_place(to, m->rows, m->cols, mem), .absmax = absmax};
    size_t piece = to == PALI_NF4 ? PALI_NF4_BLOCK * PALI_NF4_GROUP : (size_t)m->cols;
    j.pieces = pali_quant_pieces(&j.q);
    j.each = piece < TASK_WEIGHTS ? TASK_WEIGHTS / piece : 1;
    int tasks = (int)((j.pieces + j.each - 1) / j.each);
    if (!pali_tasks(model, tasks, quantise_task, &j))
        return false;
    if (to == PALI_NF4) {
        pali_nf4_offset(&j.q, absmax);
        j.scales = true;
        if (!pali_tasks(model, tasks, quantise_task, &j))
            return false;
    }
    *m = pali_quant_matrix(&j.q);
    return true;
}

/* Room for the scales of the largest matrix before they are quantised themselves. */
static float *absmax_room(const pali_quant_set *set) {
    size_t most = 0;
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    for (int i = 0, count; (count = pali_quant_layer(set, i, list)); i++)
        for (int k = 0; k < count; k++) {
            size_t n = (size_t)list[k]->rows * (size_t)list[k]->cols;
            most = n > most ? n : most;
        }
    return malloc((most / PALI_NF4_BLOCK + 1) * sizeof(float));
}

static int quantise_all(pali_model *m, const pali_backend_options *o, const pali_quant_set *set,
                        float *absmax, pali_error *err) {
    int layers = set->ntext + set->nvision + (set->proj ? 1 : 0);
    unsigned char *mem = m->quant_block;
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    if (o->head8) { /* beside the embedding, whose rows are looked up as they are stored */
        if (!quantise_matrix(m, &m->head, PALI_INT8, mem, absmax))
            return pali_stopped(err);
        if (!pali_weights_converted(m->w)) /* converted memory cannot be read again */
            pali_weights_release(m->w, &m->w->embed);
        mem += pali_quant_bytes(PALI_INT8, m->head.rows, m->head.cols);
    }
    for (int i = 0, count; (count = pali_quant_layer(set, i, list)); i++) {
        pali_progress(m, PALI_STAGE_LOAD, i, layers);
        for (int k = 0; k < count; k++) {
            pali_matrix was = *list[k];
            pali_dtype to = becomes(&was, o->quant);
            if (to == was.dtype)
                continue;
            if (!quantise_matrix(m, list[k], to, mem, absmax))
                return pali_stopped(err);
            pali_weights_release(m->w, &was);
            mem += pali_quant_bytes(to, was.rows, was.cols);
        }
    }
    return 0;
}

int pali_quantise_weights(pali_model *m, const pali_backend_options *o, pali_error *err) {
    const pali_config *c = &m->w->config;
    size_t ntext = (size_t)c->text.layers, nvision = (size_t)c->vision.layers, n;
    m->text = malloc(ntext * sizeof *m->text);
    m->vision = malloc(nvision * sizeof *m->vision);
    if (!m->text || !m->vision)
        return pali_fail_nomem(err, "opening the model");
    memcpy(m->text, m->w->text, ntext * sizeof *m->text);
    memcpy(m->vision, m->w->vision, nvision * sizeof *m->vision);
    m->proj = m->w->proj_w;
    m->head = m->w->embed;
    pali_quant_set set = pali_quant_set_of(m->w, o->quant_all); /* and in the copies: */
    set.text = m->text;
    if (set.proj) {
        set.vision = m->vision;
        set.proj = &m->proj;
    }
    int rc = pali_quantise_plan(m->w, o, &n, err);
    if (rc != 0 || n == 0)
        return rc;
    void *block = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    float *absmax = absmax_room(&set);
    if (block == MAP_FAILED || !absmax) {
        if (block != MAP_FAILED)
            munmap(block, n);
        free(absmax);
        return pali_fail(err, PALI_ENOMEM, "close other programs",
                         "no memory for the quantised weights: they need %zu MB", n >> 20);
    }
    m->quant_block = block;
    m->quant_bytes = n;
    madvise(block, n, MADV_HUGEPAGE); /* a wish */
    rc = quantise_all(m, o, &set, absmax, err);
    free(absmax);
    return rc;
}

void pali_quantise_close(pali_model *m) {
    if (m->quant_block)
        munmap(m->quant_block, m->quant_bytes);
    free(m->text);
    free(m->vision);
}
