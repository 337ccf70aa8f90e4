"""Codes and scales as bitsandbytes computes them, for tests/core/test_quant.c.

    python tests/reference/quant.py     (Python 3.11, torch==2.8.0, bitsandbytes==0.50.2, numpy)

writes tests/data/quant/quant.golden: for each case
    "name dtype rows cols\\n", then raw little-endian
    source      rows * cols elements of dtype (f32, bf16, f16)
    int8        SCB f32 [rows], codes int8 [rows][cols], dequantised f32 (CRC-32, u32)
    nf4         absmax f32 [blocks], codes u8 [(n + 1) / 2], offset f32, top f32 [groups],
                scale codes u8 [blocks], dequantised f32 (CRC-32, u32)

The operators are bitsandbytes' own plain ones (bitsandbytes/backends/default/ops.py, which
any device without its own kernels uses). Its compiled CPU kernel for the second level rounds
scales through a coarse table and is off by up to four codes in 0.50.2; the CUDA kernels are
exact, as the plain ones are. As in the CUDA kernels, a short last block is filled up with
zeros: the plain operators would divide it by its absmax where all others are multiplied by
the reciprocal.
"""

import importlib
import os
import struct
import zlib

import bitsandbytes as bnb
import bitsandbytes._ops
import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.backends.default import ops

assert bnb.__version__ == "0.50.2" and torch.__version__.startswith("2.8.0")
torch.set_num_threads(1)
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "quant")
MAP = F.create_dynamic_map()

plain = {}  # operator -> its plain implementation, whatever this device has of its own
bitsandbytes._ops.register_kernel = lambda name, _: lambda f: plain.setdefault(name.split("::")[1], f)
importlib.reload(ops)


def filled(x, n):
    return torch.cat([x.reshape(-1), torch.zeros(-x.numel() % n, dtype=x.dtype)])


def raw(t):
    return t.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def crc(t):
    assert t.dtype == torch.float32
    return struct.pack("<I", zlib.crc32(raw(t)))


def int8_parts(w):
    """scales, codes, and the float32 weights that they mean."""
    codes, scb, _ = plain["int8_vectorwise_quant"](w.half())
    return scb, codes, torch.ops.bitsandbytes.int8_vectorwise_dequant.default(codes, scb)


def int8(w):
    scb, codes, back = int8_parts(w)
    return raw(scb) + raw(codes) + crc(back)


def nf4_parts(w):
    """absmax, codes, offset, tops, scale codes, and the float32 weights that they mean."""
    n = w.numel()
    blocks, groups = -(-n // 64), -(-n // 16384)
    packed, absmax = plain["quantize_4bit"](filled(w, 64), 64, "nf4", torch.uint8)
    offset = (absmax.double().sum() / blocks).float()
    assert abs(offset / absmax.mean() - 1) < 1e-6  # the order of float32 sums differs by machine
    second, top = plain["quantize_blockwise"](filled(absmax - offset, 256), MAP, 256)
    scale = plain["dequantize_blockwise"](second, top, MAP, 256, torch.float32) + offset
    back = plain["dequantize_4bit"](packed.reshape(-1), scale[:blocks], 64, "nf4", [blocks * 64], torch.float32)
    assert top.numel() == groups
    return absmax, packed.reshape(-1)[: (n + 1) // 2], offset, top, second[:blocks], back[:n]


def nf4(w):
    *parts, back = nf4_parts(w)
    return b"".join(map(raw, parts)) + crc(back)


def values(w, kind):
    """What the weights w (float32, bfloat16 or float16) are after quantisation, in w's shape, as float32."""
    return (int8_parts(w) if kind == "int8" else nf4_parts(w.float()))[-1].reshape(w.shape)


def cases():
    g = torch.Generator().manual_seed(1)
    normal = lambda rows, cols: torch.randn(rows, cols, generator=g) * 0.03
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)):
        yield "normal", name, normal(13, 192).to(dtype)
    yield "rows_of_4304", "bf16", normal(7, 4304).bfloat16()  # blocks over the ends of rows; two groups
    yield "odd", "f32", normal(3, 67)
    yield "short", "f32", normal(1, 5)
    zeros = normal(8, 128)
    zeros[2, 64:] = 0  # a block of zeros
    yield "zero_block", "f32", zeros
    yield "equal_blocks", "bf16", torch.ones(4, 64).bfloat16()  # scales without spread: top is 0
    outliers = normal(6, 320)
    outliers[::2, ::41] *= 300
    yield "outliers", "bf16", outliers.bfloat16()
    yield "tiny", "f32", normal(4, 64) * 1e-6  # below what float16 holds exactly
    # Half way: every middle of the codebook, a float to either side, and code + 1/2 of int8.
    code = F.get_4bit_type("nf4", device="cpu").numpy()
    middle = (code[1:] + code[:-1]) / np.float32(2)
    near = np.concatenate([middle, np.nextafter(middle, np.float32(2)), np.nextafter(middle, np.float32(-2))])
    ties = np.ones(64, np.float32)
    ties[: near.size] = near
    halves = np.full(64, 127, np.float32)
    halves[:60] = np.arange(60) * 4 - 119.5
    yield "ties", "f32", torch.from_numpy(np.stack([ties, ties * 0.25, halves]))
    # Half way between the second level's entries: 256 scales around a mean of 4, the first 5.
    m = MAP.numpy()
    want = (m[1:] + m[:-1]) / np.float32(2)
    scales = np.concatenate([[5.0], 4.0 + want[:255].astype(np.float64)]).astype(np.float32)
    scales[-1] -= np.float32((scales.astype(np.float64) - 4).sum())
    ties2 = np.zeros((256, 64), np.float32)
    ties2[:, 0] = scales
    yield "second_level", "f32", torch.from_numpy(ties2)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "quant.golden"), "wb") as f:
        for name, dtype, w in cases():
            f.write(f"{name} {dtype} {w.shape[0]} {w.shape[1]}\n".encode())
            f.write(raw(w) + int8(w) + nf4(w.float()))
