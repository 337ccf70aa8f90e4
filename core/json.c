/* json.c - see json.h. */
#include "core/json.h"

#include "core/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pali_json_parse(const char *bytes, size_t n, const char *name, json_t **out, pali_error *err) {
    *out = NULL;
    const char *brief = pali_file_brief(name);
    if (n == 0)
        return pali_fail(err, PALI_EFORMAT, "download the file again", "%s: is empty", brief);
    int rc = pali_file_check_stub(name, bytes, n, err);
    if (rc)
        return rc;
    json_error_t je;
    errno = 0;
    json_t *root = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &je);
    if (!root && errno == ENOMEM) /* jansson would call it a syntax error */
        return pali_fail_nomem(err, "reading JSON");
    if (!root)
        return pali_fail(err, PALI_EFORMAT, "download the file again",
                         "%s: not valid JSON at line %d: %.100s", brief, je.line, je.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return pali_fail(err, PALI_EFORMAT, "download the file again",
                         "%s: expected a JSON object {...}", brief);
    }
    *out = root;
    return 0;
}

const char *pali_json_show(const json_t *v, char *buf, size_t size) {
    if (json_is_object(v) || json_is_array(v)) {
        snprintf(buf, size, "%s", json_is_object(v) ? "an object" : "a list");
        return buf;
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    snprintf(buf, size, "%s", text ? text : "?");
    if (text && strlen(text) >= size && size > 4)
        memcpy(buf + size - 4, "...", 4);
    free(text);
    return buf;
}
