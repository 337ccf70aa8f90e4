#!/usr/bin/env python3
"""Goldens of the mask decoder: the network of vae-oid.npz in PyTorch on weights from a formula.

    mask_decoder.py            writes tests/data/mask/{released,small}.npy and placed.npy (from the top of the tree)
    mask_decoder.py FILE.npz   writes weights of the released widths, for tests/bench/bench_mask.c

released.npy, small.npy: float32 [64, 64], what codes 7 i + 3 mod 128 (i < 16) decode to at the released widths
(512; 128, 64, 32, 16) and at small odd ones. placed.npy: uint8 [37, 90], the map of small.npy as bytes, resized as the
demos do (Pillow, bicubic). Made with torch 2.8.0, numpy 2.4.6, Pillow 11.3.0.

Weights: element k of array a (in the order of ARRAYS below, each layer's weight, then its bias) is
uniform(splitmix64(a * 2^32 + k)) * scale, with scale 1 for the codebook, 0.1 for a bias and sqrt(4 / inputs) for a
weight; a transposed convolution has 4 inputs a channel. tests/core/test_mask.c computes the same.
"""
import math
import sys

import numpy as np
import torch
import torch.nn as nn
from PIL import Image

CODES = 128


def uniform(a, n):
    """n doubles in [-1, 1)"""
    with np.errstate(over="ignore"):
        z = np.uint64(a) * np.uint64(1 << 32) + np.arange(n, dtype=np.uint64)
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2 ** 23 - 1


class Block(nn.Module):
    def __init__(self, w, h):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(w, h, 3, padding=1), nn.ReLU(), nn.Conv2d(h, h, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(h, w, 1))

    def forward(self, x):
        return x + self.net(x)


def network(e, w, h, grown):
    layers = [nn.Conv2d(e, w, 1), nn.ReLU(), Block(w, h), Block(w, h)]
    for g in grown:
        layers += [nn.ConvTranspose2d(w, g, 4, stride=2, padding=1), nn.ReLU()]
        w = g
    return nn.Sequential(*layers, nn.Conv2d(w, 1, 1))


@torch.no_grad()
def decode(e, w, h, grown):
    net = network(e, w, h, grown)
    book = torch.from_numpy(uniform(0, CODES * e).reshape(CODES, e).astype(np.float32))
    a = 1
    for m in net.modules():
        if not isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        n_in = m.in_channels * (4 if isinstance(m, nn.ConvTranspose2d) else m.kernel_size[0] ** 2)
        for p, scale in ((m.weight, math.sqrt(4 / n_in)), (m.bias, .1)):
            p.copy_(torch.from_numpy((uniform(a, p.numel()) * scale).astype(np.float32)).reshape(p.shape))
            a += 1
    codes = torch.arange(16) * 7 + 3
    x = book[codes % CODES].T.reshape(1, e, 4, 4)
    y = net(x)[0, 0]
    y64 = net.double()(x.double())[0, 0]
    print(f"{w:4}: {y.min():+.3f} to {y.max():+.3f}, float32 against float64 {float((y - y64).abs().max()):.1e}")
    return y.numpy()


def save_weights(path):
    arrays = {"decoder." + k: v.detach().numpy() for k, v in network(512, 128, 128, (128, 64, 32, 16)).state_dict().items()}
    np.savez(path, **arrays, **{"_vq_vae._embedding": uniform(0, CODES * 512).reshape(CODES, 512).astype(np.float32)})


def main():
    torch.set_num_threads(1)
    if sys.argv[1:]:
        return save_weights(sys.argv[1])
    np.save("tests/data/mask/released.npy", decode(512, 128, 128, (128, 64, 32, 16)))
    small = decode(24, 20, 12, (9, 8, 6, 5))
    np.save("tests/data/mask/small.npy", small)
    m = np.clip(small * np.float32(.5) + np.float32(.5), 0, 1)
    placed = Image.fromarray((255 * m).astype(np.uint8)).resize((90, 37))
    np.save("tests/data/mask/placed.npy", np.asarray(placed))


if __name__ == "__main__":
    main()
