/* quant.h - weights in 8 and 4 bits: what the numbers mean, for every backend.
 *
 * Both formats, their codes and their scales are those of bitsandbytes (0.50.2), so a
 * model means the same here as where it was tuned. A quantised pali_matrix has the dtype
 * PALI_INT8 or PALI_NF4; pali_matrix_read gives its elements as float32.
 *
 * PALI_INT8 (LLM.int8(), weights only). The weight is first rounded to float16. A row has
 *   scales[row] = max |w|      code = round(w * (1 / scales[row] * 127)), half to even
 *   w ~ code * scales[row] * 0.0078740157      codes: int8 [rows][cols]
 *
 * PALI_NF4, double quantisation. The matrix is flattened row by row and cut into blocks of
 * 64 weights, whatever the rows: with cols % 64 != 0 a block spans two. 256 blocks are a
 * group; the last block and the last group may be short.
 *   absmax = max |w| of the block      code = the nearest of pali_nf4_code to w * (1 / absmax)
 *   offset = mean of all absmax        top = max |absmax - offset| of the group
 *   scale code = the nearest of pali_nf4_map to (absmax - offset) * (1 / top)
 *   w ~ pali_nf4_code[code] * absmax'  absmax' = pali_nf4_map[scale code] * top + offset
 * all in float32, nothing fused; half way between two goes to the lower one. 1 / 0 counts
 * as 1e38, so a block of zeros has code 7 throughout. codes: two a byte, the earlier
 * weight in the high nibble; the nibble after the last weight of an odd number is 7.
 * scale_codes: [blocks]; scales: [groups] of top, then the offset.
 * The offset is summed in double, group by group, and rounded once; bitsandbytes' own sum
 * depends on the machine in its last bits.
 *
 * NaN becomes some code. In INT8, what float16 cannot hold becomes its largest number,
 * where bitsandbytes would go on with infinities.
 *
 * Which matrices: the seven of a decoder layer, nine tenths of what decoding reads. The vision
 * tower and the projector run once a picture and gain nothing but error (BENCHMARKS.md), so they
 * keep their precision; but transformers quantises their linear layers too, and so does pali
 * when asked to (quant_all, core/backend.h): then the list is that of its
 * replace_with_bnb_linear. Patch embedding, positions, norms, biases, the token embedding and
 * the head (tied) keep theirs in both, unless an int8 head is asked for (head8).            */
#ifndef PALI_QUANT_H
#define PALI_QUANT_H

#include "core/weights.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a model's matrices are to be turned into when it is opened. */
typedef enum {
    PALI_QUANT_NONE, /* as stored */
    PALI_QUANT_INT8,
    PALI_QUANT_NF4,
    PALI_QUANT_AUTO, /* the first of these that fits; the engine decides, no backend sees it */
} pali_quant;

enum {
    PALI_NF4_BLOCK = 64,
    PALI_NF4_GROUP = 256,  /* blocks */
    PALI_QUANT_ALIGN = 256 /* bytes: every part of a matrix begins at a multiple */
};

/* How a .safetensors file of pali's own holds a quantised matrix NAME: its header says
 * "pali.quant": "1" in __metadata__; NAME is I8 [rows][cols] or, NF4, U8 [rows][cols / 2]
 * (cols even); NAME.scales F32 [rows], or [groups] and the offset; NAME.scale_codes U8
 * [blocks]. Everything lies as above, so that it is used where it is. "pali.quant.modules" says
 * for people which matrices were meant, "decoder" or "all"; a reader goes by the dtypes. */
#define PALI_QUANT_KEY     "pali.quant"
#define PALI_QUANT_VERSION "1"
#define PALI_QUANT_MODULES "pali.quant.modules"
#define PALI_QUANT_SCALES  ".scales"
#define PALI_QUANT_CODES   ".scale_codes"

#define PALI_INT8_STEP 0.007874015718698502f /* 1 / 127, as bitsandbytes has it */

extern const float pali_nf4_code[16];
extern const float pali_nf4_middle[15]; /* half way between neighbours, in float32 */
extern const float pali_nf4_map[256];   /* bitsandbytes' "dynamic map" */

/* A quantised matrix under construction: one block of memory in parts,
 * [codes][scale codes, NF4 only][scales], each aligned. */
