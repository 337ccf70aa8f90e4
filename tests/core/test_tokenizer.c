/* test_tokenizer.c - ids against the reference tokenizers, and files that are none.
 *
 * The goldens under tests/data/tokenizer come from tests/reference/tokenizer.py, which
 * says what the reference is. Strings are made here by the same generator; ids must be
 * equal: there is no tolerance.                                                       */
#include "tests/test.h"

#include "core/tokenizer.h"

#include <math.h>
#include <pthread.h>
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

// --- special pieces --------------------------------------------------------------------

static void tokenizer_knows_its_special_pieces(void **state) {
    (void)state;
    const char *names[] = {"inside", "added"};
    for (int m = 0; m < 2; m++) {
        pali_tokenizer *tok = open_model(names[m]);
        int32_t vocab = pali_tokenizer_vocab(tok);
        assert_int_equal(pali_tokenizer_pad(tok), 0);
        assert_int_equal(pali_tokenizer_eos(tok), 1);
        assert_int_equal(pali_tokenizer_bos(tok), 2);
        assert_int_equal(pali_tokenizer_newline(tok), 7);
        assert_int_equal(vocab, (m ? 1000 : 1400) + 1024 + 128);
        assert_int_equal(pali_tokenizer_loc(tok, 0), vocab - 1152);
        assert_int_equal(pali_tokenizer_loc(tok, 1023), vocab - 129);
        assert_int_equal(pali_tokenizer_seg(tok, 0), vocab - 128);
        assert_int_equal(pali_tokenizer_seg(tok, 127), vocab - 1);
        assert_int_equal(pali_tokenizer_loc(tok, 1024), -1);
        assert_int_equal(pali_tokenizer_loc(tok, -1), -1);
        assert_int_equal(pali_tokenizer_seg(tok, 128), -1);
        assert_int_equal(pali_tokenizer_seg(tok, -1), -1);
        pali_tokenizer_close(tok);
    }
}

static void assert_peek(const pali_tokenizer *tok, int32_t id, const char *want) {
    size_t n;
    const char *p = pali_tokenizer_peek(tok, id, &n);
    if (n != strlen(want) || memcmp(p, want, n) != 0)
        fail_msg("token %d is \"%.*s\", expected \"%s\"", id, (int)n, p, want);
}

static void tokenizer_peeks_at_text(void **state) {
    (void)state;
    const char *names[] = {"inside", "added"};
    for (int m = 0; m < 2; m++) {
        pali_tokenizer *tok = open_model(names[m]);
        for (int32_t id = 0; id < 4; id++) /* pad, eos, bos, unk */
            assert_peek(tok, id, "");
        assert_peek(tok, -1, "");
        assert_peek(tok, pali_tokenizer_vocab(tok), "");
        assert_peek(tok, 7, "\n");
        assert_peek(tok, 8, "\n\n");
        assert_peek(tok, 38, "  ");
        assert_peek(tok, 80 + 0x01, "\x01"); /* byte pieces begin at 80 */
        assert_peek(tok, 80 + 0xE7, "\xE7");
        assert_peek(tok, pali_tokenizer_loc(tok, 0), "<loc0000>");
        assert_peek(tok, pali_tokenizer_loc(tok, 1023), "<loc1023>");
        assert_peek(tok, pali_tokenizer_seg(tok, 9), "<seg009>");
        pali_tokenizer_close(tok);
    }
}

/* Whether encoding text gives id anywhere. */
static bool gives(const pali_tokenizer *tok, const char *text, int32_t id) {
    pali_error err = {0};
    int32_t *ids;
    size_t count;
    bool found = false;
    assert_ok(pali_tokenizer_encode(tok, text, strlen(text), &ids, &count, &err), err);
    for (size_t i = 0; i < count; i++)
        found = found || ids[i] == id;
    free(ids);
    return found;
}

