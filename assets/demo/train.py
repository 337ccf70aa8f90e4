#!/usr/bin/env python3
"""Trains the miniature model in stages; see README.md for the command lines.

    train.py tower   --dir RUN --steps N      stage 1: vision tower on dense labels
    train.py decoder --dir RUN --steps N      stage 2: decoder on the frozen tower
    train.py all     --dir RUN --steps N      stage 3: both, under the true prefix mask
    train.py eval    --dir RUN                greedy held-out table

With --from DIR a stage begins with the weights of an exported folder instead of none.

RUN holds the drawn pictures (a0, a1, ... for training, t0, ... with text only, v0 held out; made by
draw.py --cache) and the checkpoints. Every stage resumes from its last checkpoint. --workers 2 runs two processes of one thread
each that average their weights every few seconds: they need not wait for one another, so a busy machine
slows them down only as much as it must. A step is one batch of one worker.
"""
import argparse
import glob as globmod
import os
import pickle
import re
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import sentencepiece as spm

import draw
import mask
import model as M
import pages
import tasks


# ---------------------------------------------------------------- data

class Cache:
    def __init__(self, path):
        self.px = np.load(path + ".px.npy", mmap_mode="r")
        self.lab = np.load(path + ".lab.npy")
        with open(path + ".meta", "rb") as f:
            self.meta = pickle.load(f)
        self.glob = np.zeros((len(self.meta), pages.FACTS), np.int16)
        for g, (bg, objects, lines) in zip(self.glob, self.meta):
            g[0] = len(objects)
            for shape, color, *_ in objects:
                s, c = draw.SHAPES.index(shape), draw.COLORS.index(color)
                g[1 + s] += 1
                g[6 + c] += 1
                g[14 + s * 8 + c] = 1
            g[54] = len(lines)
            g[55] = draw.BACKGROUNDS.index(bg) + 1 if bg else 0
            g[56:56 + 16 * len(objects)] = [c for o in objects for c in o[3]]

    def batch(self, idx):
        idx = np.sort(idx)
        return (torch.from_numpy(self.px[idx]), torch.from_numpy(self.lab[idx]).long(),
                torch.from_numpy(self.glob[idx]).long())


def caches(run, letter="a"):
    names = sorted(f[:-7] for f in globmod.glob(os.path.join(run, letter + "*.px.npy"))
                   if os.path.exists(f[:-7] + ".meta"))
    return [Cache(n) for n in names]


class Tokens:
    """The tokenizer, and the ids of prompts and answers."""
    PAD, EOS, BOS, NEWLINE = 0, 1, 2, 4

    def __init__(self, path):
        self.sp = spm.SentencePieceProcessor(model_file=path)
        self.true_vocab = len(self.sp)
        self.vocab = (self.true_vocab + 64) // 64 * 64          # at least one row more: <image>
        self.loc0 = self.sp.piece_to_id("<loc0000>")
        self.seg0 = self.sp.piece_to_id("<seg000>")
        self.char = {c: self.sp.piece_to_id("\u2581" if c == " " else c) for c in draw.CHARS + " \n"}

    def prompt(self, text):
        return [self.BOS] + self.sp.encode(text) + [self.NEWLINE]

    def answer(self, task, text):
        """Read text goes out character by character, everything else as the tokenizer cuts it."""
        ids = [self.char[c] for c in text] if task == "ocr" and text != "no text" else self.sp.encode(text)
        return ids + [self.EOS]

    def decode(self, ids):
        return self.sp.decode_ids(ids) if ids else ""


def questions(held, tok, count, seed):
    """A fixed list of held-out questions: (picture, task, prompt, answer)."""
    ask = tasks.Asker(np.random.default_rng(seed))
    out, i = [], 0
    while len(out) < count:
        for q in ask.ask(held.meta[i % len(held.meta)], 6):
            out.append((i % len(held.meta),) + q)
        i += 1
    return out[:count]


def load_model(run, tower, dec, folder=None):
    """The newest weights there are: stage 3, else stages 2 and 1, else those of the folder. -> their name."""
    path = os.path.join(run, "all.pt")
    if os.path.exists(path):
        st = torch.load(path, map_location="cpu")
        tower.load_state_dict(st["tower"])
        dec.load_state_dict(st["dec"])
        return f"all {st['step']}"
    name = []
    if folder:
        M.load_released(folder, tower, dec)
        name.append(folder)
    for stage, key, module in (("tower", "tower", tower), ("decoder", "dec", dec)):
        path = os.path.join(run, stage + ".pt")
        if os.path.exists(path):
            st = torch.load(path, map_location="cpu")
            module.load_state_dict(st[key])
            name.append(f"{stage} {st['step']}")
    return ", ".join(name) or "none"


