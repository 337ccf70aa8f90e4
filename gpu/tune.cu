/* tune.cu - see tune.h. Bytes in flight set the figures: a card with HBM wants some 30 KB a
 * multiprocessor, one with GDDR 5 KB. No row has been measured yet. */
#include "gpu/port.cuh"

#include "gpu/tune.h"

static const tuning table[] = {
    /* from, flash, early, blocks, rows (half, int8, nf4), ahead, attend */
    {75, false, false, 4, {4, 4, 4}, 0, 1, 0},  {80, true, false, 8, {4, 8, 8}, 0, 1, 0},
    {86, true, false, 6, {4, 4, 4}, 0, 1, 0},   {90, true, true, 8, {4, 8, 8}, 512, 1, 0},
    {120, true, true, 6, {4, 4, 4}, 256, 1, 0},
};

tuning tuning_of(int capability, int sms) {
    tuning t = table[0];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].capability <= capability)
            t = table[i];
    t.sms = sms > 0 ? sms : 1;
    return t;
}
