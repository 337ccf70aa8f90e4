/* cpus.c - see cpus.h. */
#include "core/cpu/cpus.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Whether a processor of `allowed` below cpu shares its core. The system lists the core's
 * processors as "0,4" or "0-3"; where it lists nothing, every processor is a core. */
static bool is_second_thread(const char *root, const cpu_set_t *allowed, int cpu) {
    char path[PATH_MAX], list[256];
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             root, cpu);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool read = fgets(list, sizeof list, f) != NULL, found = false;
    fclose(f);
    for (char *p = list, *end; read && !found; p = end + 1) {
        long from = strtol(p, &end, 10), to = from;
        if (end == p)
            break;
        if (*end == '-')
            to = strtol(end + 1, &end, 10);
        for (long c = from < 0 ? 0 : from; c <= to && c < cpu && !found; c++)
            found = CPU_ISSET((size_t)c, allowed);
        if (*end != ',')
            break;
    }
    return found;
}

int pali_cpus_of_cores(const char *root, const cpu_set_t *allowed, int *cpu, int max) {
    int n = 0;
    for (int c = 0; c < CPU_SETSIZE && n < max; c++)
        if (CPU_ISSET((size_t)c, allowed) && !is_second_thread(root, allowed, c))
            cpu[n++] = c;
    return n;
}

int pali_cpus_under_quota(int n, double quota) {
    if (!(quota > 0) || quota >= n)
        return n;
    int paid = (int)ceil(quota);
    return paid < 1 ? 1 : paid;
}
