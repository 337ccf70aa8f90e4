#!/usr/bin/env python3
"""Makes tests/data/tokenizer/: two small tokenizers and what the references make of
12,000 strings with each.

    python3 tests/reference/tokenizer.py     # from the top of the tree; seconds

Needs Python 3.11, sentencepiece==0.2.0 and transformers==4.51.3; with protobuf
installed too, GemmaTokenizerFast is checked along the way.

Gemma's own tokenizer is behind a licence click, so two models are trained here with
its settings (BPE, byte fallback, split digits, identity normalisation, no dummy
prefix, no whitespace removal, pieces of spaces alone; runs of newlines and spaces and
HTML-like tags user-defined) on text that every Python carries:
  inside.model   <loc0000>.. and <seg000>.. at the end of the model, as in PaliGemma
  added.model    without them: they are added after it

Reference: for inside.model sentencepiece; for added.model transformers' GemmaTokenizer
(slow, and fast where it converts) with the 1152 pieces as added tokens that strip and
normalise nothing. One rule of ours differs from transformers: <bos>, <eos>, <pad> and
<unk> typed by a user are plain text, not special tokens. And transformers takes no
invalid UTF-8. Strings with either are cut at the added pieces here and what is between
is encoded by sentencepiece; all other strings show that this equals transformers.
(7503 strings; the fast tokenizer differs on 27 of them, all with U+2581 typed twice.)

Files: fragments.txt  what strings are made of, one a line, with \\xNN for bytes
       NAME.hashes    12,000 little-endian uint32: FNV-1a of each string's ids
       NAME.txt       150 strings with all their ids: text, a tab, ids
       prompts.txt    prompts as PaliGemmaProcessor builds them: "<bos>" + prompt + "\\n"
                      through GemmaTokenizer with added.model; prompt, a tab, ids
And three small seeds for the fuzzer in tests/fuzz/corpus/tokenizer.
The strings come from generate() below; the C test has the same generator.
"""
import io
import pydoc_data.topics
import re
import struct
import sys
import tempfile
from pathlib import Path

import sentencepiece as spm

OUT = Path("tests/data/tokenizer")
STRINGS = 12000
SHOWN = 150

PROMPTS = [
    "", "caption en", "cap de", "describe en", "ocr", "detect cat ; dog", "segment the red car", "answer en Where is the cow standing?",
    "question en the beach", "How many coins are there?", " leading and trailing ", "two  spaces   three", "caption <loc0100><loc0200><loc0300><loc0400>",
    "détecte 生活 😀", "line one\nline two\n\nline four", "tab\there", "    ", "12,345.67", "<b>bold</b>", "▁"]
CONTROL_LIKE = ["<bos>", "<eos>", "<pad>", "<unk>", "<image>", "<mask>", "<start_of_turn>", "<0x41>"]
TAGS = ["<table>", "<tr>", "<td>", "</table>", "<h1>", "</h1>", "<b>", "</b>", "<i>", "</i>", "<code>", "</code>"]


