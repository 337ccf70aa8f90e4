/* tokenizer.cc - SentencePiece behind a C interface.
 *
 * The library is trusted with text but not with model files: given a hostile one it
 * can read beyond tables (a precompiled normaliser, or more than 64 user-defined
 * pieces that are prefixes of one another), follow a null pointer (unknown model
 * type) or end the process. So the file is read here first, field by field and
 * bounds-checked, and the library gets a model written anew from the few fields
 * that matter to PaliGemma: pieces, byte fallback, and a normaliser that only turns
 * spaces into U+2581. What is refused, with a sentence:
 *   - a file that is not a well-formed protocol buffer, or is over 64 MiB;
 *   - other model types than BPE, normaliser tables, dummy prefix, whitespace removal;
 *   - over 2^20 pieces, empty pieces, duplicates, pieces over 1024 bytes, scores that
 *     are not finite, a user-defined piece with a NUL, prefix chains over 64 pieces;
 *   - no unknown piece or two of them, byte pieces that are not exactly 256;
 *   - control pieces of one character, no bos or eos, some but not all <loc> and <seg>
 *     pieces, no token for a newline.
 * Self-test data and the denormaliser are dropped: we never ask for them.
 *
 * Added pieces: when the file has no <loc>/<seg>, text is cut at them first and the
 * rest is encoded piece by piece, as tokens added to a tokenizer behave.
 *
 * Bos, eos, pad and <image> become CONTROL whatever the file says, so that no text
 * can produce their ids.                                                           */
#include "core/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <sentencepiece_processor.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "core/utf8.h"

/* Exported by the library; its header shows it from 0.1.98 on only. */
namespace sentencepiece {
namespace logging {
void SetMinLogLevel(int level);
}
} // namespace sentencepiece

namespace {

constexpr size_t max_file = size_t{64} << 20;
constexpr size_t max_text = size_t{16} << 20;
constexpr size_t max_pieces = size_t{1} << 20;
constexpr size_t max_piece_bytes = 1024;
constexpr size_t max_prefix_chain = 64; /* the library's result array */
constexpr int log_nothing = 4;          /* above FATAL */
constexpr std::string_view space_mark = "\xE2\x96\x81";
constexpr const char *again = "download tokenizer.model again; the file may be cut short";
constexpr const char *other = "use the tokenizer.model that came with the PaliGemma weights";

enum piece_type {
    normal = 1,
    unknown = 2,
    control = 3,
    user_defined = 4,
    unused = 5,
    byte = 6
};

struct piece {
    std::string_view text; /* borrowed from the file */
    float score = 0;
    int type = normal;
};

/* What is kept of a model file. */
struct model {
    std::vector<piece> pieces;
    std::unordered_map<std::string_view, int32_t> ids;
    bool byte_fallback = false;
    std::string_view bos = "<s>", eos = "</s>", pad = "<pad>"; /* the format's defaults */
};

// --- protocol buffers: reading ----------------------------------------------------

struct reader {
    const unsigned char *at, *end;
    explicit reader(std::string_view s)
        : at(reinterpret_cast<const unsigned char *>(s.data())), end(at + s.size()) {
    }
};

struct field {
    uint64_t number; /* of the field */
    int wire;        /* 0 varint, 1 eight bytes, 2 bytes with a length, 5 four bytes */
    uint64_t value;  /* wire 0; wire 5 as its bits */
    std::string_view bytes;
};

bool read_varint(reader &r, uint64_t &out) {
    out = 0;
    for (int shift = 0; shift < 64 && r.at < r.end; shift += 7) {
        uint64_t b = *r.at++;
        out |= (b & 0x7F) << shift;
        if (b < 0x80)
            return true;
    }
    return false;
}

/* False when malformed. Groups are: no version of the format ever had one. */
bool read_field(reader &r, field &f) {
    uint64_t key;
    if (!read_varint(r, key))
        return false;
    f.number = key >> 3;
    f.wire = int(key & 7);
    f.value = 0;
    size_t left = size_t(r.end - r.at), n;
    switch (f.wire) {
    case 0:
        return read_varint(r, f.value);
    case 1:
        n = 8;
        break;
    case 2: {
        uint64_t length;
        if (!read_varint(r, length))
            return false;
        left = size_t(r.end - r.at);
        if (length > left)
            return false;
        n = size_t(length);
        break;
    }
    case 5:
        n = 4;
        break;
    default:
        return false;
    }
    if (n > left)
        return false;
    f.bytes = {reinterpret_cast<const char *>(r.at), n};
    if (f.wire == 5)
        f.value = uint64_t(r.at[0]) | uint64_t(r.at[1]) << 8 | uint64_t(r.at[2]) << 16 |
                  uint64_t(r.at[3]) << 24;
    r.at += n;
    return true;
}

int malformed(const char *name, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, again, "%s: not a SentencePiece model", name);
}