static void tokenizer_keeps_typed_control_pieces_as_text(void **state) {
    (void)state;
    const char *names[] = {"inside", "added"};
    for (int m = 0; m < 2; m++) {
        pali_tokenizer *tok = open_model(names[m]);
        for (int32_t id = 0; id < 4; id++)
            assert_false(gives(tok, "a<bos><eos> <pad> <unk>\n<bos>", id));
        assert_true(gives(tok, "a<loc0007>b", pali_tokenizer_loc(tok, 7)));
        assert_false(gives(tok, "a<loc 007>b", pali_tokenizer_loc(tok, 7)));
        pali_tokenizer_close(tok);
    }
}

// --- other model files --------------------------------------------------------------------

/* A model file being put together. */
typedef struct {
    char *bytes;
    size_t n;
} file;

static void add(file *f, const void *bytes, size_t n) {
    f->bytes = realloc(f->bytes, f->n + n + 1);
    assert_non_null(f->bytes);
    memcpy(f->bytes + f->n, bytes, n);
    f->n += n;
}

static void add_varint(file *f, size_t v) {
    for (; v >= 128; v >>= 7)
        add(f, &(char){(char)(v | 128)}, 1);
    add(f, &(char){(char)v}, 1);
}

/* Field number of wire type 2. */
static void add_field(file *f, unsigned number, const void *bytes, size_t n) {
    add_varint(f, number << 3 | 2);
    add_varint(f, n);
    add(f, bytes, n);
}

static void add_scored(file *f, const char *text, size_t n, int type, float score) {
    file p = {0};
    add_field(&p, 1, text, n);
    add(&p, "\x15", 1);
    add(&p, &score, 4);
    add(&p, (char[]){0x18, (char)type}, 2);
    add_field(f, 1, p.bytes, p.n);
    free(p.bytes);
}

static void add_piece(file *f, const char *text, int type) {
    add_scored(f, text, strlen(text), type, 0);
}

static file load(const char *name) {
    char path[256];
    file f;
    snprintf(path, sizeof path, FOLDER "%s.model", name);
    f.bytes = slurp(path, &f.n);
    return f;
}

/* The smallest that is accepted: no byte pieces. */
static file smallest(void) {
    file f = {0};
    add_piece(&f, "<unk>", 2);
    add_piece(&f, "<s>", 3);
    add_piece(&f, "</s>", 3);
    add_piece(&f, "\n", 4);
    add_piece(&f, "a", 1);
    add_field(&f, 2, "\x18\x02", 2);                 /* BPE */
    add_field(&f, 3, "\x18\x00\x20\x00\x28\x01", 6); /* spaces as PaliGemma has them */
    return f;
}

/* Frees f; the result may be NULL. */
static pali_tokenizer *parse(file *f, pali_error *err) {
    pali_tokenizer *tok;
    *err = (pali_error){0};
    int rc = pali_tokenizer_parse(f->bytes, f->n, "x.model", &tok, err);
    assert_int_equal(rc, err->code);
    assert_true((rc == 0) == (tok != NULL));
    free(f->bytes);
    return tok;
}

static void refuses(file f, int code, const char *what) {
    pali_error err;
    assert_null(parse(&f, &err));
    assert_string_equal(err.what, what);
    assert_int_equal(err.code, code);
    assert_true(err.hint[0] != 0);
}

static void tokenizer_gives_no_control_id_though_the_file_would(void **state) {
    (void)state;
    pali_error err;
    file f = load("added");
    add_piece(&f, "<image>", 4); /* user-defined: SentencePiece alone would match it */
    char *bos = memmem(f.bytes, f.n, "<bos>\x15", 6);
    assert_non_null(bos);
    assert_int_equal(bos[11], 3);
    bos[11] = 4;
    pali_tokenizer *tok = parse(&f, &err);
    assert_non_null(tok);
    assert_int_equal(pali_tokenizer_bos(tok), 2);
    assert_false(gives(tok, "a<bos> <image>", 2));
    assert_false(gives(tok, "a<bos> <image>", 1000));
    assert_int_equal(pali_tokenizer_vocab(tok), 1001 + 1152);
    assert_peek(tok, 1000, "");
    pali_tokenizer_close(tok);
}

