#!/usr/bin/env python3
"""Compares what `pali --dump DIR` wrote with transformers, step by step.

    pali -m MODEL --dump DIR -p "caption en" IMAGE
    compare_dump.py DIR MODEL IMAGE "caption en" [--dtype float32]

One row per tensor, error = max |pali - transformers| / max |transformers|:

  pixel_values   transformers' image processor on the same file (bytes should be equal)
  image_embeds   tower and projector, each side on its own pixels; then on pali's pixels
  prefix_ids     image tokens, bos, the prompt by SentencePiece, newline
  logits         prefill and every step, pali's own tokens fed to both
  output_ids     transformers' greedy choice before each of them

float32 needs 12 GB for a 3B model and shows rounding only (about 1e-5). bfloat16 shows
what the library's usual setting differs by (a few per cent).
"""

import argparse
import os
import sys

import numpy as np
import sentencepiece
import torch
import transformers
from transformers import DynamicCache
from transformers.image_utils import load_image

import hf


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dump")
    ap.add_argument("model")
    ap.add_argument("image")
    ap.add_argument("prompt")
    ap.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    ap.add_argument("--bound", type=float, help="exit 1 when an error is above this")
    a = ap.parse_args()

    dumped = {}
    for name in ("pixel_values", "image_embeds", "prefix_ids", "logits", "output_ids"):
        dumped[name] = np.load(os.path.join(a.dump, name + ".npy"))
    worst = 0.0

    def row(name, value, note=""):
        print(f"{name:28s} {value:>10s}  {note}")

    def compare(name, ours, theirs, note=""):
        nonlocal worst
        if ours.shape != theirs.shape:
            row(name, "shape", f"{ours.shape}, transformers {theirs.shape}")
            worst = np.inf
            return
        e = hf.error(ours.astype(np.float64), theirs.astype(np.float64))
        worst = max(worst, e if e == e else np.inf)
        row(name, f"{e:.1e}", note)

    transformers.logging.set_verbosity_error()
    model = hf.load(a.model, getattr(torch, a.dtype))
    c = model.config
    S, n = c.vision_config.image_size, (c.vision_config.image_size // c.vision_config.patch_size) ** 2
    processor = transformers.SiglipImageProcessor(
        size=dict(height=S, width=S), resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3)  # fmt: skip
    pixels = processor(load_image(a.image), return_tensors="pt")["pixel_values"]
    ours, theirs = dumped["pixel_values"], pixels[0].numpy()
    bytes_off = np.rint((ours + 1) * 127.5) != np.rint((theirs + 1) * 127.5) if ours.shape == theirs.shape else [True]
    compare("pixel_values", ours, theirs, f"{int(np.sum(bytes_off))} bytes differ")

    own = torch.from_numpy(ours.copy())[None]
    scale = c.text_config.hidden_size**0.5  # the library divides by it here, and multiplies later
    with torch.no_grad():
        for note, p in (("each on its own pixels", pixels), ("both on pali's pixels", own)):
            e = model.get_image_features(p.to(model.dtype))[0].float() * scale
            compare("image_embeds", dumped["image_embeds"], e.numpy(), note)

    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(a.model, "tokenizer.model"))
    want = [c.image_token_index] * n + [c.bos_token_id or 2] + sp.encode(a.prompt.strip("\n")) + [sp.piece_to_id("\n")]
    prefix = [int(i) for i in dumped["prefix_ids"]]
    if prefix == want:
        row("prefix_ids", "same", f"{len(prefix)} ids, {n} of them image")
    else:
        at = next((i for i, (x, y) in enumerate(zip(prefix, want)) if x != y), min(len(prefix), len(want)))
        row("prefix_ids", "DIFFERENT", f"{len(prefix)} and {len(want)} ids, first at {at}; going on with pali's")
        worst = np.inf

    tokens, rows = [int(i) for i in dumped["output_ids"]], dumped["logits"]
    steps, vocab, T = len(rows), sp.vocab_size(), len(prefix)
    cache, errors, same, ties = DynamicCache(), [], 0, []
    with torch.no_grad():
        for i in range(steps):
            if i == 0:
                got = hf.forward(model, prefix, torch.zeros(T, T), 0, cache, own.to(model.dtype), keep=1)[-1]
            else:
                got = hf.forward(model, [tokens[i - 1]], torch.zeros(1, T + i), T + i - 1, cache)[-1]
            got = got.numpy()
            width = min(len(got), rows.shape[1])
            errors.append(hf.error(rows[i, :width].astype(np.float64), got[:width].astype(np.float64)))
            if i < len(tokens):
                best = int(got[:vocab].argmax())
                same += best == tokens[i]
                if best != tokens[i]:
                    lead = (got[best] - got[tokens[i]]) / np.abs(got).max()
                    ties.append(f"step {i}: pali {tokens[i]}, transformers {best}, {lead:.1e} ahead")
    worst = max([worst] + [e if e == e else np.inf for e in errors])
    row("logits after prefill", f"{errors[0]:.1e}", f"largest {np.abs(rows[0]).max():.2f}")
    if steps > 1:
        row("logits while decoding", f"{max(errors[1:]):.1e}", f"largest of {steps - 1} steps, median {np.median(errors[1:]):.1e}")
    row("output_ids", f"{same}/{min(steps, len(tokens))}", "equal to the greedy choice of transformers")
    for t in ties:
        print("   ", t)
    print(f"answer: {sp.decode([t for t in tokens if t != 1 and t < vocab])!r}")
    if a.bound is not None and not worst <= a.bound:
        sys.exit(f"an error is above {a.bound:g}")


if __name__ == "__main__":
    main()