# ---------------------------------------------------------------- optimiser

@torch.no_grad()
def orthogonalise(g):
    """Newton-Schulz iteration of Muon."""
    a, b, c = 3.4445, -4.7750, 2.0315
    t = g.shape[0] > g.shape[1]
    x = g.T if t else g
    x = (x / (x.norm() + 1e-7)).to(M.LOW or x.dtype)
    for _ in range(5):
        y = x @ x.T
        x = a * x + (b * y + c * y @ y) @ x
    return (x.T if t else x).float()


class Optimiser:
    """Muon on the matrices of the blocks, AdamW on everything else."""

    def __init__(self, groups):
        # groups: (named parameters, Muon rate or 0, AdamW rate)
        self.muon, self.adam = [], []
        for named, lr_muon, lr_adam in groups:
            for n, p in named:
                if not p.requires_grad:
                    continue
                if lr_muon and p.ndim == 2 and "blocks" in n:
                    self.muon.append(dict(p=p, lr=lr_muon, m=torch.zeros_like(p)))
                else:
                    self.adam.append(dict(p=p, lr=lr_adam))
        self.t = 0
        self.opt = torch.optim.AdamW([dict(params=[a["p"]], lr=a["lr"], base=a["lr"], weight_decay=
                                           .01 if a["p"].ndim == 2 else 0.) for a in self.adam], betas=(.9, .98))

    @torch.no_grad()
    def step(self, scale):
        for g in self.opt.param_groups:
            g["lr"] = g["base"] * scale
        self.opt.step()
        for s in self.muon:
            if s["p"].grad is None:
                continue
            p, m = s["p"], s["m"]
            m.mul_(.95).add_(p.grad)
            u = p.grad + .95 * m
            # the three matrices of a fused qkv are separate to Muon
            parts = u.split(u.shape[1]) if u.shape[0] == 3 * u.shape[1] else [u]
            u = torch.cat([orthogonalise(q) * max(1, q.shape[0] / q.shape[1]) ** .5 for q in parts])
            p.mul_(1 - s["lr"] * scale * .01).add_(u, alpha=-s["lr"] * scale)
        for s in self.muon:
            s["p"].grad = None
        self.opt.zero_grad()

    def state(self):
        return dict(adam=self.opt.state_dict(), muon=[s["m"] for s in self.muon])

    def load(self, st):
        lr = [g["base"] for g in self.opt.param_groups]
        self.opt.load_state_dict(st["adam"])
        for g, b in zip(self.opt.param_groups, lr):
            g["base"] = b
        for s, m in zip(self.muon, st["muon"]):
            s["m"].copy_(m)


def schedule(step, done, decay, fit=0):
    """Constant after a short warm-up, then linear to zero over the last part; `done` goes from 0 to 1. The first `fit`
    steps are for linear read-outs alone, which bear more; what follows warms up anew."""
    warm = 3 * min(1, (step + 1) / 20) if step < fit else min(1, (step - fit + 1) / 100)
    return warm * min(1, max(0.0, (1 - done) / decay))


# ---------------------------------------------------------------- the loop

