/* runtime.cc - the host side of the emulator: memory, streams, events, graphs, faults.
 *
 * Device memory is a heap block of the exact size (AddressSanitizer then knows its bounds)
 * filled with 0xff: NaN to whoever reads it before writing. Copies check both ends against
 * what was allocated.
 *
 * A stream is a queue that runs when the host synchronises with it, or when another stream,
 * running, meets a wait for an event recorded in it, and then no further than that event: a
 * legal schedule, and the one that shows a host that reads too early or reuses a pinned
 * buffer too soon. In the random order a stream may also run ahead, which shows one that
 * should have waited for another. As on the device, a copy from ordinary memory has taken its bytes when the call
 * returns, and one to ordinary memory waits. During capture work is kept in the graph
 * instead, arguments as they were, so a position baked into a graph is found out.
 *
 * Calls come from any thread, one at a time.                                              */
#include "emu_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

/* Work in a stream. An early kernel is given what comes before it, to run in its midst. */
struct work {
    std::function<void(const std::function<void()> &)> run;
    bool early = false;
};

struct emu_graph {
    std::vector<work> nodes;
};
struct emu_stream {
    emu_graph *capture; /* NULL unless capturing */
    bool blocking;      /* goes after all that stream 0 holds, and before what it gets later */
    std::deque<work> queue;
};
struct emu_event {
    bool recorded;
    std::shared_ptr<double> when; /* milliseconds; written when the queue gets there */
    emu_stream *in;               /* it was recorded in; when is written before that goes */
};

static const size_t SHARED_DEFAULT = 48 * 1024;
static const emu_device DEFAULTS = {1, 13000, 13000, 9, 0, 4, (size_t)2 << 30, 227 * 1024, 0, 0, 0};

static struct {
    emu_device device = DEFAULTS;
    std::recursive_mutex lock;
    std::set<emu_stream *> streams; /* and null_stream */
    std::map<const unsigned char *, size_t> memory, pinned;
    std::map<const void *, size_t> opted_in; /* shared memory by kernel */
    size_t allocated = 0;
    int objects = 0;
    long made = 0; /* of them, and of allocations */
    int capturing = 0;
    bool running = false; /* a stream, ahead of the host's waiting for it */
    emu_stream null_stream = {nullptr, false, {}};
    cudaError_t last = cudaSuccess, stuck = cudaSuccess;
    long calls = 0;
    struct {
        std::string function;
        int nth = 0; /* 0: no fault planned */
        cudaError_t error = cudaSuccess;
        bool sticky = false;
    } fault;
} host;

static struct at_start {
    at_start() {
        emu_order_from_environment();
        if (const char *megabytes = getenv("PALI_EMU_MEMORY"))
            host.device.memory = (size_t)strtoul(megabytes, nullptr, 10) << 20;
    }
} at_start;

/* --- faults ------------------------------------------------------------------------------------- */

static cudaError_t note(cudaError_t e) {
    if (e != cudaSuccess && e != cudaErrorNotReady)
        host.last = e;
    return e;
}

/* Every runtime function begins with this: counts the call and says whether it is to fail. */
static cudaError_t enter(const char *function) {
    if (emu_in_kernel()) {
        fprintf(stderr, "emulator: %s called from a kernel\n", function);
        abort();
    }
    host.calls++;
    if (host.stuck != cudaSuccess)
        return host.stuck;
    if (host.fault.nth > 0 && (host.fault.function.empty() || host.fault.function == function) &&
        --host.fault.nth == 0) {
        if (host.fault.sticky)
            host.stuck = host.fault.error;
        return note(host.fault.error);
    }
    return cudaSuccess;
}

#define ENTER(function)                                                                            \
    std::lock_guard<std::recursive_mutex> hold(host.lock);                                         \
    if (cudaError_t planned = enter(function))                                                     \
    return planned
/* Functions that a driver must be there for. */
#define ENTER_DEVICE(function)                                                                     \
    ENTER(function);                                                                               \
    if (cudaError_t absent = device_absent())                                                      \
    return note(absent)

static cudaError_t device_absent(void) {
    if (host.device.driver < host.device.runtime)
        return cudaErrorInsufficientDriver;
    return host.device.devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}

