/* machine.c - see machine.h. */
#include "core/machine.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FILE_BYTES = 16384, /* of a file of /proc that is looked at; /proc/cpuinfo is cut short */
    GROUPS = 64         /* levels of cgroups that are walked up at most */
};

/* The start of root/path in buf, NUL-terminated; false when it cannot be read. */
static bool slurp(const char *root, const char *path, char buf[FILE_BYTES]) {
    char whole[PATH_MAX];
    size_t n = 0;
    if (snprintf(whole, sizeof whole, "%s%s", root, path) >= (int)sizeof whole)
        return false;
    int fd = open(whole, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    for (ssize_t got; n < FILE_BYTES - 1; n += (size_t)got)
        if ((got = read(fd, buf + n, FILE_BYTES - 1 - n)) <= 0)
            break;
    close(fd);
    buf[n] = '\0';
    return n > 0;
}

/* What follows "key" at the start of a line, past blanks and a colon; NULL: no such line. */
static const char *line_of(const char *text, const char *key) {
    size_t n = strlen(key);
    for (const char *p = text; p; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, key, n) == 0 && strchr(" \t:", p[n]))
            return p + n + strspn(p + n, " \t:");
    }
    return NULL;
}

/* A whole number at s; false for "max", nothing, and v1's "no limit" of about 2^63. */
static bool number(const char *s, uint64_t *out) {
    char *end;
    if (!s || *s < '0' || *s > '9')
        return false;
    unsigned long long v = strtoull(s, &end, 10);
    *out = v;
    return v < (uint64_t)1 << 62;
}

static void copy_line(char *to, size_t size, const char *from) {
    snprintf(to, size, "%.*s", (int)strcspn(from, "\n"), from);
}

/* --- cgroups -------------------------------------------------------------------------- */

typedef struct {
    const char *base;                  /* where the groups are mounted */
    const char *limit, *used, *cached; /* files, and the key in memory.stat */
} hierarchy;

static bool group_number(const char *root, const char *base, const char *group, const char *file,
                         uint64_t *out) {
    char path[PATH_MAX], buf[FILE_BYTES];
    return snprintf(path, sizeof path, "%s%s/%s", base, group, file) < (int)sizeof path &&
           slurp(root, path, buf) && number(buf, out);
}

/* Lowers out->limit and out->available to what the group allows. */
static void memory_of_group(const char *root, const hierarchy *h, const char *group,
                            pali_machine *out) {
    char path[PATH_MAX], buf[FILE_BYTES];
    uint64_t limit, used = 0, cached = 0;
    if (!group_number(root, h->base, group, h->limit, &limit) || limit >= out->memory)
        return;
    group_number(root, h->base, group, h->used, &used);
    if (snprintf(path, sizeof path, "%s%s/memory.stat", h->base, group) < (int)sizeof path &&
        slurp(root, path, buf) && !number(line_of(buf, h->cached), &cached))
        cached = 0;
    used = used > cached ? used - cached : 0;
    uint64_t left = limit > used ? limit - used : 0;
    if (!out->limit || limit < out->limit)
        out->limit = limit;
    if (left < out->available)
        out->available = left;
}

static void lower_quota(double cores, pali_machine *out) {
    if (cores > 0 && (out->quota == 0 || cores < out->quota))
        out->quota = cores;
}

static void quota_of_group(const char *root, const char *base, const char *group, bool v2,
                           pali_machine *out) {
    uint64_t quota, period;
    char path[PATH_MAX], buf[FILE_BYTES];
    if (v2) { /* "quota period" or "max period" */
        if (snprintf(path, sizeof path, "%s%s/cpu.max", base, group) < (int)sizeof path &&
            slurp(root, path, buf) && number(buf, &quota) &&
            number(buf + strcspn(buf, " ") + (strchr(buf, ' ') != NULL), &period) && period)
            lower_quota((double)quota / (double)period, out);
    } else if (group_number(root, base, group, "cpu.cfs_quota_us", &quota) && quota &&
               group_number(root, base, group, "cpu.cfs_period_us", &period) && period) {
        lower_quota((double)quota / (double)period, out);
    }
}

/* The group of a line "id:controllers:/group" of /proc/self/cgroup with that controller. */
static bool find_group(const char *text, const char *controller, char group[PATH_MAX]) {
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        size_t line = strcspn(p, "\n");
        const char *names = memchr(p, ':', line);
        const char *path = names ? memchr(names + 1, ':', line - (size_t)(names + 1 - p)) : NULL;
        if (!path)
            continue;
        size_t want = strlen(controller);
        bool match = !want && path == names + 1;
        for (const char *c = names + 1; want && c < path && !match;) {
            size_t n = strcspn(c, ",:");
            match = n == want && memcmp(c, controller, n) == 0;
            c += n + 1;
        }
        if (match)
            return snprintf(group, PATH_MAX, "%.*s", (int)(line - (size_t)(path + 1 - p)),
                            path + 1) < PATH_MAX;
    }
    return false;
}

/* From a group up to the root. In a container's own view the group is not there and its
 * limits are at the root. */
static void walk(const char *root, const hierarchy *h, char group[PATH_MAX], bool v2, bool memory,
                 pali_machine *out) {
    for (int i = 0; i < GROUPS; i++) {
        char *slash = strrchr(group, '/');
        if (slash && !slash[1]) {
            *slash = '\0';
            slash = strrchr(group, '/');
        }
        if (memory)
            memory_of_group(root, h, group, out);
        else
            quota_of_group(root, h->base, group, v2, out);
        if (!slash)
            break;
        *slash = '\0';
    }
}

