#!/usr/bin/env python3
"""Goldens of scoring and of several images, by transformers, for tests/core/test_score.c.

    python tests/reference/score.py            writes tests/data/score

From the tiny models of tests/data/hf (models.py makes those):

    <model>_<k>.npy     log-probabilities of the 32 tokens of golden case k, each given all before it
    texts.txt           texts, one a line; with model pg1-bf16 and prompt "caption en":
    one.npy, two.npy    [texts][2]: sum of log-probabilities over a text's tokens and eos, and how many
                        those are; with text/picture.png, and with picture2.png after it
    two_ids.npy         ids of the prefix with both pictures
    two_logits.npy      logits after it

Prefix, suffix and pixels of the texts are PaliGemmaProcessor's, and their probabilities are over
the ids that have a meaning: the rows of the embedding behind the vocabulary are noise. The cases'
are over all rows, since their tokens are. Made with torch
2.8.0, transformers 4.51.3, sentencepiece 0.2.0, Pillow 11.3.0.
"""

import glob
import os

import hf
import models
import numpy as np
import PIL.Image
import torch
import transformers
from transformers import GemmaTokenizer, PaliGemmaProcessor, SiglipImageProcessor

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "../data")
PROMPT = "caption en"
TEXTS = ["a cat", "a dog", "", "the cat is on the dog", "dog", " a cat", "where is the cat?",
         "zwölf Käse 3", "a cat and a dog and a cat and a dog and a cat on the cat of a dog with a cat in the dog"]  # fmt: skip


def prefix_lm(T, N):
    """All of the first T positions see each other, the others what is before them."""
    i, j = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    return torch.zeros(N, N).masked_fill((j > i) & (j >= T), torch.finfo(torch.float32).min)


@torch.no_grad()
def logprobs(model, vocab, ids, prefix, images):
    """log p of ids[prefix:], each given all before it, and the logits after the prefix."""
    logits = hf.forward(model, ids, prefix_lm(prefix, len(ids)), 0, None, images)
    rows = torch.log_softmax(logits[:, :vocab].double(), -1)
    return np.array([float(rows[i - 1, ids[i]]) for i in range(prefix, len(ids))]), logits[prefix - 1].numpy()


def cases(out):
    for name, m in models.MODELS.items():
        model = hf.load(os.path.join(DATA, "hf", name))
        golden = os.path.join(DATA, "hf", name, "golden")
        for k in range(len(glob.glob(golden + "/case*_case.npy"))):
            def load(what):
                return [int(i) for i in np.load(f"{golden}/case{k}_{what}.npy")]

            images, ids, tokens = load("case")[1:], load("ids"), load("tokens")
            prefix = [m["v"]] * (len(images) * (m["size"] // 14) ** 2) + ids
            p, _ = logprobs(model, None, prefix + tokens, len(prefix), models.image_batch(model, m, images))
            np.save(os.path.join(out, f"{name}_{k}.npy"), p.astype(np.float32))
            print(f"{name} case {k}: {p.mean():.3f} a token, lowest {p.min():.3f}")


def texts(out):
    path, m = os.path.join(DATA, "hf/pg1-bf16"), models.MODELS["pg1-bf16"]
    model = hf.load(path)
    pixels = SiglipImageProcessor(size=dict(height=224, width=224), resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    pixels.image_seq_length = 256
    processor = PaliGemmaProcessor(pixels, GemmaTokenizer(os.path.join(path, "tokenizer.model")))
    second = models.pixels(96, 5)[:, :64, :48].transpose(1, 2, 0).astype(np.uint8)
    PIL.Image.fromarray(np.ascontiguousarray(255 - second // 16 * 16)).save(os.path.join(out, "picture2.png"), optimize=True)
    pictures = [PIL.Image.open(os.path.join(path, "text/picture.png")), PIL.Image.open(os.path.join(out, "picture2.png"))]
    with open(os.path.join(out, "texts.txt"), "w") as f:
        f.writelines(t + "\n" for t in TEXTS)
    for name, images in (("one", pictures[:1]), ("two", pictures)):
        rows = []
        for text in TEXTS:
            batch = processor(images=[images], text=[PROMPT], suffix=[text], return_tensors="pt")
            ids, kinds = batch.input_ids[0].tolist(), batch.token_type_ids[0]
            prefix = int((kinds == 0).sum())
            assert kinds[:prefix].sum() == 0 and ids[-1] == 1
            p, after = logprobs(model, m["v"], ids, prefix, batch.pixel_values)
            rows.append([p.sum(), len(p)])
            print(f"{name}: {p.mean():8.3f} a token, {len(p):2d} tokens: {text}")
        np.save(os.path.join(out, name + ".npy"), np.array(rows, np.float32))
        if name == "two":
            np.save(os.path.join(out, "two_ids.npy"), np.array(ids[:prefix], np.int32))
            np.save(os.path.join(out, "two_logits.npy"), after)


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    out = os.path.join(DATA, "score")
    os.makedirs(out, exist_ok=True)
    cases(out)
    texts(out)


if __name__ == "__main__":
    main()
