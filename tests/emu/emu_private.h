/* emu_private.h - between the two halves of the emulator: device (emu.cc), host (runtime.cc). */
#ifndef PALI_EMU_PRIVATE_H
#define PALI_EMU_PRIVATE_H

#include "control.h"
#include "emu.h"

/* Runs all blocks of one kernel; the arguments are bound in body. early: it was launched to
 * start before what comes before it has ended, which is what `before` runs, once the first
 * block has got as far as it may; every thread must call pdl_wait. */
void emu_run_kernel(const char *name, emu_site site, dim3 grid, dim3 block, size_t shared,
                    const std::function<void()> &body, bool early,
                    const std::function<void()> &before);
bool emu_in_kernel(void);
void emu_order_from_environment(void);
/* Does a stream run at once what it was just given? In random order every second time. */
bool emu_eager(void);

#endif
