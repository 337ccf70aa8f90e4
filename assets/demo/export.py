#!/usr/bin/env python3
"""Writes the trained model in the released file format and checks it against transformers.

    export.py --dir RUN --out assets/demo            config.json, model.safetensors, ...
    export.py --dir RUN --out assets/demo --check 200    also: same greedy answers through transformers

The checkpoint is BF16 under the names of the released PaliGemma files; the tied head is not stored.
"""
import argparse
import copy
import json
import os

import torch
from safetensors.torch import save_file

import model as M
import train


def config(vocab_true, vocab):
    t, v = M.TEXT, M.VISION
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "ignore_index": -100,
        "hidden_size": t["width"], "projection_dim": t["width"], "image_token_index": vocab_true,
        "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "gemma", "hidden_size": t["width"], "intermediate_size": t["ff"],
            "num_hidden_layers": t["layers"], "num_attention_heads": t["heads"],
            "num_key_value_heads": t["kv_heads"], "head_dim": t["head_dim"], "vocab_size": vocab,
            "num_image_tokens": M.N_IMAGE, "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "max_position_embeddings": 1024, "attention_bias": False, "tie_word_embeddings": True,
            "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16",
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": v["width"], "intermediate_size": v["ff"],
            "num_hidden_layers": v["layers"], "num_attention_heads": v["heads"], "num_channels": 3,
            "image_size": M.SIZE, "patch_size": M.PATCH, "num_image_tokens": M.N_IMAGE,
            "projection_dim": t["width"], "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
    }


def tensors(tower, dec):
    out = dict(M.released(tower, dec), **{M.TABLE: dec.table()})
    return {k: v.detach().to(torch.bfloat16).contiguous() for k, v in out.items()}


def write(obj, path):
    with open(path, "w") as f:
        json.dump(obj, f, indent=2)
        f.write("\n")


def check(out, tower, dec, tok, held, count):
    """Greedy answers of the exported file through transformers (float32, eager) against the trainer's arithmetic
    on the same rounded weights, and against the unrounded weights."""
    from transformers import PaliGemmaForConditionalGeneration
    hf = PaliGemmaForConditionalGeneration.from_pretrained(out, torch_dtype=torch.float32,
                                                           attn_implementation="eager").eval()
    image_id = hf.config.image_token_index
    ours = train.questions(held, tok, count, seed=4242)
    rounded_tower, rounded = copy.deepcopy(tower).bfloat16().float(), copy.deepcopy(dec).bfloat16().float()
    table = dec.table().detach().bfloat16().float()
    rounded.table = lambda: table
    same = same_f32 = right = 0
    with torch.no_grad():
        for i, task, prompt, answer in ours:
            px = torch.from_numpy(held.px[i:i + 1].copy())
            ids = tok.prompt(prompt)
            x = torch.tensor([[image_id] * M.N_IMAGE + ids])
            g = hf.generate(input_ids=x, attention_mask=torch.ones_like(x),
                            pixel_values=px.permute(0, 3, 1, 2).float() / 127.5 - 1,
                            max_new_tokens=64, do_sample=False)[0, x.shape[1]:].tolist()
            if 1 in g:
                g = g[:g.index(1)]
            same += g == M.generate(rounded, rounded_tower(M.patches(px)), [ids], limit=64)[0]
            same_f32 += g == M.generate(dec, tower(M.patches(px)), [ids], limit=64)[0]
            right += tok.decode(g) == answer
    print(f"{count} questions: {same} answers identical to the trainer's with the same weights, "
          f"{same_f32} to its unrounded weights; {right} exactly right")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir")
    ap.add_argument("--out", required=True)
    ap.add_argument("--check", type=int, default=0)
    a = ap.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    tok = train.Tokens(os.path.join(here, "tokenizer.model"))
    torch.manual_seed(0)
    tower, dec = M.Tower(), M.Decoder(tok.vocab, tok.loc0)
    if a.dir:
        print("weights of step", train.load_model(a.dir, tower, dec))
    os.makedirs(a.out, exist_ok=True)
    if os.path.abspath(a.out) != here:
        with open(os.path.join(here, "tokenizer.model"), "rb") as f, \
                open(os.path.join(a.out, "tokenizer.model"), "wb") as g:
            g.write(f.read())
    state = tensors(tower, dec)
    save_file(state, os.path.join(a.out, "model.safetensors"), metadata={"format": "pt"})
    write(config(tok.true_vocab, tok.vocab), os.path.join(a.out, "config.json"))
    write({"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}, os.path.join(a.out, "generation_config.json"))
    write({
        "do_resize": True, "size": {"height": M.SIZE, "width": M.SIZE}, "resample": 3, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "do_convert_rgb": None, "image_seq_length": M.N_IMAGE, "image_processor_type": "SiglipImageProcessor",
        "processor_class": "PaliGemmaProcessor",
    }, os.path.join(a.out, "preprocessor_config.json"))
    print(sum(v.numel() for v in state.values()), "parameters")
    if a.check:
        check(a.out, tower.eval(), dec.eval(), tok, train.Cache(os.path.join(a.dir, "v0")), a.check)


if __name__ == "__main__":
    main()
