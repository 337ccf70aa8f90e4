/* tune.h - what is chosen by the device: one table by compute capability, whose figures
 * `make bench-gpu` sweeps. They change no bit of a result, but for `attend`, which cuts sums. */
#ifndef PALI_GPU_TUNE_H
#define PALI_GPU_TUNE_H

typedef struct {
    int capability; /* 75 for 7.5: for such devices and newer ones */
    bool flash;     /* attention of many rows by flash.cu (8.0), not by products of gemm.h */
    bool early;     /* kernels of a step may start before the one before has ended (9.0) */
    int blocks;     /* of a product of one token, at most, for each multiprocessor */
    int rows[3];    /* of weights that are read at once, 4 or 8, by form: loads in flight */
    int ahead;      /* bytes of each row that an early kernel asks for while it waits */
    int attend;     /* blocks of a step's attention for each multiprocessor */
    int sms;        /* multiprocessors; not of the table */
} tuning;

/* capability: of the device, or of the code where that is older. */
tuning tuning_of(int capability, int sms);

#endif