class Loop:
    """Steps, averaging between workers, logging and checkpoints."""

    def __init__(self, a, stage, modules, opt):
        self.a, self.stage, self.modules, self.opt = a, stage, modules, opt
        self.rank = int(os.environ.get("PALI_RANK", 0))
        self.path = os.path.join(a.dir, f"{stage}.pt")
        self.step, self.seconds, self.log = 0, 0.0, {}
        if os.path.exists(self.path):
            st = torch.load(self.path, map_location=a.device)
            for k, m in modules.items():
                m.load_state_dict(st[k])
            opt.load(st["opt"])
            self.step, self.seconds = st["step"], st["seconds"]
            self.say(f"resumed at step {self.step}")
        self.params = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.finished = self.done() >= 1           # changes only where all workers agree
        self.local, self.t_sync, self.t_save, self.t_log = 0, time.time(), time.time(), time.time()
        self.rng = np.random.default_rng([a.seed, self.rank, self.step])

    def say(self, s):
        if self.rank == 0:
            line = f"{time.strftime('%H:%M:%S')} {self.stage} {s}"
            print(line, flush=True)

    def report(self, table):
        self.say("held out: " + ", ".join(f"{k} {v:.3f}" for k, (v, n) in table.items()))

    def done(self, now=0):
        """Part of the stage that is over: of its steps or, with --minutes, of its time on the clock."""
        spent = self.seconds + max(0, now - getattr(self, "t_sync", now))
        return spent / 60 / self.a.minutes if self.a.minutes else self.step / self.a.steps

    def save(self):
        if self.rank == 0:
            st = {k: m.state_dict() for k, m in self.modules.items()}
            st.update(opt=self.opt.state(), step=self.step, seconds=self.seconds)
            torch.save(st, self.path + ".tmp")
            os.replace(self.path + ".tmp", self.path)

    def update(self, loss, measures):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 2.0)
        scale = schedule(self.step, self.done(time.time()), self.a.decay, self.a.fit)
        self.opt.step(scale)
        self.local += 1
        self.step += 1
        for k, v in dict(measures, loss=loss.detach()).items():
            v = float(v)
            if v == v:
                n, s = self.log.get(k, (0, 0.0))
                self.log[k] = (n + 1, s + v)
        now = time.time()
        if now - self.t_sync > self.a.sync:
            self.sync()
        if now - self.t_log > self.a.log:
            rate = f"lr x{scale:.2f} {int(self.seconds)} s "
            self.say(f"step {self.step} {rate}" + " ".join(f"{k} {s / n:.4f}" for k, (n, s) in self.log.items()))
            self.log, self.t_log = {}, now
        return not self.finished

    @torch.no_grad()
    def sync(self):
        self.seconds += time.time() - self.t_sync
        if self.a.workers > 1:
            n = torch.tensor([float(self.local), self.seconds / self.a.workers])
            flat = torch.cat([p.flatten() for p in self.params]) * self.local
            buf = torch.cat([flat, n])
            dist.all_reduce(buf)
            done, self.seconds = float(buf[-2]), float(buf[-1])
            if done:
                flat = buf[:-2] / done
                i = 0
                for p in self.params:
                    p.copy_(flat[i:i + p.numel()].view_as(p))
                    i += p.numel()
            self.step += int(done) - self.local
        self.local = 0
        self.finished = self.done() >= 1
        self.t_sync = time.time()
        if time.time() - self.t_save > self.a.save:
            self.save()
            self.t_save = time.time()


def glob_batch(rng, sets, n):
    c = sets[int(rng.integers(len(sets)))]
    return c, rng.integers(0, len(c.meta), n)


# ---------------------------------------------------------------- stage 1

def measure_tower(tower, heads, held, device):
    tot, n = {}, 0
    with torch.no_grad():
        for i in range(0, 1000, 250):
            px, lab, gl = held.batch(np.arange(i, i + 250))
            _, m = M.dense_loss(heads, tower(M.patches(px.to(device))), lab.to(device), gl.to(device))
            for k, v in m.items():
                tot[k] = tot.get(k, 0) + float(v) / 4
    return tot


def tower_batch(a, rng, sets, text, count):
    """Pages of text, and scenes so that shapes and colours are learned beside the letters."""
    n = int(count * a.scenes)
    c, idx = glob_batch(rng, sets, n)
    parts = [text.batch(rng, count - n)[:3], c.batch(idx)]
    return [torch.cat(p).to(a.device) for p in zip(*parts)]


