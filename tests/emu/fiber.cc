/* fiber.cc - the smallest fibers that serve: resume and yield, no scheduling.
 *
 * On x86-64 a switch is twelve instructions that save what a call must preserve. Elsewhere
 * (or with EMU_UCONTEXT, to test that path here) swapcontext does it, with two system calls
 * a switch. Stacks come from mmap with an unreadable page below each, so that an overflow
 * ends the program instead of damaging a neighbour; tops are staggered, for stacks a power
 * of two apart would all fall into the same cache lines. AddressSanitizer is told of every
 * switch: it would otherwise take one stack's frames for another's.                      */
#include "fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

static const size_t GUARD = 4096, STACK = 128 * 1024, STAGGER = 4096;

struct fiber {
    void (*entry)(void);
    unsigned char *stack; /* lowest usable byte */
    void *asan;           /* its fake stack while it does not run */
#ifdef EMU_UCONTEXT
    ucontext_t context;
#else
    void *sp;
#endif
};

static struct { /* whoever resumes */
    fiber *running;
    void *asan;
    const void *stack;
    size_t size;
#ifdef EMU_UCONTEXT
    ucontext_t context;
#else
    void *sp;
#endif
} host;

/* --- the switch ------------------------------------------------------------------------- */

#ifndef EMU_UCONTEXT
/* Saves the stack pointer to *save, takes on load, and returns there. */
extern "C" void pali_fiber_switch(void **save, void *load);
asm(".text\n"
    ".globl pali_fiber_switch\n"
    ".hidden pali_fiber_switch\n"
    ".type pali_fiber_switch, @function\n"
    "pali_fiber_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size pali_fiber_switch, .-pali_fiber_switch\n");
#endif

#if defined(__clang__)
__attribute__((no_sanitize("address")))
#else
__attribute__((no_sanitize_address))
#endif
static void
start(void) {
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &host.stack, &host.size);
#endif
    host.running->entry();
    abort(); /* entry never returns */
}

void fiber_resume(fiber *f) {
    host.running = f;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&host.asan, f->stack, STACK - sizeof *f);
#endif
#ifdef EMU_UCONTEXT
    swapcontext(&host.context, &f->context);
#else
    pali_fiber_switch(&host.sp, f->sp);
#endif
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(host.asan, nullptr, nullptr);
#endif
}

void fiber_yield(void) {
    fiber *f = host.running;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&f->asan, host.stack, host.size);
#endif
#ifdef EMU_UCONTEXT
    swapcontext(&f->context, &host.context);
#else
    pali_fiber_switch(&f->sp, host.sp);
#endif
#ifdef WITH_ASAN
    /* The host may be another thread by now. */
    __sanitizer_finish_switch_fiber(f->asan, &host.stack, &host.size);
#endif
}

/* --- stacks ------------------------------------------------------------------------------ */

fiber *fiber_new(void (*entry)(void)) {
    static unsigned made;
    void *map = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || mprotect(map, GUARD, PROT_NONE) != 0) {
        fprintf(stderr, "emulator: no memory for the stack of fiber %u\n", made);
        abort();
    }
    /* The record lives above its own stack. */
    unsigned char *stack = static_cast<unsigned char *>(map) + GUARD;
    size_t size = STACK - STAGGER - (made++ * 576u & (STAGGER - 64));
    fiber *f = reinterpret_cast<fiber *>(stack + STACK) - 1;
    f->entry = entry;
    f->stack = stack;
    f->asan = nullptr;
#ifdef EMU_UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = size;
    f->context.uc_link = nullptr;
    makecontext(&f->context, start, 0);
#else
    /* As if start had been about to be returned to: six registers, its address, and a zero
     * where a caller's address would be. A function begins with sp 8 past a multiple of 16. */
    uint64_t *top = reinterpret_cast<uint64_t *>(f->stack + size) - 1;
    top[0] = 0;
    top[-1] = reinterpret_cast<uint64_t>(start);
    for (int i = 2; i <= 7; i++)
        top[-i] = 0;
    f->sp = top - 7;
#endif
    return f;
}
