#!/usr/bin/env python3
"""The tiny models of tests/data/hf as JAX (big_vision) stores them: tests/data/jax/NAME.npz.

    jax.py            (from the top of the tree; numpy 2.4.6, safetensors 0.5 or later)

transformers' converter (models/paligemma/convert_paligemma_weights_to_hf.py, 4.51.3) reads arrays of these names and
axes; this is its inverse. Rows of the embedding that big_vision has not (the 64 behind the vocabulary) are left out.
bfloat16 becomes a two-byte void, as NumPy writes a type it does not know.

pg1-f32: stored, plain names. pg1-bf16: stored, "params/". pg2-f16: deflated, but for the embedding. pg2-sharded:
Fortran order, where there is more than one axis.
"""
import json
import os
import struct

import numpy as np

HF, OUT = "tests/data/hf/", "tests/data/jax/"
KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "V2"}


def tensors(folder):
    """name -> array, old names, from every shard of a folder."""
    out = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        data = open(os.path.join(folder, file), "rb").read()
        n = struct.unpack("<Q", data[:8])[0]
        for name, t in json.loads(data[8 : 8 + n]).items():
            if name == "__metadata__":
                continue
            a, b = t["data_offsets"]
            array = np.frombuffer(data[8 + n + a : 8 + n + b], KINDS[t["dtype"]]).reshape(t["shape"])
            name = name.removeprefix("model.")
            if name.startswith("language_model.") and not name.startswith("language_model.model."):
                name = "language_model.model." + name.removeprefix("language_model.")
            out[name] = array
    return out


