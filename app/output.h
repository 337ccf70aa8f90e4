/* output.h - the two streams: answers on standard output, all else on standard error.
 *
 * Standard output is written with write(2), at once and whole; the first failure is
 * remembered. A reader that went away ends the process as SIGPIPE does, without a
 * word. Standard error gets one line at a time, cleaned for the terminal; while it
 * is a terminal its last line may show progress, which every other line clears.  */
#ifndef APP_OUTPUT_H
#define APP_OUTPUT_H

#include "core/backend.h"
#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Writes to standard output. PALI_EIO on failure, and on every call after one. */
int app_out_write(const char *bytes, size_t n, pali_error *err);
int app_out_string(const char *s, pali_error *err);
/* Ends the answers: some failures of a disk show only here. */
int app_out_close(pali_error *err);

/* "pali: what" and, when there is one, the hint on a second line. */
void app_err_complain(const pali_error *err);
/* The same for a wrong command line: ends with "try pali --help"; with a verb's name (else NULL)
 * "try pali VERB --help". */
void app_err_usage(const pali_error *err, const char *verb);
/* One line for -v. */
void app_err_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* For pali_run.progress: shows what a long call is doing, when anybody sees it. */
void app_err_progress(void *user, pali_stage stage, int done, int total);
/* Any other line of progress, to be seen on a terminal only. */
void app_err_status(const char *text);
void app_err_progress_clear(void);

#endif
