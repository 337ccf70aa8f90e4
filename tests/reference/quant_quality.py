#!/usr/bin/env python3
"""What int8 and NF4 cost in accuracy: pali beside bitsandbytes, both against float32.

    quant_quality.py [--pali build/pali] [--model assets/demo] [--pictures 60] [--layers 4]

(Python 3.11, torch==2.8.0, transformers==4.51.3, bitsandbytes==0.50.2, numpy, sentencepiece, Pillow.)

1. Random layers of PaliGemma 3B's size (width 2048, MLP 16384, 8 heads of 256, one of keys) with heavy-tailed
   weights and a random head, 64 positions: the formats alone, and int8 with a scale a row (bitsandbytes' and pali's)
   beside a scale for every 64 weights.
2. The miniature model on pictures of demo_eval.py: pali's own float32 answer is the text, every other way gives its
   logits at each of the answer's tokens; pali -q as long as its answer is the same so far.

Columns: mean and largest KL divergence from float32 (nats a token), how often the likeliest token is the same, and
root mean square error of the logits over that of the (centred) logits.

bitsandbytes runs by its own modules (Linear8bitLt with threshold 6, Linear4bit nf4 with double quantisation) on the
seven matrices of each layer that pali quantises, the rest in float32; the rows "tower too" (pali: --quantize-modules
all) also on the linears of the vision tower and the projector, as transformers does by default (all but lm_head). "16-bit" is pali's decoding: activations
rounded to 1/16383 of the largest of 64, NF4's values to 1/16383.
"""
import argparse
import os
import subprocess
import tempfile

import bitsandbytes as bnb
import bitsandbytes.functional as BF
import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache

import demo_eval
import hf

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def int8_rows(w):
    top = w.half().abs().amax(1, keepdim=True).float()
    return (w.half().float() * (1 / top * 127)).round() * top / 127


def int8_blocks(w):
    x = w.half().float().reshape(-1, 64)
    top = x.abs().amax(1, keepdim=True)
    return ((x * (127 / top)).round() * top / 127).reshape(w.shape)


def nf4(w):
    codes, state = BF.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
    return BF.dequantize_4bit(codes, state).reshape(w.shape).float()


def round16(x):
    b = x.reshape(*x.shape[:-1], -1, 64)
    s = b.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 16383
    return ((b / s).round() * s).reshape(x.shape)


class Rounded(torch.nn.Module):
    """pali's product of one token: 16-bit activations and, for NF4, a 16-bit codebook."""

    def __init__(self, w, kind):
        super().__init__()
        if kind == "nf4":
            codes, state = BF.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
            exact = BF.dequantize_4bit(codes, state).reshape(-1, 64).float()
            top = (BF.dequantize_blockwise(state.absmax, state.state2) + state.offset).reshape(-1, 1)
            values = (exact / top * 16383).round() / 16383
            self.w = (values * top).reshape(w.shape)
        else:
            self.w = int8_rows(w)

    def forward(self, x):
        return F.linear(round16(x), self.w)


class Plain(torch.nn.Module):
    def __init__(self, w, dtype=torch.float32):
        super().__init__()
        self.w = w.to(dtype)

    def forward(self, x):
        return F.linear(x.to(self.w.dtype), self.w).to(x.dtype)


def bnb_int8(w):
    m = bnb.nn.Linear8bitLt(w.shape[1], w.shape[0], bias=False, has_fp16_weights=False, threshold=6.0)
    m.weight = bnb.nn.Int8Params(w.half().clone(), requires_grad=False, has_fp16_weights=False)
    m = m.to("cpu")
    codes, scb, _ = BF.int8_vectorwise_quant(w.half())
    m.weight.data, m.weight.CB, m.weight.SCB = codes, codes, scb
    return Cast(m, torch.float16)


def bnb_nf4(dtype):
    def build(w):
        m = bnb.nn.Linear4bit(w.shape[1], w.shape[0], bias=False, compute_dtype=dtype, compress_statistics=True, quant_type="nf4")
        m.weight = bnb.nn.Params4bit(w.to(dtype).clone(), requires_grad=False, compress_statistics=True, quant_type="nf4")
        return Cast(m.to("cpu"), dtype)

    return build


