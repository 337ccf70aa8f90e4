#!/usr/bin/env python3
"""The drawing world of the miniature model.

Every picture holds one to four plain shapes, a little text, or both, on a flat,
graded, noisy or textured background. `scene(rng)` returns the picture and
everything that is true about it; tasks.py turns that into questions.

    draw.py --seed 7 --out shot.png            one random picture
    draw.py --bundled DIR                      the pictures that ship with pali
    draw.py --cache FILE --count N --seed S    a training cache (see train.py)
"""
import argparse
import colorsys
import math
import os
import pickle

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

SIZE = 112                 # the model's square
GRID = 8                   # patches a side
MASK = 64                  # side of a mask
SHAPES = ["circle", "square", "triangle", "star", "ring"]
COLORS = ["red", "green", "blue", "yellow", "orange", "purple", "black", "white"]
BACKGROUNDS = COLORS + ["gray"]
CHARS = "abcdefghijklmnopqrstuvwxyz0123456789"
EM = 16                    # least size of text, in pixels of the model's square: one seventh of the picture

# hue range in degrees, saturation and value ranges
HSV = {
    "red": ((-8, 8), (0.75, 1.0), (0.68, 1.0)),
    "orange": ((22, 36), (0.80, 1.0), (0.88, 1.0)),
    "yellow": ((46, 62), (0.70, 1.0), (0.88, 1.0)),
    "green": ((95, 150), (0.55, 1.0), (0.42, 0.85)),
    "blue": ((205, 242), (0.65, 1.0), (0.55, 1.0)),
    "purple": ((272, 305), (0.50, 0.95), (0.45, 0.85)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.13)),
    "white": ((0, 360), (0.0, 0.04), (0.94, 1.0)),
    "gray": ((0, 360), (0.0, 0.06), (0.40, 0.72)),
}

FONT_FILES = [f"{d}/{f}" for d, names in {
    "/usr/share/fonts/truetype/dejavu": [
        "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf", "DejaVuSerif-Bold.ttf"],
    "/usr/share/fonts/truetype/liberation": [
        "LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationSerif-Regular.ttf",
        "LiberationSerif-Bold.ttf", "LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf"],
}.items() for f in names]
# the light ones of unequal widths are the hardest to read, so they are drawn twice as often
FONT_FILES += [f for f in FONT_FILES if f.rsplit("/", 1)[1] in (
    "DejaVuSans.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf")]

WORDS = """open close save file edit view help exit start stop play pause next back home menu user name
login email send reply print copy paste undo redo find search replace cancel apply accept yes no error
warning ready done busy wait loading total price sale free new old hot cold left right up down hello world
good morning night thank you please welcome shop cafe bar park road street school bank hotel taxi bus train
water coffee tea milk bread cake apple lemon orange pizza soup fish rice sugar salt house door window table
chair lamp clock phone radio music video photo image paper book page word line text font size color red
green blue yellow purple black white circle square star ring moon sun rain snow wind cloud river lake sea
hill tree leaf flower bird cat dog horse mouse cow pig duck bear wolf fox lion one two three four five six
seven eight nine ten zero north south east west map zoom quick brown jumps over lazy model pali demo test
build make run debug release version linux kernel shell root byte bit node port host server client cache
queue stack heap list array index key value true false null main loop code data type int float char""".split()

NARROW = "ijltfr1"          # two or more of these share what one patch shows

_font_cache = {}
_follow = {}
_bank = []


def font(path, size):
    key = (path, size)
    if key not in _font_cache:
        _font_cache[key] = ImageFont.truetype(path, size)
    return _font_cache[key]


def pick_color(rng, name):
    (h0, h1), (s0, s1), (v0, v1) = HSV[name]
    r, g, b = colorsys.hsv_to_rgb((rng.uniform(h0, h1) % 360) / 360, rng.uniform(s0, s1), rng.uniform(v0, v1))
    return int(r * 255), int(g * 255), int(b * 255)


