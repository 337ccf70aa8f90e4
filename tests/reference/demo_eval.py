#!/usr/bin/env python3
"""Held-out examination of the miniature model in assets/demo.

Draws fresh pictures with its own drawing code (coverage computed analytically on a fine grid with numpy, text by
Pillow), shares nothing with assets/demo/draw.py, decodes the codes of masks with numpy (mask_shapes.py), and keeps the questions in questions.jsonl:

    {"id": 17, "image": "0003.png", "size": [w, h], "task": "color", "prompts": ["What color is the star?"],
     "expected": "red"}

A follow-up has several prompts; only the last answer is marked. Uses:

    demo_eval.py --out DIR [--count 1200] [--seed N]                 draw and ask only
    demo_eval.py --out DIR --pali build/pali --model assets/demo     also run pali and print the table
    demo_eval.py --out DIR --answers FILE                            mark answers made elsewhere:
          JSON lines {"id": 17, "text": "red"} or {"image": "0003.png", "prompt": "...", "text": "..."}

Needs numpy and Pillow. Exit status 0; --min task=0.9 (repeatable) turns a task below its mark into status 1.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mask_shapes

PALETTE = {
    "red": (214, 30, 36), "green": (34, 150, 62), "blue": (38, 84, 216), "yellow": (246, 218, 40),
    "orange": (246, 140, 20), "purple": (136, 48, 160), "black": (14, 14, 16), "white": (250, 250, 250),
}
KINDS = ("circle", "square", "triangle", "star", "ring")
GROUNDS = {"white": (252, 252, 252), "black": (12, 12, 14), "gray": (140, 141, 143), "blue": (50, 96, 205),
           "green": (40, 140, 70), "yellow": (242, 220, 70), "red": (200, 40, 44)}
FONTS = ["dejavu/DejaVuSans.ttf", "dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSansMono.ttf", "dejavu/DejaVuSerif.ttf",
         "liberation/LiberationSans-Regular.ttf", "liberation/LiberationMono-Bold.ttf",
         "liberation/LiberationSerif-Regular.ttf"]
VOCAB = ("settings account profile update install remove share upload message window folder project center button "
         "monday friday winter summer garden bridge tower castle island valley number letter simple gentle silver "
         "golden bright forest market ticket doctor engine planet rocket guitar violin pepper tomato").split()
SUB = 4                                        # sub-samples a side


# ---- drawing ---------------------------------------------------------------

def inside(kind, u, v, angle, hole):
    """Is the point (u, v), in units of the shape's radius, inside?"""
    if kind in ("circle", "ring"):
        d = u * u + v * v
        return (d <= 1) & (d >= hole * hole) if kind == "ring" else d <= 1
    c, s = np.cos(-angle), np.sin(-angle)
    u, v = u * c - v * s, u * s + v * c
    if kind == "square":
        return (np.abs(u) <= .85) & (np.abs(v) <= .85)
    pts = corners(kind, 0)
    odd = np.zeros(u.shape, bool)
    for (x0, y0), (x1, y1) in zip(pts, np.roll(pts, -1, 0)):
        cross = (y0 > v) != (y1 > v)
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= cross & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
    return odd


def corners(kind, angle):
    if kind == "square":
        p = np.array([(-.85, -.85), (.85, -.85), (.85, .85), (-.85, .85)])
    elif kind == "triangle":
        p = np.array([(np.sin(t), -np.cos(t)) for t in np.radians([0, 120, 240])]) * 1.1
    else:
        p = np.array([(np.sin(t) * r, -np.cos(t) * r) for t, r in
                      zip(np.radians(np.arange(10) * 36), [1.1, .45] * 5)])
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([p[:, 0] * c - p[:, 1] * s, p[:, 0] * s + p[:, 1] * c], 1)


def extent(kind, cx, cy, r, angle):
    if kind in ("circle", "ring"):
        return [cx - r, cy - r, cx + r, cy + r]
    p = corners(kind, angle) * r + (cx, cy)
    return [*p.min(0), *p.max(0)]


def stamp(canvas, kind, cx, cy, r, angle, hole, rgb):
    h, w, _ = canvas.shape
    x0, y0, x1, y1 = extent(kind, cx, cy, r, angle)
    x0, y0, x1, y1 = max(0, int(x0) - 1), max(0, int(y0) - 1), min(w, int(x1) + 2), min(h, int(y1) + 2)
    xs = x0 + (np.arange((x1 - x0) * SUB) + .5) / SUB
    ys = y0 + (np.arange((y1 - y0) * SUB) + .5) / SUB
    hit = inside(kind, ((xs - cx) / r)[None, :] + 0 * ys[:, None], ((ys - cy) / r)[:, None] + 0 * xs[None, :],
                 angle, hole)
    a = hit.reshape(y1 - y0, SUB, x1 - x0, SUB).mean((1, 3))[..., None]
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - a) + np.array(rgb) * a