int parse_piece(std::string_view bytes, const char *name, piece &p, pali_error *err) {
    reader r(bytes);
    for (field f; r.at < r.end;) {
        if (!read_field(r, f))
            return malformed(name, err);
        if (f.number == 1 && f.wire == 2)
            p.text = f.bytes;
        else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = uint32_t(f.value);
            memcpy(&p.score, &bits, sizeof p.score);
        } else if (f.number == 3 && f.wire == 0 && f.value >= normal && f.value <= byte)
            p.type = int(f.value);
        else if (f.number <= 3)
            return malformed(name, err);
    }
    return 0;
}

int parse_trainer(std::string_view bytes, const char *name, model &m, bool &bpe, pali_error *err) {
    reader r(bytes);
    for (field f; r.at < r.end;) {
        if (!read_field(r, f))
            return malformed(name, err);
        if (f.number == 3)
            bpe = f.wire == 0 && f.value == 2;
        else if (f.number == 35)
            m.byte_fallback = f.wire == 0 && f.value != 0;
        else if (f.number >= 46 && f.number <= 48 && f.wire == 2 && !f.bytes.empty())
            (f.number == 46 ? m.bos : f.number == 47 ? m.eos : m.pad) = f.bytes;
    }
    return 0;
}

int parse_normalizer(std::string_view bytes, const char *name, bool &plain, pali_error *err) {
    bool dummy_prefix = true, strip = true, escape = true, table = false;
    reader r(bytes);
    for (field f; r.at < r.end;) {
        if (!read_field(r, f))
            return malformed(name, err);
        if (f.number == 2)
            table = !f.bytes.empty();
        else if (f.number == 3)
            dummy_prefix = f.value != 0;
        else if (f.number == 4)
            strip = f.value != 0;
        else if (f.number == 5)
            escape = f.value != 0;
    }
    plain = !table && !dummy_prefix && !strip && escape;
    return 0;
}

/* Reads the file into m; the pieces are not looked at yet. */
int parse_model(std::string_view bytes, const char *name, model &m, pali_error *err) {
    if (int rc = pali_file_check_stub(name, bytes.data(), bytes.size(), err))
        return rc;
    bool bpe = false, plain = false;
    reader r(bytes);
    for (field f; r.at < r.end;) {
        if (!read_field(r, f) || (f.number >= 1 && f.number <= 3 && f.wire != 2))
            return malformed(name, err);
        int rc = 0;
        if (f.number == 1) {
            if (m.pieces.size() == max_pieces)
                return pali_fail(err, PALI_ELIMIT, other, "%s: more than %zu pieces", name,
                                 max_pieces);
            m.pieces.emplace_back();
            rc = parse_piece(f.bytes, name, m.pieces.back(), err);
        } else if (f.number == 2) {
            rc = parse_trainer(f.bytes, name, m, bpe, err);
        } else if (f.number == 3) {
            rc = parse_normalizer(f.bytes, name, plain, err);
        }
        if (rc)
            return rc;
    }
    if (m.pieces.empty())
        return malformed(name, err);
    if (!bpe)
        return pali_fail(err, PALI_EUNSUPPORTED, other, "%s: not a BPE model; PaliGemma's is",
                         name);
    if (!plain)
        return pali_fail(err, PALI_EUNSUPPORTED, other,
                         "%s: changes text or its spaces before encoding; PaliGemma's does not",
                         name);
    return 0;
}

