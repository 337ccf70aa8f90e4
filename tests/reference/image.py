"""Pictures in every form that pali reads, and what Pillow makes of them.

    python tests/reference/image.py        (Python 3.11, pillow==11.3.0, numpy, pillow_heif==1.1.1)

writes into tests/data/image/:

  NAME.png .bmp .gif .pbm .pgm .ppm .jpg .webp .avif .heic   the pictures, written here byte by
                                           byte (the last four: by Pillow), each a few hundred bytes
  decode.golden   for each picture a line "NAME WIDTH HEIGHT" and then its RGB bytes as
                  ImageOps.exif_transpose(Image.open(NAME)).convert("RGB") gives them, but
                  for the five files in `expected`
  resize.golden   a line per resize: size and kind of the source (see source()), size of the
                  result, CRC-32 of Image.resize(..., BICUBIC), its first and middle pixel.
                  The sources are not stored: tests/core/test_resize.c makes the same ones.
  normalize.golden  the 256 float32 values of v / 127.5 - 1 as transformers computes them

Everything is seeded; running it again changes no byte.
"""

import io
import os
import struct
import zlib

import numpy as np
import PIL
import pillow_heif
from PIL import Image, ImageCms, ImageOps

pillow_heif.register_heif_opener()

assert PIL.__version__ == "11.3.0", PIL.__version__
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "image")
W, H = 11, 9
files = {}
expected = {}  # where Pillow misreads a file: what the format says (see image_bmp.c, image_gif.c)


def rng(seed):
    return np.random.default_rng(seed)


def packed(values, bits):
    """Rows of samples below 8 bits, most significant first."""
    rows = []
    for row in values:
        text = "".join(format(int(v), "0%db" % bits) for v in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    return rows


# --- PNG --------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_filter(rows, step, first):
    """Filters rows with types first, first + 1, ... modulo 5."""
    out, above = b"", bytes(len(rows[0]))
    for i, row in enumerate(rows):
        kind = (first + i) % 5
        line = bytearray()
        for j, v in enumerate(row):
            a = row[j - step] if j >= step else 0
            b, c = above[j], above[j - step] if j >= step else 0
            if kind == 4:
                p = a + b - c
                guess = min(((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c)))[2]
            else:
                guess = (0, a, b, (a + b) // 2)[kind]
            line.append((v - guess) & 255)
        out += bytes([kind]) + bytes(line)
        above = row
    return out


def png(kind, depth, samples, interlace=0, before=b"", after=b"", pieces=1, extra=b""):
    """samples: [height, width, channels]. before / after: chunks around the data."""
    h, w, channels = samples.shape
    step = max(1, channels * depth // 8)

    def rows_of(part):
        if depth == 16:
            return [row.astype(">u2").tobytes() for row in part]
        if depth == 8:
            return [row.astype("u1").tobytes() for row in part]
        return packed(part[:, :, 0], depth)

    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for i, (x, y, dx, dy) in enumerate(passes):
        part = samples[y::dy, x::dx]
        if part.size:
            raw += png_filter(rows_of(part), step, i)
    data = zlib.compress(raw + extra, 9)
    cuts = [len(data) * i // pieces for i in range(pieces + 1)]
    idat = b"".join(chunk(b"IDAT", data[a:b]) for a, b in zip(cuts, cuts[1:]))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, interlace))
        + before
        + idat
        + after
        + chunk(b"IEND", b"")
    )


def samples(seed, depth, channels, w=W, h=H, top=None):
    """Noise over half of the picture, a slope over the other half."""
    top = top or (1 << depth)
    a = rng(seed).integers(0, top, (h, w, channels))
    slope = np.add.outer(np.arange(h) * 3, np.arange(w) * 5) % top
    a[:, : w // 2] = (slope[:, : w // 2, None] + np.arange(channels) * 7) % top
    return a


def exif(orientation, big, kind=3, pad=0):
    e = ">" if big else "<"
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, kind, 1, None), (0x0128, 3, 1, struct.pack(e + "HH", 2, 0))]
    body = struct.pack(e + "H", len(entries))
    for tag, t, n, value in entries:
        if value is None:
            value = struct.pack(e + "HH", orientation, 0) if kind == 3 else struct.pack(e + "I", orientation)
        body += struct.pack(e + "HHI", tag, t, n) + value
    return (b"MM\0*" if big else b"II*\0") + struct.pack(e + "I", 8 + pad) + bytes(pad) + body + bytes(4)


XMP = b'<x:xmpmeta><rdf:Description tiff:Make="x" tiff:Orientation="%d"/></x:xmpmeta>'