def mix(a, b, t):
    return tuple(int(x + (y - x) * t) for x, y in zip(a, b))


def noise_bank():
    """A few large grey noise and texture pictures; backgrounds take crops of them."""
    if not _bank:
        g = np.random.default_rng(20240514)
        for _ in range(3):
            _bank.append(Image.fromarray(g.integers(0, 256, (600, 600, 3), dtype=np.uint8)))
            _bank.append(Image.fromarray(g.integers(0, 256, (600, 600), dtype=np.uint8)).convert("RGB"))
        for _ in range(6):       # several octaves of smooth noise: cloth, stone, foliage, sky
            acc = np.zeros((600, 600, 3))
            tint = g.uniform(0.4, 1.0, 3)
            for cells, amp in ((4, 1.0), (9, .7), (20, .5), (50, .35), (120, .25)):
                small = Image.fromarray(g.integers(0, 256, (cells, cells), dtype=np.uint8))
                acc += amp * np.asarray(small.resize((600, 600), Image.BICUBIC), float)[..., None] * tint
            acc -= acc.min()
            _bank.append(Image.fromarray((acc / acc.max() * 255).astype(np.uint8)))
    return _bank


def background(rng, w, h):
    """-> picture, name of its colour or None when it has none, mean colour"""
    r = rng.random()
    name = str(rng.choice(BACKGROUNDS, p=[.06, .06, .06, .06, .06, .06, .18, .28, .18]))
    base = pick_color(rng, name)
    if r < 0.5:
        im = Image.new("RGB", (w, h), base)
    else:
        # a gradient between two shades of the same colour
        k = 0.16
        lo, hi = mix(base, (0, 0, 0), k * rng.random()), mix(base, (255, 255, 255), k * rng.random())
        if name in ("black", "white"):
            lo, hi = (base, mix(base, (128, 128, 128), 0.10 * rng.random()))
        px = [[lo, lo], [hi, hi]]
        q = rng.integers(4)
        if q == 1:
            px = [[lo, hi], [lo, hi]]
        elif q == 2:
            px = [[lo, mix(lo, hi, .5)], [mix(lo, hi, .5), hi]]
        elif q == 3:
            px = [[hi, lo], [hi, lo]]
        im = Image.fromarray(np.array(px, np.uint8)).resize((w, h), Image.BILINEAR)
    if r >= 0.72:
        bank = noise_bank()
        textured = r >= 0.88
        tex = bank[int(rng.integers(6, len(bank)) if textured else rng.integers(0, 6))]
        cw, ch = (min(w, 600), min(h, 600))
        if textured:
            z = rng.uniform(0.3, 1)
            cw, ch = int(600 * z), int(600 * z)
        x, y = int(rng.integers(0, 601 - cw)), int(rng.integers(0, 601 - ch))
        crop = tex.crop((x, y, x + cw, y + ch))
        if crop.size != (w, h):
            crop = crop.resize((w, h), Image.BILINEAR)
        if textured:
            im = Image.blend(im, crop, rng.uniform(0.35, 0.9))
            name = None
        else:
            im = Image.blend(im, crop, rng.uniform(0.04, 0.16))
    mean = np.asarray(im.resize((8, 8), Image.BOX), float).reshape(-1, 3)
    return im, name, mean


def outline(kind, cx, cy, r, rot):
    """Corner points of a shape of 'radius' r (None for the round ones)."""
    if kind == "square":
        a = [45, 135, 225, 315]
        rr = [r * 1.25] * 4
    elif kind == "triangle":
        a = [-90, 30, 150]
        rr = [r * 1.15] * 3
    elif kind == "star":
        a = [-90 + 36 * i for i in range(10)]
        rr = [r * 1.12 if i % 2 == 0 else r * 0.46 for i in range(10)]
    else:
        return None
    return [(cx + q * math.cos(math.radians(t + rot)), cy + q * math.sin(math.radians(t + rot)))
            for t, q in zip(a, rr)]


