#!/usr/bin/env python3
"""Builds tokenizer.model: a SentencePiece BPE model with PaliGemma's special pieces.

    tokenizer.py --out tokenizer.model

Order of ids: <pad> <eos> <bos> <unk>, newline, 256 bytes, ordinary pieces, <loc0000>.., <seg000>...
The merges are learned here, from the prompts and answers of tasks.py, because SentencePiece's own trainer
gives up on so small a vocabulary of words; the file is an ordinary BPE model that any SentencePiece reads.
"""
import argparse
import re
from collections import Counter

import numpy as np
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

import draw
import tasks

MERGES = 520
SPACE = "\u2581"


def corpus(count=6000, seed=5):
    rng = np.random.default_rng(seed)
    ask = tasks.Asker(rng)
    for _ in range(count):
        objs = [(str(rng.choice(draw.SHAPES)), str(rng.choice(draw.COLORS)), tuple(rng.random(4)))
                for _ in range(rng.integers(1, 5))]
        for _, prompt, answer in ask.ask((str(rng.choice(draw.BACKGROUNDS)), objs, []), 8):
            yield from prompt.split("\n")
            yield re.sub("<loc....>", "", answer)
    for extra in ("segment red circle", "segment star", "ocr", "no text", "some text",
                  "what does the text say?", "What does it say?", "what is written here", "read the text"):
        for _ in range(300):
            yield extra
    yield from draw.WORDS


def learn(lines):
    """Ordinary byte pair merges inside words; a word begins with its space."""
    words = Counter()
    for line in lines:
        words.update(re.findall(SPACE + "?[A-Za-z]+|" + SPACE + "?[0-9]|" + SPACE + "?[^A-Za-z0-9" + SPACE + "]",
                                line.replace(" ", SPACE)))
    words = {tuple(w): n for w, n in words.items()}
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for w, n in words.items():
            for p in zip(w, w[1:]):
                pairs[p] += n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merged = "".join(best)
        if merged not in merges:
            merges.append(merged)
        new = {}
        for w, n in words.items():
            out, i = [], 0
            while i < len(w):
                if w[i:i + 2] == best:
                    out.append(merged)
                    i += 2
                else:
                    out.append(w[i])
                    i += 1
            new[tuple(out)] = n
        words = new
    return merges


def build():
    m = pb.ModelProto()
    P = pb.ModelProto.SentencePiece

    def add(piece, kind, score=0.0):
        m.pieces.add(piece=piece, score=score, type=kind)

    for name in ("<pad>", "<eos>", "<bos>"):
        add(name, P.CONTROL)
    add("<unk>", P.UNKNOWN)
    add("\n", P.USER_DEFINED)
    for i in range(256):
        add(f"<0x{i:02X}>", P.BYTE)
    merges = learn(corpus())
    for i, piece in enumerate(merges):
        add(piece, P.NORMAL, -float(i))
    for i, ch in enumerate([SPACE] + [chr(c) for c in range(33, 127)]):
        add(ch, P.NORMAL, -float(len(merges) + i))
    for i in range(1024):
        add(f"<loc{i:04d}>", P.USER_DEFINED)
    for i in range(128):
        add(f"<seg{i:03d}>", P.USER_DEFINED)
    t, n = m.trainer_spec, m.normalizer_spec
    t.model_type = pb.TrainerSpec.BPE
    t.vocab_size = len(m.pieces)
    t.byte_fallback = t.split_digits = True
    t.pad_id, t.eos_id, t.bos_id, t.unk_id = 0, 1, 2, 3
    t.pad_piece, t.eos_piece, t.bos_piece, t.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    n.name = "identity"
    n.add_dummy_prefix = n.remove_extra_whitespaces = False
    n.escape_whitespaces = True
    return m.SerializeToString()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default="tokenizer.model")
    a = ap.parse_args()
    with open(a.out, "wb") as f:
        f.write(build())
    sp = spm.SentencePieceProcessor(model_file=a.out)
    print(len(sp), "pieces; first location piece", sp.piece_to_id("<loc0000>"))
    for s in ("answer en what color is the circle?", "What color is the Circle?\nred\nand the star?",
              "<loc0012><loc0999> red circle ; <loc0003> a", "hello world 42", "  two  spaces", "\u00e9"):
        print(sp.encode(s, out_type=str))


if __name__ == "__main__":
    main()
