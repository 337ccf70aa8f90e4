/* control.h - what a test may arrange on the pretended device; plain C.
 *
 * All of it is process-wide. emu_reset() restores the defaults: one device of compute
 * capability 9.0 with 4 multiprocessors and 2 GB (PALI_EMU_MEMORY: megabytes, at the start
 * of a program), no faults.                            */
#ifndef PALI_EMU_CONTROL_H
#define PALI_EMU_CONTROL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    EMU_ASCENDING,
    EMU_DESCENDING,
    EMU_RANDOM,
    EMU_ORDERS
} emu_order;

/* The device as the program finds it. Sizes in bytes; driver as 13000 for 13.0, 0 for none. */
typedef struct {
    int devices, driver, runtime, major, minor, multiprocessors;
    size_t memory, shared_per_block; /* the latter as opted in to; 48 KB without */
    int arch;                        /* kernels are built for: 90 for sm_90; 0: for any */
    int ptx;                         /* and are there for newer devices too, from this on; 0: not */
    int no_gemm;                     /* the library of matrix products is not there */
} emu_device;

/* 1: the emulator. 0: a device (tests/gpu/on_device.c), where faults and settings do nothing
 * and counters stay 0; tests that need them skip. */
int emu_present(void);

void emu_reset(void);
emu_device *emu_settings(void); /* to be changed in place */

/* The order of blocks, warps and lanes from now on. Default: PALI_EMU_ORDER or ascending. */
void emu_set_order(emu_order order, unsigned seed);

/* The nth call (1 = the next) of the named runtime function (NULL: of any) returns error,
 * a cudaError_t; sticky: and so does every call after it. Off again after it fired once
 * (sticky: after cudaDeviceReset), and by emu_reset. */
void emu_fail(const char *function, int nth, int error, int sticky);

long emu_calls(void);       /* runtime calls so far */
long emu_launches(void);    /* kernels run so far */
size_t emu_allocated(void); /* device bytes not freed */
long emu_made(void);        /* such objects made so far, freed or not */
int emu_live_objects(void); /* allocations (pinned ones too), streams, events, graphs not freed */

#ifdef __cplusplus
}
#endif

#endif