def place(rng, w, h, count, boxes, big=False):
    """Sizes and places of `count` shapes that do not touch one another or `boxes`."""
    m = min(w, h)
    out = []
    for _ in range(count):
        for attempt in range(60):
            hi = 0.36 if attempt < 30 else 0.22
            if big and rng.random() < 0.35:
                hi = 0.62
            d = rng.uniform(0.105, hi) * m
            kind = str(rng.choice(SHAPES))
            rot = {"square": rng.uniform(-12, 12) if rng.random() < .5 else 0, "star": rng.uniform(-18, 18),
                   "triangle": rng.uniform(-20, 20) if rng.random() < .6 else 0}.get(kind, 0)
            stretch = rng.uniform(0.85, 1.18) if kind in ("circle", "square", "ring") and rng.random() < .25 else 1
            pts = outline(kind, 0, 0, d / 2, rot)
            if pts is None:
                x0, y0, x1, y1 = -d / 2, -d / 2, d / 2, d / 2
            else:
                x0, x1 = min(p[0] for p in pts), max(p[0] for p in pts)
                y0, y1 = min(p[1] for p in pts), max(p[1] for p in pts)
            x0, x1 = x0 * stretch, x1 * stretch
            if x1 - x0 > w - 2 or y1 - y0 > h - 2:
                continue
            cx, cy = rng.uniform(1 - x0, w - 1 - x1), rng.uniform(1 - y0, h - 1 - y1)
            box = (cx + x0, cy + y0, cx + x1, cy + y1)
            gap = 0.025 * m
            if any(box[0] < b[2] + gap and b[0] < box[2] + gap and box[1] < b[3] + gap and b[1] < box[3] + gap
                   for b in boxes):
                continue
            boxes.append(box)
            if pts is not None:
                pts = [(cx + p[0] * stretch, cy + p[1]) for p in pts]
            out.append(dict(shape=kind, box=box, pts=pts))
            break
    return out


def paint(im, o, fill, edge=None, width=1, dx=0, dy=0, smooth=True):
    """Draws an object of place(): what share of each pixel it covers is its opacity there or, not `smooth`, whether it
    covers more than half. An edge lies inside, so that the box stays what it is."""
    x0, y0, x1, y1 = (o["box"][0] + dx, o["box"][1] + dy, o["box"][2] + dx, o["box"][3] + dy)
    n, left, top = 4, math.floor(x0) - 1, math.floor(y0) - 1
    size = (math.ceil(x1) + 1 - left, math.ceil(y1) + 1 - top)
    whole, rim = (Image.new("L", (size[0] * n, size[1] * n), 0) for _ in range(2))
    dw, dr = ImageDraw.Draw(whole), ImageDraw.Draw(rim)

    def oval(d, inset, value):       # Pillow's ovals include their last pixel
        d.ellipse(((x0 + inset - left) * n, (y0 + inset - top) * n,
                   (x1 - inset - left) * n - 1, (y1 - inset - top) * n - 1), fill=value)
    if o["pts"] is not None:
        pts = [((x + dx - left) * n - .5, (y + dy - top) * n - .5) for x, y in o["pts"]]
        dw.polygon(pts, fill=255)
        dr.line(pts + pts[:2], fill=255, width=2 * width * n, joint="curve")
    else:
        oval(dw, 0, 255)
        oval(dr, 0, 255)
        oval(dr, width, 0)
        if o["shape"] == "ring":
            oval(dw, o["thick"] * min(x1 - x0, y1 - y0), 0)
    for cover, ink in ((whole, fill), (ImageChops.darker(whole, rim), edge)):
        if ink is not None:
            cover = cover.resize(size, Image.BOX)
            im.paste(ink, (left, top), cover if smooth else cover.point(lambda v: 255 * (v > 127)))


def form(o):
    """What a mask needs to know of an object of draw.place(): corners in the box's unit square, or a ring's hole."""
    x0, y0, x1, y1 = o["box"]
    if o["pts"] is not None:
        return [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in o["pts"]]
    if o["shape"] == "circle":
        return None
    t = o["thick"] * min(x1 - x0, y1 - y0)
    return (t / (x1 - x0), t / (y1 - y0))


