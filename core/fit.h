/* fit.h - whether a model fits the memory that is free, and in which precision. For the CPU
 * backend, which works on mapped files: what it copies must fit, or the system ends the
 * program; what is mapped should, or every token waits for the disk.                     */
#ifndef PALI_FIT_H
#define PALI_FIT_H

#include "core/backend.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of w that are read from the mapping again and again when its matrices become what o
 * says. */
uint64_t pali_fit_mapped(const pali_weights *w, const pali_backend_options *o);

/* Decides o->quant where it is AUTO: the first of none, int8 and nf4 that fits `available`
 * bytes (0: not known, all fits), as stored when the weights are quantised already. note
 * gets one sentence for the user, or "". PALI_ELIMIT: what must be copied does not fit. */
int pali_fit_choose(const pali_backend *be, const pali_weights *w, uint64_t available,
                    pali_backend_options *o, char *note, size_t size, pali_error *err);

#endif
