"""Targa, Photoshop and Radiance pictures, and what is in them.

    python tests/reference/image_stb.py        (Python 3.11, pillow==11.3.0, numpy)

writes the pictures into tests/data/image/, byte by byte, and decode_stb.golden: for each a line
"NAME WIDTH HEIGHT" and then its RGB bytes. They are Pillow's for Targa and Photoshop files. Pillow
reads neither 16-bit Photoshop files nor Radiance: for those they are what was written, by the formulas below. Seeds for the fuzzer are written too. Everything is seeded; running it again changes no byte.
"""

import io
import os
import struct

import numpy as np
import PIL
from PIL import Image

assert PIL.__version__ == "11.3.0", PIL.__version__
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "data", "image")
SEEDS = os.path.join(HERE, "..", "fuzz", "corpus", "image")
W, H = 11, 9
files, expected = {}, {}


def noise(seed, channels, top=256, w=W, h=H):
    """Rows of pixels, the first rows with runs."""
    v = np.random.default_rng(seed).integers(0, top, (h, w, channels))
    v[0] = v[0, 0]
    v[1, 2:7] = v[1, 2]
    return v


# ---- Targa (Truevision TGA, version 2.0) ------------------------------------------------

def tga(kind, bits, rows, palette=b"", entries=0, palette_bits=0, descriptor=0, ident=b"", first=0, end=b""):
    h, w = rows.shape[:2]
    head = struct.pack("<BBBHHBHHHHBB", len(ident), entries > 0, kind, first, entries, palette_bits, 0, 0, w, h, bits, descriptor)
    if not descriptor & 0x20:
        rows = rows[::-1]
    if descriptor & 0x10:
        rows = rows[:, ::-1]
    pixels = [bytes(p) for row in rows for p in row]
    if kind > 8:
        body, i = b"", 0
        while i < len(pixels):
            n = 1
            while i + n < len(pixels) and n < 128 and pixels[i + n] == pixels[i]:
                n += 1
            if n > 1:
                body += bytes([127 + n]) + pixels[i]
            else:
                while i + n < len(pixels) and n < 128 and (i + n + 1 == len(pixels) or pixels[i + n] != pixels[i + n + 1]):
                    n += 1
                body += bytes([n - 1]) + b"".join(pixels[i:i + n])
            i += n
    else:
        body = b"".join(pixels)
    return head + ident + palette + body + end


def words(v):
    return np.stack([v & 255, v >> 8], -1).astype(np.uint8).reshape(v.shape[:2] + (2,))


bgr, bgra, grey = (noise(s, c).astype(np.uint8) for s, c in ((1, 3), (2, 4), (3, 1)))
colours = np.random.default_rng(4).integers(0, 256, (200, 3), dtype=np.uint8).tobytes()
index = noise(5, 1, 200).astype(np.uint8)
files["rgb24.tga"] = tga(2, 24, bgr)
files["rgb24_down.tga"] = tga(2, 24, bgr, descriptor=0x20, ident=b"pali")
files["rgb24_mirrored.tga"] = tga(2, 24, bgr, descriptor=0x10)
files["rgb24_rle.tga"] = tga(10, 24, bgr, end=bytes(8) + b"TRUEVISION-XFILE.\0")
files["rgba32.tga"] = tga(2, 32, bgra, descriptor=8)
files["rgba32_rle.tga"] = tga(10, 32, bgra, descriptor=0x28)
files["rgb16.tga"] = tga(2, 16, words(noise(6, 1, 1 << 15)[..., 0]), descriptor=0x20)
files["grey8.tga"] = tga(3, 8, grey)
files["grey8_rle.tga"] = tga(11, 8, grey, descriptor=0x20)
files["palette8.tga"] = tga(1, 8, index, colours, 200, 24)
files["palette8_rle.tga"] = tga(9, 8, index, colours, 200, 24, descriptor=0x20)


# ---- Photoshop (Adobe Photoshop File Formats Specification) --------------------------------