def arrays(t, c):
    """What JAX would hold of them. c: config.json."""
    text, vision = c["text_config"], c["vision_config"]
    h, k, e = text["num_attention_heads"], text["num_key_value_heads"], text.get("head_dim", 256)
    vh, vd = vision["num_attention_heads"], vision["hidden_size"]
    d, words = text["hidden_size"], c["image_token_index"]
    v, l = "vision_tower.vision_model.", "language_model.model."

    def vit(name, make=lambda a: a):
        return np.stack([make(t[f"{v}encoder.layers.{i}.{name}"]) for i in range(vision["num_hidden_layers"])])

    def llm(name, make=lambda a: a):
        return np.stack([make(t[f"{l}layers.{i}.{name}"]) for i in range(text["num_hidden_layers"])])

    out = {
        "img/embedding/kernel": t[v + "embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "img/embedding/bias": t[v + "embeddings.patch_embedding.bias"],
        "img/pos_embedding": t[v + "embeddings.position_embedding.weight"][None],
        "img/Transformer/encoder_norm/scale": t[v + "post_layernorm.weight"],
        "img/Transformer/encoder_norm/bias": t[v + "post_layernorm.bias"],
        "img/head/kernel": t["multi_modal_projector.linear.weight"].T,
        "img/head/bias": t["multi_modal_projector.linear.bias"],
        "llm/embedder/input_embedding": t[l + "embed_tokens.weight"][:words],
        "llm/final_norm/scale": t[l + "norm.weight"],
    }
    block = "img/Transformer/encoderblock/"
    for i in 0, 1:
        out[f"{block}LayerNorm_{i}/scale"] = vit(f"layer_norm{i + 1}.weight")
        out[f"{block}LayerNorm_{i}/bias"] = vit(f"layer_norm{i + 1}.bias")
        out[f"{block}MlpBlock_0/Dense_{i}/kernel"] = vit(f"mlp.fc{i + 1}.weight", lambda a: a.T)
        out[f"{block}MlpBlock_0/Dense_{i}/bias"] = vit(f"mlp.fc{i + 1}.bias")
    attention = block + "MultiHeadDotProductAttention_0/"
    for jax, hf in ("query", "q"), ("key", "k"), ("value", "v"):
        out[f"{attention}{jax}/kernel"] = vit(f"self_attn.{hf}_proj.weight", lambda a: a.T.reshape(vd, vh, vd // vh))
        out[f"{attention}{jax}/bias"] = vit(f"self_attn.{hf}_proj.bias", lambda a: a.reshape(vh, vd // vh))
    out[attention + "out/kernel"] = vit("self_attn.out_proj.weight", lambda a: a.T.reshape(vh, vd // vh, vd))
    out[attention + "out/bias"] = vit("self_attn.out_proj.bias")

    p = "llm/layers/"
    heads = lambda n: lambda a: a.reshape(n, e, d).transpose(0, 2, 1)
    out[p + "attn/q_einsum/w"] = llm("self_attn.q_proj.weight", heads(h))
    out[p + "attn/kv_einsum/w"] = np.stack(
        [llm("self_attn.k_proj.weight", heads(k)), llm("self_attn.v_proj.weight", heads(k))], axis=1)  # fmt: skip
    out[p + "attn/attn_vec_einsum/w"] = llm("self_attn.o_proj.weight", lambda a: a.T.reshape(h, e, d))
    out[p + "mlp/gating_einsum"] = np.stack(
        [llm("mlp.gate_proj.weight", lambda a: a.T), llm("mlp.up_proj.weight", lambda a: a.T)], axis=1)  # fmt: skip
    out[p + "mlp/linear"] = llm("mlp.down_proj.weight", lambda a: a.T)
    out[p + "pre_attention_norm/scale"] = llm("input_layernorm.weight")
    if text["model_type"] == "gemma":
        out[p + "pre_ffw_norm/scale"] = llm("post_attention_layernorm.weight")
    else:
        out[p + "pre_ffw_norm/scale"] = llm("pre_feedforward_layernorm.weight")
        out[p + "post_attention_norm/scale"] = llm("post_attention_layernorm.weight")
        out[p + "post_ffw_norm/scale"] = llm("post_feedforward_layernorm.weight")
    return out


def seeds():
    """The smallest models of both generations, for tests/fuzz/corpus/jax."""
    rng = np.random.default_rng(1)
    v, l = "vision_tower.vision_model.", "language_model.model."
    for gemma in 1, 2:
        c = dict(image_token_index=5, text_config=dict(model_type="gemma" if gemma == 1 else "gemma2", hidden_size=2,
                 num_attention_heads=2, num_key_value_heads=1, head_dim=2, num_hidden_layers=1, f=3),
                 vision_config=dict(num_attention_heads=1, hidden_size=2, num_hidden_layers=1))  # fmt: skip
        shapes = {v + "embeddings.patch_embedding.weight": (2, 3, 2, 2), v + "embeddings.patch_embedding.bias": (2,),
                  v + "embeddings.position_embedding.weight": (4, 2), v + "post_layernorm.weight": (2,),
                  v + "post_layernorm.bias": (2,), "multi_modal_projector.linear.weight": (2, 2),
                  "multi_modal_projector.linear.bias": (2,), l + "embed_tokens.weight": (5, 2),
                  l + "norm.weight": (2,)}  # fmt: skip
        for n in 1, 2:
            shapes.update({f"{v}encoder.layers.0.layer_norm{n}.{x}": (2,) for x in ("weight", "bias")})
            shapes[f"{v}encoder.layers.0.mlp.fc{n}.weight"] = (3, 2) if n == 1 else (2, 3)
            shapes[f"{v}encoder.layers.0.mlp.fc{n}.bias"] = (3,) if n == 1 else (2,)
        for x in "q_proj", "k_proj", "v_proj", "out_proj":
            shapes[f"{v}encoder.layers.0.self_attn.{x}.weight"] = (2, 2)
            shapes[f"{v}encoder.layers.0.self_attn.{x}.bias"] = (2,)
        p = l + "layers.0."
        shapes.update({p + "self_attn.q_proj.weight": (4, 2), p + "self_attn.k_proj.weight": (2, 2),
                       p + "self_attn.v_proj.weight": (2, 2), p + "self_attn.o_proj.weight": (2, 4),
                       p + "mlp.gate_proj.weight": (3, 2), p + "mlp.up_proj.weight": (3, 2),
                       p + "mlp.down_proj.weight": (2, 3)})  # fmt: skip
        for x in "input", "post_attention", "pre_feedforward", "post_feedforward":
            shapes[f"{p}{x}_layernorm.weight"] = (2,)
        t = {k: rng.standard_normal(s).astype(np.float16) for k, s in shapes.items()}
        yield f"gemma{gemma}", arrays(t, c)


def main():
    import io
    import zipfile

    os.makedirs(OUT, exist_ok=True)
    for name, prefix, packed, fortran in (
        ("pg1-f32", "", False, False),
        ("pg1-bf16", "params/", False, False),
        ("pg2-f16", "", True, False),
        ("pg2-sharded", "", False, True),
    ):
        config = json.load(open(HF + name + "/config.json"))
        with zipfile.ZipFile(OUT + name + ".npz", "w") as z:
            for key, a in arrays(tensors(HF + name), config).items():
                kind = zipfile.ZIP_DEFLATED if packed and "embedder" not in key else zipfile.ZIP_STORED
                info = zipfile.ZipInfo(prefix + key + ".npy", (2026, 1, 1, 0, 0, 0))
                info.compress_type = kind
                buffer = io.BytesIO()
                np.save(buffer, np.asfortranarray(a) if fortran else np.ascontiguousarray(a))
                z.writestr(info, buffer.getvalue())
        print(name, os.path.getsize(OUT + name + ".npz"))
    os.makedirs("tests/fuzz/corpus/jax", exist_ok=True)
    for name, a in seeds():
        np.savez(f"tests/fuzz/corpus/jax/{name}.npz", **a)


if __name__ == "__main__":
    main()
