"""SentencePiece model files with PaliGemma's layout, made up.

The released tokenizer may not be copied, so the tests use files of the same form:
BPE with byte fallback, identity normalisation, no dummy prefix, no collapsing of
spaces, newline and space runs, <loc0000>..<loc1023> and <seg000>..<seg127> as
user-defined pieces. Written as protobuf by hand: no compiler, no sentencepiece needed.

  small()  a few hundred pieces before the locs, for the tiny models
  full()   257152 pieces with the ids of the released file (newline 108, space
           235248, locs from 256000, segs from 257024), for full-size random models;
           unknown words come out as syllables
"""

import struct

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
LOCS = [f"<loc{i:04d}>" for i in range(1024)]
SEGS = [f"<seg{i:03d}>" for i in range(128)]


def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _int(field, n):
    return _varint(field << 3) + _varint(n)


def _bytes(field, b):
    return _varint(field << 3 | 2) + _varint(len(b)) + b


def model(pieces):
    """Bytes of a model file. pieces: list of (text, score, type)."""
    out = bytearray()
    for text, score, kind in pieces:
        p = _bytes(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score)
        if kind != NORMAL:
            p += _int(3, kind)
        out += _bytes(1, p)
    trainer = (
        _int(3, 2)  # model_type BPE
        + _int(4, len(pieces))
        + _int(25, 1)  # split_digits
        + _int(26, 1)  # allow_whitespace_only_pieces
        + _int(35, 1)  # byte_fallback
        + _int(40, 3)  # unk, bos, eos, pad
        + _int(41, 2)
        + _int(42, 1)
        + _int(43, 0)
        + _bytes(45, b"<unk>")
        + _bytes(46, b"<bos>")
        + _bytes(47, b"<eos>")
        + _bytes(48, b"<pad>")
    )
    normalizer = _bytes(1, b"identity") + _int(3, 0) + _int(4, 0) + _int(5, 1)
    return bytes(out + _bytes(2, trainer) + _bytes(3, normalizer))


def _specials():
    return [("<pad>", 0.0, CONTROL), ("<eos>", 0.0, CONTROL), ("<bos>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]


def _bytes_pieces():
    return [(f"<0x{i:02X}>", 0.0, BYTE) for i in range(256)]


def _grounding():
    return [(t, 0.0, USER) for t in LOCS + SEGS]


def _merges(words):
    """Every prefix of every word longer than one character, in order of first use."""
    seen = {}
    for w in words:
        for n in range(2, len(w) + 1):
            seen.setdefault(w[:n])
    return list(seen)


WORDS = [
    "caption", "answer", "detect", "describe", "segment", "ocr", SPACE + "en", SPACE + "cat", SPACE + "dog",
    SPACE + "the", SPACE + "is", SPACE + "where", SPACE + "a", SPACE + "on", "cat", "what", "the",
]  # fmt: skip


def small():
    pieces = _specials()
    pieces += [("\n" * n, 0.0, USER) for n in (1, 2, 3)]
    pieces += [(SPACE * n, 0.0, USER) for n in (2, 3)]
    pieces += _bytes_pieces()
    chars = [SPACE] + [chr(c) for c in range(33, 127)] + ["é", "ü", "生"]
    for i, t in enumerate(_merges(WORDS) + chars):
        pieces.append((t, -float(i), NORMAL))
    return pieces + _grounding()


def full():
    pieces = _specials() + [("<mask>", 0.0, USER)]
    pieces += [(f"<unused{i}>", 0.0, USER) for i in range(101)]
    pieces += [("<start_of_turn>", 0.0, USER), ("<end_of_turn>", 0.0, USER)]
    assert len(pieces) == 108
    pieces += [("\n" * n, 0.0, USER) for n in range(1, 32)]
    pieces += [(SPACE * n, 0.0, USER) for n in range(2, 32)]
    pieces += [(f"<tag{i}>", 0.0, USER) for i in range(217 - len(pieces))]
    pieces += _bytes_pieces()
    assert len(pieces) == 473
    chars = [SPACE] + [chr(c) for c in range(33, 127)] + [chr(c) for c in range(0xA1, 0x2000)]
    texts = dict.fromkeys(_merges(WORDS))
    syllables = [c + v for c in "bdfghjklmnprstvwyz" for v in "aeiou"]
    for n in range(2, 10**9):  # words of two and more syllables, with and without a space before
        if len(texts) >= 235248 - 473:
            break
        word, k = "", n
        while k:
            word += syllables[k % len(syllables)]
            k //= len(syllables)
        texts.setdefault(SPACE + word)
        texts.setdefault(word)
    texts = list(texts)[: 235248 - 473]
    texts += chars
    texts += [chr(0xE000 + i) for i in range(6400)]  # private use: never typed
    texts += [chr(0xF0000 + i) for i in range(256000 - 473 - len(texts))]
    for i, t in enumerate(texts):
        pieces.append((t, -float(i), NORMAL))
    pieces += _grounding()
    assert len(pieces) == 257152 and pieces[108][0] == "\n" and pieces[235248][0] == SPACE
    assert pieces[256000][0] == "<loc0000>" and pieces[257024][0] == "<seg000>"
    return pieces
