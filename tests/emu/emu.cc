/* emu.cc - the device side of the emulator: blocks, warps, lanes.
 *
 * A kernel runs block by block. Within a block, warp by warp, each lane runs on a fiber
 * until it meets something that needs others: a block barrier or a warp operation. When no
 * lane of a warp can go on, its warp operations are matched: every lane named in a mask must
 * wait in the same operation at the same line with the same mask, and the scheduler then
 * hands out the results. When all warps stand at block barriers, all threads must, at the
 * same line. Anything else would hang or be undefined on a device; here it is a message and
 * abort().
 *
 * The order of blocks, warps and lanes is ascending, descending or a seeded shuffle drawn
 * anew for each turn. Dynamic shared memory is one heap block of the exact size asked for,
 * filled with 0xff (NaN as float or bf16) before every block.                              */
#include "emu_private.h"
#include "fiber.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

emu_place emu_now;

enum lane_state {
    READY,
    AT_WARP,
    AT_BARRIER,
    AT_KERNEL, /* waits for the kernel before */
    DONE
};

struct async_copy {
    void *to;
    const void *from; /* NULL: zeros */
};

struct tensor_operation { /* of one lane */
    const void *row;
    uint32_t a[4], b[2], *out;
    float *c;
    bool bf16, turned;
};

struct lane {
    lane_state state;
    fiber *on; /* NULL until it first runs */
    uint3 thread;
    bool waited;   /* has called pdl_wait */
    emu_site site; /* where it waits */
    emu_operation what;
    unsigned mask, from;
    uint64_t value, result;
    std::vector<async_copy> copies; /* not yet waited for */
};

struct running {
    const char *kernel;
    emu_site launched;
    const std::function<void()> *body;
    unsigned char *shared;
    size_t shared_bytes;
    std::vector<lane> lanes;
    lane *current; /* NULL outside kernels */
    std::vector<unsigned> blocks, warps;
    uint64_t random;
    bool early, held; /* launched early; what comes before has not run */
    const std::function<void()> *before;
};
static running run;
static std::vector<fiber *> idle; /* last used on top: its stack is in the cache */
static long launches;

static emu_order order = EMU_ASCENDING;
static unsigned order_seed = 1;

/* --- misuse ---------------------------------------------------------------------------------- */

static void print_lane(char *out, size_t size, const lane *l) {
    static const char *const names[] = {
        "__syncwarp",     "__shfl_sync",   "__shfl_xor_sync", "__shfl_down_sync",
        "__shfl_up_sync", "__ballot_sync", "ldmatrix",        "mma"};
    unsigned id = (unsigned)(l - run.lanes.data());
    if (l->state == DONE)
        snprintf(out, size, "thread %u has returned", id);
    else if (l->state == AT_KERNEL)
        snprintf(out, size, "thread %u waits in pdl_wait at %s:%d", id, l->site.file, l->site.line);
    else if (l->state == AT_BARRIER)
        snprintf(out, size, "thread %u waits in __syncthreads at %s:%d", id, l->site.file,
                 l->site.line);
    else
        snprintf(out, size, "thread %u waits in %s(%#x) at %s:%d", id, names[l->what], l->mask,
                 l->site.file, l->site.line);
}

