#!/usr/bin/env python3
"""Masks of drawn shapes and their codes under assets/demo/mask.npz.

    mask_shapes.py --dir RUN --out tests/data/mask_shapes.txt    writes them (needs torch and the encoder, RUN/mask.pt)
    mask_shapes.py --check tests/data/mask_shapes.txt            mean IoU of decoder(codes) with numpy alone

The file: one line a shape, `name code*16 rows`, rows being 64 times 16 hexadecimal digits, most significant bit left,
1 = object. Made with torch 2.8.0, numpy 2.4.6, Pillow 11.3.0.
"""
import argparse
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "assets", "demo")


def conv(x, w, b):
    """x [C, H, W], same padding, stride 1"""
    k = w.shape[2] // 2
    x = np.pad(x, ((0, 0), (k, k), (k, k)))
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (1, 2))
    return np.einsum("oikl,ihwkl->ohw", w, win) + b[:, None, None]


def widen(x, w, b):
    """Transposed convolution, kernel 4, stride 2, padding 1."""
    _, h, n = x.shape
    out = np.zeros((w.shape[1], 2 * h + 2, 2 * n + 2), np.float64)
    for i in range(4):
        for j in range(4):
            out[:, i:i + 2 * h:2, j:j + 2 * n:2] += np.einsum("io,ihw->ohw", w[:, :, i, j], x)
    return out[:, 1:-1, 1:-1] + b[:, None, None]


def decode(z, codes):
    """16 codes -> [64, 64], above zero is object. z: the arrays of the npz."""
    def p(name):
        return z[f"decoder.{name}.weight"], z[f"decoder.{name}.bias"]

    x = z["_vq_vae._embedding"][codes].reshape(4, 4, -1).transpose(2, 0, 1)
    x = np.maximum(conv(x, *p("0")), 0)
    for i in "23":
        y = np.maximum(conv(x, *p(f"{i}.net.0")), 0)
        y = np.maximum(conv(y, *p(f"{i}.net.2")), 0)
        x = x + conv(y, *p(f"{i}.net.4"))
    for i in ("4", "6", "8", "10"):
        x = np.maximum(widen(x, *p(i)), 0)
    return conv(x, *p("12"))[0]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def make(run, out):
    sys.path.insert(0, DEMO)
    import torch
    import draw
    import mask
    codec = mask.load(run)
    rng = np.random.default_rng(3131)
    with open(out, "w") as f:
        for shape in draw.SHAPES * 2:
            m = mask.drawn(rng, shape)
            codes = codec.codes(torch.from_numpy(m.copy())[None].float() / 255)[0].tolist()
            rows = "".join(f"{int(''.join(map(str, r)), 2):016x}" for r in (m > 127).astype(int))
            f.write(" ".join([shape, *map(str, codes), rows]) + "\n")


def check(path, npz):
    z = np.load(npz)
    all_iou = []
    for line in open(path):
        name, *codes, rows = line.split()
        m = np.array([[int(b) for b in f"{int(rows[i:i + 16], 16):064b}"] for i in range(0, 1024, 16)], bool)
        got = decode(z, np.array(codes, int))
        all_iou.append(iou(got > 0, m))
        print(f"{name:9} IoU {all_iou[-1]:.4f}  first row {got[0, 0]:+.5f} {got[0, 31]:+.5f}  centre {got[32, 32]:+.5f}")
    print(f"mean {np.mean(all_iou):.4f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir")
    ap.add_argument("--out")
    ap.add_argument("--npz", default=os.path.join(DEMO, "mask.npz"))
    ap.add_argument("--check")
    a = ap.parse_args()
    if a.dir:
        make(a.dir, a.out)
    if a.check or a.out:
        check(a.check or a.out, a.npz)


if __name__ == "__main__":
    main()