// --- the pieces ---------------------------------------------------------------------

/* The byte of a piece "<0xNN>", or -1. */
int byte_of(std::string_view s) {
    auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    if (s.size() != 6 || s.substr(0, 3) != "<0x" || s[5] != '>')
        return -1;
    int high = digit(s[3]), low = digit(s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* The number in a piece "<locNNNN>" (digits = 4) or "<segNNN>" (3) at the start of s
 * when it is below limit, else -1. */
int number_in(std::string_view s, std::string_view word, size_t digits, int limit) {
    if (s.size() < word.size() + digits + 1 || s.substr(0, word.size()) != word ||
        s[word.size() + digits] != '>')
        return -1;
    int n = 0;
    for (char c : s.substr(word.size(), digits)) {
        if (c < '0' || c > '9')
            return -1;
        n = n * 10 + (c - '0');
    }
    return n < limit ? n : -1;
}

int loc_at(std::string_view s) {
    return number_in(s, "<loc", 4, PALI_LOCS);
}

int seg_at(std::string_view s) {
    return number_in(s, "<seg", 3, PALI_SEGS);
}

/* The piece of loc i or seg i. */
std::string place_text(bool seg, int i) {
    char text[16];
    snprintf(text, sizeof text, seg ? "<seg%03d>" : "<loc%04d>", i);
    return text;
}

/* Checks every piece alone, fills m.ids. */
int check_pieces(model &m, const char *name, pali_error *err) {
    int unknowns = 0, bytes = 0;
    bool seen[256] = {};
    m.ids.reserve(m.pieces.size());
    for (size_t i = 0; i < m.pieces.size(); i++) {
        const piece &p = m.pieces[i];
        if (p.text.empty() || p.text.size() > max_piece_bytes || !std::isfinite(p.score))
            return pali_fail(err, PALI_EFORMAT, again,
                             "%s: piece %zu is empty, too long or has no finite score", name, i);
        if (!m.ids.emplace(p.text, int32_t(i)).second)
            return pali_fail(err, PALI_EFORMAT, again, "%s: piece %zu is there twice", name, i);
        unknowns += p.type == unknown;
        if (p.type == byte) {
            int b = byte_of(p.text);
            if (b < 0 || seen[b])
                return pali_fail(err, PALI_EFORMAT, again,
                                 "%s: piece %zu does not name a byte of its own", name, i);
            seen[b] = true;
            bytes++;
        }
        /* Keys of the library's trie end at the first NUL. */
        if (p.type == user_defined && p.text.find('\0') != std::string_view::npos)
            return pali_fail(err, PALI_EFORMAT, again, "%s: piece %zu holds a NUL byte", name, i);
    }
    if (unknowns != 1)
        return pali_fail(err, PALI_EFORMAT, again, "%s: %d unknown pieces, expected one", name,
                         unknowns);
    if (bytes != (m.byte_fallback ? 256 : 0))
        return pali_fail(err, PALI_EFORMAT, again, "%s: %d byte pieces, expected %d", name, bytes,
                         m.byte_fallback ? 256 : 0);
    return 0;
}

/* A single character is a symbol without any merging: as a control piece it would give
 * text a control id. */
int check_control(const model &m, const char *name, pali_error *err) {
    for (const piece &p : m.pieces)
        if (p.type == control &&
            pali_utf8_step(reinterpret_cast<const unsigned char *>(p.text.data()), p.text.size()) ==
                int(p.text.size()))
            return pali_fail(err, PALI_EFORMAT, other,
                             "%s: a control piece is a single character; not PaliGemma's", name);
    return 0;
}

/* In sorted order the pieces that are prefixes of one stand on a stack before it. */
int check_prefix_chains(const model &m, const char *name, pali_error *err) {
    std::vector<std::string_view> words, chain;
    for (const piece &p : m.pieces)
        if (p.type == user_defined)
            words.push_back(p.text);
    std::sort(words.begin(), words.end());
    for (std::string_view w : words) {
        while (!chain.empty() && w.substr(0, chain.back().size()) != chain.back())
            chain.pop_back();
        chain.push_back(w);
        if (chain.size() > max_prefix_chain)
            return pali_fail(err, PALI_EFORMAT, again,
                             "%s: more than %zu user-defined pieces begin with one another", name,
                             max_prefix_chain);
    }
    return 0;
}

int32_t find(const model &m, std::string_view text) {
    auto it = m.ids.find(text);
    return it == m.ids.end() ? -1 : it->second;
}

/* Id of a special piece by the name the file gives it or by Gemma's; it becomes a
 * control piece. -1 when there is none. */
int32_t claim_control(model &m, std::string_view named, std::string_view gemma) {
    int32_t id = find(m, named);
    if (id < 0)
        id = find(m, gemma);
    if (id < 0 || m.pieces[size_t(id)].type == unknown || m.pieces[size_t(id)].type == byte)
        return -1;
    m.pieces[size_t(id)].type = control;
    return id;
}

/* First id of the run <loc0000>.. (or <seg000>..) of count pieces; they become user-
 * defined. -1 when there are none, -2 when there are some or they are not in a row. */
int32_t claim_run(model &m, bool seg, int count) {
    int32_t first = -1;
    int found = 0;
    bool in_order = true;
    for (int i = 0; i < count; i++) {
        int32_t id = find(m, place_text(seg, i));
        if (id < 0)
            continue;
        if (found++ == 0)
            first = id - i;
        in_order = in_order && id == first + i;
        m.pieces[size_t(id)].type = user_defined;
    }
    if (found == 0)
        return -1;
    return found == count && in_order ? first : -2;
}

// --- protocol buffers: writing ----------------------------------------------------

void put_varint(std::string &out, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        out.push_back(char(v | 0x80));
    out.push_back(char(v));
}

void put_number(std::string &out, unsigned number, uint64_t v) {
    put_varint(out, number << 3);
    put_varint(out, v);
}

void put_bytes(std::string &out, unsigned number, std::string_view bytes) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.size());
    out.append(bytes);
}