static void __attribute__((noreturn, format(printf, 1, 2))) misuse(const char *fmt, ...) {
    char what[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fprintf(stderr, "emulator: kernel %s, block (%u,%u,%u), launched at %s:%d: %s\n", run.kernel,
            emu_now.block.x, emu_now.block.y, emu_now.block.z, run.launched.file, run.launched.line,
            what);
    abort();
}

static void __attribute__((noreturn)) disagree(const char *what, const lane *a, const lane *b) {
    char one[200], other[200];
    print_lane(one, sizeof one, a);
    print_lane(other, sizeof other, b);
    misuse("%s: %s, but %s", what, one, other);
}

/* --- called by kernels -------------------------------------------------------------------------- */

static void wait_as(lane_state state) {
    run.current->state = state;
    fiber_yield();
}

void emu_barrier(emu_site site) {
    run.current->site = site;
    wait_as(AT_BARRIER);
}

uint64_t emu_meet(emu_operation what, unsigned mask, uint64_t value, unsigned from, emu_site site) {
    lane *l = run.current;
    l->site = site;
    l->what = what;
    l->mask = mask;
    l->value = value;
    l->from = from;
    wait_as(AT_WARP);
    return l->result;
}

void emu_wait_for_kernel(emu_site site) {
    run.current->site = site;
    run.current->waited = true;
    if (run.held)
        wait_as(AT_KERNEL);
}

unsigned emu_lane(void) {
    return (unsigned)(run.current - run.lanes.data()) % 32;
}

void emu_copy_async(void *to, const void *from, bool there, emu_site site) {
    if (((uintptr_t)to | (there ? (uintptr_t)from : 0)) % 16 != 0)
        misuse("%s:%d: 16-byte copy from %p to %p, not 16-aligned", site.file, site.line, from, to);
    run.current->copies.push_back({to, there ? from : nullptr});
}

void emu_copy_wait(void) {
    for (const async_copy &c : run.current->copies)
        if (c.from != nullptr)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    run.current->copies.clear();
}

void emu_ldmatrix(uint32_t *out, const void *row, bool turned, emu_site site) {
    tensor_operation o = {};
    o.row = row;
    o.out = out;
    o.turned = turned;
    if ((uintptr_t)row % 16 != 0)
        misuse("%s:%d: matrix row at %p, not 16-aligned", site.file, site.line, row);
    emu_meet(EMU_LDMATRIX, 0xffffffffu, (uint64_t)(uintptr_t)&o, 0, site);
}

void emu_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1, bool is_bf16, emu_site site) {
    tensor_operation o = {};
    memcpy(o.a, a, sizeof o.a);
    o.b[0] = b0;
    o.b[1] = b1;
    o.c = c;
    o.bf16 = is_bf16;
    emu_meet(EMU_MMA, 0xffffffffu, (uint64_t)(uintptr_t)&o, 0, site);
}

static tensor_operation *operation(const lane *warp, unsigned i) {
    return reinterpret_cast<tensor_operation *>((uintptr_t)warp[i].value);
}

static void load_matrices(const lane *warp) {
    for (unsigned i = 0; i < 32; i++)
        for (unsigned m = 0; m < 4; m++) {
            const tensor_operation *o = operation(warp, i);
            uint16_t pair[2];
            for (unsigned e = 0; e < 2; e++) {
                unsigned r = o->turned ? i % 4 * 2 + e : i / 4,
                         c = o->turned ? i / 4 : i % 4 * 2 + e;
                const void *row = operation(warp, m * 8 + r)->row;
                pair[e] = static_cast<const uint16_t *>(row)[c];
            }
            memcpy(&o->out[m], pair, 4);
        }
}

static float half_of(const tensor_operation *o, uint32_t pair, unsigned which) {
    uint16_t bits = (uint16_t)(which ? pair >> 16 : pair);
    if (o->bf16)
        return __uint_as_float((unsigned)bits << 16);
    unsigned exponent = bits >> 10 & 31, fraction = bits & 1023u;
    float f = exponent == 31  ? (fraction ? NAN : INFINITY)
              : exponent == 0 ? ldexpf((float)fraction, -24)
                              : ldexpf((float)(fraction + 1024), (int)exponent - 25);
    return bits & 0x8000u ? -f : f;
}

static void multiply(const lane *warp) {
    float a[16][16], b[8][16];
    for (unsigned i = 0; i < 32; i++) {
        const tensor_operation *o = operation(warp, i);
        unsigned g = i / 4, t = i % 4 * 2;
        for (unsigned e = 0; e < 2; e++) {
            for (unsigned p = 0; p < 4; p++)
                a[g + p % 2 * 8][t + p / 2 * 8 + e] = half_of(o, o->a[p], e);
            for (unsigned p = 0; p < 2; p++)
                b[g][t + p * 8 + e] = half_of(o, o->b[p], e);
        }
    }
    for (unsigned i = 0; i < 32; i++)
        for (unsigned e = 0; e < 4; e++) {
            const float *x = a[i / 4 + e / 2 * 8], *y = b[i % 4 * 2 + e % 2];
            float sum = operation(warp, i)->c[e];
            for (unsigned k = 0; k < 16; k++)
                sum += x[k] * y[k];
            operation(warp, i)->c[e] = sum;
        }
}

