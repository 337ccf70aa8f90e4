/* results.h - answers about many pictures, one a line: to standard output or into a file.
 *
 * A line of text is the picture's name, a tab, the answer; in both, newline, tab, carriage return and
 * backslash are written \n \t \r \\ and other control characters \xNN, so that a line is a line. A
 * line of JSON has them in "image" and "text". Every line is written whole, at once. A file that was
 * cut off in mid-line by a crash loses the piece when it is gone on with.                          */
#ifndef APP_RESULTS_H
#define APP_RESULTS_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct results results;

/* path NULL: standard output. A file must be new or empty, unless resume is set: then what it holds
 * stays, and its pictures are known. Lines of JSON count when they have this prompt. Fails (PALI_EIO,
 * PALI_EFORMAT) for a file with other lines than ours, and for one that another pali writes to. */
int results_open(const char *path, bool resume, const char *prompt, results **out, pali_error *err);
/* The file is complete on disk when it returns 0. */
int results_close(results *r, pali_error *err);

/* Whether the file had an answer about this picture when it was opened. */
bool results_have(const results *r, const char *image);

/* Writes line[0..n), which ends with its newline. */
int results_write(results *r, const char *line, size_t n, pali_error *err);

/* name, tab, text, newline as above, line ends at the end of text left out. Caller frees;
 * NULL when memory is out. */
char *results_line(const char *name, const char *text);

#endif