std::string write_model(const model &m) {
    std::string out, part;
    for (const piece &p : m.pieces) {
        part.clear();
        put_bytes(part, 1, p.text);
        uint32_t bits;
        memcpy(&bits, &p.score, sizeof bits);
        put_varint(part, 2 << 3 | 5);
        for (int shift = 0; shift < 32; shift += 8)
            part.push_back(char(bits >> shift));
        put_number(part, 3, uint64_t(p.type));
        put_bytes(out, 1, part);
    }
    part.clear();
    put_number(part, 3, 2); /* BPE */
    put_number(part, 35, m.byte_fallback);
    put_bytes(out, 2, part);
    part.clear();
    put_number(part, 3, 0); /* no dummy prefix */
    put_number(part, 4, 0); /* no whitespace removal */
    put_number(part, 5, 1); /* space -> U+2581 */
    put_bytes(out, 3, part);
    return out;
}

} // namespace

// --- the tokenizer ------------------------------------------------------------------

struct pali_tokenizer {
    sentencepiece::SentencePieceProcessor library;
    int32_t vocab = 0;
    int32_t bos = -1, eos = -1, pad = -1, newline = -1, loc = -1, seg = -1;
    bool added = false;          /* loc and seg follow the library's pieces */
    std::string text;            /* of all ids, one after the other */
    std::vector<uint32_t> start; /* [vocab + 1] into text */
};