def shade(rng, rgb, amount=10):
    return np.clip(np.array(rgb, float) + rng.uniform(-amount, amount, 3), 0, 255)


def ground(rng, w, h):
    """-> canvas float [h, w, 3], name or None"""
    names = list(GROUNDS)
    name = names[rng.choice(len(names), p=[.34, .2, .18, .07, .07, .07, .07])]
    base = shade(rng, GROUNDS[name], 4)
    canvas = np.broadcast_to(base, (h, w, 3)).copy()
    style = rng.choice(["flat", "ramp", "noise", "cloud"], p=[.5, .2, .17, .13])
    if style == "ramp":
        t = np.linspace(-1, 1, h)[:, None] if rng.random() < .5 else np.linspace(-1, 1, w)[None, :]
        canvas += 11 * np.broadcast_to(t, (h, w))[..., None]
    elif style == "noise":
        canvas += rng.normal(0, rng.uniform(3, 12), canvas.shape)
    elif style == "cloud":
        acc = np.zeros((h, w))
        for n in (3, 7, 15, 31):
            g = Image.fromarray(rng.random((n, n)).astype(np.float32))
            acc += np.asarray(g.resize((w, h), Image.BICUBIC)) * 6 / n ** .6
        acc = (acc - acc.mean()) / acc.std()
        canvas += acc[..., None] * rng.uniform(12, 26)
        name = None
    return np.clip(canvas, 0, 255), name


def contrast(canvas, rgb):
    return np.sqrt(((canvas.reshape(-1, 3)[::97] - np.array(rgb)) ** 2).sum(1)).min()


def picture(rng, kind):
    w, h = int(rng.integers(180, 641)), int(rng.integers(180, 521))
    if rng.random() < .3:
        w = h
    ratio = w / h
    if not .6 < ratio < 1.7:
        w = int(h * rng.uniform(.7, 1.6))
    canvas, bg = ground(rng, w, h)
    m = min(w, h)
    things, lines, taken = [], [], []
    write = None
    if kind in ("text", "both"):
        for _ in range(200):
            r = rng.random()
            if r < .55:
                s = str(rng.choice(VOCAB))
            elif r < .75:
                s = str(rng.integers(0, 10 ** int(rng.integers(2, 7))))
            else:
                s = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), int(rng.integers(3, 8))))
            n = int(rng.choice([1, 2, 3], p=[.65, .23, .12])) if kind == "text" else 1
            lines = [s] + [str(rng.choice(VOCAB)) if rng.random() < .6 else str(rng.integers(0, 10 ** 5))
                           for _ in range(n - 1)]
            # the size of the letters, a seventh of the picture's longer side at least
            f = ImageFont.truetype("/usr/share/fonts/truetype/" + str(rng.choice(FONTS)),
                                   int(np.ceil(rng.uniform(1, 1.8) * max(w, h) / 7)))
            tw = max(f.getlength(t) for t in lines)
            asc, desc = f.getmetrics()
            th = (asc + desc) * len(lines)
            if tw < .94 * w and th < (.45 if kind == "both" else .94) * h:
                break
        else:
            return None
        x, y = rng.uniform(.03 * w, .97 * w - tw), rng.uniform(.02 * h, .98 * h - th)
        for _ in range(100):
            ink = shade(rng, PALETTE[str(rng.choice(["black", "white", "black", "white", "blue", "red"]))])
            if contrast(canvas, ink) > 90:
                break
        else:
            return None
        taken.append((x - 4, y - 2, x + tw + 4, y + th + 2))
        write = (x, y, f, asc + desc, tuple(int(c) for c in ink))
    if kind != "text":
        want = {"one": 1, "both": 1}.get(kind) or int(rng.integers(2, 5))
        for _ in range(400):
            if len(things) == want:
                break
            k, c = str(rng.choice(KINDS)), str(rng.choice(list(PALETTE)))
            rgb = shade(rng, PALETTE[c], 8)
            if c == bg or contrast(canvas, rgb) < 90:
                continue
            r = rng.uniform(1 / 9, 1 / 3) * m / 2
            angle = np.radians(rng.uniform(-10, 10)) if k not in ("circle", "ring") else 0
            e = extent(k, 0, 0, r, angle)
            cx, cy = rng.uniform(1 - e[0], w - 1 - e[2]), rng.uniform(1 - e[1], h - 1 - e[3])
            box = extent(k, cx, cy, r, angle)
            g = .03 * m
            if any(box[0] < t[2] + g and t[0] < box[2] + g and box[1] < t[3] + g and t[1] < box[3] + g for t in taken):
                continue
            taken.append(box)
            hole = rng.uniform(.55, .75)
            stamp(canvas, k, cx, cy, r, angle, hole, rgb)
            things.append(dict(kind=k, color=c, box=[float(v) for v in box],
                               form=[float(v) for v in (cx, cy, r, angle, hole)]))
        if len(things) != want:
            return None
    im = Image.fromarray(np.clip(canvas + .5, 0, 255).astype(np.uint8))
    if write:
        d = ImageDraw.Draw(im)
        x, y, f, step, ink = write
        for i, t in enumerate(lines):
            d.text((x, y + i * step), t, font=f, fill=ink)
    things.sort(key=lambda t: t["box"][0] + t["box"][2])
    return im, things, lines, bg


