/* linear.c - matrix products with weights as stored: see model.h.
 *
 * Many tokens. A task is a block of rows of W (up to BLOCK_ROWS) against a range
 * of strips. It goes along the inner dimension in steps of at most STEP: a block
 * of W is widened into a panel (L2), then every strip's part of x (L1) meets all
 * of the panel, tile by tile, sums collecting in a scratch block of the task. The
 * last step's tile goes out at once, with bias, activation or residual, while it
 * is in L1. Widening is mostly waiting for memory, so the next step's weights are
 * asked for between tiles (3 % at 256 tokens).
 *
 * Where the model's products are of bfloat16 (model.h) the panel is the weights as they
 * lie, or rounded to it, and x is rounded to pairs of columns before, once.
 *
 * Every output is summed in the same order whatever the split into tasks, so the
 * result does not depend on the number of threads.
 *
 * One token. Rows of W stream from memory, once. Quantised ones meet x rounded to 16-bit
 * integers (simd_quant.h); with many tokens their panels are float32, exactly.  */
#include "core/cpu/model.h"

#include <string.h>

enum {
    BLOCK_ROWS = 96,          /* a multiple of every table's tile rows */
    STEP = 256,               /* x of a strip: 256 * 32 floats, 32 KB at 16 floats a vector */
    LD = STEP + 16,           /* panel row; not a power of two, or rows would share cache sets */
    PAIRS_LD = STEP / 2 + 16, /* the same in pairs of bfloat16: whole cache lines */
    PAIRS_STEP = 32,          /* columns that products of bfloat16 take at once, at most */
    ROW_BYTES = 130 * 1024,   /* weights of one task of a one-token product, at least, */
    ROW_BYTES_MOST = 4 * ROW_BYTES, /* and at most */
    ROW_TASKS = 4,     /* tasks of a matrix for each thread, where that leaves them large enough */
    ROWS_TOGETHER = 8, /* rows that a kernel takes at once, at most */
    ROWS_MAX = 512,    /* rows of such a task */
    TASKS_EACH = 8,    /* tasks a thread should have to choose from */
    PIECE = 512,       /* weights widened at a time where a row has no fast way */
};

typedef struct {
    pali_model *m;
    const pali_linear *l;
    int n;
    const float *x;
    int tokens, strips;
    bool pairs; /* products of bfloat16 */
    int rows;   /* of a tile, at most */
    int block;  /* rows of W in a task; of both matrices together when gated */
    int splits; /* parts the strips are cut into */
} strips_job;

size_t pali_linear_scratch(const pali_kernels *k) {
    size_t strips = (size_t)(PALI_BLOCK_TOKENS / k->lanes);
    size_t many = (size_t)BLOCK_ROWS * LD + strips * BLOCK_ROWS * (size_t)k->lanes + BLOCK_ROWS;
    return many > 2 * ROWS_MAX + PIECE ? many : 2 * ROWS_MAX + PIECE;
}

/* Bytes of n elements of w, whole ones. */
static size_t span(const pali_matrix *w, size_t n) {
    return w->dtype == PALI_NF4 ? n / 2 : w->dtype == PALI_INT8 ? n : n * pali_dtype_size(w->dtype);
}

static size_t element(const pali_matrix *w, int row, int col) {
    return (size_t)row * (size_t)w->cols + (size_t)col;
}