typedef struct {
    pali_dtype dtype; /* PALI_INT8 or PALI_NF4 */
    int rows, cols;
    size_t blocks, groups; /* NF4 */
    unsigned char *codes, *scale_codes;
    float *scales;
} pali_quant_parts;

/* Bytes of the memory of a quantised rows x cols; 0 when no size_t holds it or dtype is
 * not a quantised one. */
size_t pali_quant_bytes(pali_dtype dtype, int rows, int cols);
/* The parts of such memory at mem, aligned to PALI_QUANT_ALIGN. */
pali_quant_parts pali_quant_place(pali_dtype dtype, int rows, int cols, void *mem);
/* It as a matrix; mem must outlive that. */
pali_matrix pali_quant_matrix(const pali_quant_parts *q);

/* Quantising in independent pieces, for several threads: a row of INT8, a group of NF4. Any
 * order; NF4 needs three passes, with absmax [blocks] between them. src is of q's shape. */
size_t pali_quant_pieces(const pali_quant_parts *q);
void pali_int8_row(const pali_matrix *src, size_t row, const pali_quant_parts *q);
void pali_nf4_codes(const pali_matrix *src, size_t group, const pali_quant_parts *q, float *absmax);
void pali_nf4_offset(const pali_quant_parts *q, const float *absmax);
void pali_nf4_scales(size_t group, const pali_quant_parts *q, const float *absmax);

/* All of it by the calling thread. PALI_ENOMEM. */
int pali_quantize(const pali_matrix *src, const pali_quant_parts *q, pali_error *err);

/* absmax' of one block of a PALI_NF4 matrix. */
static inline float pali_nf4_scale(const pali_matrix *m, size_t block) {
    size_t n = (size_t)m->rows * (size_t)m->cols;
    size_t groups = (n + PALI_NF4_BLOCK * PALI_NF4_GROUP - 1) / (PALI_NF4_BLOCK * PALI_NF4_GROUP);
    float part = pali_nf4_map[m->scale_codes[block]] * m->scales[block / PALI_NF4_GROUP];
    return part + m->scales[groups];
}

static inline bool pali_is_coded(const pali_matrix *m) {
    return m->dtype == PALI_INT8 || m->dtype == PALI_NF4;
}

/* The matrices of a layer that quantisation is for. */
enum {
    PALI_QUANT_PER_LAYER = 7
};
static inline void pali_quant_list(pali_text_layer *l, pali_matrix *out[PALI_QUANT_PER_LAYER]) {
    pali_matrix *all[] = {&l->q_w, &l->k_w, &l->v_w, &l->o_w, &l->gate_w, &l->up_w, &l->down_w};
    for (int i = 0; i < PALI_QUANT_PER_LAYER; i++)
        out[i] = all[i];
}

/* All of them, wherever they lie: in a pali_weights, or in a backend's copies. Layers are counted
 * through: the decoder's, those of the tower, and the projector as the last. */
typedef struct {
    pali_text_layer *text;
    pali_vision_layer *vision; /* both NULL: the decoder's alone */
    pali_matrix *proj;
    int ntext, nvision;
} pali_quant_set;

static inline pali_quant_set pali_quant_set_of(const pali_weights *w, bool all) {
    pali_quant_set s;
    s.text = w->text;
    s.ntext = w->config.text.layers;
    s.vision = all ? w->vision : NULL;
    s.nvision = all ? w->config.vision.layers : 0;
    s.proj = all ? (pali_matrix *)(uintptr_t)&w->proj_w : NULL; /* to be looked at */
    return s;
}

/* Those of layer i; how many they are, 0 after the last layer. */
static inline int pali_quant_layer(const pali_quant_set *s, int i,
                                   pali_matrix *out[PALI_QUANT_PER_LAYER]) {
    if (i < s->ntext) {
        pali_quant_list(&s->text[i], out);
        return PALI_QUANT_PER_LAYER;
    }
    i -= s->ntext;
    if (i > s->nvision || !s->proj)
        return 0;
    if (i == s->nvision) {
        out[0] = s->proj;
        return 1;
    }
    pali_vision_layer *l = &s->vision[i];
    pali_matrix *all[] = {&l->q_w, &l->k_w, &l->v_w, &l->o_w, &l->fc1_w, &l->fc2_w};
    int n = (int)(sizeof all / sizeof *all);
    for (int k = 0; k < n; k++)
        out[k] = all[k];
    return n;
}

#ifdef __cplusplus
}
#endif

#endif