def stage_tower(a):
    sets, held, text = caches(a.dir), Cache(os.path.join(a.dir, "v0")), pages.Pages(os.path.join(a.dir, "lines.pkl"))
    tower, heads = M.Tower().to(a.device), M.DenseHeads().to(a.device)
    rng = np.random.default_rng(a.seed)
    if a.origin:
        tok = Tokens(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.model"))
        M.load_released(a.origin, tower, M.Decoder(tok.vocab, tok.loc0).to(a.device))
    else:
        px = torch.cat([sets[0].batch(np.arange(700))[0], text.batch(rng, 700)[0]])
        low, M.LOW = M.LOW, None
        tower.whiten(M.patches(px.to(a.device)).flatten(0, 1))
        M.LOW = low
    opt = Optimiser([(list(tower.named_parameters()), a.rate, 1.5e-3), (list(heads.named_parameters()), 0, 2e-3)])
    loop = Loop(a, a.name or "tower", dict(tower=tower, heads=heads), opt)
    t_eval = time.time()
    more = not loop.finished
    while more:
        px, lab, gl = tower_batch(a, loop.rng, sets, text, a.batch)
        with torch.set_grad_enabled(loop.step >= a.fit):        # read-outs made anew must not pull the tower about
            z = tower(M.patches(px))
        loss, m = M.dense_loss(heads, z, lab, gl)
        more = loop.update(loss, {k: m[k] for k in ("chars", "strict", "number", "shape", "codes")})
        if loop.rank == 0 and time.time() - t_eval > a.eval_every:
            t_eval = time.time()
            loop.say("held out: " + " ".join(f"{k} {v:.4f}" for k, v in
                                             measure_tower(tower, heads, held, a.device).items()))
    loop.t_save = 0
    loop.sync()
    loop.say("end. held out: " + " ".join(f"{k} {v:.4f}" for k, v in
                                          measure_tower(tower, heads, held, a.device).items()))


# ---------------------------------------------------------------- stages 2 and 3

class Packer:
    """Several prompts of one picture in one row: each sees the picture and itself, positions restart."""

    def __init__(self, tok, rng, width):
        self.tok, self.ask, self.width = tok, tasks.Asker(rng), width

    def where(self, lab, text):
        """Patch of each letter of the text, -1 where none is told: labels as draw.patch_labels makes them."""
        out = [-1] * (len(text) + 1)
        for p in np.flatnonzero(lab[:, 10]):
            n = lab[p, 10] - 1
            for c in lab[p, 7:10]:
                k = text.find(draw.CHARS[c - 1], n, n + 3) if c else -1
                if k >= 0:
                    out[k] = p
                    n = k + 1
        return out

    def row(self, facts, lab):
        items, used, reads = [], 0, 0
        for task, prompt, answer in self.ask.ask(facts, 16):
            reads += task == "ocr"
            if task == "ocr" and reads > 2:
                continue
            p, a = self.tok.prompt(prompt), self.tok.answer(task, answer)
            if used + len(p) + len(a) - 1 > self.width:
                continue
            used += len(p) + len(a) - 1
            items.append((p, a, self.where(lab, answer) if task == "ocr" and facts[2] else [-1] * len(a)))
        return items

    def batch(self, metas, labels):
        rows = [self.row(f, l) for f, l in zip(metas, labels.numpy())]
        t = max(sum(len(p) + len(a) - 1 for p, a, _ in r) for r in rows)
        n = max(sum(len(a) for _, a, _ in r) for r in rows)
        b = len(rows)
        ids, pos, block = np.zeros((b, t), np.int64), np.full((b, t), M.N_IMAGE), np.full((b, t), -1)
        suffix, point = np.zeros((b, t), np.int64), np.full((b, n), -1)
        sel, target, weight = np.zeros((b, n), np.int64), np.zeros((b, n), np.int64), np.zeros((b, n), np.float32)
        for i, r in enumerate(rows):
            at = out = 0
            for k, (p, a, patch) in enumerate(r):
                m = len(p) + len(a) - 1
                ids[i, at:at + m] = p + a[:-1]
                pos[i, at:at + m] = M.N_IMAGE + np.arange(m)
                block[i, at:at + m] = k
                suffix[i, at + len(p):at + m] = np.arange(1, len(a))
                sel[i, out:out + len(a)] = at + len(p) - 1 + np.arange(len(a))
                target[i, out:out + len(a)] = a
                point[i, out:out + len(a)] = patch
                weight[i, out:out + len(a)] = len(a) ** -.5
                at += m
                out += len(a)
        seen = (block[:, :, None] == block[:, None, :]) & (suffix[:, None, :] <= suffix[:, :, None])
        mask = np.concatenate([np.ones((b, t, M.N_IMAGE), bool), seen], 2)[:, None]
        return [torch.from_numpy(x) for x in (ids, pos, mask, sel, target, weight, point)]


def answer_loss(h, table, target, weight, loc0):
    """Cross-entropy; a location counts as right nearby too (a Gaussian of 8 of the 1024 steps)."""
    keep = weight > 0
    h, target, weight = h[keep], target[keep], weight[keep]
    logits = h @ table.T
    lp = logits.log_softmax(-1)
    nll = -lp.gather(1, target[:, None])[:, 0]
    is_loc = (target >= loc0) & (target < loc0 + M.LOC)
    if is_loc.any():
        off = torch.arange(-24, 25, device=h.device)
        g = torch.exp(-(off / 8.0) ** 2 / 2)
        where = target[is_loc][:, None] - loc0 + off
        w = g * ((where >= 0) & (where < M.LOC))
        w = w / w.sum(1, keepdim=True)
        soft = -(w * lp[is_loc].gather(1, where.clamp(0, M.LOC - 1) + loc0)).sum(1)
        soft = soft + (w * w.clamp(min=1e-9).log()).sum(1)
        nll = nll.masked_scatter(is_loc, soft)
    return (nll * weight).sum() / weight.sum()


LOCS = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>((?:<seg\d{3}>){16})? ([^;<>]+?)(?: ;|$)")


def boxes(text):
    return [([int(v) / 1024 for v in m[:4]], m[5]) for m in LOCS.findall(text)]


class Masks:
    """Compares the masks of two `segment` answers in the picture's square."""
    N = 256

    def __init__(self, run):
        self.codec = mask.load(run)

    def draw(self, text):
        """-> {label: union of its masks, bool [N, N]}"""
        out = {}
        for m in LOCS.findall(text):
            y0, x0, y1, x1 = (int(v) * self.N // 1024 for v in m[:4])
            if y1 <= y0 or x1 <= x0 or not m[4]:
                continue
            codes = torch.tensor([[int(c) for c in re.findall(r"\d{3}", m[4])]])
            px = self.codec.decode(self.codec.book[codes])
            px = F.interpolate(px[None], (y1 - y0, x1 - x0), mode="bilinear", align_corners=False)[0, 0] > 0
            out.setdefault(m[5], torch.zeros(self.N, self.N, dtype=torch.bool))[y0:y1, x0:x1] |= px
        return out

    def score(self, want, got):
        w, g = self.draw(want), self.draw(got)
        return sum(float((w[k] & g[k]).sum() / (w[k] | g[k]).sum()) if k in g else 0 for k in w) / len(w)


def iou(a, b):
    h, w = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, h) * max(0, w)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter + 1e-9)