extern "C" {
int emu_present(void) {
    return 1;
}
void emu_reset(void) {
    std::lock_guard<std::recursive_mutex> hold(host.lock);
    host.device = DEFAULTS;
    host.fault.nth = 0;
    host.last = host.stuck = cudaSuccess;
}
emu_device *emu_settings(void) {
    return &host.device;
}
void emu_fail(const char *function, int nth, int error, int sticky) {
    std::lock_guard<std::recursive_mutex> hold(host.lock);
    host.fault.function = function ? function : "";
    host.fault.nth = nth;
    host.fault.error = (cudaError_t)error;
    host.fault.sticky = sticky != 0;
}
long emu_calls(void) {
    return host.calls;
}
size_t emu_allocated(void) {
    return host.allocated;
}
long emu_made(void) {
    return host.made;
}
int emu_live_objects(void) {
    return host.objects + (int)(host.memory.size() + host.pinned.size());
}
}

/* --- the queue ------------------------------------------------------------------------------------ */

static emu_stream *real(cudaStream_t stream) {
    return stream == nullptr ? &host.null_stream : stream;
}

/* The last of the list, with the others in its midst. */
static void run_chain(const std::vector<work> &list, size_t n) {
    if (n == 1)
        list[0].run(nullptr);
    else
        list[n - 1].run([&list, n] { run_chain(list, n - 1); });
}

/* An early kernel may start before the one before it has, and so on back to one that is not
 * early. Up to four of such a row run inside each other, from another one every time. */
static void run_queue(emu_stream *s, const double *event) {
    static unsigned turn;
    while (!s->queue.empty() && !(event != nullptr && *event >= 0)) {
        std::vector<work> list;
        size_t most = 1 + ((turn = turn * 1664525u + 1013904223u) >> 16) % 4;
        do {
            list.push_back(std::move(s->queue.front()));
            s->queue.pop_front();
        } while (list.size() < most && !s->queue.empty() && s->queue.front().early);
        run_chain(list, list.size());
    }
}

/* Runs a stream until it is empty, or until an event that was recorded in it. */
static void drain(cudaStream_t stream, const double *event = nullptr) {
    emu_stream *s = real(stream);
    if (s == &host.null_stream) {
        for (emu_stream *other : host.streams)
            if (other->blocking)
                run_queue(other, nullptr);
    } else if (s->blocking) {
        run_queue(&host.null_stream, nullptr);
    }
    run_queue(s, event);
}

static void drain_all(void) {
    drain(nullptr);
    for (emu_stream *s : host.streams)
        drain(s);
}
static void push(cudaStream_t stream, work w) {
    emu_stream *s = real(stream);
    if (s->capture != nullptr)
        s->capture->nodes.push_back(std::move(w));
    else
        s->queue.push_back(std::move(w));
    if (s->capture == nullptr && !host.running && emu_eager()) {
        host.running = true;
        drain(stream);
        host.running = false;
    }
}

static void push(cudaStream_t stream, std::function<void()> plain) {
    push(stream, work{[plain](const std::function<void()> &) { plain(); }});
}