def mask(shape, f):
    """The object cropped to its box and stretched to 64x64, uint8: the share of each cell that it covers."""
    n = MASK * 4
    im = Image.new("L", (n, n), 0)
    d = ImageDraw.Draw(im)
    if shape in ("circle", "ring"):
        d.ellipse((0, 0, n - 1, n - 1), fill=255)
        if shape == "ring":
            d.ellipse((f[0] * n, f[1] * n, n - 1 - f[0] * n, n - 1 - f[1] * n), fill=0)
    else:
        d.polygon([(x * n - .5, y * n - .5) for x, y in f], fill=255)
    return np.asarray(im.resize((MASK, MASK), Image.BOX))


def random_letters(rng, n, pool=CHARS):
    """No word at all, so that letters must be read one by one; often narrow ones, and pairs of the same."""
    narrow = .3 if rng.random() < .4 else 0
    s = ""
    while len(s) < n:
        c = str(rng.choice(list(NARROW if rng.random() < narrow else pool)))
        s += c * (2 if rng.random() < .12 else 1)
    return s[:n]


def likely_word(rng, n):
    """A word that is none, of letters as they follow two others in WORDS."""
    if not _follow:
        for w in WORDS:
            for i, c in enumerate(w):
                _follow.setdefault(w[max(0, i - 2):i], []).append(c)
    s = ""
    while len(s) < n:
        after = _follow.get(s[-2:]) or _follow.get(s[-1:]) or _follow[""]
        s += after[int(rng.integers(len(after)))]
    return s


def random_text(rng, limit):
    r = rng.random()
    if r < 0.16:
        s = str(rng.choice(WORDS))
    elif r < 0.24:
        s = " ".join(str(w) for w in rng.choice(WORDS, 2))
    elif r < 0.38:
        s = "".join(rng.choice(list("0123456789"), int(rng.integers(1, 7))))
    elif r < 0.44:
        s = str(rng.choice(WORDS)) + " " + str(rng.integers(0, 1000))
    elif r < 0.66:
        s = likely_word(rng, int(rng.integers(3, 10)))
    else:
        s = random_letters(rng, int(rng.integers(2, 10)), CHARS if r > 0.85 else CHARS[:26])
    return s[:limit].strip() or "a"


def write(rng, d, w, h, avail, color, nlines):
    """Draws up to nlines lines of text inside avail; -> lines (text, box, character boxes) or []."""
    ax0, ay0, ax1, ay1 = avail
    least = EM * max(w, h) / SIZE          # in pixels of this picture, so that both sides keep it after the squeeze
    for _ in range(6):
        f = font(str(rng.choice(FONT_FILES)), math.ceil(least))
        limit = max(1, int((ax1 - ax0) / f.getlength("n")))
        texts = [random_text(rng, min(10, limit)) for _ in range(nlines)]
        longest = max(f.getlength(t) for t in texts)
        asc, desc = f.getmetrics()
        room = min((ax1 - ax0) / longest, (ay1 - ay0) / (1.02 * (asc + desc) * nlines), .45 * h / least)
        if room >= 1:
            break
    else:
        return []
    f = font(f.path, int(math.ceil(least) * (1 + (room - 1) * rng.random() ** 1.4)))
    asc, desc = f.getmetrics()
    size, width = f.size, max(f.getlength(t) for t in texts)
    step = (asc + desc) * rng.uniform(1.0, 1.25)
    step = min(step, (ay1 - ay0) / nlines)
    x = rng.uniform(ax0, ax1 - width) if ax1 - width > ax0 else ax0
    y = rng.uniform(ay0, max(ay0, ay1 - step * nlines))
    lines = []
    for t in texts:
        d.text((x, y), t, font=f, fill=color)
        edges = [x + f.getlength(t[:i]) for i in range(len(t) + 1)]
        top, bottom = y + asc - size * 0.74, y + asc + size * 0.2
        lines.append(dict(text=t, box=(edges[0], top, edges[-1], bottom),
                              chars=[(c, (edges[i] + edges[i + 1]) / 2, y + asc - size * 0.3)
                                     for i, c in enumerate(t)]))
        y += step
    return lines