seed = 1
for kind, depths, channels in ((0, (1, 2, 4, 8, 16), 1), (2, (8, 16), 3), (3, (1, 2, 4, 8), 1), (4, (8, 16), 2), (6, (8, 16), 4)):
    for depth in depths:
        for interlace in (0, 1):
            seed += 1
            name = {0: "grey", 2: "rgb", 3: "palette", 4: "greyalpha", 6: "rgba"}[kind]
            before = b""
            top = None
            if kind == 3:
                top = min(1 << depth, 40)
                before = chunk(b"PLTE", rng(seed).integers(0, 256, 3 * top, dtype=np.uint8).tobytes())
            a = samples(seed, depth, channels, top=top)
            if kind == 0 and depth == 16:
                a[:, ::2] %= 300  # Pillow clips at 255: keep some below
            files["%s%d%s.png" % (name, depth, "i" * interlace)] = png(kind, depth, a, interlace, before)
palette = chunk(b"PLTE", rng(90).integers(0, 256, 48, dtype=np.uint8).tobytes())
files["trns_grey8.png"] = png(0, 8, samples(91, 8, 1), before=chunk(b"tRNS", b"\0\x05"))
files["trns_grey1.png"] = png(0, 1, samples(91, 1, 1), before=chunk(b"tRNS", b"\0\x01"))
files["trns_grey16.png"] = png(0, 16, samples(92, 16, 1, top=400), before=chunk(b"tRNS", b"\0\x0f"))
files["trns_rgb8.png"] = png(2, 8, samples(93, 8, 3), before=chunk(b"tRNS", b"\0\x05\0\x0c\0\x13"))
files["trns_rgb16.png"] = png(2, 16, samples(94, 16, 3), before=chunk(b"tRNS", b"\0\x05\0\x0c\0\x13"))
files["trns_palette4.png"] = png(3, 4, samples(95, 4, 1), before=palette + chunk(b"tRNS", bytes(range(0, 240, 20))))
files["trns_palette_one.png"] = png(3, 4, samples(95, 4, 1), before=palette + chunk(b"tRNS", b"\xff\xff\0"))
files["palette_short.png"] = png(3, 8, samples(96, 8, 1), before=palette)
files["pieces.png"] = png(2, 8, samples(97, 8, 3), pieces=5, before=chunk(b"gAMA", b"\0\1\0\0"))
files["extra_data.png"] = png(2, 8, samples(98, 8, 3), extra=bytes(range(200)))
files["unknown_critical.png"] = png(2, 8, samples(98, 8, 3), before=chunk(b"UNKN", b"abc"))
window = bytearray(png(0, 8, np.tile(samples(125, 8, 1, 150, 1), (6, 1, 1))))
at = window.index(b"IDAT")
window[at + 4 : at + 6] = b"\x08\x1d"  # states a window of 256 bytes; zlib used far more
files["small_window.png"] = bytes(window[: at - 4]) + chunk(b"IDAT", bytes(window[at + 4 : -16])) + chunk(b"IEND", b"")
for w, h in ((1, 1), (1, 9), (9, 1), (3, 2), (2, 5)):
    files["tiny_%dx%d_i.png" % (w, h)] = png(2, 8, samples(99 + w, 8, 3, w, h), interlace=1)
files["tiny_1x1.png"] = png(0, 1, np.ones((1, 1, 1)))
for o in range(1, 9):
    a = samples(110 + o, 8, 3, 5, 4)
    place = "before" if o % 2 else "after"
    files["exif%d.png" % o] = png(2, 8, a, **{place: chunk(b"eXIf", exif(o, o % 3 == 0, pad=o))})
files["exif_long.png"] = png(2, 8, samples(120, 8, 3, 5, 4), before=chunk(b"eXIf", exif(6, True, kind=4)))
files["exif_prefix.png"] = png(2, 8, samples(120, 8, 3, 5, 4), before=chunk(b"eXIf", b"Exif\0\0" + exif(8, False)))
files["exif_nine.png"] = png(2, 8, samples(121, 8, 3, 5, 4), before=chunk(b"eXIf", exif(9, False)))
files["xmp5.png"] = png(2, 8, samples(122, 8, 3, 5, 4), before=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 5))
files["xmp6z.png"] = png(2, 8, samples(122, 8, 3, 5, 4), after=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP % 6)))
files["xmp_exif_wins.png"] = png(
    2, 8, samples(122, 8, 3, 5, 4), before=chunk(b"eXIf", exif(1, False)) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 5)
)