class Cast(torch.nn.Module):
    def __init__(self, m, dtype):
        super().__init__()
        self.m, self.dtype = m, dtype

    def forward(self, x):
        return self.m(x.to(self.dtype)).to(x.dtype)


class Biased(torch.nn.Module):
    def __init__(self, m, bias):
        super().__init__()
        self.m, self.bias = m, bias

    def forward(self, x):
        return self.m(x) if self.bias is None else self.m(x) + self.bias


WAYS = [
    ("bf16, all of it", lambda w: Plain(w, torch.bfloat16)),
    ("int8, a scale a row", lambda w: Plain(int8_rows(w))),
    ("int8, a scale per 64", lambda w: Plain(int8_blocks(w))),
    ("int8 a row, 16-bit", lambda w: Rounded(w, "int8")),
    ("bitsandbytes int8", bnb_int8),
    ("nf4, double quantised", lambda w: Plain(nf4(w))),
    ("nf4, 16-bit", lambda w: Rounded(w, "nf4")),
    ("bitsandbytes nf4 in float32", bnb_nf4(torch.float32)),
    ("bitsandbytes nf4 in bfloat16", bnb_nf4(torch.bfloat16)),
]


class Score:
    def __init__(self):
        self.kl, self.same, self.off, self.size = [], [], 0.0, 0.0

    def add(self, want, got):
        want, got = torch.as_tensor(want).double(), torch.as_tensor(got).double()
        p = F.log_softmax(want, -1)
        self.kl += (p.exp() * (p - F.log_softmax(got, -1))).sum(-1).reshape(-1).tolist()
        self.same += (want.argmax(-1) == got.argmax(-1)).reshape(-1).tolist()
        centre = lambda x: x - x.mean(-1, keepdim=True)
        self.off += float((centre(got) - centre(want)).square().sum())
        self.size += float(centre(want).square().sum())

    def line(self, name):
        print(f"{name:34s} {np.mean(self.kl):10.2e} {np.max(self.kl):10.2e} {100 * np.mean(self.same):8.1f} %"
              f" {(self.off / self.size) ** 0.5:9.1e}", flush=True)


def header(title):
    print(f"\n{title}\n{'':34s} {'mean KL':>10s} {'largest':>10s} {'same top':>10s} {'error':>9s}", flush=True)


# --- 1: random layers ---------------------------------------------------------


