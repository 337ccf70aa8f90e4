/* machine.h - what this machine gives a process: processors, memory, graphics cards.
 *
 * Read from /proc and /sys. Memory and processors count what the process may use: a
 * container's limits (cgroup v1 and v2, of the group and of those above it) are part of it. */
#ifndef PALI_MACHINE_H
#define PALI_MACHINE_H

#include <stdint.h>

typedef struct {
    char cpu[128]; /* its name; on ARM, which has none to tell, maker and model as numbers and the
                      instruction sets that matter here; "" when the system tells neither */
    int cores;     /* this process may run on */
    double quota;  /* cores' worth of time a container grants; 0: no limit */
    uint64_t memory;
    uint64_t limit;     /* of memory, by a container; 0: none */
    uint64_t available; /* memory that can be taken now, the limit kept; cached files count */
    int nvidia_cards; /* NVIDIA graphics processors on the bus, whether or not a driver runs them */
    char nvidia_driver[48]; /* version of the loaded driver, "" without one */
} pali_machine;

/* root: what to put before /proc and /sys ("" outside tests). What cannot be read stays 0. */
void pali_machine_look(const char *root, pali_machine *out);

/* Only the quota. */
double pali_machine_quota(const char *root);

/* Only the graphics cards: is there one, to the driver or on the bus? */
int pali_machine_nvidia_cards(const char *root);

#endif