block = b"Exif\0\0" + exif(6, True)
raw = b"\nexif\n%8d\n" % len(block) + b"\n".join(block.hex()[i : i + 72].encode() for i in range(0, 2 * len(block), 72)) + b"\n"
files["profile6.png"] = png(2, 8, samples(123, 8, 3, 5, 4), before=chunk(b"tEXt", b"Raw profile type exif\0" + raw))
raw += b"00" * 200000  # as of a thumbnail
files["profile6z.png"] = png(2, 8, samples(124, 8, 3, 5, 4), after=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))

# --- BMP --------------------------------------------------------------------------


def bmp(bits, rows, w, h, colours=b"", top_down=False, compression=0, masks=b"", header=40, used=0, offset=None):
    """rows: stored order, without padding; or the run-length data as one element."""
    if compression in (1, 2):
        data = rows[0]
    else:
        data = b"".join(r + bytes(-len(r) % 4) for r in rows)
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIIIII", header, w, -h if top_down else h, 1, bits, compression, len(data), 2835, 2835, used, 0)
        if header > 40:
            info += masks
            masks = b""
            info += bytes(header - len(info))
    at = 14 + len(info) + len(masks) + len(colours)
    at = at if offset is None else offset
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + info + masks + colours + data


def looked_up(colours, rows):
    """RGB of palette indices; rows from top to bottom."""
    table = np.frombuffer(colours, np.uint8).reshape(-1, 4)[:, 2::-1]
    return table[np.array(rows)]


def quads(seed, n):
    a = rng(seed).integers(0, 256, (n, 4), dtype=np.uint8)
    a[:, 3] = 0
    return a.tobytes()


for bits in (1, 4, 8):
    top = 1 << bits
    v = samples(200 + bits, bits, 1)[:, :, 0]
    rows = packed(v, bits)
    files["palette%d.bmp" % bits] = bmp(bits, rows, W, H, quads(210 + bits, top))
    files["palette%d_down.bmp" % bits] = bmp(bits, rows, W, H, quads(210 + bits, top), top_down=True)
    files["palette%d_core.bmp" % bits] = bmp(bits, rows, W, H, rng(bits).integers(0, 256, 3 * top, dtype=np.uint8).tobytes(), header=12)
