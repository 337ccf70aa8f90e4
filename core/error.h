/* error.h - how every failure in pali is told.
 *
 * Anything that can fail returns 0 or one of the negative codes below and takes
 * a pali_error as its last argument (NULL when the caller does not care). The
 * first failure wins: a filled error is never overwritten, so cleanup code may
 * fail quietly. Sentences are for the user: what, where, and in the hint what
 * to do. They may quote file names; whoever prints them removes control
 * characters (ui_text_clean).                                                */
#ifndef PALI_ERROR_H
#define PALI_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PALI_EIO = -1,          /* the system refused: open, read, map, write       */
    PALI_EFORMAT = -2,      /* a file is not what it should be                  */
    PALI_ELIMIT = -3,       /* over a limit of ours: bytes, pixels, positions   */
    PALI_ENOMEM = -4,       /* no memory                                        */
    PALI_EARG = -5,         /* the caller asked for something that cannot be    */
    PALI_EUNSUPPORTED = -6, /* well-formed, but not something pali can do       */
    PALI_ECANCEL = -7,      /* stopped on request: a result, not a fault        */
};

typedef struct {
    int code;       /* 0 while nothing failed */
    char what[320]; /* one sentence, no newline */
    char hint[200]; /* what to do about it; may be empty */
} pali_error;

/* Records code, hint (may be NULL) and the formatted sentence in err (may be
 * NULL) unless err already holds a failure. Returns code, so that
 * `return pali_fail(err, ...)` is a one-liner. */
int pali_fail(pali_error *err, int code, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for running out of memory while doing `what` ("decoding an image"). */
int pali_fail_nomem(pali_error *err, const char *what);

#ifdef __cplusplus
}
#endif

#endif