def fragments():
    words = """the a cat dog standing on beach detect segment caption en answer describe What where is How
many coins are there image great detail please car ; yes no red blue square circle left of""".split()
    out = [w.encode() for w in words] + [b" " + w.encode() for w in words]
    out += [b" " * n for n in (1, 2, 3, 5, 30, 31, 32, 70)] + [b"\n" * n for n in (1, 2, 3, 31, 32, 40)]
    out += [b"\t", b"\r\n", b"\x00", b"\x01", b"\x1b[31m", b"\x7f", b"\x0b", "\u2028".encode(), "\u200b".encode()]
    out += [b"0", b"7", b"42", b"1024", b"3.14159", b"12,000", "\u0663\u0664".encode(), "\u00bd".encode()]
    out += [s.encode() for s in CONTROL_LIKE + TAGS]
    out += [b"<loc0000>", b"<loc0511>", b"<loc1023>", b"<loc1024>", b"<loc9999>", b"<loc12>", b"<loc00000>", b"<LOC0001>",
            b"<loc0001", b"loc0001>", b"<<loc0001>>", b"<loc 0001>", b"<seg000>", b"<seg127>", b"<seg128>", b"<seg12>",
            b"<seg", b"<loc", b"<loc0001><loc0002><loc0003><loc0004>", b"<seg000><seg064><seg127>", b"<", b">", b"<>"]
    out += [s.encode() for s in (
        "生活的真谛是", "日本語テキスト", "カタカナ", "한국어 문장", "Привет, мир", "Ελληνικά", "שלום עולם", "مرحبا بالعالم", "नमस्ते", "ภาษาไทย",
        "é", "e\u0301", "a\u0308\u0323", "Zürich", "ﬁ", "Å", "Å", "ß", "İ", "ﷺ", "½", "™", "…", "—", "“quote”", "😀", "👩‍👩‍👧‍👦", "🇨🇭", "👍🏽",
        "\U0001f9ff", "\U00020000", "\ufeff", "\ufffd", "\ufffe", "\u202eRTL\u202c", "▁", "▁▁", "▁the", " ▁ ")]
    out += [b"\x80", b"\xbf", b"\xc0\x80", b"\xc3", b"\xe2\x82", b"\xe2\x96", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xff", b"\xfe"]
    out += [b"!", b"?", b".", b",", b"...", b"http://example.org/a?b=c&d=%20", b"snake_case", b"CamelCase", b"ALLCAPS", b"aaaaaaaa", b"-----", b"=====",
            b"{", b"}", b"\\n", b"\\", b"\"", b"'", b"`", b"$x^2$", b"#include <stdio.h>", b"def f(x):\n    return x\n"]
    return out


class Lcg:
    def __init__(self, seed):
        self.state = (seed * 0x9E3779B97F4A7C15 + 1) % 2**64

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def generate(i, parts):
    """String number i: a few fragments, some repeated, some cut short by a byte, a few random bytes."""
    r = Lcg(i)
    count = r.below(12)
    if r.below(64) == 0:
        count = 100
    if i % 3000 == 2999:
        count = 6000
    out = bytearray()
    for _ in range(count):
        part = parts[r.below(len(parts))]
        kind = r.below(32)
        if kind < 3:
            part = part * (2 + r.below(4))
        elif kind == 3:
            part = part[:-1]
        elif kind == 4:
            part = bytes([r.below(256)])
        out += part
    return bytes(out)


def escape(b):
    return "".join(chr(c) if 32 <= c < 127 and c != 92 else f"\\x{c:02x}" for c in b)


def fnv(ids):
    h = 0x811C9DC5
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        h = (h ^ byte) * 0x01000193 % 2**32
    return h


# --- the models ---------------------------------------------------------------------


def corpus():
    text = "\n".join(pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    parts = [p.decode() for p in fragments() if p.isascii() or len(p) > 6 and try_utf8(p)]
    r = Lcg(1)
    mixed = [" ".join(parts[r.below(len(parts))].replace("\n", " ").replace("\0", "") for _ in range(8)) for _ in range(400)]
    return lines + mixed


def try_utf8(b):
    try:
        return b.decode()
    except UnicodeDecodeError:
        return None


def train(vocab_size, lines):
    model = io.BytesIO()
    user = ["<mask>"] + ["<start_of_turn>", "<end_of_turn>"]
    user += ["\n" * n for n in range(1, 32)] + ["▁" * n for n in range(2, 32)] + TAGS
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=vocab_size,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.9995,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", user_defined_symbols=user, num_threads=1, minloglevel=2)
    return model.getvalue()


def varint(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def place_pieces():
    return [f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)]


def append_pieces(model, names):
    """Pieces are a repeated field of the file's message: more of them may simply follow."""
    return model + b"".join(piece(name, 4) for name in names)


def piece(name, kind, score=0.0):
    text = name.encode()
    body = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
    return b"\x0a" + varint(len(body)) + body


def seeds():
    """Small whole models for the fuzzer: one without byte pieces, one with, one as a recipe."""
    head = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3) + piece("<pad>", 3)
    words = [("\n", 4), ("\n\n", 4), ("▁▁", 4), ("▁", 1), ("a", 1), ("b", 1), ("ab", 5), ("aab", 1), ("<image>", 4), ("<", 1), ("<bos>", 1)]
    words = b"".join(piece(name, kind, -float(i)) for i, (name, kind) in enumerate(words))
    normalizer = b"\x1a\x06\x18\x00\x20\x00\x28\x01"
    folder = Path("tests/fuzz/corpus/tokenizer")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small").write_bytes(head + words + b"\x12\x02\x18\x02" + normalizer)
    every_byte = b"".join(piece(f"<0x{b:02X}>", 6) for b in range(256))
    recipe = b"".join(bytes([kind, len(text)]) + text for kind, text in (
        (4, b"\n"), (1, b"a"), (1, b"aa"), (5, b"aaa"), (5, b"aaaa"), (1, "▁".encode()), (4, "▁▁".encode()), (1, b"<"), (4, b"<b>")))
    (folder / "recipe").write_bytes(b"#" + recipe + b"\xffaaaaaaa  aa<b>\n\n<loc0001> \xe2\x96\xff")
    (folder / "bytes").write_bytes(head + words + every_byte + b"\x12\x05\x18\x02\x98\x02\x01" + normalizer)


# --- the references -----------------------------------------------------------------


def encode_inside(processor):
    return lambda text: processor.encode(text)


PLACE = re.compile(rb"<loc(?:0\d\d\d|10[01]\d|102[0-3])>|<seg(?:0\d\d|1[01]\d|12[0-7])>")

SPECIAL = re.compile("<bos>|<eos>|<pad>|<unk>")
def encode_added(path, processor):
    from transformers import AddedToken, GemmaTokenizer

    names = place_pieces()
    id_of = {name.encode(): processor.get_piece_size() + i for i, name in enumerate(names)}

    def by_cutting(text):
        ids, at = [], 0
        for m in PLACE.finditer(text):
            ids += processor.encode(text[at:m.start()]) + [id_of[m.group()]]
            at = m.end()
        return ids + processor.encode(text[at:])

    added = [AddedToken(n, lstrip=False, rstrip=False, normalized=False) for n in names]
    slow = GemmaTokenizer(path, add_bos_token=False)
    assert slow.add_tokens(added) == len(names)
    tokenizers = [slow]
    try:
        from transformers import GemmaTokenizerFast

        fast = GemmaTokenizerFast(path, add_bos_token=False)
        fast.add_tokens(added)
        tokenizers.append(fast)
    except ImportError as e:
        print("GemmaTokenizerFast not checked:", str(e).strip().splitlines()[0], file=sys.stderr)
    checked = {"slow": 0, "fast": 0, "fast differs": 0}

    def encode(text):
        ids = by_cutting(text)
        valid = try_utf8(text)
        if valid is not None and not SPECIAL.search(valid):
            checked["slow"] += 1
            got = slow(valid, add_special_tokens=False)["input_ids"]
            assert got == ids, (text, got, ids)
            for tokenizer in tokenizers[1:]:
                got = tokenizer(valid, add_special_tokens=False)["input_ids"]
                checked["fast"] += 1
                checked["fast differs"] += got != ids
                # Typed U+2581 next to a space: the fast tokenizer merges across, SentencePiece does not.
                assert got == ids or "\u2581\u2581" in valid, (text, got, ids)
        return ids

    return encode, checked, slow


def write(name, encode, parts):
    hashes, shown = [], []
    for i in range(STRINGS):
        text = generate(i, parts)
        ids = encode(text)
        hashes.append(fnv(ids))
        if len(shown) < SHOWN and 0 < len(text) < 120 and i % 7 == 0:
            shown.append(escape(text) + "\t" + " ".join(map(str, ids)) + "\n")
    (OUT / f"{name}.hashes").write_bytes(struct.pack(f"<{STRINGS}I", *hashes))
    (OUT / f"{name}.txt").write_text("".join(shown))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    seeds()
    parts = fragments()
    (OUT / "fragments.txt").write_text("".join(escape(p) + "\n" for p in parts))
    lines = corpus()
    inside = append_pieces(train(1400, lines), place_pieces())
    added = train(1000, lines[::2])
    (OUT / "inside.model").write_bytes(inside)
    (OUT / "added.model").write_bytes(added)
    write("inside", encode_inside(spm.SentencePieceProcessor(model_proto=inside)), parts)
    encode, checked, slow = encode_added(str(OUT / "added.model"), spm.SentencePieceProcessor(model_proto=added))
    write("added", encode, parts)
    lines = [escape(p.encode()) + "\t" + " ".join(map(str, slow(f"<bos>{p}\n", add_special_tokens=False)["input_ids"])) for p in PROMPTS]
    (OUT / "prompts.txt").write_text("\n".join(lines) + "\n")
    print(f"strings checked against transformers: {checked}")


if __name__ == "__main__":
    main()
