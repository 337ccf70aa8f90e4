/* dropped.c - undoing what terminals do to the name of a dropped file; see dropped.h. No shell,
 * no globbing: a name is a name.                                                            */
#include "app/dropped.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool dropped_is_file(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

bool dropped_is_picture(const char *path) {
    unsigned char m[12] = {0};
    FILE *f = dropped_is_file(path) ? fopen(path, "re") : NULL;
    if (!f)
        return false;
    size_t n = fread(m, 1, sizeof m, f);
    fclose(f);
    return n >= 8 && /* the smallest PNM */
           (!memcmp(m + 4, "ftyp", 4) || (!memcmp(m, "RIFF", 4) && !memcmp(m + 8, "WEBP", 4)) ||
            (m[0] == 0xFF && m[1] == 0xD8) || !memcmp(m, "\x89PNG", 4) || !memcmp(m, "GIF8", 4) ||
            !memcmp(m, "BM", 2) || (m[0] == 'P' && m[1] >= '1' && m[1] <= '6' && m[2] <= ' '));
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Writes the path that s stands for when written in way 0 to 3 of dropped.h; false when it is
 * not written so. */
static bool unquote(const char *s, int way, char *out, size_t size) {
    size_t n = strlen(s), o = 0;
    if (n + 1 > size)
        return false;
    switch (way) {
    case 0:
        memcpy(out, s, n + 1);
        return true;
    case 1: /* 'it'\''s' and "it" */
        if (*s != '\'' && *s != '"')
            return false;
        for (char quote = 0; *s; s++) {
            if (quote ? *s == quote : *s == '\'' || *s == '"')
                quote = quote ? 0 : *s;
            else if (*s == '\\' && s[1] && quote != '\'')
                out[o++] = *++s;
            else
                out[o++] = *s;
        }
        break;
    case 2:
        for (; *s; s++) {
            if (*s == '\\' && s[1])
                s++;
            out[o++] = *s;
        }
        break;
    case 3:
        if (strncmp(s, "file://", 7))
            return false;
        s += 7;
        if (!strncmp(s, "localhost", 9))
            s += 9;
        if (*s != '/')
            return false;
        for (; *s; s++) {
            if (*s != '%') {
                out[o++] = *s;
                continue;
            }
            int hi = hex(s[1]), lo = hi < 0 ? -1 : hex(s[2]);
            if (lo < 0 || (hi | lo) == 0)
                return false;
            out[o++] = (char)(hi << 4 | lo);
            s += 2;
        }
        break;
    }
    out[o] = 0;
    return true;
}

bool dropped_path(const char *text, size_t n, bool (*good)(const char *path), char *path,
                  size_t size) {
    char line[PATH_MAX];
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    for (; n && *text == ' '; text++)
        n--;
    if (!n || n >= sizeof line || memchr(text, '\n', n) || memchr(text, 0, n))
        return false;
    memcpy(line, text, n);
    line[n] = 0;
    for (int way = 0; way < 4; way++)
        if (unquote(line, way, path, size) && good(path))
            return true;
    return false;
}
