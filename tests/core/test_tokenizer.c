/* test_tokenizer.c - ids against the reference tokenizers, and files that are none.
 *
 * The goldens under tests/data/tokenizer come from tests/reference/tokenizer.py, which
 * says what the reference is. Strings are made here by the same generator; ids must be
 * equal: there is no tolerance.                                                       */
#include "tests/test.h"

#include "core/tokenizer.h"

#include <stdbool.h>
#include <unistd.h>

#define FOLDER TEST_DATA "tokenizer/"
enum {
    STRINGS = 12000,
    MAX_FRAGMENTS = 512
};

static void *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot open", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    bytes[*n] = 0;
    fclose(f);
    return bytes;
}

static pali_tokenizer *open_model(const char *name) {
    pali_error err = {0};
    pali_tokenizer *tok;
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.model", name);
    assert_ok(pali_tokenizer_open(path, &tok, &err), err);
    return tok;
}

/* Undoes \xNN in place; returns the length. */
static size_t unescape(char *s) {
    char *out = s, *start = s;
    while (*s) {
        unsigned v;
        if (s[0] == '\\' && sscanf(s, "\\x%2x", &v) == 1) {
            *out++ = (char)v;
            s += 4;
        } else
            *out++ = *s++;
    }
    return (size_t)(out - start);
}

// --- the generator, as in tests/reference/tokenizer.py -------------------------------

typedef struct {
    char *text;
    size_t n;
} span;

static char *fragment_file;
static span fragments[MAX_FRAGMENTS];
static unsigned nfragments;

static int load_fragments(void **state) {
    (void)state;
    size_t n;
    fragment_file = slurp(FOLDER "fragments.txt", &n);
    for (char *line = strtok(fragment_file, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(nfragments < MAX_FRAGMENTS);
        fragments[nfragments++] = (span){line, 0};
    }
    for (unsigned i = 0; i < nfragments; i++)
        fragments[i].n = unescape(fragments[i].text);
    return 0;
}

static int free_fragments(void **state) {
    (void)state;
    free(fragment_file);
    return 0;
}

static uint32_t below(uint64_t *s, uint32_t n) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*s >> 33) % n);
}

/* String number i; caller frees. */
static char *generate(uint32_t i, size_t *n) {
    uint64_t s = i * 0x9E3779B97F4A7C15u + 1;
    uint32_t count = below(&s, 12);
    if (below(&s, 64) == 0)
        count = 100;
    if (i % 3000 == 2999)
        count = 6000;
    size_t room = (size_t)count * 5 * 128 + 1;
    char *out = malloc(room);
    assert_non_null(out);
    *n = 0;
    while (count--) {
        span p = fragments[below(&s, nfragments)];
        uint32_t kind = below(&s, 32), times = 1;
        char byte;
        assert_true(p.n <= 128);
        if (kind < 3)
            times = 2 + below(&s, 4);
        else if (kind == 3)
            p.n -= p.n > 0;
        else if (kind == 4) {
            byte = (char)below(&s, 256);
            p = (span){&byte, 1};
        }
        while (times--) {
            memcpy(out + *n, p.text, p.n);
            *n += p.n;
        }
    }
    return out;
}

static uint32_t fnv(const int32_t *ids, size_t n) {
    uint32_t h = 0x811C9DC5u;
    for (size_t i = 0; i < n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            h = (h ^ ((uint32_t)ids[i] >> shift & 0xFF)) * 0x01000193u;
    return h;
}

// --- ids ------------------------------------------------------------------------------

static void check_shown(const char *name) {
    pali_tokenizer *tok = open_model(name);
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.txt", name);
    size_t n;
    char *file = slurp(path, &n);
    int lines = 0;
    for (char *line = strtok(file, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        pali_error err = {0};
        char *want = strchr(line, '\t'), *copy;
        assert_non_null(want);
        *want++ = 0;
        copy = strdup(line);
        size_t length = unescape(line), count, i = 0;
        int32_t *ids;
        assert_ok(pali_tokenizer_encode(tok, line, length, &ids, &count, &err), err);
        for (char *p = want, *end; *p; p = end, i++) {
            long id = strtol(p, &end, 10);
            if (i >= count || ids[i] != id)
                fail_msg("%s: %s: token %zu is %d, expected %ld", name, copy, i,
                         i < count ? ids[i] : -1, id);
        }
        assert_int_equal(count, i);
        free(ids);
        free(copy);
    }
    assert_int_equal(lines, 150);
    free(file);
    pali_tokenizer_close(tok);
}

static void check_hashes(const char *name) {
    pali_tokenizer *tok = open_model(name);
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.hashes", name);
    size_t size;
    unsigned char *golden = slurp(path, &size);
    assert_int_equal(size, STRINGS * 4);
    int wrong = 0;
    for (uint32_t i = 0; i < STRINGS; i++) {
        pali_error err = {0};
        size_t n, count;
        char *text = generate(i, &n);
        int32_t *ids;
        assert_ok(pali_tokenizer_encode(tok, text, n, &ids, &count, &err), err);
        const unsigned char *g = golden + (size_t)i * 4;
        uint32_t want =
            (uint32_t)g[0] | (uint32_t)g[1] << 8 | (uint32_t)g[2] << 16 | (uint32_t)g[3] << 24;
        if (fnv(ids, count) != want && wrong++ < 5)
            print_error("%s: string %u: other ids than the reference\n", name, i);
        free(ids);
        free(text);
    }
    free(golden);
    pali_tokenizer_close(tok);
    assert_int_equal(wrong, 0);
}

static void tokenizer_shows_the_reference_ids_with_pieces_inside(void **state) {
    (void)state;
    check_shown("inside");
}

static void tokenizer_shows_the_reference_ids_with_pieces_added(void **state) {
    (void)state;
    check_shown("added");
}

static void tokenizer_matches_12000_strings_with_pieces_inside(void **state) {
    (void)state;
    check_hashes("inside");
}

static void tokenizer_matches_12000_strings_with_pieces_added(void **state) {
    (void)state;
    check_hashes("added");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_shows_the_reference_ids_with_pieces_inside),
        cmocka_unit_test(tokenizer_shows_the_reference_ids_with_pieces_added),
        cmocka_unit_test(tokenizer_matches_12000_strings_with_pieces_inside),
        cmocka_unit_test(tokenizer_matches_12000_strings_with_pieces_added),
    };
    return cmocka_run_group_tests(tests, load_fragments, free_fragments);
}