def scene(rng, kind=None):
    """One picture: dict(image, objects, lines, background). Boxes are fractions of the sides."""
    if kind is None:
        kind = str(rng.choice(["single", "several", "text", "mixed"], p=[.36, .32, .18, .14]))
    m = int(rng.choice([112, 128, 160, 224, 256, 320], p=[.15, .15, .2, .25, .15, .1]))
    aspect = 1.0 if rng.random() < .3 else math.exp(rng.uniform(-.5, .55))
    w, h = max(96, int(m * math.sqrt(aspect))), max(96, int(m / math.sqrt(aspect)))
    im, bgname, bgmean = background(rng, w, h)
    d = ImageDraw.Draw(im)
    boxes, lines, objects = [], [], []

    if kind in ("text", "mixed"):
        lum = bgmean.mean()
        for _ in range(20):          # another colour is enough, it need not be lighter or darker: red on green
            name = str(rng.choice(COLORS, p=[.11, .09, .12, .08, .06, .06, .24, .24]))
            ink = pick_color(rng, name)
            if np.sqrt(((bgmean - np.array(ink)) ** 2).sum(1)).min() > 85:
                break
        else:
            ink = (255, 255, 255) if lum < 128 else (0, 0, 0)
        n = int(rng.choice([1, 2, 3], p=[.6, .27, .13])) if kind == "text" else 1
        pad = 0.03 * min(w, h)
        avail = [pad, pad, w - pad, h - pad]
        if kind == "mixed":
            cut = rng.uniform(.3, .5)
            side = rng.integers(3)
            if side == 0:
                avail[3] = cut * h
            elif side == 1:
                avail[1] = (1 - cut) * h
            else:
                avail[2] = .5 * w
        if rng.random() < .25:            # a panel behind the text
            panel = (255, 255, 255) if np.mean(ink) < 128 else (20, 20, 28)
            probe = write(np.random.default_rng(0), ImageDraw.Draw(Image.new("L", (1, 1))), w, h, avail, 0, 1)
            if probe:
                d.rectangle((avail[0] - pad / 2, avail[1] - pad / 2, avail[2] + pad / 2, avail[3] + pad / 2),
                            fill=panel)
                boxes.append(tuple(avail))
                bgname = None
        lines = write(rng, d, w, h, avail, ink, n)
        boxes.extend(l["box"] for l in lines)

    if kind != "text" or not lines:
        count = {"single": 1, "text": 1}.get(kind)
        if count is None:
            count = int(rng.choice([2, 3, 4], p=[.45, .32, .23])) if kind == "several" else \
                int(rng.choice([1, 2, 3], p=[.6, .3, .1]))
        objects = place(rng, w, h, count, boxes, big=kind == "single")
        shadow = rng.random() < .15
        edged = rng.random() < .2
        smooth = rng.random() < .8
        same = str(rng.choice(COLORS)) if rng.random() < .06 else None
        for o in objects:
            for _ in range(30):
                o["color"] = same or str(rng.choice(COLORS))
                fill = pick_color(rng, o["color"])
                far = np.sqrt(((bgmean - np.array(fill)) ** 2).sum(1)).min()
                if far > 85 and o["color"] != bgname:
                    break
                same = None
            o["thick"] = rng.uniform(.12, .24)
            s = min(o["box"][2] - o["box"][0], o["box"][3] - o["box"][1])
            if shadow:
                dark = mix(tuple(int(v) for v in bgmean.mean(0)), (0, 0, 0), .35)
                paint(im, o, dark, None, 1, s * .07, s * .07, smooth)
            edge = None
            if edged and o["shape"] != "ring":
                edge = mix(fill, (0, 0, 0), .6) if np.mean(fill) > 60 else (120, 120, 120)
            paint(im, o, fill, edge, max(1, int(s * .05)), smooth=smooth)

    sx, sy = 1.0 / w, 1.0 / h
    for o in objects:
        o["form"] = form(o)
        x0, y0, x1, y1 = o["box"]
        o["box"] = (x0 * sx, y0 * sy, x1 * sx, y1 * sy)
    for l in lines:
        l["box"] = (l["box"][0] * sx, l["box"][1] * sy, l["box"][2] * sx, l["box"][3] * sy)
        l["chars"] = [(c, x * sx, y * sy) for c, x, y in l["chars"]]
    objects.sort(key=lambda o: o["box"][0] + o["box"][2])
    return dict(image=im, objects=objects, lines=lines, background=bgname)


