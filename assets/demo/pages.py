"""Endless pages of text for the vision tower, made from a store of drawn lines.

A line is drawn once, in some font, size and stretch, as the share of ink in each pixel. A page takes a few lines, puts
them anywhere, in any ink, on any background, and knows which letter lies where; that takes numpy a fraction of a
millisecond, so the tower never sees the same page twice. Crowded pages hold as many letters as fit: letters are what
the tower learns slowest.
"""
import argparse
import pickle

import numpy as np
import torch
from PIL import Image, ImageDraw

import draw

SIZE, GRID = draw.SIZE, draw.GRID
FACTS = 56 + 4 * 16        # numbers about a whole picture, see model.dense_loss


def draw_line(rng):
    """-> ink uint8 [h, w], text, centres of its letters from the left, middle of the small letters from the top"""
    file = str(rng.choice(draw.FONT_FILES))
    em = draw.EM * (48 / draw.EM) ** rng.random() if rng.random() < .4 else draw.EM * rng.uniform(.97, 1.5)
    tall = max(draw.EM * .97, em * np.exp(rng.uniform(-.45, .45)))
    text = draw.random_text(rng, 10) if rng.random() < .5 else draw.random_letters(rng, int(rng.integers(2, 11)))
    size = int(rng.choice([18, 24, 32, 44, 60, 90], p=[.1, .15, .2, .2, .2, .15]))
    f = draw.font(file, size)
    sx, sy = em / size, tall / size
    while f.getlength(text) * sx > SIZE - 5:
        text = text[:-1]
    text = text.strip() or "a"
    asc, desc = f.getmetrics()
    w, h = int(f.getlength(text)) + 8, asc + desc + 4
    im = Image.new("L", (w, h), 0)
    dx, dy = rng.random(2) * 2
    ImageDraw.Draw(im).text((3 + dx, 1 + dy), text, font=f, fill=255)
    ow, oh = max(1, round(w * sx)), max(1, round(h * sy))
    ink = np.asarray(im.resize((ow, oh), Image.BICUBIC))
    edges = np.array([3 + dx + f.getlength(text[:i]) for i in range(len(text) + 1)]) * ow / w
    mid = (1 + dy + asc - size * .3) * oh / h
    rows = np.flatnonzero(ink.max(1) > 40)
    top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, oh)
    cols = np.flatnonzero(ink.max(0) > 40)
    left, right = (cols[0], cols[-1] + 1) if len(cols) else (0, ow)
    return (np.ascontiguousarray(ink[top:bottom, left:right]), text,
            (edges[1:] + edges[:-1]) / 2 - left, mid - top)


def build(path, count, seed, grounds=1500):
    """Draws the store: lines, and backgrounds without anything."""
    rng = np.random.default_rng(seed)
    lines = [draw_line(rng) for _ in range(count)]
    lines = [l for l in lines if l[0].shape[1] < SIZE - 2 and l[0].shape[0] < SIZE - 2]
    px = np.stack([np.asarray(draw.background(rng, SIZE, SIZE)[0].convert("RGB")) for _ in range(grounds)])
    with open(path, "wb") as f:
        pickle.dump((lines, px), f)