def distance(a, b):
    d = list(range(len(b) + 1))
    for i, x in enumerate(a):
        prev, d[0] = d[0], i + 1
        for j, y in enumerate(b):
            prev, d[j + 1] = d[j + 1], min(d[j + 1] + 1, d[j] + 1, prev + (x != y))
    return d[-1]


def things(caption):
    return sorted(re.split(", | and ", caption))


def score(task, want, got, masks):
    """-> {measure: value} of one answer."""
    if task == "segment":
        return {"segment iou": masks.score(want, got)} if want else {"segment absent": float(not got)}
    if task == "caption":
        return {task: float(things(want) == things(got))}
    if task == "ocr":
        return {"ocr exact": float(want == got), "ocr chars": 1 - min(1, distance(want, got) / max(1, len(want)))}
    if task == "detect":
        w, g = boxes(want), boxes(got)
        if not w:
            return {"detect absent": float(not g)}
        best = [max([iou(b, c) for c, m in g if m == n] or [0]) for b, n in w]
        return {"detect iou": sum(best) / len(best), "detect @.5": sum(v > .5 for v in best) / len(best),
                "detect number": float(len(w) == len(g))}
    return {task: float(want == got)}


@torch.no_grad()
def measure(tower, dec, tok, masks, held, count, seed=99, batch=64, show=0):
    """Greedy answers under the true mask to held-out questions -> {measure: (mean, number)}"""
    low, M.LOW = M.LOW, None
    qs = questions(held, tok, count, seed)
    order = sorted(range(len(qs)), key=lambda i: len(qs[i][2]))
    tot = {}
    for s in range(0, len(order), batch):
        part = [qs[i] for i in order[s:s + batch]]
        dev = dec.embed.device
        px = torch.from_numpy(held.px[[q[0] for q in part]]).to(dev)
        got = M.generate(dec, tower(M.patches(px)), [tok.prompt(q[2]) for q in part], limit=64)
        for (i, task, prompt, want), g in zip(part, got):
            g = tok.decode(g)
            sets = score(task, want, g, masks)
            if len(held.meta[i][1]) == 1 and not held.meta[i][2] and task in ("caption", "color", "shape", "yesno"):
                sets["one: " + task] = sets[task]
            for k, v in sets.items():
                n, t = tot.get(k, (0, 0))
                tot[k] = (n + 1, t + v)
            if show and np.random.random() < show / count:
                print(f"   {held.meta[i]} {task} {prompt!r} -> {g!r} ({want!r})")
    M.LOW = low
    return {k: (t / n, n) for k, (n, t) in sorted(tot.items())}


