#!/usr/bin/env python3
"""Writes a full-size PaliGemma with random weights, for timing.

    make_random_model.py OUT [--model pg1-3b] [--size 224] [--dtype bf16] [--shards 1] [--seed 1]

Same files, names, shapes and number formats as a released checkpoint, so the same
bytes move and the same arithmetic runs; the answers mean nothing. Streams to disk
with a few MB of memory. Needs numpy only. A 3B model in bf16 takes 5.9 GB.

Values are normal with the deviation that keeps activations near 1 in every layer
(1/sqrt of the inputs of a matrix), so no speed path meets infinities or denormals
that a trained model would not show. The last matrix of a decoder branch has 3 times
that, or the answer would repeat the last token of the question.
"""

import argparse
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import spm  # noqa: E402

VISION = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14)
TEXT = {  # hidden, hidden of the MLP, layers, query heads, key/value heads, head size
    "pg1-3b": (1, 2048, 16384, 18, 8, 1, 256),
    "pg2-3b": (2, 2304, 9216, 26, 8, 4, 256),
    "pg2-10b": (2, 3584, 14336, 42, 16, 8, 256),
}
V = 257216


def config(model, size):
    gemma, d, f, layers, h, k, e = TEXT[model]
    n = (size // 14) ** 2
    text = dict(hidden_size=d, intermediate_size=f, num_hidden_layers=layers, num_attention_heads=h,
                num_key_value_heads=k, num_image_tokens=n, vocab_size=V, torch_dtype="float32")  # fmt: skip
    vision = dict(VISION, model_type="siglip_vision_model", projection_dim=d, num_image_tokens=n, vision_use_head=False)
    if size != 224:  # the released 224 files leave the library's default out
        vision["image_size"] = size
    c = dict(architectures=["PaliGemmaForConditionalGeneration"], model_type="paligemma", bos_token_id=2,
             eos_token_id=1, pad_token_id=0, image_token_index=257152, projection_dim=d)  # fmt: skip
    if gemma == 1:
        text["model_type"] = "gemma"
        c["hidden_size"] = d
    else:
        text.update(model_type="gemma2", head_dim=e, query_pre_attn_scalar=256, attn_logit_softcapping=50.0,
                    final_logit_softcapping=30.0, sliding_window=4096, hidden_act="gelu_pytorch_tanh",
                    hidden_activation="gelu_pytorch_tanh", eos_token_id=[1, 107], cache_implementation="hybrid")  # fmt: skip
        c["num_hidden_layers"] = layers
        vision["num_positions"] = 256
    c.update(text_config=text, vision_config=vision)
    return c


def tensors(model, size):
    """(name, shape, deviation) in file order; deviation None = a norm's weight near 1."""
    gemma, d, f, layers, h, k, e = TEXT[model]
    dv, fv, n = VISION["hidden_size"], VISION["intermediate_size"], (size // 14) ** 2
    v = "vision_tower.vision_model."
    yield v + "embeddings.patch_embedding.weight", (dv, 3, 14, 14), 588**-0.5
    yield v + "embeddings.patch_embedding.bias", (dv,), 0.02
    yield v + "embeddings.position_embedding.weight", (n, dv), 0.1
    for i in range(VISION["num_hidden_layers"]):
        p = f"{v}encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            yield p + norm + ".weight", (dv,), None
            yield p + norm + ".bias", (dv,), 0.02
        for m in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{p}self_attn.{m}.weight", (dv, dv), dv**-0.5
            yield f"{p}self_attn.{m}.bias", (dv,), 0.02
        yield p + "mlp.fc1.weight", (fv, dv), dv**-0.5
        yield p + "mlp.fc1.bias", (fv,), 0.02
        yield p + "mlp.fc2.weight", (dv, fv), fv**-0.5
        yield p + "mlp.fc2.bias", (dv,), 0.02
    yield v + "post_layernorm.weight", (dv,), None
    yield v + "post_layernorm.bias", (dv,), 0.02
    yield "multi_modal_projector.linear.weight", (d, dv), dv**-0.5
    yield "multi_modal_projector.linear.bias", (d,), 0.02
    t = "language_model.model."
    yield t + "embed_tokens.weight", (V, d), d**-0.5
    norms = ["input_layernorm", "post_attention_layernorm"]
    if gemma == 2:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for i in range(layers):
        p = f"{t}layers.{i}."
        for norm in norms:
            yield f"{p}{norm}.weight", (d,), 0.1
        yield p + "self_attn.q_proj.weight", (h * e, d), d**-0.5
        yield p + "self_attn.k_proj.weight", (k * e, d), d**-0.5
        yield p + "self_attn.v_proj.weight", (k * e, d), d**-0.5
        yield p + "self_attn.o_proj.weight", (d, h * e), 3 * (h * e) ** -0.5
        yield p + "mlp.gate_proj.weight", (f, d), d**-0.5
        yield p + "mlp.up_proj.weight", (f, d), d**-0.5
        yield p + "mlp.down_proj.weight", (d, f), 3 * f**-0.5
    yield t + "norm.weight", (d,), 0.1


class Values:
    """Normal values by looking random 16-bit numbers up in a table of quantiles: no
    transcendental function per element, hence as fast as the disk."""

    def __init__(self, seed, dtype):
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.dtype = dtype
        u = np.random.Generator(np.random.SFC64(0)).standard_normal(65536)
        self.unit = np.sort(u)

    def write(self, file, count, deviation):
        values = (1 + 0.1 * self.unit if deviation is None else deviation * self.unit).astype(np.float32)
        if self.dtype == "bf16":  # round to nearest, ties to even
            bits = values.view(np.uint32)
            values = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        elif self.dtype == "f16":
            values = values.astype(np.float16)
        while count:
            n = min(count, 1 << 20)
            file.write(values[self.rng.integers(0, 65536, n, dtype=np.uint16)].tobytes())
            count -= n


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--model", choices=TEXT, default="pg1-3b")
    ap.add_argument("--size", type=int, choices=(224, 448, 896), default=224)
    ap.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="bf16")
    ap.add_argument("--shards", type=int, default=1)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)

    width = 4 if a.dtype == "f32" else 2
    every = [(name, shape, dev, int(np.prod(shape)) * width) for name, shape, dev in tensors(a.model, a.size)]
    total = sum(t[3] for t in every)
    shards, room = [[]], total / a.shards
    for t in every:
        if len(shards) < a.shards and sum(x[3] for x in shards[-1]) >= room:
            shards.append([])
        shards[-1].append(t)

    names, weight_map = [], {}
    values = Values(a.seed, a.dtype)
    for i, shard in enumerate(shards):
        name = "model.safetensors" if a.shards == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for tensor, shape, _, size in shard:
            header[tensor] = dict(dtype=a.dtype.upper(), shape=list(shape), data_offsets=[at, at + size])
            weight_map[tensor] = name
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(a.out, name + ".part"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor, _, dev, size in shard:
                values.write(file, size // width, dev)
        os.replace(os.path.join(a.out, name + ".part"), os.path.join(a.out, name))
        names.append(name)
        print(f"{name}: {at / 1e9:.2f} GB", flush=True)

    def save(name, content):
        with open(os.path.join(a.out, name), "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")

    if a.shards > 1:
        save("model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=weight_map))
    c = config(a.model, a.size)
    c["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[a.dtype]
    save("config.json", c)
    save("generation_config.json", dict(bos_token_id=2, eos_token_id=1, pad_token_id=0))
    save("preprocessor_config.json", dict(
        do_resize=True, size=dict(height=a.size, width=a.size), resample=3, do_rescale=True,
        rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        image_seq_length=(a.size // 14) ** 2, image_processor_type="SiglipImageProcessor",
        processor_class="PaliGemmaProcessor"))  # fmt: skip
    with open(os.path.join(a.out, "tokenizer.model"), "wb") as file:
        file.write(spm.model(spm.full()))
    print(f"{a.out}: {total // width:,} parameters, {total / 1e9:.2f} GB, seed {a.seed}")


if __name__ == "__main__":
    main()
