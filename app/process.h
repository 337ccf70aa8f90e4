/* process.h - what belongs to the process as a whole: exit codes, signals, locale,
 * the standard descriptors.
 *
 * One flag says "stop": the first SIGINT or SIGTERM sets it, the work in progress
 * ends at the next chance and keeps what it has. A second signal kills.          */
#ifndef APP_PROCESS_H
#define APP_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>

enum {
    APP_OK = 0,
    APP_FAILED = 1,
    APP_USAGE = 2,
    APP_STOPPED = 130
};

/* Call first: a UTF-8 locale for character widths, and descriptors 0 to 2 taken, so
 * that no file of ours can become "standard output" by accident. */
void app_process_start(void);

/* From here on signals set the flag. A signal ignored by the parent stays so. */
void app_process_catch_signals(void);

const atomic_int *app_process_stop_flag(void);
bool app_process_stopped(void);
/* Sets the flag from inside: nobody reads the answer any more. */
void app_process_stop(void);

/* Waits until reading from fd would not; false once stopped. A signal is never missed, as it
 * would be between a look at the flag and read(). */
bool app_process_wait_input(int fd);

#endif