def answer_batch(a, rng, sets, text):
    """Pictures to ask about: scenes, and pages of text in the share `--reading`. -> pictures, labels, counts, facts"""
    n = int(rng.binomial(a.batch, a.reading))
    c, idx = glob_batch(rng, sets, a.batch - n)
    idx = np.sort(idx)
    *read, facts = text.batch(rng, n, crowded=0)
    return [torch.cat(p) for p in zip(c.batch(idx), read)] + [[c.meta[i] for i in idx] + facts]


def stage_decoder(a):
    """Stage 2. As `all`, stage 3: the same packed rows with the tower unfrozen and its dense losses kept; each step
    also shows the tower a batch of its own, since it learns from many more pictures than the decoder needs."""
    tok = Tokens(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.model"))
    sets, held, text = caches(a.dir), Cache(os.path.join(a.dir, "v0")), pages.Pages(os.path.join(a.dir, "lines.pkl"))
    masks = Masks(a.dir)
    tower, dec = M.Tower().to(a.device), M.Decoder(tok.vocab, tok.loc0).to(a.device)
    heads = M.DenseHeads().to(a.device)
    st = torch.load(os.path.join(a.dir, "tower.pt"), map_location=a.device)
    tower.load_state_dict(st["tower"])
    heads.load_state_dict(st["heads"])
    if a.start:
        old = torch.load(a.start, map_location=a.device)["dec"]
        dec.load_state_dict({k: v for k, v in old.items() if v.shape == dec.state_dict()[k].shape}, strict=False)
    if a.origin:
        M.load_released(a.origin, M.Tower().to(a.device), dec)
    groups = [(list(dec.named_parameters()), .01, 1.5e-3)]
    modules = dict(dec=dec)
    free = a.stage == "all"
    if free:
        path = os.path.join(a.dir, "decoder.pt")
        if not a.origin or os.path.exists(path):
            dec.load_state_dict(torch.load(path, map_location=a.device)["dec"])
        groups += [(list(tower.named_parameters()), a.tower_rate, a.tower_rate / 10),
                   (list(heads.named_parameters()), 0, 1e-3)]
        modules = dict(dec=dec, tower=tower, heads=heads)
    opt = Optimiser(groups)
    loop = Loop(a, a.stage, modules, opt)
    packer = Packer(tok, loop.rng, a.width)
    t_eval, more = time.time(), not loop.finished
    while more:
        px, lab, gl, facts = answer_batch(a, loop.rng, sets, text)
        ids, pos, see, sel, target, weight, point = (t.to(a.device) for t in packer.batch(facts, lab))
        with torch.set_grad_enabled(free):
            z = tower(M.patches(px.to(a.device)))
        table = dec.table()
        h, aim = dec.packed(z, ids, pos, see, sel, table, point)
        loss = answer_loss(h, table, target, weight, tok.loc0)
        log = {"nll": loss.detach(), "aim": aim.detach()}
        loss = loss + a.aim * aim
        if free:
            more_px, more_lab, more_gl = tower_batch(a, loop.rng, sets, text, a.dense)
            z = torch.cat([z, tower(M.patches(more_px.to(a.device)))])
            dense, m = M.dense_loss(heads, z, torch.cat([lab.to(a.device), more_lab]),
                                    torch.cat([gl.to(a.device), more_gl]))
            loss = loss + a.dense_weight * dense
            log.update(dense=dense.detach(), chars=m["chars"], number=m["number"])
        more = loop.update(loss, log)
        if loop.rank == 0 and time.time() - t_eval > a.eval_every:
            t_eval = time.time()
            loop.report(measure(tower, dec, tok, masks, held, 400))
            if free:
                loop.say("tower: " + " ".join(f"{k} {v:.4f}" for k, v in
                                              measure_tower(tower, heads, held, a.device).items()))
    loop.t_save = 0
    loop.sync()
    if loop.rank == 0:
        loop.report(measure(tower, dec, tok, masks, held, 2000))


def stage_eval(a):
    tok = Tokens(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.model"))
    tower, dec = M.Tower(), M.Decoder(tok.vocab, tok.loc0)
    print(load_model(a.dir, tower, dec, a.origin))
    for k, (v, n) in measure(tower, dec, tok, Masks(a.dir), Cache(os.path.join(a.dir, "v0")), a.count, show=a.show).items():
        print(f"{k:16} {v:.3f}  ({n})")


# ---------------------------------------------------------------- start

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=["tower", "decoder", "all", "eval"])
    ap.add_argument("--dir", required=True)
    ap.add_argument("--steps", type=int, default=10000)
    ap.add_argument("--minutes", type=float, default=0, help="length of the stage by the clock, instead of --steps")
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--workers", type=int, default=1)
    ap.add_argument("--threads", type=int, default=2, help="of a single worker")
    ap.add_argument("--sync", type=float, default=3, help="seconds between averagings")
    ap.add_argument("--save", type=float, default=120, help="seconds between checkpoints")
    ap.add_argument("--log", type=float, default=60)
    ap.add_argument("--eval-every", type=float, default=300)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--reading", type=float, default=.3, help="part of the pictures of stages 2 and 3 that are pages")
    ap.add_argument("--aim", type=float, default=.3, help="weight of showing the decoder where the next letter stands")
    ap.add_argument("--from", dest="origin", metavar="FOLDER", help="exported model whose weights a stage begins with, "
                    "where there is no checkpoint of an earlier one")
    ap.add_argument("--fit", type=int, default=0, help="first steps of stage 1 for the read-outs alone (not exported)")
    ap.add_argument("--start", help="checkpoint whose decoder stage 2 begins with, as far as the sizes agree")
    ap.add_argument("--scenes", type=float, default=.22, help="part of a batch of stage 1 that shows scenes, not text")
    ap.add_argument("--rate", type=float, default=.015, help="Muon's rate in stage 1")
    ap.add_argument("--name", help="another name for the checkpoint of stage 1")
    ap.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    ap.add_argument("--decay", type=float, default=.25, help="part of the steps in which the rate falls to zero")
    ap.add_argument("--tower-rate", type=float, default=.008, help="Muon's rate for the tower in stage 3")
    ap.add_argument("--dense", type=int, default=64, help="pictures a step for the tower alone in stage 3")
    ap.add_argument("--dense-weight", type=float, default=.5, help="weight of the dense losses in stage 3")
    ap.add_argument("--width", type=int, default=144, help="text tokens of a packed row")
    ap.add_argument("--count", type=int, default=2000, help="questions of eval")
    ap.add_argument("--show", type=int, default=0, help="about so many answers of eval are printed")
    a = ap.parse_args()
    if a.workers > 1 and "PALI_RANK" not in os.environ:
        import subprocess
        store = os.path.abspath(os.path.join(a.dir, f".store.{os.getpid()}"))
        kids = []
        cores = sorted(os.sched_getaffinity(0))
        for r in range(a.workers):
            env = dict(os.environ, PALI_RANK=str(r), PALI_STORE=store, OMP_NUM_THREADS="1")
            kids.append(subprocess.Popen(["taskset", "-c", str(cores[r % len(cores)]), sys.executable] + sys.argv,
                                         env=env))
        code = max(abs(k.wait()) for k in kids)
        if os.path.exists(store):
            os.unlink(store)
        sys.exit(code)
    if a.workers > 1:
        dist.init_process_group("gloo", init_method="file://" + os.environ["PALI_STORE"],
                                rank=int(os.environ["PALI_RANK"]), world_size=a.workers)
    M.LOW = torch.bfloat16 if a.bf16 else None
    torch.manual_seed(a.seed)          # the same first weights in every worker
    torch.set_num_threads(1 if a.workers > 1 or a.device != "cpu" else a.threads)
    dict(tower=stage_tower, decoder=stage_decoder, all=stage_decoder, eval=stage_eval)[a.stage](a)


if __name__ == "__main__":
    main()