class Pages:
    """pages [uint8 112 x 112 x 3] with labels, from a store; every second one is an older one in other colours."""
    KEEP = 3000

    def __init__(self, path):
        with open(path, "rb") as f:
            self.lines, self.grounds = pickle.load(f)
        self.small = [i for i, l in enumerate(self.lines) if l[0].shape[0] < 24]
        self.old, self.at = [], 0

    def page(self, rng, crowded):
        """-> picture uint8 [112, 112, 3], labels int16 [64, 13], lines"""
        px = self.grounds[rng.integers(len(self.grounds))].astype(np.float32)
        if rng.random() < .5:
            px = px[:, ::-1]
        if rng.random() < .5:
            px = px[::-1]
        px = px.copy()
        n = 9 if crowded else int(rng.choice([1, 2, 3], p=[.6, .27, .13]))
        y, at = (rng.uniform(0, 4) if crowded else 0), []
        flat = None
        if rng.random() < .2:
            flat = rng.uniform(0, 255, 3) if rng.random() < .3 else np.full(3, rng.choice([rng.uniform(235, 255),
                                                                                          rng.uniform(0, 30)]))
            x0, y0 = rng.integers(0, 5, 2)
            px[y0:SIZE - y0, x0:SIZE - x0] = flat
        chosen = []
        for _ in range(n):
            pool = self.small if crowded and rng.random() < .85 else None
            i = pool[rng.integers(len(pool))] if pool else int(rng.integers(len(self.lines)))
            if not crowded and chosen and rng.random() < .8:      # mostly lines of like height
                for _ in range(6):
                    if abs(self.lines[i][0].shape[0] - self.lines[chosen[0]][0].shape[0]) < 5:
                        break
                    i = int(rng.integers(len(self.lines)))
            h, mid = self.lines[i][0].shape[0], self.lines[i][3]
            if chosen and not crowded:          # never two lines in one row of patches
                y = max(y, at[-1] + self.lines[chosen[-1]][3] + SIZE / GRID + 1 - mid)
            gap = rng.uniform(2, 6)
            if y + h > SIZE - 1:
                break
            chosen.append(i)
            at.append(y)
            y += h + gap
        free = SIZE - 1 - (at[-1] + self.lines[chosen[-1]][0].shape[0])
        shift = rng.uniform(0, max(0, free))
        shared = rng.random() < .7
        left = rng.random()
        lab = np.zeros((GRID * GRID, 13), np.int16)
        number = 0
        mean = px.mean((0, 1)) if flat is None else flat
        ink = None
        for li, (i, y) in enumerate(zip(chosen, at)):
            alpha, text, xs, mid = self.lines[i]
            h, w = alpha.shape
            x = int((left if shared and not crowded else rng.random()) * (SIZE - w))
            y = int(y + shift)
            if ink is None or crowded:
                back = mean if flat is not None else px[y:y + h, x:x + w].mean((0, 1))
                for _ in range(30):
                    ink = np.array(draw.pick_color(rng, str(rng.choice(draw.COLORS))), np.float32) \
                        if rng.random() < .6 else np.full(3, rng.choice([rng.uniform(0, 60), rng.uniform(200, 255)]))
                    if np.sqrt(((ink - back) ** 2).sum()) > 85:
                        break
                else:
                    ink = np.full(3, 255. if back.mean() < 128 else 0.)
            a = alpha[..., None] * np.float32(1 / 255)
            px[y:y + h, x:x + w] += a * (ink.astype(np.float32) - px[y:y + h, x:x + w])
            for k, (c, cx) in enumerate(zip(text, xs)):
                number += 1
                if c == " ":
                    continue
                gx, gy = (x + cx) * GRID / SIZE, (y + mid) * GRID / SIZE
                p = min(GRID - 1, int(gy)) * GRID + min(GRID - 1, int(gx))
                draw.put_letter(lab[p, 7:10], min(2, int((gx - int(gx)) * 3)), draw.CHARS.index(c) + 1)
                if not crowded and lab[p, 10] == 0:
                    lab[p, 10], lab[p, 11], lab[p, 12] = min(39, number), li + 1, k + 1
            number += 1
        return np.clip(px, 0, 255).astype(np.uint8), lab, [self.lines[i][1] for i in chosen]

    def one(self, rng, crowded):
        if len(self.old) == self.KEEP and self.at % 2:
            self.at += 1
            px, lab, lines = self.old[int(rng.integers(self.KEEP))]
            px = px[..., rng.permutation(3)]
            return 255 - px if rng.random() < .7 else px, lab, lines
        made = self.page(rng, rng.random() < crowded)
        if len(self.old) < self.KEEP:
            self.old.append(made)
        else:
            self.old[int(rng.integers(self.KEEP))] = made
        self.at += 1
        return made

    def batch(self, rng, n, crowded=.5):
        """-> pictures, labels, counts as train.Cache.batch, facts as draw.facts"""
        px, lab = np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty((n, GRID * GRID, 13), np.int64)
        glob, facts = np.zeros((n, FACTS), np.int64), []
        for i in range(n):
            px[i], lab[i], lines = self.one(rng, crowded)
            glob[i, 54] = min(3, len(lines))
            facts.append((None, [], lines))
        return torch.from_numpy(px), torch.from_numpy(lab), torch.from_numpy(glob), facts


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--count", type=int, default=60000)
    ap.add_argument("--seed", type=int, default=6001)
    a = ap.parse_args()
    build(a.out, a.count, a.seed)