static void tokenizer_takes_places_of_any_type(void **state) {
    (void)state;
    pali_error err;
    file f = load("added"), part = load("added");
    char text[32];
    for (int i = 0; i < 1152; i++) {
        snprintf(text, sizeof text, i < 1024 ? "<loc%04d>" : "<seg%03d>", i < 1024 ? i : i - 1024);
        add_piece(&f, text, 1); /* normal: would never be reached by merging */
        if (i != 77)
            add_piece(&part, text, 4);
    }
    pali_tokenizer *tok = parse(&f, &err);
    assert_non_null(tok);
    assert_int_equal(pali_tokenizer_vocab(tok), 2152);
    assert_int_equal(pali_tokenizer_loc(tok, 3), 1003);
    assert_true(gives(tok, "a<loc0003>b", 1003) && gives(tok, "<seg127>", 2151));
    pali_tokenizer_close(tok);
    refuses(part, PALI_EFORMAT, "x.model: only some of the <loc> and <seg> pieces are in it");
}

static void tokenizer_refuses_what_is_no_model(void **state) {
    (void)state;
    const char *texts[] = {"",
                           "{\"model\": {}}",
                           "hello",
                           "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                           "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
                           "\x0b\x0c"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        file f = {0};
        add(&f, texts[i], strlen(texts[i]));
        refuses(f, PALI_EFORMAT, "x.model: not a SentencePiece model");
    }
    file lfs = {0};
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\n";
    add(&lfs, pointer, strlen(pointer));
    refuses(lfs, PALI_EFORMAT, "x.model: is a git-lfs pointer, not the file itself");
}

static void tokenizer_survives_a_file_cut_anywhere(void **state) {
    (void)state;
    file whole = smallest();
    int loaded = 0;
    for (size_t n = 0; n <= whole.n; n++) {
        file f = {0};
        pali_error err;
        add(&f, whole.bytes, n);
        pali_tokenizer *tok = parse(&f, &err);
        loaded += tok != NULL;
        pali_tokenizer_close(tok);
    }
    assert_int_equal(loaded, 1); /* the whole one */
    free(whole.bytes);
}