def random_layers(n, positions, heads=8, D=2048, E=256, hidden=16384, V=4096):
    g = torch.Generator().manual_seed(3)

    def heavy(rows, cols):  # Student's t with 5 degrees of freedom, variance 1 / cols
        z = torch.randn(rows, cols, generator=g)
        chi = torch.randn(5, rows, cols // 8, generator=g).square().mean(0).repeat_interleave(8, 1)
        return z / chi.sqrt() * (0.6 / cols) ** 0.5

    shapes = dict(q_proj=(heads * E, D), k_proj=(E, D), v_proj=(E, D), o_proj=(D, heads * E),
                  gate_proj=(hidden, D), up_proj=(hidden, D), down_proj=(D, hidden))
    x = torch.randn(positions, D, generator=g)
    norm = lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    mask = torch.full((positions, positions), -torch.inf).triu(1)
    states = {"float32": x, **{name: x for name, _ in WAYS}}
    for layer in range(n):
        w = {k: heavy(*s) for k, s in shapes.items()}
        for name, build in [("float32", Plain)] + WAYS:
            m = {k: build(v) for k, v in w.items()}
            x = states[name]
            y = norm(x)
            q = m["q_proj"](y).reshape(-1, heads, E).transpose(0, 1)
            a = torch.softmax(q @ m["k_proj"](y).T / E**0.5 + mask, -1) @ m["v_proj"](y)
            x = x + m["o_proj"](a.transpose(0, 1).reshape(-1, heads * E))
            y = norm(x)
            x = x + m["down_proj"](F.gelu(m["gate_proj"](y), approximate="tanh") * m["up_proj"](y))
            states[name] = x
    head = torch.randn(V, D, generator=g) * 0.06
    want = norm(states["float32"]) @ head.T
    header(f"{n} random layers of 3B size, {positions} positions, {V} words")
    head8 = Rounded(head, "int8")
    ways = [(name, lambda x: x @ head.T) for name in states if name != "float32"]
    for name, last in ways + [(name, head8) for name in ("float32", "int8 a row, 16-bit", "nf4, 16-bit")]:
        s = Score()
        s.add(want, last(norm(states[name])))
        s.line(name + (", int8 head" if last is head8 else ""))


# --- 2: the miniature model -----------------------------------------------------


def dump(pali, model, image, prompt, quant, head="stored", modules="decoder"):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([pali, "-m", model, "-b", "cpu", "-q", quant, "--quantize-modules", modules, "--head", head,
                        "--math", "f32", "--dump", d, "-p", prompt, image],
                       stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return {n: np.load(os.path.join(d, n + ".npy")) for n in ("pixel_values", "prefix_ids", "logits", "output_ids")}


def steps_of(model, d):
    """Logits of a transformers model at every token of pali's answer."""
    prefix, tokens, T = d["prefix_ids"].tolist(), d["output_ids"].tolist(), len(d["prefix_ids"])
    pixels, cache, rows = torch.from_numpy(d["pixel_values"].copy())[None], DynamicCache(), []
    with torch.no_grad():
        rows.append(hf.forward(model, prefix, torch.zeros(T, T), 0, cache, pixels, keep=1)[-1])
        for i in range(1, len(d["logits"])):
            rows.append(hf.forward(model, [tokens[i - 1]], torch.zeros(1, T + i), T + i - 1, cache)[-1])
    return torch.stack(rows)


def converted(path, build, tower):
    model = hf.load(path, torch.float32)
    names = PROJECTIONS + ("out_proj", "fc1", "fc2", "linear")
    for parent in list((model if tower else model.language_model).modules()):
        for name in names:
            if isinstance(getattr(parent, name, None), torch.nn.Linear):
                old = getattr(parent, name)
                setattr(parent, name, Biased(build(old.weight.data), old.bias))
    return model


def miniature(pali, path, pictures):
    out = tempfile.mkdtemp()
    asked = [q for q in demo_eval.make(out, pictures, 77) if len(q["prompts"]) == 1][:pictures]
    truth = [dump(pali, path, os.path.join(out, q["image"]), q["prompts"][0], "none") for q in asked]
    header(f"the miniature model, {len(asked)} questions, {sum(len(d['logits']) for d in truth)} tokens")
    ways = [("none", "int8", "decoder")]
    for quant in "int8", "nf4":
        ways += [(quant, "stored", "decoder"), (quant, "int8", "decoder"), (quant, "stored", "all")]
    for quant, head, modules in ways:
        s, same = Score(), 0
        for q, want in zip(asked, truth):
            got = dump(pali, path, os.path.join(out, q["image"]), q["prompts"][0], quant, head, modules)
            a, b = want["output_ids"].tolist(), got["output_ids"].tolist()
            n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)) - 1) + 1
            s.add(want["logits"][:n], got["logits"][:n])
            same += a == b
        s.line(f"pali -q {quant}" + (" --head int8" if head == "int8" else "") + (", tower too" if modules == "all" else ""))
        print(f"{'':34s} {same} of {len(asked)} answers are the same")
    ways = [("transformers, float32", Plain, False)] + [(*w, False) for w in WAYS if "bitsandbytes" in w[0]]
    ways += [(w[0] + ", tower too", w[1], True) for w in WAYS if w[0] in ("bitsandbytes int8", "bitsandbytes nf4 in float32")]
    for name, build, tower in ways:
        model, s = converted(path, build, tower), Score()
        for d in truth:
            width = model.config.text_config.vocab_size
            s.add(d["logits"][:, :width], steps_of(model, d)[:, :width])
        s.line(name)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--pali", default="build/pali")
    ap.add_argument("--model", default="assets/demo")
    ap.add_argument("--pictures", type=int, default=60)
    ap.add_argument("--layers", type=int, default=4, help="0: without the random layers, which take minutes")
    a = ap.parse_args()
    with torch.no_grad():
        miniature(a.pali, a.model, a.pictures)
        if a.layers:
            random_layers(a.layers, 64)


if __name__ == "__main__":
    main()