def packbits(row):
    out, i = b"", 0
    while i < len(row):
        n = 1
        while i + n < len(row) and n < 128 and row[i + n] == row[i]:
            n += 1
        if n > 1:
            out += bytes([257 - n, row[i]])
        else:
            while i + n < len(row) and n < 128 and (i + n + 1 == len(row) or row[i + n] != row[i + n + 1]):
                n += 1
            out += bytes([n - 1]) + row[i:i + n]
        i += n
    return out


def psd(planes, depth=8, packed=False, mode=3, version=1):
    h, w, channels = planes.shape
    head = b"8BPS" + struct.pack(">H6xHIIHH", version, channels, h, w, depth, mode)
    resources = b"8BIM" + struct.pack(">HHI", 1005, 0, 4) + bytes(4)
    body = struct.pack(">I", 0) + struct.pack(">I", len(resources)) + resources + struct.pack(">I", 0)
    body += struct.pack(">H", packed)
    rows = [planes[y, :, c].astype(">u2" if depth == 16 else "u1").tobytes() for c in range(channels) for y in range(h)]
    if packed:
        rows = [packbits(r) for r in rows]
        body += b"".join(struct.pack(">H", len(r)) for r in rows)
    return head + body + b"".join(rows)


rgb = noise(7, 3)
files["rgb8.psd"] = psd(rgb)
files["rgb8_packed.psd"] = psd(rgb, packed=True)
opaque = np.concatenate([noise(8, 3), np.where(noise(9, 1) < 128, 0, 255)], -1)
files["rgba8_packed.psd"] = psd(opaque, packed=True)
deep = noise(10, 3, 1 << 16)
files["rgb16.psd"] = psd(deep, 16)
expected["rgb16.psd"] = deep >> 8
files["rgba8_half.psd"] = psd(noise(11, 4))
files["rgba8_half_packed.psd"] = psd(noise(12, 4), packed=True)


# ---- Radiance (Ward, Real Pixels, Graphics Gems II; RADIANCE's filefmts) --------------------

def hdr(rgbe, packed, comment=b""):
    h, w = rgbe.shape[:2]
    out = b"#?RADIANCE\n" + comment + b"FORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (h, w)
    for row in rgbe:
        if not packed:
            out += row.tobytes()
            continue
        out += bytes([2, 2, w >> 8, w & 255])
        for c in range(4):
            line, i = row[:, c].tobytes(), 0
            while i < w:
                n = 1
                while i + n < w and n < 127 and line[i + n] == line[i]:
                    n += 1
                if n > 2:
                    out += bytes([128 + n, line[i]])
                else:
                    n = min(w - i, 5)
                    out += bytes([n]) + line[i:i + n]
                i += n
    return out


def seen(rgbe):
    """Light to numbers: gamma 2.2, 1 is 255."""
    light = rgbe[..., :3].astype(np.float64) * np.exp2(rgbe[..., 3:].astype(np.float64) - 136)
    light[(rgbe[..., 3] == 0)] = 0
    return np.minimum(np.power(light, 1 / 2.2) * 255 + .5, 255).astype(np.uint8)


light = noise(13, 4).astype(np.uint8)
light[..., :3] |= 128
light[..., 3] = 120 + light[..., 3] % 12
light[2, 3] = 0
for name, packed, comment in (("flat.hdr", False, b""), ("packed.hdr", True, b"# a comment\nEXPOSURE=1\n")):
    files[name] = hdr(light, packed, comment)
    expected[name] = seen(light)


with open(os.path.join(OUT, "decode_stb.golden"), "wb") as golden:
    for name, data in sorted(files.items()):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)
        im = Image.fromarray(expected[name].astype(np.uint8)) if name in expected else Image.open(io.BytesIO(data)).convert("RGB")
        golden.write(b"%s %d %d\n" % (name.encode(), *im.size) + im.tobytes())
for name in ("rgba32_rle.tga", "palette8_rle.tga", "rgba8_packed.psd", "packed.hdr"):
    with open(os.path.join(SEEDS, name), "wb") as f:
        f.write(files[name])
print(len(files), "pictures,", sum(map(len, files.values())), "bytes")
