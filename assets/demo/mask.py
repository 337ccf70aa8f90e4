#!/usr/bin/env python3
"""The miniature model's mask codec: a 64x64 mask of an object, cropped to its box, as 16 of 128 codes.

The decoder is the network of the released vae-oid.npz at a quarter of its width, under the same array names; output
above zero is object, nominal range [-1, 1]. The encoder only makes the codes that train.py teaches; it stays in
the checkpoint mask.pt and is not shipped.

    mask.py --dir RUN --steps N --out mask.npz     trains (goes on from RUN/mask.pt), writes the decoder
    mask.py --dir RUN --from DIR --steps N         trains an encoder for the mask.npz of an exported model, which stays
    mask.py --dir RUN --out mask.npz --check 400   mean IoU of decoder(codes(mask)) on fresh masks a shape
"""
import argparse
import math
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import draw

GRID, CODES, WIDTH = 4, 128, 32
STEEP = 4              # sigmoid(STEEP * output) is the probability of object while training


class Res(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(w, w, 3, padding=1), nn.ReLU(), nn.Conv2d(w, w, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(w, w, 1))

    def forward(self, x):
        return x + self.net(x)


class Codec(nn.Module):
    def __init__(self, w=WIDTH, e=WIDTH):
        super().__init__()

        def down(i, o):
            return [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.ReLU()]

        def up(i, o):
            return [nn.ConvTranspose2d(i, o, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*down(1, w // 2), *down(w // 2, w), *down(w, w), *down(w, w), Res(w), Res(w),
                                     nn.Conv2d(w, e, 1))
        self.decoder = nn.Sequential(nn.Conv2d(e, w, 1), nn.ReLU(), Res(w), Res(w), *up(w, w), *up(w, w // 2),
                                     *up(w // 2, w // 4), *up(w // 4, w // 8), nn.Conv2d(w // 8, 1, 1))
        self.register_buffer("book", torch.randn(CODES, e))
        self.register_buffer("uses", torch.ones(CODES))          # moving averages of the k-means codebook
        self.register_buffer("sums", self.book.clone())

    def encode(self, x):
        """masks [B, 64, 64] in [0, 1] -> vectors [B, 16, e] in reading order"""
        return self.encoder(x[:, None] * 2 - 1).flatten(2).transpose(1, 2)

    def nearest(self, z):
        return torch.cdist(z, self.book[None]).argmin(-1)

    def decode(self, q):
        return self.decoder(q.transpose(1, 2).unflatten(2, (GRID, GRID)))[:, 0]

    @torch.no_grad()
    def codes(self, x):
        """masks [B, 64, 64] -> codes int [B, 16]"""
        return self.nearest(self.encode(x))

    @torch.no_grad()
    def update(self, z, k, keep=.98):
        """Each code moves to the mean of the vectors that chose it; one nobody chooses restarts at some vector."""
        z, k = z.flatten(0, 1), k.flatten()
        hot = F.one_hot(k, CODES).float()
        self.uses.mul_(keep).add_(hot.sum(0), alpha=1 - keep)
        self.sums.mul_(keep).add_(hot.T @ z, alpha=1 - keep)
        dead = self.uses < .05
        if dead.any():
            self.sums[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
            self.uses[dead] = 1
        self.book.copy_(self.sums / self.uses[:, None])


def drawn(rng, shape):
    """One mask, turned and stretched a little more than draw.place() does; `other` is any polygon."""
    if shape == "other":
        t = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 9))))
        r = rng.uniform(.3, 1, len(t))
        pts = np.stack([np.cos(t) * r, np.sin(t) * r], 1)
        lo, hi = pts.min(0), pts.max(0)
        return draw.mask(shape, [tuple(p) for p in (pts - lo) / (hi - lo + 1e-6)])
    turn = {"square": 20, "star": 36, "triangle": 60}.get(shape, 0)
    rot = rng.uniform(-turn, turn) if rng.random() < .7 else 0
    pts = draw.outline(shape, 0, 0, 1, rot)
    if pts is None:
        t = rng.uniform(.10, .28)
        return draw.mask(shape, (t, t * rng.uniform(.85, 1.18)))
    x0, x1 = min(p[0] for p in pts), max(p[0] for p in pts)
    y0, y1 = min(p[1] for p in pts), max(p[1] for p in pts)
    return draw.mask(shape, [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in pts])


def masks(rng, count, shapes):
    return torch.from_numpy(np.stack([drawn(rng, shapes[i % len(shapes)]) for i in range(count)])).float() / 255


def iou(a, b):
    return (a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1)


def train(codec, a):
    x = masks(np.random.default_rng(a.seed), 16000, draw.SHAPES + ["other"])
    opt = torch.optim.AdamW([p for p in codec.parameters()], lr=2e-3, weight_decay=1e-4)
    began = time.time()
    for step in range(a.steps):
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (a.steps - step) / (.4 * a.steps))
        b = x[torch.randint(len(x), (64,))]
        z = codec.encode(b)
        with torch.no_grad():
            if step == 0:
                codec.sums.copy_(z.flatten(0, 1)[torch.randint(z.shape[0] * 16, (CODES,))])
                codec.book.copy_(codec.sums)
            k = codec.nearest(z)
        q = codec.book[k]
        out = codec.decode(z + (q - z).detach())
        loss = F.binary_cross_entropy_with_logits(STEEP * out, b) + .25 * F.mse_loss(z, q)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step < .9 * a.steps:
            codec.update(z.detach(), k)
        if step % 200 == 0:
            used = int((codec.uses > .2).sum())
            print(f"step {step} {time.time() - began:.0f} s loss {loss.item():.4f} "
                  f"IoU {iou(out > 0, b > .5).mean():.4f} codes used {used}", flush=True)


@torch.no_grad()
def asked(folder, codec, rng, count):
    """Masks of drawn objects and the codes an exported model gives them -> masks [N, 64, 64], codes [N, 16].

    Many codes do nearly the same, and a decoder of text that has learned one of them should not have to learn another.
    Only answers that fit the object are taken."""
    import model as M
    import train as T              # both import this file
    tok = T.Tokens(os.path.join(folder, "tokenizer.model"))
    tower, dec = M.Tower(), M.Decoder(tok.vocab, tok.loc0)
    M.load_released(folder, tower, dec)
    x, codes = [], []
    for _ in range(0, count, 100):
        scenes = [draw.scene(rng, "single") for _ in range(100)]
        px = torch.from_numpy(np.stack([np.asarray(draw.squeeze(s["image"])) for s in scenes]))
        things = [s["objects"][0] for s in scenes]
        prompts = [tok.prompt(f"segment {o['color']} {o['shape']}") for o in things]
        for o, ids in zip(things, M.generate(dec, tower(M.patches(px)), prompts, limit=22)):
            k = [i - tok.seg0 for i in ids if tok.seg0 <= i < tok.seg0 + CODES]
            if len(k) == 16:
                x.append(draw.mask(o["shape"], o["form"]))
                codes.append(k)
    x, codes = torch.from_numpy(np.stack(x)).float() / 255, torch.tensor(codes)
    fit = torch.cat([iou(codec.decode(codec.book[c]) > 0, m > .5) for m, c in zip(x.split(200), codes.split(200))]) > .8
    return x[fit], codes[fit]


def train_encoder(codec, a):
    """An encoder for the decoder and the codes there are. At first each vector is a mixture of all codes, the nearer
    the more, so that no code is out of reach of the gradient; the mixture narrows down to the nearest alone. In the
    second half the encoder also learns which of the codes that do nearly the same the model prefers."""
    rng = np.random.default_rng(a.seed)
    x = masks(rng, 16000, draw.SHAPES + ["other"])
    like, codes = asked(a.origin, codec, rng, 3500)
    opt = torch.optim.AdamW(codec.encoder.parameters(), lr=2e-3, weight_decay=1e-4)
    apart = torch.cdist(codec.book, codec.book).square()
    apart = apart[apart > 0].median()
    began = time.time()
    for step in range(a.steps):
        part = step / a.steps
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (1 - part) / .4)
        b = x[torch.randint(len(x), (64,))]
        if part > .5:
            i = torch.randint(len(like), (48,))
            b = torch.cat([like[i], b[:16]])
        z = codec.encode(b)
        k = codec.nearest(z)
        far = torch.cdist(z, codec.book[None]).square() / apart
        soft = torch.softmax(-far / (.3 * .003 ** min(1, part / .4)), -1) @ codec.book
        q = codec.book[k]
        out = codec.decode(soft if part < .4 else z + (q - z).detach())
        loss = 6 * F.binary_cross_entropy_with_logits(STEEP * out, b) + F.mse_loss(z, q) / apart
        if part > .5:
            loss = loss + F.cross_entropy(-15 * far[:48].flatten(0, 1), codes[i].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 200 == 0:
            with torch.no_grad():
                good = iou(codec.decode(q) > 0, b > .5).mean()
                same = (codec.codes(like[:200]) == codes[:200]).float().mean()
            print(f"step {step} {time.time() - began:.0f} s loss {loss.item():.4f} IoU {good:.4f} "
                  f"codes used {len(k.unique())}, the model's {same:.2f}", flush=True)


def export(codec, path):
    arrays = {f"decoder.{k}": v for k, v in codec.decoder.state_dict().items()}
    arrays["_vq_vae._embedding"] = codec.book
    np.savez(path, **{k: v.detach().numpy().astype(np.float32) for k, v in arrays.items()})
    print(sum(v.numel() for v in arrays.values()), "numbers in", path)


def load_decoder(codec, path):
    """The decoder and the codes of a file made by export()."""
    arrays = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    codec.book.copy_(arrays.pop("_vq_vae._embedding"))
    codec.decoder.load_state_dict({k.removeprefix("decoder."): v for k, v in arrays.items()})
    codec.sums.copy_(codec.book)
    for p in codec.decoder.parameters():
        p.requires_grad_(False)


def load(run):
    codec = Codec()
    codec.load_state_dict(torch.load(os.path.join(run, "mask.pt"), map_location="cpu"))
    return codec.eval()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir", required=True)
    ap.add_argument("--out")
    ap.add_argument("--from", dest="origin", metavar="FOLDER", help="exported model whose mask.npz stays as it is")
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--seed", type=int, default=11)
    ap.add_argument("--check", type=int, default=0, help="fresh masks of each shape")
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(2)
    path = os.path.join(a.dir, "mask.pt")
    codec = load(a.dir) if os.path.exists(path) else Codec()
    if a.origin:
        load_decoder(codec, os.path.join(a.origin, "mask.npz"))
    if a.steps:
        (train_encoder if a.origin else train)(codec, a)
        torch.save(codec.state_dict(), path)
    if a.out:
        export(codec, a.out)
    for shape in draw.SHAPES + ["other"] if a.check else []:
        x = masks(np.random.default_rng(a.seed + 1000), a.check, [shape])
        with torch.no_grad():
            v = iou(codec.decode(codec.book[codec.codes(x)]) > 0, x > .5)
        print(f"{shape:9} mean IoU {v.mean():.4f} least {v.min():.4f}, {len(codec.codes(x).unique(dim=0))} codings")


if __name__ == "__main__":
    main()