namespace {

/* What ids stand for in running text; see pali_tokenizer_peek. */
void write_texts(pali_tokenizer &tok, const model &m) {
    tok.start.reserve(size_t(tok.vocab) + 1);
    for (const piece &p : m.pieces) {
        tok.start.push_back(uint32_t(tok.text.size()));
        if (p.type == byte) {
            tok.text.push_back(char(byte_of(p.text)));
        } else if (p.type != control && p.type != unknown) {
            std::string_view rest = p.text;
            for (size_t at; (at = rest.find(space_mark)) != std::string_view::npos;) {
                tok.text.append(rest.substr(0, at)).push_back(' ');
                rest.remove_prefix(at + space_mark.size());
            }
            tok.text.append(rest);
        }
    }
    for (int i = 0; tok.added && i < PALI_LOCS + PALI_SEGS; i++) {
        bool seg = i >= PALI_LOCS;
        tok.start.push_back(uint32_t(tok.text.size()));
        tok.text.append(place_text(seg, seg ? i - PALI_LOCS : i));
    }
    tok.start.push_back(uint32_t(tok.text.size()));
}

int encode_plain(const pali_tokenizer &tok, std::string_view text, std::vector<int> &ids,
                 pali_error *err) {
    std::vector<int> part;
    auto status = tok.library.Encode(absl::string_view(text.data(), text.size()), &part);
    if (!status.ok())
        return pali_fail(err, PALI_EFORMAT, again, "the tokenizer cannot encode this text");
    ids.insert(ids.end(), part.begin(), part.end());
    return 0;
}

int encode(const pali_tokenizer &tok, std::string_view text, std::vector<int> &ids,
           pali_error *err) {
    if (!tok.added)
        return encode_plain(tok, text, ids, err);
    size_t from = 0;
    for (size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at)) {
        std::string_view rest = text.substr(at);
        int loc = loc_at(rest), seg = loc < 0 ? seg_at(rest) : -1;
        if (loc < 0 && seg < 0) {
            at++;
            continue;
        }
        if (at > from)
            if (int rc = encode_plain(tok, text.substr(from, at - from), ids, err))
                return rc;
        ids.push_back(loc >= 0 ? tok.loc + loc : tok.seg + seg);
        at = from = at + (loc >= 0 ? strlen("<loc0000>") : strlen("<seg000>"));
    }
    return from < text.size() ? encode_plain(tok, text.substr(from), ids, err) : 0;
}

/* The id of the separator, or -1. */
int32_t find_newline(const pali_tokenizer &tok, const model &m) {
    int32_t id = find(m, "\n");
    if (id >= 0 && m.pieces[size_t(id)].type != control)
        return id;
    std::vector<int> ids;
    if (encode_plain(tok, "\n", ids, nullptr) || ids.size() != 1 ||
        m.pieces[size_t(ids[0])].type == unknown)
        return -1;
    return ids[0];
}

int build(std::string_view bytes, const char *name, std::unique_ptr<pali_tokenizer> &out,
          pali_error *err) {
    model m;
    int rc = parse_model(bytes, name, m, err);
    if (!rc)
        rc = check_pieces(m, name, err);
    if (rc)
        return rc;

    auto tok = std::make_unique<pali_tokenizer>();
    tok->bos = claim_control(m, m.bos, "<bos>");
    tok->eos = claim_control(m, m.eos, "<eos>");
    tok->pad = claim_control(m, m.pad, "<pad>");
    claim_control(m, "<image>", "<image>");
    if (tok->bos < 0 || tok->eos < 0)
        return pali_fail(err, PALI_EFORMAT, other,
                         "%s: no pieces for begin and end of text; not PaliGemma's", name);

    tok->loc = claim_run(m, false, PALI_LOCS);
    tok->seg = claim_run(m, true, PALI_SEGS);
    int32_t count = int32_t(m.pieces.size());
    tok->added = tok->loc == -1 && tok->seg == -1;
    if (!tok->added && (tok->loc < 0 || tok->seg < 0))
        return pali_fail(err, PALI_EFORMAT, other,
                         "%s: only some of the <loc> and <seg> pieces are in it", name);
    tok->vocab = count;
    if (tok->added) {
        tok->loc = count;
        tok->seg = count + PALI_LOCS;
        tok->vocab = count + PALI_LOCS + PALI_SEGS;
    }
    rc = check_control(m, name, err);
    if (!rc)
        rc = check_prefix_chains(m, name, err);
    if (rc)
        return rc;

    sentencepiece::logging::SetMinLogLevel(log_nothing);
    auto status = tok->library.LoadFromSerializedProto(write_model(m));
    if (!status.ok())
        return pali_fail(err, PALI_EFORMAT, again, "%s: the SentencePiece library refuses it",
                         name);
    tok->newline = find_newline(*tok, m);
    if (tok->newline < 0)
        return pali_fail(err, PALI_EFORMAT, other,
                         "%s: this tokenizer has no newline piece; not PaliGemma's", name);
    write_texts(*tok, m);
    out = std::move(tok);
    return 0;
}