# ---- questions ---------------------------------------------------------------

def an(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def ninth(box, w, h):
    """Which ninth holds the centre; None within a fiftieth of a border."""
    x, y = (box[0] + box[2]) / 2 / w, (box[1] + box[3]) / 2 / h
    if min(abs(x - 1 / 3), abs(x - 2 / 3), abs(y - 1 / 3), abs(y - 2 / 3)) < .02:
        return None
    col, row = int(x * 3), int(y * 3)
    name = f"{('top', '', 'bottom')[row]} {('left', '', 'right')[col]}".strip()
    return name or "center"


def questions(rng, size, things, lines, bg):
    """All that is asked about one picture: (task, [prompts], expected)"""
    w, h = size
    out = []

    def ask(q):
        form = rng.integers(4)
        if form < 2:
            return f"answer en {q}?"
        return q[0].upper() + q[1:] + "?" if form == 2 else q

    kinds, colors = [t["kind"] for t in things], [t["color"] for t in things]
    lone = [t for t in things if kinds.count(t["kind"]) == 1]
    lone_c = [t for t in things if colors.count(t["color"]) == 1]
    one = "one " if len(things) == 1 and not lines else ""
    words = [an(f"{t['color']} {t['kind']}") for t in things] + (["some text"] if lines else [])
    caption = ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
    out.append((one + "caption", [str(rng.choice(["caption en", "caption en", "What is in the picture?", ""]))],
                caption))
    if lone:
        t = lone[rng.integers(len(lone))]
        out.append((one + "color", [ask(f"what color is the {t['kind']}")], t["color"]))
        p = ninth(t["box"], w, h)
        if p:
            out.append(("where", [ask(f"where is the {t['kind']}")], p))
    if lone_c:
        t = lone_c[rng.integers(len(lone_c))]
        out.append((one + "shape", [ask(f"what shape is {t['color']}")], t["kind"]))
    if things:
        pairs = {(t["color"], t["kind"]) for t in things}
        t = things[rng.integers(len(things))]
        if rng.random() < .5:
            q, a = f"is there {an(t['color'] + ' ' + t['kind'])}", "yes"
        else:
            while True:
                c, k = str(rng.choice(list(PALETTE))), str(rng.choice(KINDS))
                if rng.random() < .6:
                    c, k = (t["color"], k) if rng.random() < .5 else (c, t["kind"])
                if (c, k) not in pairs:
                    break
            q, a = f"is there {an(c + ' ' + k)}", "no"
        out.append((one + "yes/no", [ask(q)], a))
        if rng.random() < .6:
            out.append(("count", [ask("how many shapes are there")], str(len(things))))
        else:
            k = str(rng.choice(KINDS)) if rng.random() < .3 else kinds[rng.integers(len(kinds))]
            out.append(("count", [ask(f"how many {k}s are there")], str(kinds.count(k))))
        name = f"{t['color']} {t['kind']}"
        out.append(("detect", [f"detect {name}"], [[name, q["box"]] for q in things
                                                   if (q["color"], q["kind"]) == (t["color"], t["kind"])]))
        same = [q for q in things if (q["color"], q["kind"]) == (t["color"], t["kind"])]
        out.append(("segment", [f"segment {name}"], [[q["kind"], q["form"]] for q in same]))
        if len(things) > 1 and rng.random() < .5 and len(set(kinds)) > 1:
            a, b = (str(k) for k in rng.choice(sorted(set(kinds)), 2, replace=False))
            out.append(("detect two", [f"detect {a} ; {b}"], [[k, q["box"]] for k in (a, b) for q in things
                                                             if q["kind"] == k]))
        if rng.random() < .2:
            c, k = str(rng.choice(list(PALETTE))), str(rng.choice(KINDS))
            if (c, k) not in pairs:
                out.append(("detect absent", [f"detect {c} {k}"], []))
    if len(lone) > 1:
        i, j = rng.choice(len(lone), 2, replace=False)
        a, b = lone[i], lone[j]
        pa, pb = ninth(a["box"], w, h), ninth(b["box"], w, h)
        r = rng.integers(3)
        if r == 0:
            out.append(("follow-up", [f"What color is the {a['kind']}?", f"And the {b['kind']}?"], b["color"]))
        elif r == 1:
            out.append(("follow-up", [f"Where is the {a['kind']}?", "What color is it?"], a["color"]))
        elif pa:
            out.append(("follow-up", [f"What color is the {a['kind']}?", "Where is it?"], pa))
    if lines:
        out.append(("ocr", ["ocr"], "\n".join(lines)))
        out.append(("ocr", [ask("what does the text say")], "\n".join(lines)))
    elif bg and rng.random() < .3:
        out.append(("background", [ask("what color is the background")], bg))
    return [out[i] for i in sorted(rng.permutation(len(out))[:3])]        # few about each, so that there are many


def make(out, count, seed):
    rng = np.random.default_rng(seed)
    os.makedirs(out, exist_ok=True)
    asked, n = [], 0
    while len(asked) < count:
        made = picture(rng, str(rng.choice(["one", "some", "text", "both"], p=[.34, .38, .18, .1])))
        if not made:
            continue
        im, things, lines, bg = made
        name = f"{n:04d}.png"
        im.save(os.path.join(out, name))
        n += 1
        for task, prompts, expected in questions(rng, im.size, things, lines, bg):
            asked.append(dict(id=len(asked), image=name, size=im.size, task=task, prompts=prompts, expected=expected))
    with open(os.path.join(out, "questions.jsonl"), "w") as f:
        for q in asked:
            f.write(json.dumps(q) + "\n")
    return asked


# ---- asking pali ---------------------------------------------------------------

def run(pali, model, image, prompts, extra):
    cmd = [pali, "--json"] + extra + (["-m", model] if model else []) + [image]
    for p in prompts:
        cmd += ["-p", p]
    r = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    replies = [json.loads(l) for l in r.stdout.splitlines() if l.startswith("{")]
    if r.returncode or len(replies) != len(prompts):
        sys.exit(f"{' '.join(cmd)}: status {r.returncode}, {len(replies)} answers\n{r.stderr}")
    return replies


def ask_pali(asked, out, pali, model, extra):
    """Single questions of a picture in one call without history; follow-ups as one chat each, and once without."""
    answers = {}
    by_image = {}
    for q in asked:
        by_image.setdefault(q["image"], []).append(q)
    for image, qs in by_image.items():
        path = os.path.join(out, image)
        single = [q for q in qs if len(q["prompts"]) == 1]
        if single:
            replies = run(pali, model, path, [q["prompts"][0] for q in single], extra + ["--history", "none"])
            for q, r in zip(single, replies):
                answers[q["id"]] = r
        for q in qs:
            if len(q["prompts"]) > 1:
                answers[q["id"]] = run(pali, model, path, q["prompts"], extra)[-1]
                answers[q["id"], "none"] = run(pali, model, path, q["prompts"], extra + ["--history", "none"])[-1]
    return answers


# ---- marking ---------------------------------------------------------------

ITEM = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>\s?([^;<>]*)")


def found(reply, size):
    """-> [(label, box in pixels)]"""
    if reply.get("objects"):
        return [(o["label"].strip(), o["box"]) for o in reply["objects"]]
    w, h = size
    return [(m[4].strip(), [int(m[1]) / 1024 * w, int(m[0]) / 1024 * h, int(m[3]) / 1024 * w, int(m[2]) / 1024 * h])
            for m in ITEM.findall(reply["text"])]


SEGMENT = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>((?:<seg\d{3}>){16})")


def mask_overlap(forms, text, size, decoder):
    """IoU, in pixels of the picture, of the things asked for and all masks in the answer."""
    w, h = size
    want, got = np.zeros((h, w), bool), np.zeros((h, w), bool)
    ys, xs = np.mgrid[0:h, 0:w] + .5
    for kind, (cx, cy, r, angle, hole) in forms:
        want |= inside(kind, (xs - cx) / r, (ys - cy) / r, angle, hole)
    for m in SEGMENT.findall(text):
        y0, x0, y1, x1 = (round(int(v) / 1024 * n) for v, n in zip(m[:4], (h, w, h, w)))
        if x1 > x0 and y1 > y0:
            part = mask_shapes.decode(decoder, np.array(re.findall(r"\d{3}", m[4]), int)).astype(np.float32)
            got[y0:y1, x0:x1] |= np.asarray(Image.fromarray(part).resize((x1 - x0, y1 - y0), Image.BILINEAR)) > 0
    return float((want & got).sum() / (want | got).sum())


def overlap(a, b):
    i = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return i / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - i + 1e-9)