v8 = packed(samples(220, 8, 1)[:, :, 0], 8)
v1 = packed(samples(221, 1, 1)[:, :, 0], 1)
files["grey8.bmp"] = bmp(8, v8, W, H, b"".join(bytes([i, i, i, 0]) for i in range(256)))
files["black_white.bmp"] = bmp(1, v1, W, H, b"\0\0\0\0\xff\xff\xff\0")
files["white_black.bmp"] = bmp(1, v1, W, H, b"\xff\xff\xff\0\0\0\0\0")
files["palette8_used.bmp"] = bmp(8, v8, W, H, quads(222, 100), used=100)
files["palette4_offset.bmp"] = bmp(4, packed(samples(223, 4, 1)[:, :, 0], 4), W, H, quads(224, 16), offset=54)
words = samples(230, 16, 1)[:, :, 0]
rows16 = [r.astype("<u2").tobytes() for r in words]
files["rgb16.bmp"] = bmp(16, rows16, W, H)
files["rgb16_565.bmp"] = bmp(16, rows16, W, H, compression=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F))
files["rgb16_555_down.bmp"] = bmp(16, rows16, W, H, compression=3, masks=struct.pack("<III", 0x7C00, 0x3E0, 0x1F), top_down=True)
rows24 = [r.astype("u1").tobytes() for r in samples(231, 8, 3)]
files["rgb24.bmp"] = bmp(24, rows24, W, H)
files["rgb24_down.bmp"] = bmp(24, rows24, W, H, top_down=True)
files["rgb24_core.bmp"] = bmp(24, rows24, W, H, header=12)
files["rgb24_v5.bmp"] = bmp(24, rows24, W, H, header=124)
files["rgb24_1x1.bmp"] = bmp(24, [b"\1\2\3"], 1, 1)
rows32 = [r.astype("u1").tobytes() for r in samples(232, 8, 4)]
files["rgb32.bmp"] = bmp(32, rows32, W, H)
files["rgb32_down.bmp"] = bmp(32, rows32, W, H, top_down=True)
for name, masks, header in (
    ("bgrx", (0xFF0000, 0xFF00, 0xFF, 0), 40),
    ("xbgr", (0xFF000000, 0xFF0000, 0xFF00, 0), 52),
    ("rgba_v4", (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 108),
    ("bgra_v5", (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124),
    ("abgr", (0xFF000000, 0xFF0000, 0xFF00, 0xFF), 56),
    ("zero", (0, 0, 0, 0), 56),
):
    m = struct.pack("<IIII", *masks)[: 12 if header in (40, 52) else 16]
    files["rgb32_%s.bmp" % name] = bmp(32, rows32, W, H, compression=3, masks=m, header=header)
# Runs, literals and ends of line; every row is complete and ends with 0 0, as Pillow needs.
runs8 = b"".join(
    bytes([4, 10 + y, 0, 3, 1, 2, 3 + y, 0, 2, 200 - y]) + bytes([2, 7, 0, 0]) for y in range(H)
) + b"\0\1"
files["rle8.bmp"] = bmp(8, [runs8], W, H, quads(240, 256), compression=1)
files["rle8_down.bmp"] = bmp(8, [runs8], W, H, quads(240, 256), compression=1, top_down=True)
skips8 = b"".join(bytes([3, 10 + y, 0, 2, 5, 0, 3, 20 + y, 0, 0]) for y in range(H)) + b"\0\1"
files["rle8_skips.bmp"] = bmp(8, [skips8], W, H, quads(240, 256), compression=1)
expected["rle8_skips.bmp"] = looked_up(quads(240, 256), [[10 + y] * 3 + [0] * 5 + [20 + y] * 3 for y in reversed(range(H))])
gaps8 = b"\4\7\0\0" + b"\0\0" + b"\3\5\0\1"  # a short row, an empty one, and then nothing
files["rle8_gaps.bmp"] = bmp(8, [gaps8], 5, 4, quads(240, 256), compression=1)
expected["rle8_gaps.bmp"] = looked_up(quads(240, 256), [[0] * 5, [5] * 3 + [0] * 2, [0] * 5, [7] * 4 + [0]])
odd4 = b"\0\5\x12\x34\x50\0" b"\0\0" b"\0\3\x67\x80" b"\2\x99\0\1"
files["rle4_odd.bmp"] = bmp(4, [odd4], 5, 2, quads(241, 16), compression=2)
expected["rle4_odd.bmp"] = looked_up(quads(241, 16), [[6, 7, 8, 9, 9], [1, 2, 3, 4, 5]])
grey4 = b"".join(bytes([i, i, i, 0]) for i in range(16))
files["grey4.bmp"] = bmp(4, packed(samples(225, 4, 1)[:, :, 0], 4), W, H, grey4)
expected["grey4.bmp"] = looked_up(grey4, samples(225, 4, 1)[::-1, :, 0])
runs4 = b"".join(bytes([5, 0x12 + y, 0, 4, 0x34, 0x56 + y, 2, 0x79, 0, 0]) for y in range(H)) + b"\0\1"
files["rle4.bmp"] = bmp(4, [runs4], W, H, quads(241, 16), compression=2)

# --- GIF --------------------------------------------------------------------------


def lzw(indices, bits):
    """Codes of a GIF picture; the table is cleared once it is full, with no code after."""
    clear, end = 1 << bits, (1 << bits) + 1
    out, n_bits, buffer = bytearray(), 0, 0

    def emit(code, width):
        nonlocal n_bits, buffer
        buffer |= code << n_bits
        n_bits += width
        while n_bits >= 8:
            out.append(buffer & 255)
            buffer >>= 8
            n_bits -= 8

    table, width, following = {bytes([i]): i for i in range(clear)}, bits + 1, clear + 2
    emit(clear, width)
    string = b""
    for i in indices:
        longer = string + bytes([i])
        if longer in table:
            string = longer
            continue
        emit(table[string], width)
        if following < 4096:
            table[longer] = following
            if following == 1 << width and width < 12:
                width += 1
            following += 1
        string = bytes([i])
    emit(table[string], width)
    if following == 1 << width and width < 12:
        width += 1
    emit(end, width)
    if n_bits:
        out.append(buffer & 255)
    return bytes(out)


def gif(screen, colours, frames, bits_flag=7):
    """frames: (x, y, index array, code bits, interlaced, local palette, transparent)."""
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, (0x80 | bits_flag) if colours else 0, 3, 0) + colours
    out += b"!\xfe\x05hello\0"
    for x, y, a, bits, interlaced, local, transparent in frames:
        if transparent is not None:
            out += b"!\xf9\4" + struct.pack("<BHB", 1, 10, transparent) + b"\0"
        h, w = a.shape
        flags = (0x40 if interlaced else 0) | ((0x80 | (len(local) // 3).bit_length() - 2) if local else 0)
        out += b"," + struct.pack("<HHHHB", x, y, w, h, flags) + local + bytes([bits])
        order = list(range(h))
        if interlaced:
            order = [*range(0, h, 8), *range(4, h, 8), *range(2, h, 4), *range(1, h, 2)]
        data = lzw(a[order].astype(np.uint8).tobytes(), bits)
        for i in range(0, len(data), 100):
            out += bytes([len(data[i : i + 100])]) + data[i : i + 100]
        out += b"\0"
    return out + b";"


def rgbs(seed, n):
    return rng(seed).integers(0, 256, 3 * n, dtype=np.uint8).tobytes()


def indices(seed, top, w=W, h=H):
    return samples(seed, 8, 1, w, h, top=top)[:, :, 0]


i8, i4, i1 = indices(300, 256), indices(301, 16), indices(302, 2)
files["plain8.gif"] = gif((W, H), rgbs(310, 256), [(0, 0, i8, 8, 0, b"", None)])
files["plain4.gif"] = gif((W, H), rgbs(311, 16), [(0, 0, i4, 4, 0, b"", None)], 3)
files["plain1.gif"] = gif((W, H), rgbs(312, 2), [(0, 0, i1, 2, 0, b"", None)], 0)
files["interlaced.gif"] = gif((W, H), rgbs(313, 256), [(0, 0, i8, 8, 1, b"", None)])
files["interlaced_1x2.gif"] = gif((1, 2), rgbs(313, 4), [(0, 0, indices(320, 4, 1, 2), 2, 1, b"", None)], 1)
files["transparent.gif"] = gif((W, H), rgbs(314, 16), [(0, 0, i4, 4, 0, b"", 5)], 3)
files["local.gif"] = gif((W, H), rgbs(315, 16), [(0, 0, i4, 4, 0, rgbs(316, 16), None)], 3)
files["local_only.gif"] = gif((W, H), b"", [(0, 0, i4, 4, 1, rgbs(316, 16), 3)])
files["no_palette.gif"] = gif((W, H), b"", [(0, 0, i8, 8, 0, b"", None)])
files["grey_palette.gif"] = gif((W, H), bytes(i for i in range(16) for _ in range(3)), [(0, 0, i8, 8, 0, b"", None)], 3)
files["local_grey.gif"] = gif((W, H), rgbs(315, 16), [(0, 0, i8, 8, 0, bytes(i for i in range(16) for _ in range(3)), None)], 3)
expected["local_grey.gif"] = np.repeat(i8[:, :, None], 3, axis=2).astype(np.uint8)
files["short_palette.gif"] = gif((W, H), rgbs(317, 16), [(0, 0, i8, 8, 0, b"", None)], 3)
files["inset.gif"] = gif((W + 4, H + 3), rgbs(318, 16), [(2, 1, i4, 4, 1, b"", None)], 3)
files["inset_transparent.gif"] = gif((W + 4, H + 3), rgbs(318, 16), [(2, 1, i4, 4, 0, b"", 9)], 3)
files["outside.gif"] = gif((5, 4), rgbs(318, 16), [(2, 1, i4, 4, 0, b"", None)], 3)
files["animated.gif"] = gif((W, H), rgbs(319, 16), [(0, 0, i4, 4, 0, b"", 2), (3, 3, i4[:4, :4], 4, 0, b"", 2)], 3)
files["full_table.gif"] = gif((90, 52), rgbs(321, 256), [(0, 0, indices(322, 256, 90, 52), 8, 0, b"", None)])
files["runs.gif"] = gif((60, 40), rgbs(321, 4), [(0, 0, np.zeros((40, 60), int) + 2, 2, 0, b"", None)], 1)

# --- PNM --------------------------------------------------------------------------


def digits(values, per_line=7):
    values = [str(int(v)) for v in values.reshape(-1)]
    return "\n".join(" ".join(values[i : i + per_line]) for i in range(0, len(values), per_line)).encode() + b"\n"


bits1 = samples(400, 1, 1)
size = b"%d %d\n" % (W, H)
files["spaced.pbm"] = b"P1\n# comment\n" + size + digits(bits1)
files["dense.pbm"] = b"P1 " + size + b"".join(b"%d" % v for v in bits1.reshape(-1))
files["comment.pbm"] = b"P1\n%d # wide\n%d\n" % (W, H) + digits(bits1).replace(b"\n", b" # 1 0 1\n", 3)
files["raw.pbm"] = b"P4\n" + size + b"".join(packed(bits1[:, :, 0], 1))
for maximum in (255, 15, 1, 65535, 1000, 256):
    for channels, plain, raw_kind, ext in ((1, b"P2", b"P5", "pgm"), (3, b"P3", b"P6", "ppm")):
        a = rng(410 + maximum + channels).integers(0, maximum + 1, (H, W, channels))
        if channels == 1 and maximum > 255:
            a[:, ::2] %= 1 + maximum // 300  # Pillow clips at 255 of 65535: keep some below
        head = b"\n" + size + b"%d\n" % maximum
        files["plain_%d.%s" % (maximum, ext)] = plain + head + digits(a)
        files["raw_%d.%s" % (maximum, ext)] = raw_kind + head + a.astype("u1" if maximum < 256 else ">u2").tobytes()
files["over_maximum.pgm"] = b"P5\n" + size + b"100\n" + samples(420, 8, 1).astype("u1").tobytes()
files["comments.ppm"] = b"P6\t# a\n1#b\n1 #c\r\n %d 255\n" % H + samples(421, 8, 3).astype("u1").tobytes()

# --- JPEG -------------------------------------------------------------------------


def scene(w, h, seed=0):
    """Soft slopes, two hard-edged shapes, a little noise: what a decoder finds in photos."""
    y, x = np.mgrid[0:h, 0:w].astype(float)
    a = np.stack([128 + 100 * np.sin(x / 9 + seed), 255 * y / max(h - 1, 1), 128 + 90 * np.cos((x + y) / 13)], -1)
    a[(x - w * 0.3) ** 2 + (y - h * 0.4) ** 2 < (min(w, h) * 0.2) ** 2] = (220, 40, 30)
    a[int(h * 0.6) : int(h * 0.9), int(w * 0.5) : int(w * 0.9)] = (20, 60, 200)
    a += rng(seed).normal(0, 4, a.shape)
    return Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))


def jpeg(im, **options):
    out = io.BytesIO()
    im.save(out, "JPEG", **options)
    return out.getvalue()


def without(data, marker):
    """The JPEG less its first segment with that marker."""
    at = data.index(b"\xff" + bytes([marker]))
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


JW, JH = 43, 35
for name, options in {
    "444": dict(subsampling=0, quality=90),
    "422": dict(subsampling=1, quality=85),
    "420": dict(subsampling=2, quality=75),
    "420_low": dict(subsampling=2, quality=20),
    "progressive_444": dict(subsampling=0, progressive=True, quality=85),
    "progressive_420": dict(subsampling=2, progressive=True, quality=75),
    "restarts": dict(subsampling=2, quality=80, restart_marker_blocks=2),
    "optimized": dict(subsampling=2, quality=95, optimize=True),
    "rgb": dict(keep_rgb=True, quality=90),
}.items():
    files[name + ".jpg"] = jpeg(scene(JW, JH, len(name)), **options)
files["grey.jpg"] = jpeg(scene(JW, JH, 20).convert("L"), quality=85)
files["grey_progressive.jpg"] = jpeg(scene(JW, JH, 21).convert("L"), quality=85, progressive=True)
cmyk = scene(JW, JH, 22).convert("CMYK")
ink = np.asarray(cmyk).copy()
ink[..., 3] = rng(23).integers(0, 60, ink.shape[:2])
cmyk = Image.frombytes("CMYK", cmyk.size, ink.tobytes())
files["cmyk.jpg"] = jpeg(cmyk, quality=90)
files["cmyk_progressive.jpg"] = jpeg(cmyk, quality=90, progressive=True)
files["cmyk_unmarked.jpg"] = without(jpeg(cmyk, quality=90), 0xEE)
ycck = bytearray(jpeg(cmyk, quality=90))
ycck[ycck.index(b"Adobe") + 11] = 2  # the same planes, now meaning YCCK
files["ycck.jpg"] = bytes(ycck)
for w, h in ((1, 1), (17, 1), (1, 17), (16, 16), (33, 8)):
    files["size_%dx%d.jpg" % (w, h)] = jpeg(scene(w, h, 24), quality=80)
for o in range(1, 9):
    files["exif%d.jpg" % o] = jpeg(scene(22, 13, 30), quality=90, exif=b"Exif\0\0" + exif(o, o % 2 == 0, pad=o))
xmp6 = jpeg(scene(22, 13, 31), quality=90, xmp=XMP % 6)
files["xmp6.jpg"] = xmp6
files["trailing.jpg"] = jpeg(scene(JW, JH, 32), quality=80) + b"anything\xff\xd8 behind the end"
thumb = jpeg(scene(8, 8, 33))
files["thumbnail.jpg"] = jpeg(scene(22, 13, 33), quality=90, exif=b"Exif\0\0" + exif(3, False) + thumb)

# --- WebP, AVIF, HEIC ---------------------------------------------------------------


def saved(im, kind, **options):
    out = io.BytesIO()
    im.save(out, kind, **options)
    return out.getvalue()


def with_alpha(im, seed):
    a = np.dstack([np.asarray(im), rng(seed).integers(0, 256, im.size[::-1], dtype=np.uint8)])
    a[: im.size[1] // 3, :, 3] = 0
    return Image.fromarray(a)


files["lossy.webp"] = saved(scene(JW, JH, 40), "WEBP", quality=80)
files["lossless.webp"] = saved(scene(JW, JH, 41), "WEBP", lossless=True)
files["lossy_alpha.webp"] = saved(with_alpha(scene(JW, JH, 42), 42), "WEBP", quality=80)
files["lossless_alpha.webp"] = saved(with_alpha(scene(JW, JH, 43), 43), "WEBP", lossless=True, exact=True)
files["animated.webp"] = saved(scene(22, 13, 44), "WEBP", save_all=True, append_images=[scene(22, 13, 45)], duration=40)
files["exif6.webp"] = saved(scene(22, 13, 46), "WEBP", quality=80, exif=b"Exif\0\0" + exif(6, True))
files["xmp6.webp"] = saved(scene(22, 13, 47), "WEBP", quality=80, xmp=XMP % 6)
files["one.webp"] = saved(scene(1, 1, 48), "WEBP", lossless=True)
files["444.avif"] = saved(scene(JW, JH, 50), "AVIF", quality=90, subsampling="4:4:4")
files["420.avif"] = saved(scene(44, 36, 51), "AVIF", quality=90, subsampling="4:2:0")
files["alpha.avif"] = saved(with_alpha(scene(44, 36, 52), 52), "AVIF", quality=90, subsampling="4:4:4")
files["turned.avif"] = saved(scene(22, 14, 53), "AVIF", quality=90, subsampling="4:4:4", exif=exif(6, True))
files["444.heic"] = saved(scene(JW, JH, 54), "HEIF", quality=90, chroma=444)
files["420.heic"] = saved(scene(44, 36, 55), "HEIF", quality=90)

# --- colour profiles ------------------------------------------------------------------


def matrix_profile(columns, gamma, space=b"RGB "):
    """A version 2 ICC profile: three colorants in XYZ (D50) and one power curve."""
    fixed = lambda v: struct.pack(">i", round(v * 65536))
    xyz = lambda v: b"XYZ \0\0\0\0" + b"".join(map(fixed, v))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [(b"wtpt", xyz((0.9642, 1.0, 0.8249))), (b"desc", b"desc\0\0\0\0" + struct.pack(">I", 2) + b"p\0" + bytes(78)), (b"cprt", b"text\0\0\0\0-\0\0\0")]
    tags += [(k, xyz(v)) for k, v in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns)]
    tags += [(k, curve) for k in (b"rTRC", b"gTRC", b"bTRC")]
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, body in tags:
        body += bytes(-len(body) % 4)
        table += key + struct.pack(">II", at + len(data), len(body))
        data += body
    size = at + len(data)
    head = struct.pack(">I4s4s4s4s4s", size, b"\0\0\0\0", b"\x02\x10\0\0", b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head + bytes(128 - len(head)) + table + data


P3 = matrix_profile([(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)], 2.2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def in_srgb(data):
    im = Image.open(io.BytesIO(data))
    to = ImageCms.createProfile("sRGB")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(im.info["icc_profile"]))
    im = ImageCms.profileToProfile(im.convert("RGB"), profile, to, ImageCms.Intent.RELATIVE_COLORIMETRIC)
    im.info["exif"] = Image.open(io.BytesIO(data)).info.get("exif", b"")
    return np.asarray(ImageOps.exif_transpose(im))


files["p3.png"] = saved(scene(JW, JH, 60), "PNG", icc_profile=P3)
files["p3.jpg"] = jpeg(scene(JW, JH, 61), quality=90, subsampling=0, icc_profile=P3)
files["p3.webp"] = saved(scene(JW, JH, 62), "WEBP", lossless=True, icc_profile=P3)
files["p3_exif6.jpg"] = jpeg(scene(22, 13, 63), quality=90, subsampling=0, icc_profile=P3, exif=b"Exif\0\0" + exif(6, True))
for name in ("p3.png", "p3.jpg", "p3.webp", "p3_exif6.jpg"):
    expected[name] = in_srgb(files[name])
# Left as they are: sRGB's own profile, a damaged one, one of another kind of pixels.
files["srgb.png"] = saved(scene(JW, JH, 64), "PNG", icc_profile=SRGB)
files["bad_profile.jpg"] = jpeg(scene(JW, JH, 65), quality=90, subsampling=0, icc_profile=P3[:200])
files["cmyk_profile.jpg"] = jpeg(scene(JW, JH, 66), quality=90, subsampling=0, icc_profile=matrix_profile([(0, 0, 0)] * 3, 1, b"CMYK"))

# --- goldens ----------------------------------------------------------------------

os.makedirs(OUT, exist_ok=True)
for old in os.listdir(OUT):
    os.remove(os.path.join(OUT, old))
with open(os.path.join(OUT, "decode.golden"), "wb") as golden:
    for name, data in sorted(files.items()):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)
        if name in expected:
            im = Image.fromarray(expected[name])
        else:
            im = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        golden.write(b"%s %d %d\n" % (name.encode(), *im.size) + im.tobytes())


def source(w, h, kind):
    """Kind 0: noise; 1: black and white noise; 2: slopes that wrap. As in test_resize.c."""
    n = w * h * 3
    if kind == 2:
        i = np.arange(n, dtype=np.uint64)
        x, y, c = i // 3 % w, i // 3 // w, i % 3
        v = (x * 7 + y * 13 + c * 50) & 255
    else:
        # s[i + 1] = s[i] * A + C modulo 2^32, computed in a closed form by doubling
        s = np.array([(w * 65537 + h * 257 + kind) % 2**32], dtype=np.uint32)
        a, c = np.uint32(1664525), np.uint32(1013904223)
        with np.errstate(over="ignore"):
            s = s * a + c
            while len(s) < n:
                s = np.concatenate([s, s * a + c])
                a, c = a * a, c * a + c
        s = s[:n]
        v = s >> 24 if kind == 0 else (s >> 31) * 255
    return Image.fromarray(v.astype(np.uint8).reshape(h, w, 3))


def cases():
    for i, (w, h) in enumerate([(1, 1), (2, 2), (3, 5), (1, 64), (64, 1), (1, 1000), (1000, 1), (7, 300), (16, 16)]):
        for s in (224, 448) if i % 2 else (224, 112):
            yield w, h, i % 3, s, s
    for i, (w, h) in enumerate([(224, 224), (223, 225), (225, 223), (112, 448), (448, 112), (320, 240), (333, 517), (640, 360)]):
        yield w, h, i % 2, 224, 224
        yield w, h, 2 - i % 3, 448, 448
    for i, (w, h) in enumerate([(897, 895), (1024, 768), (1280, 720), (1999, 1333), (500, 2001)]):
        yield w, h, i % 3, 224, 224
        yield w, h, (i + 1) % 3, 896, 896
    yield 896, 896, 1, 896, 896
    yield 6000, 40, 0, 224, 224
    yield 40, 6000, 1, 224, 224
    yield 65535, 1, 0, 224, 224
    yield 1, 65535, 1, 224, 224
    yield 20000, 3, 1, 1, 1
    yield 2, 20001, 0, 1, 7
    yield 65535, 2, 1, 3, 2
    yield 5, 4, 0, 1, 1
    yield 100, 100, 1, 99, 101
    yield 101, 99, 1, 100, 100
    yield 37, 53, 0, 371, 17
    yield 3, 3, 1, 896, 896
    yield 14, 14, 1, 28, 14


with open(os.path.join(OUT, "resize.golden"), "w") as golden:
    for w, h, kind, ow, oh in cases():
        out = source(w, h, kind).resize((ow, oh), Image.BICUBIC)
        first, middle = out.getpixel((0, 0)), out.getpixel((ow // 2, oh // 2))
        golden.write("%d %d %d %d %d %08x %02x%02x%02x %02x%02x%02x\n" % (w, h, kind, ow, oh, zlib.crc32(out.tobytes()), *first, *middle))

v = (np.arange(256, dtype=np.uint8) * (1 / 255)).astype(np.float32)
v = (v - np.float32(0.5)) / np.float32(0.5)
v.astype("<f4").tofile(os.path.join(OUT, "normalize.golden"))
print(len(files), "pictures,", sum(map(len, files.values())), "bytes")