static void tokenizer_refuses_hostile_models(void **state) {
    (void)state;
    file f = smallest();
    add_field(&f, 2, "\x18\x01", 2);
    refuses(f, PALI_EUNSUPPORTED, "x.model: not a BPE model; PaliGemma's is");
    f = smallest();
    add_field(&f, 2, "\x18\x07", 2); /* no such type: SentencePiece follows a null pointer */
    refuses(f, PALI_EUNSUPPORTED, "x.model: not a BPE model; PaliGemma's is");
    const char *changes[] = {"\x18\x01", "\x20\x01", "\x12\x03\xff\xff\xff"};
    for (int i = 0; i < 3; i++) { /* dummy prefix, whitespace removal, a table read unchecked */
        f = smallest();
        add_field(&f, 3, changes[i], strlen(changes[i]));
        refuses(f, PALI_EUNSUPPORTED,
                "x.model: changes text or its spaces before encoding; PaliGemma's does not");
    }

    f = smallest();
    add_piece(&f, "a", 1);
    refuses(f, PALI_EFORMAT, "x.model: piece 5 is there twice");
    f = smallest();
    add_piece(&f, "<s>", 1); /* would let text reach the control id */
    refuses(f, PALI_EFORMAT, "x.model: piece 5 is there twice");
    const char *unfit = "x.model: piece 5 is empty, too long or has no finite score";
    f = smallest();
    add_piece(&f, "", 1);
    refuses(f, PALI_EFORMAT, unfit);
    f = smallest();
    add_scored(&f, "q", 1, 1, NAN);
    refuses(f, PALI_EFORMAT, unfit);
    char longest[1026];
    memset(longest, 'q', 1025);
    longest[1025] = 0;
    f = smallest();
    add_piece(&f, longest, 4);
    refuses(f, PALI_EFORMAT, unfit);
    f = smallest();
    add_scored(&f, "q\0q", 3, 4, 0);
    refuses(f, PALI_EFORMAT, "x.model: piece 5 holds a NUL byte");
    f = smallest();
    add_piece(&f, "q", 9);
    refuses(f, PALI_EFORMAT, "x.model: not a SentencePiece model");
    f = smallest();
    add_piece(&f, "<unk2>", 2);
    refuses(f, PALI_EFORMAT, "x.model: 2 unknown pieces, expected one");
    f = smallest();
    add_piece(&f, "<0x41>", 6);
    refuses(f, PALI_EFORMAT, "x.model: 1 byte pieces, expected 0");
    f = smallest();
    add_piece(&f, "<0x4g>", 6);
    refuses(f, PALI_EFORMAT, "x.model: piece 5 does not name a byte of its own");
    f = smallest();
    add_field(&f, 2, "\x98\x02\x01", 3);
    refuses(f, PALI_EFORMAT, "x.model: 0 byte pieces, expected 256");

    f = smallest();
    add_piece(&f, "\xE7\x94\x9F", 3);
    refuses(f, PALI_EFORMAT, "x.model: a control piece is a single character; not PaliGemma's");
    f = smallest();
    memcpy(memmem(f.bytes, f.n, "<s>", 3), "<x>", 3);
    refuses(f, PALI_EFORMAT, "x.model: no pieces for begin and end of text; not PaliGemma's");
    f = smallest();
    *(char *)memmem(f.bytes, f.n, "\n\x01\n", 3) = '\n';
    memcpy(memmem(f.bytes, f.n, "\n\x01\n\x15", 4), "\n\x01z\x15", 4);
    refuses(f, PALI_EFORMAT, "x.model: this tokenizer has no newline piece; not PaliGemma's");
}

/* SentencePiece keeps 64 matches at one place and reads on behind them when there are more. */
static void tokenizer_refuses_65_nested_pieces(void **state) {
    (void)state;
    char text[66] = {0};
    for (int most = 64; most <= 65; most++) {
        file f = smallest();
        for (int n = 1; n <= most; n++) {
            memset(text, 'q', (size_t)n);
            text[n] = 0;
            add_piece(&f, text, 4);
        }
        if (most == 65) {
            refuses(f, PALI_EFORMAT,
                    "x.model: more than 64 user-defined pieces begin with one another");
            break;
        }
        pali_error err;
        pali_tokenizer *tok = parse(&f, &err);
        assert_non_null(tok);
        assert_true(gives(tok, text, 5 + 63));
        pali_tokenizer_close(tok);
    }
}

static void tokenizer_counts_pieces_and_bytes(void **state) {
    (void)state;
    pali_error err = {0};
    pali_tokenizer *tok;
    file f = {0};
    char text[16];
    f.bytes = malloc(24u << 20);
    assert_non_null(f.bytes);
    for (int i = 0; i <= 1 << 20; i++) {
        snprintf(text, sizeof text, "%07d", i);
        char piece[] = "\x0a\x09\x0a\x07.......";
        memcpy(piece + 4, text, 7);
        memcpy(f.bytes + f.n, piece, 11);
        f.n += 11;
    }
    refuses(f, PALI_ELIMIT, "x.model: more than 1048576 pieces");

    char path[] = "/tmp/pali-tokenizer-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (64 << 20) + 1), 0);
    close(fd);
    assert_int_equal(pali_tokenizer_open(path, &tok, &err), PALI_ELIMIT);
    unlink(path);
    assert_null(tok);
    err = (pali_error){0};
    assert_int_equal(pali_tokenizer_open("/nonexistent/tokenizer.model", &tok, &err), PALI_EIO);
    assert_string_equal(err.what, "/nonexistent/tokenizer.model: no such file");
    err = (pali_error){0};
    assert_int_equal(pali_tokenizer_open(FOLDER, &tok, &err), PALI_EIO);
}