static const unsigned char *row_at(const pali_matrix *w, int row, int col) {
    return (const unsigned char *)w->data + span(w, element(w, row, col));
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

/* Columns [k0, k0 + kc) of a row of W into row `to` of the panel. */
static void fill_row(const strips_job *j, const pali_matrix *w, int row, int k0, int kc, int to,
                     float *panel) {
    const pali_kernels *k = j->m->k;
    if (!j->pairs) {
        k->read(w, element(w, row, k0), (size_t)kc, panel + to * LD);
    } else if (w->dtype == PALI_BF16) {
        memcpy((uint32_t *)panel + to * PAIRS_LD, row_at(w, row, k0), (size_t)kc * 2);
    } else {
        float wide[STEP];
        k->read(w, element(w, row, k0), (size_t)kc, wide);
        k->narrow((size_t)kc, wide, (uint32_t *)panel + to * PAIRS_LD);
    }
}

/* The task's rows into panel. When gated, every tile holds rows of W and then as many of
 * up, so that one tile has both factors. */
static void fill_panel(const strips_job *j, const pali_linear *l, int n0, int nout, int k0, int kc,
                       float *panel) {
    int half = j->rows / 2;
    for (int i = 0; i < nout; i++) {
        if (l->put != PALI_PUT_GATED) {
            fill_row(j, l->w, n0 + i, k0, kc, i, panel);
            continue;
        }
        int group = i / half, left = nout - group * half, g = left < half ? left : half;
        int to = group * 2 * half + i % half;
        fill_row(j, l->w, n0 + i, k0, kc, to, panel);
        fill_row(j, l->up, n0 + i, k0, kc, to + g, panel);
    }
}

/* Asks for the part `i` of `n` of the weights that the next step will widen, columns
 * [k0, k0 + kc): short pieces of many rows, which the processor does not foresee. */
static void prefetch_panel(const pali_linear *l, int n0, int nout, int k0, int kc, int i, int n) {
    size_t bytes = span(l->w, (size_t)kc);
    for (int r = nout * i / n; r < nout * (i + 1) / n; r++) {
        const unsigned char *w = row_at(l->w, n0 + r, k0);
        for (size_t b = 0; b < bytes; b += 64)
            __builtin_prefetch(w + b, 0, 2);
        if (l->put != PALI_PUT_GATED)
            continue;
        w = row_at(l->up, n0 + r, k0);
        for (size_t b = 0; b < bytes; b += 64)
            __builtin_prefetch(w + b, 0, 2);
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

/* A task at work. */
typedef struct {
    const strips_job *j;
    const pali_linear *l;
    int n0, nout, nrows; /* outputs n0 .. n0 + nout - 1, from nrows rows of panel */
    int step;            /* columns of W at a time */
    float *panel, *bias; /* [BLOCK_ROWS][LD], or of pairs [PAIRS_LD]; [BLOCK_ROWS] */
    float *sums;         /* [strip][BLOCK_ROWS][lanes] */
} block;

/* Columns k0 .. k0 + step - 1 of W against strips [s0, s1); the last columns finish. */
static void block_step(const block *b, int s0, int s1, int k0) {
    const pali_model *m = b->j->m;
    const pali_linear *l = b->l;
    int L = m->k->lanes, R = b->j->rows, K = l->w->cols, done = 0;
    int kc = K - k0 < b->step ? K - k0 : b->step;
    int next = k0 + kc, next_kc = K - next < b->step ? K - next : b->step;
    int tiles = (s1 - s0) * ((b->nrows + R - 1) / R);
    fill_panel(b->j, l, b->n0, b->nout, k0, kc, b->panel);
    for (int s = s0; s < s1; s++) {
        int left = b->j->tokens - s * L, used = left < L ? left : L;
        const float *x = b->j->x + ((size_t)s * (size_t)K + (size_t)k0) * (size_t)L;
        float *out = l->out + ((size_t)s * (size_t)l->w->rows + (size_t)b->n0) * (size_t)L;
        float *sums = b->sums + (size_t)(s - s0) * BLOCK_ROWS * (size_t)L;
        const uint32_t *pairs =
            m->packed ? m->packed + ((size_t)s * (size_t)K + (size_t)k0) / 2 * (size_t)L : NULL;
        for (int r = 0; r < b->nrows; r += R) {
            int rows = b->nrows - r < R ? b->nrows - r : R;
            int n = l->put == PALI_PUT_GATED ? r / 2 : r;
            prefetch_panel(l, b->n0, b->nout, next, next_kc, done++, tiles);
            if (b->j->pairs)
                m->k->tile_pairs(rows, used, kc / 2, (uint32_t *)b->panel + r * PAIRS_LD, PAIRS_LD,
                                 pairs, sums + r * L, k0 > 0);
            else
                m->k->tile(rows, used, kc, b->panel + r * LD, LD, 1, x, sums + r * L, k0 > 0);
            if (next == K)
                finish(m, l, sums + r * L, rows, used, b->bias + n, out + n * L);
        }
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
    int most = PALI_BLOCK_TOKENS / m->k->lanes, steps = (l->w->cols + STEP - 1) / STEP;
    int part = task % j->splits, outputs = block_outputs(j, l);
    block b = {.j = j, .l = l, .n0 = task / j->splits * outputs};
    b.nout = l->w->rows - b.n0 < outputs ? l->w->rows - b.n0 : outputs;
    b.nrows = l->put == PALI_PUT_GATED ? 2 * b.nout : b.nout;
    b.step = (l->w->cols + steps - 1) / steps;
    if (j->pairs)
        b.step = (b.step + PAIRS_STEP - 1) / PAIRS_STEP * PAIRS_STEP;
    b.panel = pali_scratch(m, worker);
    b.bias = b.panel + (size_t)BLOCK_ROWS * LD;
    b.sums = b.bias + BLOCK_ROWS;
    memset(b.bias, 0, BLOCK_ROWS * sizeof *b.bias);
    if (l->bias)
        m->k->widen(l->bias->dtype, row_at(l->bias, 0, b.n0), (size_t)b.nout, b.bias);

    int end = (int)((int64_t)j->strips * (part + 1) / j->splits);
    for (int s = (int)((int64_t)j->strips * part / j->splits); s < end; s += most)
        for (int k0 = 0; k0 < l->w->cols; k0 += b.step)
            block_step(&b, s, s + most < end ? s + most : end, k0);
}

static bool is_quantised(const pali_matrix *w) {
    return w->dtype == PALI_INT8 || w->dtype == PALI_NF4;
}

/* Whether all of the products can be of bfloat16, and are to be. */
static bool takes_pairs(const pali_model *m, const pali_linear *l, int n) {
    bool all = m->bf16_products;
    for (int i = 0; i < n && all; i++) {
        const pali_matrix *w = l[i].w, *up = l[i].put == PALI_PUT_GATED ? l[i].up : w;
        all = w->cols % 2 == 0 && (w->dtype == PALI_BF16 || is_quantised(w)) &&
              (up->dtype == PALI_BF16 || is_quantised(up));
    }
    return all;
}

enum {
    PACK_COLUMNS = 2048, /* of a task; even */
};

static int pack_parts(int K) {
    return (K + PACK_COLUMNS - 1) / PACK_COLUMNS;
}

/* Columns of one strip of x. */
static void pack_task(void *arg, int task, int worker) {
    (void)worker;
    const strips_job *j = arg;
    int K = j->l->w->cols, L = j->m->k->lanes, strip = task / pack_parts(K);
    int k0 = task % pack_parts(K) * PACK_COLUMNS;
    size_t at = (size_t)strip * (size_t)K + (size_t)k0;
    j->m->k->pack_pairs(K - k0 < PACK_COLUMNS ? K - k0 : PACK_COLUMNS, j->x + at * (size_t)L,
                        j->m->packed + at / 2 * (size_t)L);
}

bool pali_linear_strips(pali_model *m, const pali_linear *l, int n, const float *x, int tokens) {
    strips_job j = {.m = m, .l = l, .n = n, .x = x, .tokens = tokens, .block = BLOCK_ROWS};
    j.pairs = takes_pairs(m, l, n);
    j.rows = j.pairs ? m->k->pair_rows : m->k->rows;
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
    return (!j.pairs || pali_tasks(m, j.strips * pack_parts(l->w->cols), pack_task, &j)) &&
           pali_tasks(m, blocks * j.splits, strips_task, &j);
}

/* --- one token ----------------------------------------------------------------- */

typedef struct {
    pali_model *m;
    const pali_linear *l;
    const float *x;
    float cap;
} row_job;

/* Rows of W in one task: as many bytes in every task of a matrix, so that tasks take about as
 * long. Large ones are long streams of memory (5 % faster), small ones leave less to wait for
 * at the end. */
static int task_rows(const pali_model *m, const pali_matrix *w) {
    size_t row = span(w, (size_t)w->cols) + 1;
    size_t bytes = row * (size_t)w->rows / (size_t)(ROW_TASKS * pali_pool_threads(m->pool));
    bytes = bytes < ROW_BYTES ? ROW_BYTES : bytes > ROW_BYTES_MOST ? ROW_BYTES_MOST : bytes;
    size_t rows = bytes / row / ROWS_TOGETHER * ROWS_TOGETHER;
    return rows < ROWS_TOGETHER ? ROWS_TOGETHER : rows > ROWS_MAX ? ROWS_MAX : (int)rows;
}

static int task_count(const pali_model *m, const pali_matrix *w) {
    return (w->rows + task_rows(m, w) - 1) / task_rows(m, w);
}

/* Quantised rows meet x as integers, where a row begins with a block. */
static bool by_integers(const pali_matrix *w) {
    return is_quantised(w) && w->cols % PALI_NF4_BLOCK == 0;
}

/* y = rows [r0, r0 + rows) of w times x; spare: room for PIECE floats. */
static void dot_rows(const row_job *j, const pali_matrix *w, int r0, int rows, float *y,
                     float *spare) {
    const pali_model *m = j->m;
    size_t cols = (size_t)w->cols;
    if (by_integers(w)) {
        (w->dtype == PALI_INT8 ? m->k->dot_int8 : m->k->dot_nf4)(w, r0, rows, m->row_q16,
                                                                 m->row_q16_scale, y);
        return;
    }
    if (pali_dtype_size(w->dtype) > 0) {
        m->k->dot(w->dtype, row_at(w, r0, 0), span(w, cols), rows, cols, j->x, y);
        return;
    }
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (size_t c = 0, n; c < cols; c += n) {
            float part;
            n = cols - c < PIECE ? cols - c : PIECE;
            m->k->read(w, element(w, r0 + r, 0) + c, n, spare);
            m->k->dot(PALI_F32, spare, 0, 1, n, j->x + c, &part);
            y[r] += part;
        }
    }
}

static void row_task(void *arg, int task, int worker) {
    const row_job *j = arg;
    const pali_kernels *k = j->m->k;
    const pali_linear *l = j->l;
    while (task >= task_count(j->m, l->w)) {
        task -= task_count(j->m, l->w);
        l++;
    }
    int most = task_rows(j->m, l->w), r0 = task * most, left = l->w->rows - r0;
    int rows = left < most ? left : most;
    float *y = pali_scratch(j->m, worker), *u = y + ROWS_MAX, *spare = u + ROWS_MAX;
    float *out = l->out + r0;
    if (l->put == PALI_PUT) {
        dot_rows(j, l->w, r0, rows, out, spare);
        if (j->cap > 0)
            k->softcap((size_t)rows, j->cap, out);
        return;
    }
    dot_rows(j, l->w, r0, rows, y, spare);
    if (l->put == PALI_PUT_GATED) {
        dot_rows(j, l->up, r0, rows, u, spare);
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
        tasks += task_count(m, l[i].w);
    if (by_integers(l->w))
        m->k->round16((size_t)l->w->cols, x, l->w->dtype, m->row_q16, m->row_q16_scale);
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
