/* fiber.h - stacks that take turns on one thread; see fiber.cc. */
#ifndef PALI_EMU_FIBER_H
#define PALI_EMU_FIBER_H

struct fiber;

/* A fiber with no work, from the pool. It is made to run `entry` by its first resume;
 * entry never returns, it yields when it has nothing to do. Lives as long as the process. */
fiber *fiber_new(void (*entry)(void));

/* Runs f until it yields. Not from within a fiber. */
void fiber_resume(fiber *f);

/* Back to whoever resumed the running fiber. */
void fiber_yield(void);

#endif