// --- behaviour ---------------------------------------------------------------------------

static void tokenizer_takes_long_texts_up_to_a_limit(void **state) {
    (void)state;
    pali_error err = {0};
    pali_tokenizer *tok = open_model("added");
    size_t n = (16u << 20) + 1, count;
    int32_t *ids;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, ' ', n);
    assert_int_equal(pali_tokenizer_encode(tok, text, n, &ids, &count, &err), PALI_ELIMIT);
    assert_null(ids);
    err = (pali_error){0};
    n = 31 << 15; /* runs of 31 spaces are one piece */
    assert_ok(pali_tokenizer_encode(tok, text, n, &ids, &count, &err), err);
    assert_int_equal(count, 1 << 15);
    free(ids);
    free(text);
    assert_ok(pali_tokenizer_encode(tok, NULL, 0, &ids, &count, &err), err);
    assert_null(ids);
    assert_int_equal(count, 0);
    pali_tokenizer_close(tok);
}

static void tokenizer_prints_nothing(void **state) {
    (void)state;
    char path[] = "/tmp/pali-stderr-XXXXXX";
    int fd = mkstemp(path), old = dup(STDERR_FILENO);
    assert_true(fd >= 0 && old >= 0);
    unlink(path);
    dup2(fd, STDERR_FILENO);
    pali_error err = {0};
    pali_tokenizer *tok;
    int rc = pali_tokenizer_open(FOLDER "inside.model", &tok, &err);
    int32_t *ids = NULL;
    size_t count;
    if (!rc)
        rc = pali_tokenizer_encode(tok, "a\xFF", 2, &ids, &count, &err);
    dup2(old, STDERR_FILENO);
    close(old);
    assert_ok(rc, err);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    close(fd);
    free(ids);
    pali_tokenizer_close(tok);
}

static void *encode_some(void *shared) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 300; i++) {
        size_t n, count;
        int32_t *ids;
        char *text = generate(i, &n);
        if (pali_tokenizer_encode(shared, text, n, &ids, &count, NULL) == 0)
            sum += fnv(ids, count);
        free(ids);
        free(text);
    }
    return (void *)(uintptr_t)sum;
}

static void tokenizer_is_shared_between_threads(void **state) {
    (void)state;
    pali_tokenizer *tok = open_model("added");
    pthread_t threads[4];
    void *sums[4], *want = encode_some(tok);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_some, tok), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &sums[i]), 0);
        assert_ptr_equal(sums[i], want);
    }
    pali_tokenizer_close(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_shows_the_reference_ids_with_pieces_inside),
        cmocka_unit_test(tokenizer_shows_the_reference_ids_with_pieces_added),
        cmocka_unit_test(tokenizer_matches_12000_strings_with_pieces_inside),
        cmocka_unit_test(tokenizer_matches_12000_strings_with_pieces_added),
        cmocka_unit_test(tokenizer_knows_its_special_pieces),
        cmocka_unit_test(tokenizer_peeks_at_text),
        cmocka_unit_test(tokenizer_keeps_typed_control_pieces_as_text),
        cmocka_unit_test(tokenizer_gives_no_control_id_though_the_file_would),
        cmocka_unit_test(tokenizer_takes_places_of_any_type),
        cmocka_unit_test(tokenizer_refuses_what_is_no_model),
        cmocka_unit_test(tokenizer_survives_a_file_cut_anywhere),
        cmocka_unit_test(tokenizer_refuses_hostile_models),
        cmocka_unit_test(tokenizer_refuses_65_nested_pieces),
        cmocka_unit_test(tokenizer_counts_pieces_and_bytes),
        cmocka_unit_test(tokenizer_takes_long_texts_up_to_a_limit),
        cmocka_unit_test(tokenizer_prints_nothing),
        cmocka_unit_test(tokenizer_is_shared_between_threads),
    };
    return cmocka_run_group_tests(tests, load_fragments, free_fragments);
}