def edits(a, b):
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        new = np.empty_like(row)
        new[0] = i
        for j, y in enumerate(b, 1):
            new[j] = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y))
        row = new
    return int(row[-1])


def mark(q, reply, decoder):
    """-> {row of the table: value}"""
    task, want, text = q["task"], q["expected"], reply["text"]
    if task == "segment":
        v = mask_overlap(want, text, q["size"], decoder)
        return {"segment: mean mask IoU": v, "segment: found at 0.5": float(v > .5)}
    if task.startswith("detect"):
        got = found(reply, q["size"])
        if not want:
            return {task: float(not got)}
        best = [max([overlap(b, g) for m, g in got if m == n] or [0]) for n, b in want]
        return {task + ": mean IoU": float(np.mean(best)), task + ": found at 0.5": float(np.mean(np.array(best) > .5)),
                task + ": right number": float(len(got) == len(want))}
    if task.endswith("caption"):
        def split(s):
            return sorted(re.split(", | and ", s.strip()))
        return {task: float(split(text) == split(want))}
    if task == "ocr":
        want_lines, got_lines = want.split("\n"), text.strip().split("\n")
        right = sum(a == b for a, b in zip(want_lines, got_lines))
        return {"ocr: characters": 1 - min(1, edits(text.strip(), want) / len(want)),
                "ocr: lines exact": right / len(want_lines)}
    return {task: float(text.strip() == want)}


