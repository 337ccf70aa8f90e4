/* json.h - JSON files of a model, parsed by jansson under limits of ours.
 *
 * Strict: no duplicate keys, no NaN or infinities, no NUL in strings, valid UTF-8,
 * integers within 64 bits. jansson itself stops at 2048 levels of nesting.       */
#ifndef PALI_JSON_H
#define PALI_JSON_H

#include "core/error.h"

#include <jansson.h>
#include <stddef.h>

/* The object that n bytes spell; name is for messages. Drop with json_decref.
 * PALI_EFORMAT also when it is JSON but not an object. */
int pali_json_parse(const char *bytes, size_t n, const char *name, json_t **out, pali_error *err);

/* v as text of at most size - 1 bytes, for a message. Returns buf. */
const char *pali_json_show(const json_t *v, char *buf, size_t size);

#endif
