/* cost.c - see cost.h. */
#include "core/cost.h"

double pali_cost_picture(const pali_config *c) {
    const pali_vision_config *v = &c->vision;
    double P = v->P, D = v->D, F = v->F, patch = (double)v->channels * v->patch * v->patch;
    double layer = 2 * P * (4 * D * D + 2 * D * F) + 4 * P * P * D;
    return v->layers * layer + 2 * P * D * (patch + c->text.D);
}

double pali_cost_prompt(const pali_config *c, int tokens) {
    const pali_text_config *t = &c->text;
    double T = tokens, D = t->D, heads = (double)t->H * t->E;
    double keys = 2 * (2 * D * t->K * t->E); /* keys and values of a token */
    double rest = 2 * (2 * D * heads) + 2 * (3 * D * t->F) + 4 * T * heads; /* all else of it */
    return (t->layers - 1) * T * (keys + rest) + T * keys + rest + 2 * D * t->V;
}

/* Bytes of m as it is, or as what quant makes of the matrices it is for. */
static double bytes_of(const pali_matrix *m, pali_quant quant) {
    if (quant == PALI_QUANT_NONE && m->dtype != PALI_INT8 && m->dtype != PALI_NF4)
        return (double)m->rows * m->cols * (double)pali_dtype_size(m->dtype);
    pali_dtype as = quant == PALI_QUANT_INT8  ? PALI_INT8
                    : quant == PALI_QUANT_NF4 ? PALI_NF4
                                              : m->dtype;
    return (double)pali_quant_bytes(as, m->rows, m->cols);
}

double pali_cost_token(const pali_weights *w, const pali_backend_options *o, int positions) {
    const pali_text_config *t = &w->config.text;
    double n = bytes_of(&w->embed, o->head8 ? PALI_QUANT_INT8 : PALI_QUANT_NONE);
    for (int i = 0; i < t->layers; i++) {
        pali_matrix *all[PALI_QUANT_PER_LAYER];
        pali_quant_list(&w->text[i], all);
        for (int k = 0; k < PALI_QUANT_PER_LAYER; k++)
            n += bytes_of(all[k], o->quant);
    }
    return n + (double)positions * t->layers * 2 * t->K * t->E * sizeof(float);
}