def squeeze(im):
    """What PaliGemma's preprocessing does: the whole picture squeezed to the square, Pillow bicubic."""
    return im if im.size == (SIZE, SIZE) else im.resize((SIZE, SIZE), Image.BICUBIC)


def put_letter(row, third, c):
    """Into the thirds of a patch, from left to right; narrow letters with their centres in one third make room."""
    if row[third]:
        if third < 2:
            third += 1
        elif row[1] == 0:
            row[1] = row[2]
        elif row[0] == 0:
            row[0], row[1] = row[1], row[2]
    row[third] = c


def patch_labels(sc):
    """Dense truth for each of the 64 patches, as a small int16 array [64, 13].

    0 shape (0 = none)       1 colour (0 = none)    2..5 box of the object covering the patch, in 1/1024
    6 rank of the object whose centre lies here, left to right (0 = no centre here)
    7..9 characters whose centre lies in the left, middle, right third (0 = none)
    10 number in reading order of the first character of this patch (0 = none)   11 = line number (0 = none)
    12 number within its line
    """
    lab = np.zeros((GRID * GRID, 13), np.int16)
    if sc["objects"]:
        n = GRID * 4
        yy, xx = np.mgrid[0:n, 0:n]
        xx, yy = (xx + .5) / n, (yy + .5) / n
        for rank, o in enumerate(sc["objects"]):
            x0, y0, x1, y1 = o["box"]
            cover = ((xx - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((yy - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2 < 1.1
            cover &= (xx > x0) & (xx < x1) & (yy > y0) & (yy < y1)
            frac = cover.reshape(GRID, 4, GRID, 4).mean((1, 3)).reshape(-1)
            centre = min(GRID - 1, int((y0 + y1) / 2 * GRID)) * GRID + min(GRID - 1, int((x0 + x1) / 2 * GRID))
            where = frac >= 0.3
            where[centre] = True
            lab[where, 0] = SHAPES.index(o["shape"]) + 1
            lab[where, 1] = COLORS.index(o["color"]) + 1
            lab[where, 2:6] = [int(v * 1024) for v in o["box"]]
            lab[centre, 6] = rank + 1
    number = 0
    for li, l in enumerate(sc["lines"]):
        for k, (c, x, y) in enumerate(l["chars"]):
            number += 1
            if c == " ":
                continue
            px, py = int(x * GRID), int(y * GRID)
            if not (0 <= px < GRID and 0 <= py < GRID):
                continue
            p = py * GRID + px
            put_letter(lab[p, 7:10], min(2, int((x * GRID - px) * 3)), CHARS.index(c) + 1)
            if lab[p, 10] == 0:
                lab[p, 10], lab[p, 11], lab[p, 12] = number, li + 1, k + 1
        number += 1            # the line break
    return lab


def facts(sc):
    """The scene without its pixels, small enough to keep a hundred thousand of them: name of the background, objects
    (shape, colour, box, form; a cache holds the 16 mask codes in place of the form), lines of text."""
    return (sc["background"],
            [(o["shape"], o["color"], tuple(round(v, 4) for v in o["box"]), o["form"]) for o in sc["objects"]],
            [l["text"] for l in sc["lines"]])


def mask_codes(metas, codec):
    """Facts with each object's form replaced by the codes of its mask, in which nothing covers it."""
    import torch
    objs = [o for m in metas for o in m[1]]
    x = np.stack([mask(o[0], o[3]) for o in objs])
    codes = iter(np.concatenate([codec.codes(torch.from_numpy(x[i:i + 256]).float() / 255).numpy()
                                 for i in range(0, len(x), 256)]).tolist())
    return [(bg, [o[:3] + (tuple(next(codes)),) for o in things], lines) for bg, things, lines in metas]


def build_cache(path, count, seed, kind, codec):
    """Pictures (uint8), patch labels and facts of `count` scenes."""
    rng = np.random.default_rng(seed)
    px = np.lib.format.open_memmap(path + ".px.npy", mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
    lab = np.zeros((count, GRID * GRID, 13), np.int16)
    meta = []
    for i in range(count):
        sc = scene(rng, kind)
        px[i] = np.asarray(squeeze(sc["image"]))
        lab[i] = patch_labels(sc)
        meta.append(facts(sc))
    px.flush()
    np.save(path + ".lab.npy", lab)
    with open(path + ".meta", "wb") as f:
        pickle.dump(mask_codes(meta, codec), f)


def shape(kind, cx, cy, d, rot=0, thick=.18):
    pts = outline(kind, cx, cy, d / 2, rot)
    box = (cx - d / 2, cy - d / 2, cx + d / 2, cy + d / 2) if pts is None else \
        (min(p[0] for p in pts), min(p[1] for p in pts), max(p[0] for p in pts), max(p[1] for p in pts))
    return dict(shape=kind, box=box, pts=pts, thick=thick)


def bundled(out):
    """The pictures that ship beside the model: drawn at twice their size, then halved."""
    w, h = 480, 360
    for name, light, things in (
            ("demo.png", ((250, 250, 252), (226, 230, 238)),
             [("circle", 130, 264, 116, (222, 38, 42), 0), ("star", 345, 220, 150, (40, 92, 220), 8)]),
            ("single.png", ((40, 42, 54), (24, 25, 33)), [("triangle", 150, 240, 130, (246, 216, 44), 0)])):
        im = Image.fromarray(np.array([[light[0]] * 2, [light[1]] * 2], np.uint8)).resize((2 * w, 2 * h),
                                                                                          Image.BILINEAR)
        d = ImageDraw.Draw(im)
        for kind, cx, cy, size, fill, rot in things:
            paint(im, shape(kind, 2 * cx, 2 * cy, 2 * size, rot), fill)
        if name == "demo.png":
            d.text((96, 24), "hello 42", font=font(FONT_FILES[0], 150), fill=(30, 32, 40))
        im.resize((w, h), Image.BOX).save(os.path.join(out, name))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--kind", choices=["single", "several", "text", "mixed"])
    ap.add_argument("--out")
    ap.add_argument("--sheet", help="a contact sheet of 48 squeezed pictures")
    ap.add_argument("--bundled", metavar="DIR")
    ap.add_argument("--cache")
    ap.add_argument("--count", type=int, default=1000)
    a = ap.parse_args()
    if a.cache:
        import mask as codec           # imports this file, and needs torch; everything else here does without
        build_cache(a.cache, a.count, a.seed, a.kind, codec.load(os.path.dirname(os.path.abspath(a.cache))))
    if a.bundled:
        bundled(a.bundled)
    rng = np.random.default_rng(a.seed)
    if a.out:
        sc = scene(rng, a.kind)
        sc["image"].save(a.out)
        print(facts(sc))
    if a.sheet:
        sheet = Image.new("RGB", (8 * 116, 6 * 116), (90, 90, 90))
        for i in range(48):
            sheet.paste(squeeze(scene(rng, a.kind)["image"]), (i % 8 * 116 + 2, i // 8 * 116 + 2))
        sheet.save(a.sheet)


if __name__ == "__main__":
    main()
