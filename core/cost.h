/* cost.h - what a model must multiply and read at least: the work behind a time. */
#ifndef PALI_COST_H
#define PALI_COST_H

#include "core/backend.h"

/* FLOP (a multiply-add is two) from pixels to embeddings, projector included. */
double pali_cost_picture(const pali_config *c);

/* FLOP of a prefill of `tokens` positions that wants the logits of the last one: of the last
 * layer the other positions need keys and values alone. */
double pali_cost_prompt(const pali_config *c, int tokens);

/* Bytes read for one more token after `positions`: every matrix of the decoder once and the
 * head, as o makes them, and the cache in float32. */
double pali_cost_token(const pali_weights *w, const pali_backend_options *o, int positions);

#endif