void *emu_shared(size_t align, emu_site site) {
    if (run.shared_bytes == 0)
        misuse("%s:%d: shared memory used, but launched with none", site.file, site.line);
    if (align > 16)
        misuse("%s:%d: shared memory is aligned to 16 bytes, %zu wanted", site.file, site.line,
               align);
    return run.shared;
}

uint4 emu_load128(const void *p, emu_site site) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0)
        misuse("%s:%d: 128-bit load from %p, not 16-aligned", site.file, site.line, p);
    return *static_cast<const uint4 *>(p);
}

/* --- the scheduler ----------------------------------------------------------------------------- */

static uint64_t draw(void) { /* xorshift64 */
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return run.random;
}

static void arrange(unsigned *list, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        list[i] = order == EMU_DESCENDING ? n - 1 - i : i;
    if (order == EMU_RANDOM)
        for (unsigned i = n; i > 1; i--)
            std::swap(list[i - 1], list[draw() % i]);
}

/* A fiber's life: one thread after another, as the scheduler sets run.current. */
static void lane_entry(void) {
    for (;;) {
        (*run.body)();
        wait_as(DONE);
    }
}

static void resume(lane *l) {
    if (l->on == nullptr) {
        if (idle.empty()) {
            l->on = fiber_new(lane_entry);
        } else {
            l->on = idle.back();
            idle.pop_back();
        }
    }
    run.current = l;
    emu_now.thread = l->thread;
    fiber_resume(l->on);
    run.current = nullptr;
    if (l->state == DONE) {
        idle.push_back(l->on);
        l->on = nullptr;
        if (run.early && !l->waited)
            misuse("thread %u has returned without pdl_wait", (unsigned)(l - run.lanes.data()));
    }
}

/* No lane of the warp can go on: completes the warp operations that wait. Returns how many
 * lanes may continue. */
static unsigned match(lane *warp, unsigned n) {
    unsigned released = 0;
    for (unsigned i = 0; i < n; i++) {
        lane *l = &warp[i];
        if (l->state != AT_WARP)
            continue;
        if ((l->mask >> i & 1) == 0)
            disagree("the mask does not name the lane itself", l, l);
        unsigned ballot = 0;
        for (unsigned j = 0; j < 32; j++) {
            if ((l->mask >> j & 1) == 0)
                continue;
            if (j >= n)
                misuse("%s:%d: mask %#x names lane %u, but the warp has %u threads", l->site.file,
                       l->site.line, l->mask, j, n);
            const lane *o = &warp[j];
            if (o->state != AT_WARP || o->what != l->what || o->mask != l->mask ||
                o->site.line != l->site.line || o->site.file != l->site.file)
                disagree("divergent warp operation", l, o);
            if (o->what == EMU_BALLOT)
                ballot |= (unsigned)(o->value & 1) << j;
        }
        if (l->what == EMU_LDMATRIX)
            load_matrices(warp);
        if (l->what == EMU_MMA)
            multiply(warp);
        for (unsigned j = 0; j < n; j++) {
            if ((l->mask >> j & 1) == 0)
                continue;
            lane *o = &warp[j];
            if (o->what == EMU_BALLOT) {
                o->result = ballot;
            } else if (o->what < EMU_LDMATRIX && o->what != EMU_SYNCWARP) {
                if ((l->mask >> o->from & 1) == 0)
                    misuse("%s:%d: lane %u reads lane %u, which mask %#x does not name",
                           l->site.file, l->site.line, j, o->from, l->mask);
                o->result = warp[o->from].value;
            }
        }
        for (unsigned j = 0; j < n; j++)
            if (l->mask >> j & 1 && warp[j].state == AT_WARP) {
                warp[j].state = READY;
                released++;
            }
    }
    return released;
}

/* Runs the warp until all its lanes have returned or wait at a block barrier. */
static void run_warp(lane *warp, unsigned n) {
    unsigned sequence[32];
    do {
        arrange(sequence, n);
        for (unsigned i = 0; i < n; i++)
            if (warp[sequence[i]].state == READY)
                resume(&warp[sequence[i]]);
    } while (match(warp, n) > 0);
}

