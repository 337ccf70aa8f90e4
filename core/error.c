/* error.c - recording the first failure; see error.h. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>

int pali_fail(pali_error *err, int code, const char *hint, const char *fmt, ...) {
    if (!err || err->code)
        return code;
    err->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->what, sizeof err->what, fmt, ap);
    va_end(ap);
    snprintf(err->hint, sizeof err->hint, "%s", hint ? hint : "");
    for (char *c = err->what; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    return code;
}

int pali_fail_nomem(pali_error *err, const char *what) {
    return pali_fail(err, PALI_ENOMEM, "close other programs or use a smaller model",
                     "out of memory while %s", what);
}