/* What must not be called while a stream is captured ends the capture on a device too. */
static cudaError_t not_capturing(void) {
    return host.capturing > 0 ? note(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t emu_enqueue(cudaStream_t stream, std::function<void()> w) {
    ENTER_DEVICE("emu_enqueue");
    push(stream, std::move(w));
    return cudaSuccess;
}

/* What the code that runs was written for; 0: none runs. Code for x.y runs on x.z, z >= y; PTX
 * on everything newer. */
static int built() {
    const emu_device &d = host.device;
    int here = d.major * 10 + d.minor;
    if (d.arch == 0)
        return here;
    if (d.arch / 10 == d.major && d.arch % 10 <= d.minor)
        return d.arch;
    return d.ptx && d.ptx <= here ? d.ptx : 0;
}

cudaError_t emu_launch_body(const char *name, emu_site site, const void *kernel, dim3 grid,
                            dim3 block, size_t shared, cudaStream_t stream, bool early,
                            std::function<void()> body) {
    ENTER_DEVICE("PALI_LAUNCH");
    size_t threads = (size_t)block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 ||
        grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return note(cudaErrorInvalidConfiguration);
    if (early && built() < 90) /* a device would start it early, and it would not wait */
        return note(cudaErrorInvalidValue);
    auto limit = host.opted_in.find(kernel);
    if (shared > (limit == host.opted_in.end() ? SHARED_DEFAULT : limit->second))
        return note(cudaErrorInvalidValue);
    push(stream, work{[=](const std::function<void()> &before) {
                          emu_run_kernel(name, site, grid, block, shared, body, early, before);
                      },
                      early});
    return cudaSuccess;
}

cudaError_t emu_func_shared(const void *kernel, cudaFuncAttribute attribute, int value) {
    ENTER_DEVICE("cudaFuncSetAttribute");
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > host.device.shared_per_block)
        return note(cudaErrorInvalidValue);
    host.opted_in[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t emu_func_attributes(cudaFuncAttributes *a) {
    ENTER_DEVICE("cudaFuncGetAttributes");
    *a = {};
    a->ptxVersion = built();
    return a->ptxVersion ? cudaSuccess : note(cudaErrorNoKernelImageForDevice);
}

/* --- the device ------------------------------------------------------------------------------------ */

const char *cudaGetErrorName(cudaError_t e) {
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError:
        return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDeviceFunction:
        return "cudaErrorInvalidDeviceFunction";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
        return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
    case cudaErrorLaunchOutOfResources:
        return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    default:
        return "cudaErrorUnknown";
    }
}
const char *cudaGetErrorString(cudaError_t e) {
    return cudaGetErrorName(e);
}
cudaError_t cudaPeekAtLastError(void) {
    std::lock_guard<std::recursive_mutex> hold(host.lock);
    return host.stuck != cudaSuccess ? host.stuck : host.last;
}
cudaError_t cudaGetLastError(void) {
    std::lock_guard<std::recursive_mutex> hold(host.lock);
    cudaError_t e = host.stuck != cudaSuccess ? host.stuck : host.last;
    host.last = cudaSuccess;
    return e;
}
cudaError_t cudaDriverGetVersion(int *version) {
    ENTER("cudaDriverGetVersion");
    *version = host.device.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    ENTER("cudaRuntimeGetVersion");
    *version = host.device.runtime;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n) {
    *n = 0;
    ENTER_DEVICE("cudaGetDeviceCount");
    *n = host.device.devices;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    ENTER_DEVICE("cudaGetDevice");
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    ENTER_DEVICE("cudaSetDevice");
    return device >= 0 && device < host.device.devices ? cudaSuccess : note(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    ENTER_DEVICE("cudaGetDeviceProperties");
    if (device < 0 || device >= host.device.devices)
        return note(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->totalGlobalMem = host.device.memory;
    p->sharedMemPerBlock = SHARED_DEFAULT;
    p->sharedMemPerBlockOptin = host.device.shared_per_block;
    p->major = host.device.major;
    p->minor = host.device.minor;
    p->multiProcessorCount = host.device.multiprocessors;
    p->maxThreadsPerMultiProcessor = 2048;
    p->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    ENTER_DEVICE("cudaDeviceSynchronize");
    if (cudaError_t e = not_capturing())
        return e;
    drain_all();
    return cudaSuccess;
}
cudaError_t cudaDeviceReset(void) {
    std::lock_guard<std::recursive_mutex> hold(host.lock);
    host.calls++;
    host.stuck = host.last = cudaSuccess;
    host.null_stream.queue.clear();
    for (emu_stream *s : host.streams)
        s->queue.clear();
    for (auto &m : host.memory)
        free(const_cast<unsigned char *>(m.first));
    host.memory.clear();
    host.allocated = 0;
    return cudaSuccess;
}

/* --- memory ------------------------------------------------------------------------------------------ */

static bool inside(const std::map<const unsigned char *, size_t> &blocks, const void *p, size_t n) {
    auto b = blocks.upper_bound(static_cast<const unsigned char *>(p));
    if (b == blocks.begin())
        return false;
    --b;
    size_t offset = (size_t)(static_cast<const unsigned char *>(p) - b->first);
    return offset <= b->second && n <= b->second - offset;
}

static bool on_device(const void *p) {
    return inside(host.memory, p, 0);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    ENTER_DEVICE("cudaMemGetInfo");
    *total = host.device.memory;
    *free = host.device.memory > host.allocated ? host.device.memory - host.allocated : 0;
    return cudaSuccess;
}

cudaError_t emu_malloc(void **p, size_t bytes) {
    *p = nullptr;
    ENTER_DEVICE("cudaMalloc");
    if (cudaError_t e = not_capturing())
        return e;
    if (bytes == 0)
        return cudaSuccess;
    if (host.allocated > host.device.memory || bytes > host.device.memory - host.allocated ||
        posix_memalign(p, 256, bytes) != 0)
        return note(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    host.memory[static_cast<unsigned char *>(*p)] = bytes;
    host.made++;
    host.allocated += bytes;
    return cudaSuccess;
}

cudaError_t emu_malloc_host(const char *function, void **p, size_t bytes) {
    *p = nullptr;
    ENTER_DEVICE(function);
    if (bytes == 0)
        return cudaSuccess;
    if (posix_memalign(p, 256, bytes) != 0)
        return note(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    host.pinned[static_cast<unsigned char *>(*p)] = bytes;
    host.made++;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    ENTER_DEVICE("cudaFree");
    if (p == nullptr)
        return cudaSuccess;
    auto b = host.memory.find(static_cast<unsigned char *>(p));
    if (b == host.memory.end())
        return note(cudaErrorInvalidValue);
    drain_all();
    host.allocated -= b->second;
    host.memory.erase(b);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p) {
    ENTER_DEVICE("cudaFreeHost");
    if (p == nullptr)
        return cudaSuccess;
    if (host.pinned.count(static_cast<unsigned char *>(p)) == 0)
        return note(cudaErrorInvalidValue);
    drain_all();
    host.pinned.erase(static_cast<unsigned char *>(p));
    free(p);
    return cudaSuccess;
}

/* Where a copy of rows goes and whether it may. */
static bool copy_allowed(const void *to, const void *from, size_t to_bytes, size_t from_bytes,
                         cudaMemcpyKind kind) {
    bool to_device = on_device(to), from_device = on_device(from);
    if (to_device && !inside(host.memory, to, to_bytes))
        return false;
    if (from_device && !inside(host.memory, from, from_bytes))
        return false;
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return true;
    }
}

static void copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                      size_t height) {
    for (size_t y = 0; y < height; y++)
        memmove(static_cast<char *>(to) + y * to_pitch,
                static_cast<const char *>(from) + y * from_pitch, width);
}

static cudaError_t copy_async(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
    if (width == 0 || height == 0)
        return cudaSuccess;
    if (width > to_pitch || width > from_pitch ||
        !copy_allowed(to, from, (height - 1) * to_pitch + width, (height - 1) * from_pitch + width,
                      kind))
        return note(cudaErrorInvalidValue);
    bool captured = stream != nullptr && stream->capture != nullptr;
    if (!captured && !on_device(from) && !inside(host.pinned, from, 0)) {
        /* Ordinary memory: the bytes are taken now. */
        auto staged = std::make_shared<std::vector<unsigned char>>(width * height);
        copy_rows(staged->data(), width, from, from_pitch, width, height);
        push(stream, [=] { copy_rows(to, to_pitch, staged->data(), width, width, height); });
    } else {
        push(stream, [=] { copy_rows(to, to_pitch, from, from_pitch, width, height); });
    }
    if (!captured && !on_device(to) && !inside(host.pinned, to, 0))
        drain(stream);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    ENTER_DEVICE("cudaMemcpyAsync");
    return copy_async(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
    ENTER_DEVICE("cudaMemcpy2DAsync");
    return copy_async(to, to_pitch, from, from_pitch, width, height, kind, stream);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    ENTER_DEVICE("cudaMemcpy");
    if (cudaError_t e = not_capturing())
        return e;
    cudaError_t e = copy_async(to, bytes, from, bytes, bytes, 1, kind, nullptr);
    drain(nullptr);
    return e;
}
cudaError_t cudaMemsetAsync(void *p, int byte, size_t bytes, cudaStream_t stream) {
    ENTER_DEVICE("cudaMemsetAsync");
    if (!inside(host.memory, p, bytes))
        return note(cudaErrorInvalidValue);
    push(stream, [=] { memset(p, byte, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int byte, size_t bytes) {
    ENTER_DEVICE("cudaMemset");
    if (cudaError_t e = not_capturing())
        return e;
    if (!inside(host.memory, p, bytes))
        return note(cudaErrorInvalidValue);
    push(nullptr, [=] { memset(p, byte, bytes); });
    drain(nullptr);
    return cudaSuccess;
}

/* --- streams and events ------------------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    *stream = nullptr;
    ENTER_DEVICE("cudaStreamCreateWithFlags");
    *stream = new emu_stream();
    (*stream)->blocking = flags != cudaStreamNonBlocking;
    host.streams.insert(*stream);
    host.objects++, host.made++;
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    ENTER_DEVICE("cudaStreamDestroy");
    if (stream == nullptr)
        return note(cudaErrorInvalidResourceHandle);
    drain(stream);
    if (stream->capture != nullptr) {
        host.capturing--;
        delete stream->capture;
    }
    host.streams.erase(stream);
    delete stream;
    host.objects--;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ENTER_DEVICE("cudaStreamSynchronize");
    if (stream != nullptr && stream->capture != nullptr)
        return note(cudaErrorStreamCaptureUnsupported);
    drain(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    ENTER_DEVICE("cudaStreamQuery");
    if (stream != nullptr && stream->capture != nullptr)
        return note(cudaErrorStreamCaptureUnsupported);
    if (real(stream)->queue.empty())
        return cudaSuccess;
    drain(stream); /* the next question will be answered with yes */
    return cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    ENTER_DEVICE("cudaStreamWaitEvent");
    /* Forking a capture is not emulated. */
    if (event == nullptr || host.capturing > 0)
        return note(cudaErrorStreamCaptureUnsupported);
    if (event->recorded && *event->when < 0) {
        std::shared_ptr<double> when = event->when;
        emu_stream *in = event->in;
        push(stream, [when, in] {
            if (*when < 0)
                drain(in, when.get());
        });
    }
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = nullptr;
    ENTER_DEVICE("cudaEventCreateWithFlags");
    *event = new emu_event{false, std::make_shared<double>(-1.0), nullptr};
    host.objects++, host.made++;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    ENTER_DEVICE("cudaEventDestroy");
    if (event == nullptr)
        return note(cudaErrorInvalidResourceHandle);
    delete event;
    host.objects--;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    ENTER_DEVICE("cudaEventRecord");
    if (event == nullptr)
        return note(cudaErrorInvalidResourceHandle);
    event->recorded = true;
    event->in = real(stream);
    event->when = std::make_shared<double>(-1.0);
    auto when = event->when;
    push(stream, [when] {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *when = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
    });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER_DEVICE("cudaEventSynchronize");
    if (event == nullptr)
        return note(cudaErrorInvalidResourceHandle);
    if (event->recorded && *event->when < 0)
        drain(event->in, event->when.get());
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER_DEVICE("cudaEventQuery");
    if (event == nullptr)
        return note(cudaErrorInvalidResourceHandle);
    if (!event->recorded || *event->when >= 0)
        return cudaSuccess;
    drain(event->in, event->when.get());
    return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    ENTER_DEVICE("cudaEventElapsedTime");
    if (start == nullptr || end == nullptr || !start->recorded || !end->recorded)
        return note(cudaErrorInvalidResourceHandle);
    if (*start->when < 0 || *end->when < 0)
        return cudaErrorNotReady;
    *ms = (float)(*end->when - *start->when);
    return cudaSuccess;
}

/* --- graphs --------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    ENTER_DEVICE("cudaStreamBeginCapture");
    if (stream == nullptr || stream->capture != nullptr)
        return note(cudaErrorStreamCaptureUnsupported);
    stream->capture = new emu_graph();
    host.capturing++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = nullptr;
    ENTER_DEVICE("cudaStreamEndCapture");
    if (stream == nullptr || stream->capture == nullptr)
        return note(cudaErrorStreamCaptureInvalidated);
    *graph = stream->capture;
    stream->capture = nullptr;
    host.capturing--;
    host.objects++, host.made++;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = nullptr;
    ENTER_DEVICE("cudaGraphInstantiate");
    if (graph == nullptr)
        return note(cudaErrorInvalidValue);
    *exec = new emu_graph(*graph);
    host.objects++, host.made++;
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) {
    ENTER_DEVICE("cudaGraphUpload");
    return exec == nullptr ? note(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ENTER_DEVICE("cudaGraphLaunch");
    if (exec == nullptr)
        return note(cudaErrorInvalidValue);
    for (const work &w : exec->nodes)
        push(stream, w);
    return cudaSuccess;
}
static cudaError_t destroy(emu_graph *g) {
    if (g == nullptr)
        return note(cudaErrorInvalidValue);
    delete g; /* what is queued holds copies */
    host.objects--;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    ENTER_DEVICE("cudaGraphDestroy");
    return destroy(graph);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    ENTER_DEVICE("cudaGraphExecDestroy");
    return destroy(exec);
}