/* The kernel before, in the midst of this one's first block. */
static void run_before(void) {
    const std::function<void()> &before = *run.before;
    emu_place place = emu_now;
    running self = std::move(run);
    run = running();
    before();
    run = std::move(self);
    emu_now = place;
    run.held = false;
}

static void run_block(void) {
    unsigned n = (unsigned)run.lanes.size(), warps = (n + 31) / 32;
    for (unsigned i = 0; i < n; i++) {
        run.lanes[i].state = READY;
        run.lanes[i].waited = false;
    }
    run.warps.resize(warps);
    for (;;) {
        arrange(run.warps.data(), warps);
        for (unsigned w : run.warps)
            run_warp(&run.lanes[w * 32], std::min(32u, n - w * 32));
        bool held = false;
        for (lane &l : run.lanes)
            if (l.state == AT_KERNEL) {
                held = true;
                l.state = READY;
            }
        if (held) {
            run_before();
            continue;
        }
        const lane *waits = nullptr, *returned = nullptr;
        for (const lane &l : run.lanes) {
            if (l.state == DONE) {
                returned = &l;
            } else {
                if (waits && (waits->site.line != l.site.line || waits->site.file != l.site.file))
                    disagree("divergent barrier", waits, &l);
                waits = &l;
            }
        }
        if (!waits)
            return;
        if (returned)
            disagree("__syncthreads in part of the threads", waits, returned);
        for (lane &l : run.lanes)
            l.state = READY;
    }
}

void emu_run_kernel(const char *name, emu_site site, dim3 grid, dim3 block, size_t shared,
                    const std::function<void()> &body, bool early,
                    const std::function<void()> &before) {
    run.early = early;
    run.held = before != nullptr;
    run.before = &before;
    run.kernel = name;
    run.launched = site;
    run.body = &body;
    run.random = 0x9e3779b97f4a7c15u ^ (order_seed * 0xbf58476d1ce4e5b9u);
    launches++;
    void *memory = nullptr;
    if (shared > 0 && posix_memalign(&memory, 128, shared) != 0) {
        fprintf(stderr, "emulator: no memory for %zu bytes of shared memory\n", shared);
        abort();
    }
    run.shared = static_cast<unsigned char *>(memory);
    run.shared_bytes = shared;
    emu_now.grid_dim = grid;
    emu_now.block_dim = block;
    run.lanes.resize((size_t)block.x * block.y * block.z);
    for (unsigned i = 0; i < run.lanes.size(); i++) {
        run.lanes[i].on = nullptr;
        run.lanes[i].thread = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    }
    run.blocks.resize((size_t)grid.x * grid.y * grid.z);
    arrange(run.blocks.data(), (unsigned)run.blocks.size());
    for (unsigned b : run.blocks) {
        emu_now.block = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        if (shared > 0)
            memset(run.shared, 0xff, shared);
        run_block();
    }
    free(memory);
}

bool emu_in_kernel(void) {
    return run.current != nullptr;
}

/* --- control.h ----------------------------------------------------------------------------------- */

void emu_set_order(emu_order o, unsigned seed) {
    order = o;
    order_seed = seed;
}

bool emu_eager(void) {
    static uint64_t dice = 1;
    dice = dice * 6364136223846793005u + order_seed * 2u + 1442695040888963407u;
    return order == EMU_RANDOM && dice >> 63;
}

void emu_order_from_environment(void) {
    const char *name = getenv("PALI_EMU_ORDER"), *seed = getenv("PALI_EMU_SEED");
    order_seed = seed ? (unsigned)strtoul(seed, nullptr, 10) : 1;
    if (name == nullptr || strcmp(name, "ascending") == 0) {
        order = EMU_ASCENDING;
    } else if (strcmp(name, "descending") == 0) {
        order = EMU_DESCENDING;
    } else if (strcmp(name, "random") == 0) {
        order = EMU_RANDOM;
    } else {
        fprintf(stderr, "emulator: PALI_EMU_ORDER is ascending, descending or random, not %s\n",
                name);
        abort();
    }
}

long emu_launches(void) {
    return launches;
}
