#!/usr/bin/env python3
"""Tiny PaliGemmas with random weights, and what transformers computes with them.

    models.py [OUT] [--check] [name ...]       OUT defaults to tests/data/hf

Writes one directory per model of MODELS: config.json as released files look (keys
missing where they miss), safetensors in several dtypes, shardings and namings, and
golden/ with the tensors of a float32 run:

  embeds<i>.npy        image i after projector, before any scaling   [P][D] float32
  images.npy           sum over all bytes of image i (see pixels())          int64
  case<k>_case.npy     logits stride, images of the prompt                   int32
  case<k>_ids.npy      text ids that follow the image tokens                 int32
  case<k>_tokens.npy   32 greedy tokens                                      int32
  case<k>_logits.npy   row 0 after prefill, row i after token i-1; every
                       stride-th id                          [33][V/stride] float32
  bf16_logits.npy      (one model) case 0 after prefill, computed in bfloat16

and, for the model that has a tokenizer, text/ with picture.png (not square, smaller than
the model's input) and per question q<k>.txt, a<k>.txt (the answer, byte for byte),
q<k>_ids.npy (text ids of the prefix) and a<k>_ids.npy.

The meaning that is written down here, whatever a library's generate() does: full
attention over the prefix, causal after it, soft-caps applied in attention (eager;
SDPA skips it) and to the logits, no sliding window. golden_run() therefore drives
the forward passes itself with explicit 4D masks. (generate() of this version agrees
up to its last token: there the sliding layers of Gemma 2's HybridCache, which are as
long as the answer may get, shift one slot early and lose the first key.) --check
compares golden_run() with one uncached forward and with generate(), shows that image,
prompt and positions matter, and prints what planted bugs would do: the numbers in
tests/core/test_hf.c.

A weight file holds rounded weights; the goldens use those rounded values in float32,
so one bound serves all dtypes.
"""

import argparse
import contextlib
import json
import os
import shutil

import numpy as np
import PIL.Image
import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from transformers import DynamicCache, PaliGemmaForConditionalGeneration
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2

import hf
import spm
from hf import error, forward

STEPS = 32
MIN_LEAD = 2e-3  # of the largest logit
MIN_DIFFERENT = 12
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

# d: decoder width, f: its MLP, h/k/e: query heads, key/value heads, head size. v: ids with
# a meaning; 64 padding rows follow, the first of them the image placeholder, as released.
# E is never D / H. "drop" are keys a released config leaves out.
MODELS = {
    "pg1-f32": dict(
        gemma=1, seed=11, sharp=1.4, dtype="f32", shards=1, naming="new", size=28, dv=24, hv=2, fv=36, lv=2,
        d=40, f=60, h=4, k=1, e=16, layers=2, v=150, drop=(), stride=1,
        cases=[([0], 4), ([1], 9), ([0], 21), ([0, 1], 6), ([], 7)]),
    "pg2-sharded": dict(
        gemma=2, seed=22, sharp=2.1, dtype="f32", shards=3, naming="old", size=42, dv=24, hv=3, fv=36, lv=2,
        d=40, f=44, h=4, k=2, e=24, layers=3, v=150, drop=(), stride=1, scalar=20,
        cases=[([0], 5), ([1], 11), ([0], 30), ([1, 0], 3)]),
    "pg1-bf16": dict(
        gemma=1, seed=33, sharp=1.7, dtype="bf16", shards=1, naming="old", size=224, dv=24, hv=2, fv=36, lv=2,
        d=24, f=68, h=2, k=1, e=256, layers=2, v=1572, stride=7, tokenizer=True,
        drop=("text.head_dim", "vision.image_size"),
        cases=[([0], 6), ([1], 18)]),
    "pg2-f16": dict(
        gemma=2, seed=44, sharp=2.2, dtype="f16", shards=1, naming="new", size=56, dv=24, hv=2, fv=36, lv=2,
        d=24, f=50, h=2, k=1, e=256, layers=2, v=150, stride=1, scalar=256,
        drop=("text.head_dim", "text.query_pre_attn_scalar", "text.attn_logit_softcapping",
              "text.final_logit_softcapping", "text.sliding_window"),
        cases=[([0], 5), ([1], 12)]),
}  # fmt: skip
BF16_GOLDEN = "pg1-bf16"