static void look_at_groups(const char *root, pali_machine *out) {
    static const hierarchy v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                 "memory.usage_in_bytes", "total_cache"},
                           v1_cpu = {"/sys/fs/cgroup/cpu", NULL, NULL, NULL},
                           v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "file"};
    char text[FILE_BYTES], group[PATH_MAX];
    if (!slurp(root, "/proc/self/cgroup", text))
        return;
    if (find_group(text, "memory", group))
        walk(root, &v1, group, false, true, out);
    if (find_group(text, "cpu", group))
        walk(root, &v1_cpu, group, false, false, out);
    for (int memory = 0; memory < 2; memory++)
        if (find_group(text, "", group))
            walk(root, &v2, group, true, memory, out);
}

/* --- graphics cards -------------------------------------------------------------------- */

/* Entries of root/folder for which yes says so. */
static int count_entries(const char *root, const char *folder,
                         bool (*yes)(const char *root, const char *folder, const char *name)) {
    char path[PATH_MAX];
    int n = 0;
    if (snprintf(path, sizeof path, "%s%s", root, folder) >= (int)sizeof path)
        return 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += yes(root, folder, e->d_name);
    if (d)
        closedir(d);
    return n;
}

/* A display or 3D controller (class 03) of vendor 10de. */
static bool is_nvidia_display(const char *root, const char *folder, const char *name) {
    char path[PATH_MAX], buf[FILE_BYTES];
    return *name != '.' &&
           snprintf(path, sizeof path, "%s/%s/vendor", folder, name) < (int)sizeof path &&
           slurp(root, path, buf) && strncmp(buf, "0x10de", 6) == 0 &&
           snprintf(path, sizeof path, "%s/%s/class", folder, name) < (int)sizeof path &&
           slurp(root, path, buf) && strncmp(buf, "0x03", 4) == 0;
}

static bool is_visible(const char *root, const char *folder, const char *name) {
    (void)root;
    (void)folder;
    return *name != '.';
}

int pali_machine_nvidia_cards(const char *root) {
    int bus = count_entries(root, "/sys/bus/pci/devices", is_nvidia_display);
    int driver = count_entries(root, "/proc/driver/nvidia/gpus", is_visible);
    return bus > driver ? bus : driver;
}

/* --- the processor --------------------------------------------------------------------- */

/* Whether word is one of the words of this line. */
static bool has_word(const char *line, const char *word) {
    size_t n = strlen(word);
    for (const char *p = line; *p && *p != '\n'; p += strspn(p, " ")) {
        size_t length = strcspn(p, " \n");
        if (length == n && memcmp(p, word, n) == 0)
            return true;
        p += length;
    }
    return false;
}

/* "ARMv8, implementer 0x41, part 0xd40, with asimd asimddp", by what ARM's cpuinfo has. Of
 * unlike cores the first is told. */
static void name_arm(const char *info, char *out, size_t size) {
    static const char *const sets[] = {"asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"};
    const char *version = line_of(info, "CPU architecture"),
               *maker = line_of(info, "CPU implementer"), *part = line_of(info, "CPU part"),
               *features = line_of(info, "Features");
    if (!maker || !part)
        return;
    if (version && (*version < '0' || *version > '9')) /* "AArch64" of old kernels */
        version = NULL;
    int n = snprintf(out, size, "ARM%s%.*s, implementer %.*s, part %.*s", version ? "v" : "",
                     version ? (int)strspn(version, "0123456789") : 0, version ? version : "",
                     (int)strspn(maker, "0123456789abcdefx"), maker,
                     (int)strspn(part, "0123456789abcdefx"), part);
    for (size_t i = 0, told = 0; features && i < sizeof sets / sizeof *sets; i++)
        if (n > 0 && (size_t)n < size && has_word(features, sets[i]))
            n += snprintf(out + n, size - (size_t)n, "%s %s", told++ ? "" : ", with", sets[i]);
}

/* --- all of it --------------------------------------------------------------------------- */

static uint64_t kilobytes(const char *meminfo, const char *key) {
    uint64_t v;
    return number(line_of(meminfo, key), &v) ? v * 1024 : 0;
}

double pali_machine_quota(const char *root) {
    pali_machine m = {0};
    look_at_groups(root, &m);
    return m.quota;
}

void pali_machine_look(const char *root, pali_machine *out) {
    char buf[FILE_BYTES];
    *out = (pali_machine){0};
    if (slurp(root, "/proc/cpuinfo", buf)) {
        const char *name = line_of(buf, "model name");
        if (name)
            copy_line(out->cpu, sizeof out->cpu, name);
        else
            name_arm(buf, out->cpu, sizeof out->cpu);
    }
    cpu_set_t set;
    out->cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                             : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (slurp(root, "/proc/meminfo", buf)) {
        out->memory = kilobytes(buf, "MemTotal");
        out->available = kilobytes(buf, "MemAvailable");
    }
    look_at_groups(root, out);
    out->nvidia_cards = pali_machine_nvidia_cards(root);
    if (slurp(root, "/proc/driver/nvidia/version", buf)) {
        /* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun ..": its first
         * word that begins with a digit and has a point in it. */
        for (const char *p = buf; *p && *p != '\n'; p += strcspn(p, " \n"), p += *p == ' ') {
            size_t n = strcspn(p, " \n");
            if (*p >= '0' && *p <= '9' && memchr(p, '.', n)) {
                snprintf(out->nvidia_driver, sizeof out->nvidia_driver, "%.*s", (int)n, p);
                break;
            }
        }
    }
}
