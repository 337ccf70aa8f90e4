/* linear.c - matrix products with weights as stored: see model.h.
 *
 * Many tokens. A task is a block of rows of W (up to BLOCK_ROWS) against a range
 * of strips. It goes along the inner dimension in steps of at most STEP: a block
 * of W is widened into a panel (L2), then every strip's part of x (L1) meets all
 * of the panel, tile by tile, sums collecting in a scratch block of the task. The
 * last step's tile goes out at once, with bias, activation or residual, while it
 * is in L1. Widening costs about 1/200 of the arithmetic at 256 tokens.
 *
 * Every output is summed in the same order whatever the split into tasks, so the
 * result does not depend on the number of threads.
 *
 * One token. Rows of W stream from memory, once.               */
#include "core/cpu/model.h"

#include <string.h>

enum {
    BLOCK_ROWS = 96,       /* a multiple of every table's tile rows */
    STEP = 256,            /* x of a strip: 256 * 32 floats, 32 KB at 16 floats a vector */
    LD = STEP + 16,        /* panel row; not a power of two, or rows would share cache sets */
    ROW_BYTES = 96 * 1024, /* weights of one task of a one-token product */
    ROWS_MAX = 512,        /* rows of such a task */
    TASKS_EACH = 8,        /* tasks a thread should have to choose from */
};

typedef struct {
    pali_model *m;
    const pali_linear *l;
    int n;
    const float *x;
    int tokens, strips;
    int block;  /* rows of W in a task; of both matrices together when gated */
    int splits; /* parts the strips are cut into */
} strips_job;

size_t pali_linear_scratch(const pali_kernels *k) {
    size_t strips = (size_t)(PALI_BLOCK_TOKENS / k->lanes);
    size_t many = (size_t)BLOCK_ROWS * LD + strips * BLOCK_ROWS * (size_t)k->lanes + BLOCK_ROWS;
    return many > 2 * ROWS_MAX ? many : 2 * ROWS_MAX;
}

static const unsigned char *row_at(const pali_matrix *w, int row, int col) {
    return (const unsigned char *)w->data +
           ((size_t)row * (size_t)w->cols + (size_t)col) * pali_dtype_size(w->dtype);
}

/* --- many tokens ------------------------------------------------------------- */

/* Outputs a task makes: one row of W each, or one of W and one of up. */
static int block_outputs(const strips_job *j, const pali_linear *l) {
    return l->put == PALI_PUT_GATED ? j->block / 2 : j->block;
}

static int block_count(const strips_job *j, const pali_linear *l) {
    int b = block_outputs(j, l);
    return (l->w->rows + b - 1) / b;
}

/* Widens columns [k0, k0 + kc) of the task's rows into panel. When gated, every tile
 * holds rows of W and then as many of up, so that one tile has both factors. */
static void fill_panel(const pali_model *m, const pali_linear *l, int n0, int nout, int k0, int kc,
                       float *panel) {
    int half = m->k->rows / 2;
    for (int i = 0; i < nout; i++) {
        if (l->put != PALI_PUT_GATED) {
            m->k->widen(l->w->dtype, row_at(l->w, n0 + i, k0), (size_t)kc, panel + i * LD);
            continue;
        }
        int group = i / half, left = nout - group * half, g = left < half ? left : half;
        float *p = panel + (group * 2 * half + i % half) * LD;
        m->k->widen(l->w->dtype, row_at(l->w, n0 + i, k0), (size_t)kc, p);
        m->k->widen(l->up->dtype, row_at(l->up, n0 + i, k0), (size_t)kc, p + g * LD);
    }
}

/* Sends `rows` finished rows of a tile on: outputs n0.. of a strip whose output
 * features start at out. bias belongs to n0. */
static void finish(const pali_model *m, const pali_linear *l, float *tile, int rows, int used,
                   const float *bias, float *out) {
    int lanes = m->k->lanes;
    if (l->put == PALI_PUT_GATED) {
        int half = rows / 2;
        for (int r = 0; r < half; r++)
            m->k->geglu((size_t)used, tile + r * lanes, tile + (half + r) * lanes,
                        out + (size_t)(r * lanes));
        return;
    }
    for (int r = 0; r < rows; r++) {
        const float *y = tile + r * lanes;
        float *o = out + (size_t)(r * lanes), b = bias[r];
        if (l->put == PALI_PUT_ADD)
            for (int i = 0; i < used; i++)
                o[i] += y[i] + b;
        else
            for (int i = 0; i < used; i++)
                o[i] = y[i] + b;
        if (l->put == PALI_PUT_GELU)
            m->k->gelu((size_t)used, o);
    }
}

