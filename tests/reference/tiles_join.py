#!/usr/bin/env python3
"""How much of a page app/tiles.c loses when it joins the texts of tiles, with a reader that is simulated.

A page is lines of words, no picture. The reader of a tile gives every letter that lies wholly in it, wrong with the
probability at the head of the column; a letter cut by the left or right edge is wrong half the time, a line cut by the
upper or lower edge is mostly wrong, and what is visible to less than a quarter or a third is not seen. Figures: character
error rate of the joined page; with a reader that makes no mistakes, all of it is the joiner's.

    tests/reference/tiles_join.py [--pages 20] [--show]          needs cc and numpy; compiles app/tiles.c
"""
import argparse
import ctypes
import os
import random
import subprocess
import tempfile

import numpy as np

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WORDS = ("able back cold data east face game hand idea jump keep land main name open page queue road side tree unit "
         "view wall year zero apple black chair dream earth fruit green house juice knife lemon mouse night ocean "
         "paper river stone table uncle voice water young 7 12 305 42 1984 66 8 2025").split()
PAGES = [(20, 6, 2, 2, .40), (30, 9, 3, 3, .40), (60, 12, 2, 2, .33), (100, 20, 3, 2, .33), (160, 40, 4, 3, .33),
         (160, 40, 2, 2, .33)]           # letters across, lines, columns, rows, overlap as app_tiling_choose has it
ERRORS = [0, .03, .1]
LETTER, LINE = 10, 20                    # average size


class Tiling(ctypes.Structure):
    _fields_ = [("cols", ctypes.c_int), ("rows", ctypes.c_int), ("overlap", ctypes.c_double)]


class Tile(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int) for n in ("x", "y", "w", "h")]


def library():
    out = os.path.join(tempfile.mkdtemp(), "tiles.so")
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-I", TOP, "-o", out,
                    os.path.join(TOP, "app/tiles.c"), os.path.join(TOP, "core/error.c"), "-lm"], check=True)
    lib = ctypes.CDLL(out)
    lib.app_tile_at.restype = Tile
    lib.app_tile_at.argtypes = [Tiling, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    lib.app_tiles_join.argtypes = [ctypes.POINTER(ctypes.c_char_p), Tiling, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p]
    return lib


def edits(a, b):
    x, y = np.array([ord(c) for c in a], int), np.array([ord(c) for c in b], int)
    steps = np.arange(len(b) + 1)
    row = steps
    for i, c in enumerate(x, 1):
        new = np.concatenate(([i], np.minimum(row[1:] + 1, row[:-1] + (y != c))))
        row = np.minimum.accumulate(new - steps) + steps
    return int(row[-1])


def page(rng, letters, nlines):
    lines = []
    for _ in range(nlines):
        line = rng.choice(WORDS)
        while rng.random() >= .1:
            more = line + " " + rng.choice(WORDS)
            if len(more) > .95 * letters:
                break
            line = more
        lines.append(line)
    return lines


def read(rng, lines, t, error):
    """What the reader makes of tile t of the page."""
    out = []
    for i, line in enumerate(lines):
        top, bottom, x, text = i * LINE + 3, i * LINE + 17, 3, ""
        seen = (min(bottom, t.y + t.h) - max(top, t.y)) / (bottom - top)
        if seen < .3:
            continue
        for c in line:
            width = 4 if c in "il1j " else 14 if c in "mw" else 10
            part = (min(x + width, t.x + t.w) - max(x, t.x)) / width
            x += width
            wrong = max(error if part > .99 else .5, 0 if seen > .95 else 1 - seen * seen)
            if part <= .25:
                continue
            if c != " " and rng.random() < wrong:
                c = rng.choice("abcdefghijklmnopqrstuvwxyz.|") if rng.random() < .8 else ""
            text += c
        if text.strip():
            out.append(text.strip())
    return "\n".join(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--pages", type=int, default=20)
    ap.add_argument("--show", action="store_true", help="the first page of each kind, as it was and as it came out")
    a = ap.parse_args()
    lib = library()
    print("| letters x lines | tiles | letters a tile | " + " | ".join(f"{e:.0%} wrong" for e in ERRORS) + " |")
    print("|" + "---|" * (3 + len(ERRORS)))
    for letters, nlines, cols, rows, overlap in PAGES:
        tiling, cells = Tiling(cols, rows, overlap), []
        for error in ERRORS:
            rng, lost, total = random.Random(1), 0, 0
            for n in range(a.pages):
                lines = page(rng, letters, nlines)
                texts = [read(rng, lines, lib.app_tile_at(tiling, letters * LETTER, nlines * LINE, k), error).encode()
                         for k in range(cols * rows)]
                joined = ctypes.c_char_p()
                assert not lib.app_tiles_join((ctypes.c_char_p * len(texts))(*texts), tiling, ctypes.byref(joined), None)
                lost += edits("\n".join(lines), joined.value.decode())
                total += len("\n".join(lines))
                if a.show and not n and not error:
                    print("\n".join(lines), joined.value.decode(), sep="\n--\n")
            cells.append(f"{lost / total:.3f}")
        wide = letters / (cols - (cols - 1) * overlap)
        print(f"| {letters} x {nlines} | {cols} x {rows} | {wide:.0f} | " + " | ".join(cells) + " |", flush=True)


main()