def table(asked, answers, decoder):
    rows = {}

    def add(marks):
        for k, v in marks.items():
            rows.setdefault(k, []).append(v)

    for q in asked:
        if q["id"] in answers:
            add(mark(q, answers[q["id"]], decoder))
        if (q["id"], "none") in answers:
            add({"follow-up, history none": mark(q, answers[q["id"], "none"], decoder)["follow-up"]})
    return {k: (float(np.mean(v)), len(v)) for k, v in sorted(rows.items())}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, help="folder for the pictures and questions.jsonl")
    ap.add_argument("--count", type=int, default=1200, help="at least so many questions")
    ap.add_argument("--seed", type=int, default=20310)
    ap.add_argument("--pali")
    ap.add_argument("--model")
    ap.add_argument("--masks", default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                    "../../assets/demo/mask.npz"), help="mask decoder")
    ap.add_argument("--extra", default="", help="more options for pali, separated by spaces")
    ap.add_argument("--answers")
    ap.add_argument("--wrong", type=int, default=0, help="print so many wrong answers")
    ap.add_argument("--min", action="append", default=[], metavar="TASK=VALUE")
    a = ap.parse_args()
    decoder = dict(np.load(a.masks))
    asked = make(a.out, a.count, a.seed)
    print(f"{len(asked)} questions about {len({q['image'] for q in asked})} pictures in {a.out}")
    if a.pali:
        t = time.time()
        answers = ask_pali(asked, a.out, a.pali, a.model, a.extra.split())
        print(f"asked through {a.pali} in {time.time() - t:.0f} s")
    elif a.answers:
        answers, by_text = {}, {(q["image"], q["prompts"][-1]): q["id"] for q in asked}
        with open(a.answers) as f:
            for line in f:
                r = json.loads(line)
                key = r["id"] if "id" in r else by_text.get((os.path.basename(r["image"]), r["prompt"]))
                answers[key] = r
    else:
        return
    wrong = [q for q in asked if q["id"] in answers and min(mark(q, answers[q["id"]], decoder).values()) < .5]
    for q in wrong[:: max(1, len(wrong) // a.wrong)][:a.wrong] if a.wrong else []:
        print(f"  {q['image']} {q['task']}: {q['prompts']} expected {q['expected']!r}, "
              f"got {answers[q['id']]['text']!r}")
    rows = table(asked, answers, decoder)
    print(f"{'task':28} right  questions")
    for k, (v, n) in rows.items():
        print(f"{k:28} {v:5.3f}  {n}")
    bad = [m for m in a.min if rows.get(m.split("=")[0], (0, 0))[0] < float(m.split("=")[1])]
    if bad:
        sys.exit("below the mark: " + ", ".join(bad))


if __name__ == "__main__":
    main()