static void strips_task(void *arg, int task, int worker) {
    const strips_job *j = arg;
    const pali_model *m = j->m;
    const pali_linear *l = j->l;
    while (task >= block_count(j, l) * j->splits) {
        task -= block_count(j, l) * j->splits;
        l++;
    }
    size_t lanes = (size_t)m->k->lanes, K = (size_t)l->w->cols, N = (size_t)l->w->rows;
    int n0 = task / j->splits * block_outputs(j, l);
    int nout = (int)N - n0 < block_outputs(j, l) ? (int)N - n0 : block_outputs(j, l);
    int nrows = l->put == PALI_PUT_GATED ? 2 * nout : nout;
    int s0 = (int)((int64_t)j->strips * (task % j->splits) / j->splits);
    int s1 = (int)((int64_t)j->strips * (task % j->splits + 1) / j->splits);
    int most = PALI_BLOCK_TOKENS / m->k->lanes;
    int steps = (l->w->cols + STEP - 1) / STEP, step = (l->w->cols + steps - 1) / steps;

    float *panel = pali_scratch(m, worker), *bias = panel + (size_t)BLOCK_ROWS * LD;
    float *sums = bias + BLOCK_ROWS; /* [strip][BLOCK_ROWS][lanes] */
    memset(bias, 0, BLOCK_ROWS * sizeof *bias);
    if (l->bias)
        m->k->widen(l->bias->dtype, row_at(l->bias, 0, n0), (size_t)nout, bias);

    for (int sb = s0; sb < s1; sb += most) {
        int se = sb + most < s1 ? sb + most : s1;
        for (int k0 = 0; k0 < l->w->cols; k0 += step) {
            int kc = l->w->cols - k0 < step ? l->w->cols - k0 : step;
            fill_panel(m, l, n0, nout, k0, kc, panel);
            for (int s = sb; s < se; s++) {
                int left = j->tokens - s * m->k->lanes;
                int used = left < m->k->lanes ? left : m->k->lanes;
                const float *x = j->x + ((size_t)s * K + (size_t)k0) * lanes;
                for (int r = 0; r < nrows; r += m->k->rows) {
                    int rows = nrows - r < m->k->rows ? nrows - r : m->k->rows;
                    float *tile = sums + ((size_t)(s - sb) * BLOCK_ROWS + (size_t)r) * lanes;
                    int out0 = l->put == PALI_PUT_GATED ? r / 2 : r;
                    m->k->tile(rows, used, kc, panel + r * LD, LD, 1, x, tile, k0 > 0);
                    if (k0 + kc == l->w->cols)
                        finish(m, l, tile, rows, used, bias + out0,
                               l->out + ((size_t)s * N + (size_t)(n0 + out0)) * lanes);
                }
            }
        }
    }
}

bool pali_linear_strips(pali_model *m, const pali_linear *l, int n, const float *x, int tokens) {
    strips_job j = {.m = m, .l = l, .n = n, .x = x, .tokens = tokens, .block = BLOCK_ROWS};
    j.strips = pali_strips(m, tokens);
    j.splits = 1;
    int want = TASKS_EACH * pali_pool_threads(m->pool), blocks = 0;
    for (int half = 0; half < 2 && blocks < want; half++) {
        j.block = half ? BLOCK_ROWS / 2 : BLOCK_ROWS;
        blocks = 0;
        for (int i = 0; i < n; i++)
            blocks += block_count(&j, &l[i]);
    }
    if (blocks < want)
        j.splits = (want + blocks - 1) / blocks;
    /* Every split widens the weights again: leave it enough tokens to be worth it. */
    int fewest = 64 / m->k->lanes, most = (j.strips + fewest - 1) / fewest;
    j.splits = j.splits > most ? most : j.splits;
    return pali_tasks(m, blocks * j.splits, strips_task, &j);
}

/* --- one token ----------------------------------------------------------------- */

typedef struct {
    pali_model *m;
    const pali_linear *l;
    const float *x;
    float cap;
} row_job;

/* Rows of W in one task: a fixed number of bytes, so that tasks take about as long. */
static int task_rows(const pali_matrix *w) {
    size_t rows = ROW_BYTES / ((size_t)w->cols * pali_dtype_size(w->dtype)) / 4 * 4;
    return rows < 4 ? 4 : rows > ROWS_MAX ? ROWS_MAX : (int)rows;
}

static int task_count(const pali_matrix *w) {
    return (w->rows + task_rows(w) - 1) / task_rows(w);
}

static void row_task(void *arg, int task, int worker) {
    const row_job *j = arg;
    const pali_kernels *k = j->m->k;
    const pali_linear *l = j->l;
    while (task >= task_count(l->w)) {
        task -= task_count(l->w);
        l++;
    }
    int r0 = task * task_rows(l->w), left = l->w->rows - r0;
    int rows = left < task_rows(l->w) ? left : task_rows(l->w);
    size_t cols = (size_t)l->w->cols, ld = cols * pali_dtype_size(l->w->dtype);
    float *y = pali_scratch(j->m, worker), *out = l->out + r0;
    if (l->put == PALI_PUT) {
        k->dot(l->w->dtype, row_at(l->w, r0, 0), ld, rows, cols, j->x, out);
        if (j->cap > 0)
            k->softcap((size_t)rows, j->cap, out);
        return;
    }
    k->dot(l->w->dtype, row_at(l->w, r0, 0), ld, rows, cols, j->x, y);
    if (l->put == PALI_PUT_GATED) {
        float *u = y + ROWS_MAX;
        ld = cols * pali_dtype_size(l->up->dtype);
        k->dot(l->up->dtype, row_at(l->up, r0, 0), ld, rows, cols, j->x, u);
        k->geglu((size_t)rows, y, u, out);
    } else {
        for (int i = 0; i < rows; i++)
            out[i] += y[i];
    }
}

static bool run_rows(pali_model *m, const pali_linear *l, int n, const float *x, float cap) {
    row_job j = {m, l, x, cap};
    int tasks = 0;
    for (int i = 0; i < n; i++)
        tasks += task_count(l[i].w);
    return pali_tasks(m, tasks, row_task, &j);
}

bool pali_linear_row(pali_model *m, const pali_linear *l, int n, const float *x) {
    return run_rows(m, l, n, x, 0);
}

bool pali_linear_logits(pali_model *m, const pali_matrix *w, const float *x, float cap,
                        float *out) {
    pali_linear l = {.w = w, .put = PALI_PUT, .out = out};
    return run_rows(m, &l, 1, x, cap);
}