/* Runs f; what it throws ends here. */
template <typename F> int guarded(const char *what, pali_error *err, F f) {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return pali_fail_nomem(err, what);
    } catch (const std::length_error &) {
        return pali_fail_nomem(err, what);
    } catch (const std::exception &e) {
        return pali_fail(err, PALI_EFORMAT, again, "%s failed: %s", what, e.what());
    } catch (...) {
        return pali_fail(err, PALI_EFORMAT, again, "%s failed", what);
    }
}

} // namespace

// --- the C interface ------------------------------------------------------------------

int pali_tokenizer_parse(const void *bytes, size_t n, const char *name, pali_tokenizer **out,
                         pali_error *err) {
    *out = nullptr;
    name = pali_file_brief(name);
    if (n > max_file)
        return pali_fail(err, PALI_ELIMIT, other, "%s: %zu bytes; a tokenizer has at most %zu",
                         name, n, max_file);
    return guarded("loading the tokenizer", err, [&] {
        std::unique_ptr<pali_tokenizer> tok;
        int rc = build({static_cast<const char *>(bytes), n}, name, tok, err);
        *out = tok.release();
        return rc;
    });
}

int pali_tokenizer_open(const char *path, pali_tokenizer **out, pali_error *err) {
    char *bytes;
    size_t n;
    *out = nullptr;
    int rc = pali_file_read(path, max_file, &bytes, &n, err);
    if (!rc)
        rc = pali_tokenizer_parse(bytes, n, path, out, err);
    free(bytes);
    return rc;
}

void pali_tokenizer_close(pali_tokenizer *tok) {
    delete tok;
}

int32_t pali_tokenizer_vocab(const pali_tokenizer *tok) {
    return tok->vocab;
}

int32_t pali_tokenizer_bos(const pali_tokenizer *tok) {
    return tok->bos;
}

int32_t pali_tokenizer_eos(const pali_tokenizer *tok) {
    return tok->eos;
}

int32_t pali_tokenizer_pad(const pali_tokenizer *tok) {
    return tok->pad;
}

int32_t pali_tokenizer_newline(const pali_tokenizer *tok) {
    return tok->newline;
}

int32_t pali_tokenizer_loc(const pali_tokenizer *tok, int i) {
    return i < 0 || i >= PALI_LOCS ? -1 : tok->loc + i;
}

int32_t pali_tokenizer_seg(const pali_tokenizer *tok, int i) {
    return i < 0 || i >= PALI_SEGS ? -1 : tok->seg + i;
}

int pali_tokenizer_encode(const pali_tokenizer *tok, const char *text, size_t n, int32_t **ids,
                          size_t *count, pali_error *err) {
    *ids = nullptr;
    *count = 0;
    if (n > max_text)
        return pali_fail(err, PALI_ELIMIT, "ask a shorter question",
                         "a text of %zu bytes; at most %zu can be encoded", n, max_text);
    return guarded("encoding text", err, [&] {
        std::vector<int> got;
        int rc = encode(*tok, {text, n}, got, err);
        if (rc || got.empty())
            return rc;
        auto *copy = static_cast<int32_t *>(malloc(got.size() * sizeof(int32_t)));
        if (!copy)
            return pali_fail_nomem(err, "encoding text");
        std::copy(got.begin(), got.end(), copy);
        *ids = copy;
        *count = got.size();
        return 0;
    });
}

const char *pali_tokenizer_peek(const pali_tokenizer *tok, int32_t id, size_t *n) {
    if (id < 0 || id >= tok->vocab) {
        *n = 0;
        return "";
    }
    uint32_t from = tok->start[size_t(id)];
    *n = tok->start[size_t(id) + 1] - from;
    return tok->text.data() + from;
}