def config(m):
    n = (m["size"] // 14) ** 2
    text = dict(
        hidden_size=m["d"], intermediate_size=m["f"], num_hidden_layers=m["layers"], num_attention_heads=m["h"],
        num_key_value_heads=m["k"], head_dim=m["e"], num_image_tokens=n, vocab_size=m["v"] + 64, torch_dtype="float32",
    )  # fmt: skip
    vision = dict(
        model_type="siglip_vision_model", hidden_size=m["dv"], intermediate_size=m["fv"], num_hidden_layers=m["lv"],
        num_attention_heads=m["hv"], patch_size=14, image_size=m["size"], num_image_tokens=n, projection_dim=m["d"],
        vision_use_head=False,
    )  # fmt: skip
    c = dict(
        architectures=["PaliGemmaForConditionalGeneration"], model_type="paligemma", bos_token_id=2, eos_token_id=1,
        pad_token_id=0, ignore_index=-100, image_token_index=m["v"], _vocab_size=m["v"], projection_dim=m["d"],
        torch_dtype={"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[m["dtype"]],
    )  # fmt: skip
    if m["gemma"] == 1:
        text["model_type"] = "gemma"
        vision["projector_hidden_act"] = "gelu_fast"  # a dead key of the released files
        c["hidden_size"] = m["d"]
    else:
        text.update(
            model_type="gemma2", query_pre_attn_scalar=m["scalar"], attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0, sliding_window=4096, cache_implementation="hybrid",
            hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh", eos_token_id=[1, 107],
        )  # fmt: skip
        vision["num_positions"] = 256  # wrong in the released files too
        c["num_hidden_layers"] = m["layers"]
    for key in m["drop"]:
        part, name = key.split(".")
        del (text if part == "text" else vision)[name]
    c.update(text_config=text, vision_config=vision)
    return c


def tensors(m):
    """Random weights under the old names, rounded to the dtype of the file.

    The deviations are chosen to make a bug loud. Plain initialisation gives uniform
    attention and logits near 0, which many a wrong program reproduces; here attention is
    peaked, norms and biases are far from 1 and 0, and every branch adds about as much
    as the residual stream carries."""
    rng = np.random.Generator(np.random.PCG64(m["seed"]))
    out = {}

    def put(name, shape, deviation, mean=0.0):
        t = torch.from_numpy((mean + deviation * rng.standard_normal(shape)).astype(np.float32))
        out[name] = t.to(DTYPES[m["dtype"]])

    def matrix(name, rows, cols, gain=1.0):
        put(name, (rows, cols), gain * cols**-0.5)

    dv, fv, d, f, e = m["dv"], m["fv"], m["d"], m["f"], m["e"]
    v = "vision_tower.vision_model."
    put(v + "embeddings.patch_embedding.weight", (dv, 3, 14, 14), 1.5 * 588**-0.5)
    put(v + "embeddings.patch_embedding.bias", (dv,), 0.3)
    put(v + "embeddings.position_embedding.weight", ((m["size"] // 14) ** 2, dv), 0.7)
    for i in range(m["lv"]):
        p = f"{v}encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            put(p + norm + ".weight", (dv,), 0.3, 1.0)
            put(p + norm + ".bias", (dv,), 0.3)
        for name, gain in (("q_proj", 1.6), ("k_proj", 1.6), ("v_proj", 1.0), ("out_proj", 1.2)):
            matrix(f"{p}self_attn.{name}.weight", dv, dv, gain)
            put(f"{p}self_attn.{name}.bias", (dv,), 0.3)
        matrix(p + "mlp.fc1.weight", fv, dv, 2.0)
        put(p + "mlp.fc1.bias", (fv,), 0.3)
        matrix(p + "mlp.fc2.weight", dv, fv, 1.5)
        put(p + "mlp.fc2.bias", (dv,), 0.3)
    put(v + "post_layernorm.weight", (dv,), 0.3, 1.0)
    put(v + "post_layernorm.bias", (dv,), 0.3)
    matrix("multi_modal_projector.linear.weight", d, dv)
    put("multi_modal_projector.linear.bias", (d,), 0.3)

    t = "language_model.model."
    put(t + "embed_tokens.weight", (m["v"] + 64, d), d**-0.5)
    if m.get("tokenizer"):  # make words likelier answers than single bytes
        kinds = torch.tensor([{spm.BYTE: 0.3, spm.NORMAL: 1.3}.get(kind, 1.0) for _, _, kind in spm.small()])
        out[t + "embed_tokens.weight"][: m["v"]] *= kinds[:, None].to(DTYPES[m["dtype"]])
    # The scores of a random model have deviation sharp^2; soft-capping at 50 shows only on large ones.
    sharp = m["sharp"]
    for i in range(m["layers"]):
        p = f"{t}layers.{i}."
        put(p + "input_layernorm.weight", (d,), 0.3)
        matrix(p + "self_attn.q_proj.weight", m["h"] * e, d, sharp)
        matrix(p + "self_attn.k_proj.weight", m["k"] * e, d, sharp)
        matrix(p + "self_attn.v_proj.weight", m["k"] * e, d)
        matrix(p + "self_attn.o_proj.weight", d, m["h"] * e, 3.0)
        put(p + "post_attention_layernorm.weight", (d,), 0.3, 0.0 if m["gemma"] == 1 else 1.0)
        if m["gemma"] == 2:
            put(p + "pre_feedforward_layernorm.weight", (d,), 0.3)
            put(p + "post_feedforward_layernorm.weight", (d,), 0.3, 1.0)
        matrix(p + "mlp.gate_proj.weight", f, d, 1.5)
        matrix(p + "mlp.up_proj.weight", f, d, 1.5)
        matrix(p + "mlp.down_proj.weight", d, f, 3.0)
    # The head is tied, so the last norm sets the size of the logits.
    put(t + "norm.weight", (d,), 2.0, 5.0 if m["gemma"] == 1 else 14.0)
    return out


def renamed(name):
    """The name newer libraries write."""
    if name.startswith("language_model.model."):
        return "model.language_model." + name[len("language_model.model.") :]
    return "model." + name


def write_checkpoint(m, weights, path):
    if m["naming"] == "new":
        weights = {renamed(k): v for k, v in weights.items()}
    if m["shards"] == 1:
        save_file(weights, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    else:
        names = list(weights)
        cut = [len(names) * i // m["shards"] for i in range(m["shards"] + 1)]
        where = {}
        for i in range(m["shards"]):
            file = f"model-{i + 1:05d}-of-{m['shards']:05d}.safetensors"
            part = {k: weights[k] for k in names[cut[i] : cut[i + 1]]}
            save_file(part, os.path.join(path, file), metadata={"format": "pt"})
            where.update(dict.fromkeys(part, file))
        total = sum(t.numel() * t.element_size() for t in weights.values())
        with open(os.path.join(path, "model.safetensors.index.json"), "w") as fd:
            json.dump(dict(metadata=dict(total_size=total), weight_map=where), fd, indent=1)
            fd.write("\n")
    with open(os.path.join(path, "config.json"), "w") as fd:
        json.dump(config(m), fd, indent=2)
        fd.write("\n")
    for file in os.listdir(path):
        os.chmod(os.path.join(path, file), 0o644)
    if m.get("tokenizer"):
        with open(os.path.join(path, "tokenizer.model"), "wb") as fd:
            fd.write(spm.model(spm.small()))


def pixels(size, k):
    """Image k as bytes [3][size][size]: slopes, a checkered texture and a curved term, all
    integers, so that the test can make the same without a file."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(size), np.arange(size), indexing="ij")
    return ((3 + k) * x + (5 - k) * y + 85 * c + 4 * ((x ^ y) & 31) + x * y // (7 + k)) & 255


def pixel_values(size, k):
    return torch.from_numpy((pixels(size, k) / 127.5 - 1).astype(np.float32))


def load(m, weights, dtype=torch.float32):
    c = transformers.PaliGemmaConfig.from_dict(config(m))
    c._attn_implementation = "eager"
    c.text_config._attn_implementation = "eager"
    c.vision_config._attn_implementation = "eager"
    model = PaliGemmaForConditionalGeneration(c)
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    assert not unexpected and missing in ([], ["language_model.lm_head.weight"]), (missing, unexpected)
    model.tie_weights()
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight
    assert model.language_model.model.layers[0].self_attn.head_dim == m["e"]
    return model.to(dtype).eval()


def find_case(model, m, images, n):
    """The first random prompt of n ids (bos, words, newline) whose answer is a fair test: many
    different tokens, and none that leads the runner-up by a hair. Returns ids, logits, tokens."""
    rng = np.random.Generator(np.random.PCG64(1000 * m["seed"] + n))
    for _ in range(300):
        ids = [2] + [int(i) for i in rng.integers(5, m["v"], n - 2)] + [4]
        logits, tokens = golden_run(model, m, images, ids)
        best = np.sort(logits[:STEPS], axis=1)
        lead = ((best[:, -1] - best[:, -2]) / np.abs(logits).max()).min()
        if lead > MIN_LEAD and len(set(tokens.tolist())) >= MIN_DIFFERENT:
            return ids, logits, tokens
    raise SystemExit("no prompt gives a fair answer: take another seed or other deviations")




def image_batch(model, m, images):
    if not images:
        return None
    return torch.stack([pixel_values(m["size"], k) for k in images]).to(model.dtype)


@torch.no_grad()
def golden_run(model, m, images, ids, steps=STEPS, tokens=None, shift=0):
    """Prefill with everything visible, then one token at a time. Returns logits [steps+1][V]
    and tokens [steps]. tokens: feed these instead of the greedy ones. shift: a planted bug."""
    prefix = [m["v"]] * (len(images) * (m["size"] // 14) ** 2) + ids
    T = len(prefix)
    cache = DynamicCache()
    rows = [forward(model, prefix, torch.zeros(T, T), 0, cache, image_batch(model, m, images))[-1]]
    chosen = []
    for i in range(steps):
        chosen.append(int(rows[-1].argmax()) if tokens is None else int(tokens[i]))
        rows.append(forward(model, chosen[-1:], torch.zeros(1, T + i + 1), T + i + shift, cache)[0])
    return torch.stack(rows).numpy(), np.array(chosen, np.int32)


@torch.no_grad()
def one_forward(model, m, images, ids, tokens, causal_prefix=False):
    """The same rows from one pass without a cache: prefix-LM mask over prefix and answer."""
    prefix = [m["v"]] * (len(images) * (m["size"] // 14) ** 2) + ids
    T, N = len(prefix), len(prefix) + len(tokens)
    i, j = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    visible = j <= i
    if not causal_prefix:
        visible |= j < T
    mask = torch.zeros(N, N).masked_fill(~visible, torch.finfo(torch.float32).min)
    logits = forward(model, prefix + [int(t) for t in tokens], mask, 0, None, image_batch(model, m, images))
    return logits[T - 1 :].numpy()


# --- planted bugs: what a wrong program would be off by ---------------------------------


@contextlib.contextmanager
def patched(*changes):
    kept = [(o, n, getattr(o, n)) for o, n, _ in changes]
    for o, n, value in changes:
        setattr(o, n, value)
    try:
        yield
    finally:
        for o, n, value in kept:
            setattr(o, n, value)


def planted(model, m, images, ids, gold, tokens):
    """(bug, error of the embeddings, after prefill, largest while decoding)."""
    lm = model.language_model
    mod = modeling_gemma if m["gemma"] == 1 else modeling_gemma2
    norm = modeling_gemma.GemmaRMSNorm if m["gemma"] == 1 else modeling_gemma2.Gemma2RMSNorm

    def run(**kw):
        return golden_run(model, m, images, ids, tokens=tokens, **kw)[0]

    def embeds():
        with torch.no_grad():
            return model.get_image_features(pixel_values(m["size"], 0)[None])[0].numpy()

    right = embeds()

    def against(got):
        return error(embeds(), right), error(got[0], gold[0]), max(error(a, b) for a, b in zip(got[1:], gold[1:]))

    rows = [("causal prefix", against(one_forward(model, m, images, ids, tokens, causal_prefix=True)))]
    if images:
        features = model.get_image_features
        scale = m["d"] ** 0.5
        with patched((model, "get_image_features", lambda p: features(p) * scale)):
            rows.append(("image rows scaled by sqrt(D)", against(run())))
        with patched((model, "get_image_features", lambda p: features(p).transpose(1, 2).reshape(features(p).shape))):
            rows.append(("image rows transposed", against(run())))
    exact = float(torch.tensor(m["d"] ** 0.5).bfloat16())
    with patched((lm.model.embed_tokens, "forward", lambda i: torch.nn.functional.embedding(
            i, lm.model.embed_tokens.weight) * (exact / m["d"] ** 0.5))):  # fmt: skip
        rows.append(("sqrt(D) rounded to bf16 (text rows)", against(run())))
    rows.append(("decode position off by one", against(run(shift=1))))
    half = mod.rotate_half

    def interleaved(x):
        y = torch.empty_like(x)
        y[..., 0::2], y[..., 1::2] = -x[..., 1::2], x[..., 0::2]
        return y

    with patched((mod, "rotate_half", interleaved)):
        rows.append(("rope pairs interleaved", against(run())))
    with patched((mod, "rotate_half", lambda x: -half(x))):
        rows.append(("rope turns the wrong way", against(run())))
    if m["k"] > 1:
        with patched((mod, "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1))):
            rows.append(("query heads take kv heads in turn", against(run())))
    with patched((norm, "forward", lambda self, x: self._norm(x) * self.weight)):
        rows.append(("norm without 1 +", against(run())))
    gelu = torch.nn.GELU()
    with patched(*[(layer.mlp, "act_fn", gelu) for layer in lm.model.layers]):
        rows.append(("exact GELU in the decoder", against(run())))
    if images:
        with patched(*[(layer.mlp, "activation_fn", gelu) for layer in model.vision_tower.vision_model.encoder.layers]):
            rows.append(("exact GELU in the tower", against(run())))
        with patched(*[(layer.self_attn, "scale", layer.self_attn.scale * 1.01)
                       for layer in model.vision_tower.vision_model.encoder.layers]):  # fmt: skip
            rows.append(("tower scores 1 % off", against(run())))
    if m["gemma"] == 2:
        with patched(*[(layer.self_attn, "attn_logit_softcapping", None) for layer in lm.model.layers]):
            rows.append(("no soft-cap in attention", against(run())))
        with patched((lm.config, "final_logit_softcapping", None)):
            rows.append(("no soft-cap on the logits", against(run())))
        with patched(*[(layer.self_attn, "scaling", 1.01 * layer.self_attn.scaling) for layer in lm.model.layers]):
            rows.append(("decoder scores 1 % off", against(run())))
    return rows


# --- checks ----------------------------------------------------------------------------


def largest_score(model, m, images, ids):
    """Largest |score| of any layer before soft-capping, and median largest probability."""
    seen, mod = [], (modeling_gemma if m["gemma"] == 1 else modeling_gemma2)
    real = mod.eager_attention_forward

    def spy(module, q, k, v, mask, scaling, **kw):
        kk = mod.repeat_kv(k, module.num_key_value_groups)
        seen.append((q @ kk.transpose(2, 3) * scaling).abs().max().item())
        out = real(module, q, k, v, mask, scaling=scaling, **kw)
        seen.append(-out[1].max(-1).values.median().item())
        return out

    with patched((mod, "eager_attention_forward", spy)):
        golden_run(model, m, images, ids, steps=0)
    return max(s for s in seen if s > 0), [round(-s, 2) for s in seen if s < 0]


def check(model, m, name, path, images, ids):
    print(f"\n== {name}")
    gold, tokens = golden_run(model, m, images, ids)
    print(f"cached steps against one forward with a prefix-LM mask: {error(one_forward(model, m, images, ids, tokens), gold):.1e}")

    prefix = [m["v"]] * (len(images) * (m["size"] // 14) ** 2) + ids
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.tensor([prefix]), pixel_values=image_batch(model, m, images),
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long), do_sample=False, max_new_tokens=STEPS + 1,
            min_new_tokens=STEPS + 1, eos_token_id=None, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    logits = torch.cat(out.logits).numpy()
    same = out.sequences[0, len(prefix) : len(prefix) + STEPS].numpy() == tokens
    print(f"generate(): {int(same.sum())} of {STEPS} tokens the same, logits {error(logits[:STEPS], gold[:STEPS]):.1e}, the one after {error(logits[STEPS], gold[STEPS]):.1e}"
          f" ({type(out.past_key_values).__name__})")  # fmt: skip
    print(f"read back from the files: {error(golden_run(hf.load(path), m, images, ids)[0], gold):.1e}")

    score, peaks = largest_score(model, m, images, ids)
    capped = np.abs(gold).max()
    print(f"largest score {score:.1f}, median largest probability by layer {peaks}, largest logit {capped:.1f}")
    other = golden_run(model, m, [1], ids, tokens=tokens)[0]
    print(f"another image: {error(other[0], gold[0]):.2f} .. {error(other, gold):.2f}")
    changed = list(ids)
    changed[1] = 5 if changed[1] != 5 else 6
    print(f"another first word: {error(golden_run(model, m, images, changed, tokens=tokens)[0][0], gold[0]):.2f}")
    swapped = list(ids)
    swapped[1], swapped[2] = swapped[2], swapped[1]
    print(f"two words swapped: {error(golden_run(model, m, images, swapped, tokens=tokens)[0][0], gold[0]):.2f}")
    for bug, (e, a, b) in planted(model, m, images, ids, gold, tokens):
        print(f"  {bug:40s} embeds {e:.1e}  prefill {a:.1e}  decode {b:.1e}")


def write_goldens(model, m, name, path):
    out = os.path.join(path, "golden")
    os.makedirs(out)

    def save(file, a):
        np.save(os.path.join(out, file + ".npy"), a)

    used = sorted({i for images, _ in m["cases"] for i in images})
    save("images", np.array([pixels(m["size"], k).sum() for k in used], np.int64))
    with torch.no_grad():
        for k in used:
            # The library divides by sqrt(D) here and the decoder multiplies again.
            e = model.get_image_features(pixel_values(m["size"], k)[None])[0] * m["d"] ** 0.5
            save(f"embeds{k}", e.numpy())
    cases = []
    for k, (images, n) in enumerate(m["cases"]):
        ids, logits, tokens = find_case(model, m, images, n)
        cases.append((images, ids))
        stride = m["stride"] if k == 0 else 4 * m["stride"]
        save(f"case{k}_case", np.array([stride] + images, np.int32))
        save(f"case{k}_ids", np.array(ids, np.int32))
        save(f"case{k}_tokens", tokens)
        save(f"case{k}_logits", np.ascontiguousarray(logits[:, ::stride]))
        print(f"{name} case {k}: {len(images)} images, {n} ids, {len(set(tokens.tolist()))} different tokens")
    if name == BF16_GOLDEN:
        images, ids = cases[0]
        low = golden_run(load(m, tensors(m), torch.bfloat16), m, images, ids, steps=0)[0][0]
        full = golden_run(model, m, images, ids, steps=0)[0][0]
        save("bf16_logits", np.ascontiguousarray(low[:: m["stride"]]))
        print(f"{name}: bfloat16 arithmetic is {error(low, full):.1e} from float32")
    return cases


QUESTIONS = ["caption en", "where is the cat", "detect cat ; dog", "answer en what is on the dog", "ocr",
             "what is the cat", "describe en", "segment the dog", "is the dog on a cat", "count 3 cats"]  # fmt: skip


@torch.no_grad()
def write_texts(model, m, path, count=3, limit=12):
    """Greedy answers as text, through the library's own image processor. Only ids that
    have a meaning are chosen from. Questions whose answer holds a byte piece, ends in a
    near-tie or is dull are passed over."""
    out = os.path.join(path, "text")
    os.makedirs(out)
    size = m["size"]
    small = pixels(96, 3)[:, :50, :75].transpose(1, 2, 0).astype(np.uint8)
    picture = PIL.Image.fromarray(np.ascontiguousarray(small) // 16 * 16)
    picture.save(os.path.join(out, "picture.png"), optimize=True)
    processor = transformers.SiglipImageProcessor(
        size=dict(height=size, width=size), resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3)  # fmt: skip
    batch = processor(picture, return_tensors="pt")["pixel_values"]
    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(path, "tokenizer.model"))
    assert sp.vocab_size() == m["v"]

    written = 0
    for question in QUESTIONS:
        ids = [2] + sp.encode(question) + [sp.piece_to_id("\n")]
        prefix = [m["v"]] * (size // 14) ** 2 + ids
        cache, answer, lead = DynamicCache(), [], np.inf
        row = forward(model, prefix, torch.zeros(len(prefix), len(prefix)), 0, cache, batch)[-1]
        while len(answer) < limit:
            top = row[: m["v"]].topk(2)
            lead = min(lead, float((top.values[0] - top.values[1]) / row.abs().max()))
            answer.append(int(top.indices[0]))
            if answer[-1] == 1:
                break
            n = len(prefix) + len(answer)
            row = forward(model, answer[-1:], torch.zeros(1, n), n - 1, cache)[0]
        pieces = [sp.id_to_piece(i) for i in answer if not sp.is_control(i)]
        text = "".join(pieces).replace(spm.SPACE, " ")
        fair = lead > MIN_LEAD and len(set(answer)) >= MIN_DIFFERENT * 2 // 3 and not any(sp.is_byte(i) or sp.is_unknown(i) for i in answer)
        if not fair or written == count:
            continue
        for name, content in (("q", question), ("a", text)):
            with open(os.path.join(out, f"{name}{written}.txt"), "w") as fd:
                fd.write(content)
        np.save(os.path.join(out, f"q{written}_ids.npy"), np.array(ids, np.int32))
        np.save(os.path.join(out, f"a{written}_ids.npy"), np.array(answer, np.int32))
        print(f"  {question!r} -> {text!r} (lead {lead:.1e})")
        written += 1
    assert written == count, "too few questions have a fair answer: take another seed"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", nargs="?", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/hf"))
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--only", nargs="*", default=list(MODELS))
    a = ap.parse_args()
    torch.set_num_threads(1)
    for name in a.only:
        m = MODELS[name]
        path = os.path.join(a.out, name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        weights = tensors(m)
        write_checkpoint(m, weights, path)
        model = load(m, weights)
        cases = write_goldens(model, m, name, path)
        if m.get("tokenizer"):
            write_texts(model, m, path)
        if a.check:
            check(model, m, name, path, *cases[0])


if __name__ == "__main__":
    main()
