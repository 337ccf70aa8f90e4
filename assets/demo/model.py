"""The miniature PaliGemma in plain PyTorch: the same arithmetic as the released models, small sizes.

Only what training needs. export.py writes the weights under the released names and checks them
against transformers.
"""
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

SIZE, PATCH, GRID = 112, 14, 8
N_IMAGE = GRID * GRID
EPS = 1e-6

# sizes; config.json is written from these
VISION = dict(width=192, layers=4, heads=6, ff=512)
PLACE = 16             # of the tower's width, the part that starts as nothing but the place of the patch
TEXT = dict(width=128, layers=4, heads=4, kv_heads=2, head_dim=32, ff=512)
LOC = 1024


# Products in training may run in bfloat16 (2.5 times as fast on a CPU that has the instructions); weights, the
# residual stream and norms stay in float32. train.py sets it.
LOW = None


def linear(m, x):
    if LOW is None:
        return m(x)
    return F.linear(x.to(LOW), m.weight.to(LOW), None if m.bias is None else m.bias.to(LOW))


def patches(px):
    """uint8 [B, 112, 112, 3] -> float [B, 64, 588] in the checkpoint's order: channel, row, column."""
    b = px.shape[0]
    x = px.view(b, GRID, PATCH, GRID, PATCH, 3).permute(0, 1, 3, 5, 2, 4).reshape(b, N_IMAGE, 3 * PATCH * PATCH)
    return x.to(LOW or torch.float32) * (1 / 127.5) - 1


class VisionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        w, ff = VISION["width"], VISION["ff"]
        self.norm1, self.norm2 = nn.LayerNorm(w, EPS), nn.LayerNorm(w, EPS)
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.fc1, self.fc2 = nn.Linear(w, ff), nn.Linear(ff, w)

    def forward(self, x):
        b, t, w = x.shape
        h = VISION["heads"]
        q, k, v = linear(self.qkv, self.norm1(x)).view(b, t, 3, h, w // h).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-1, -2) * (w // h) ** -.5, -1) @ v     # on a CPU faster than the fused one
        x = x + linear(self.out, a.transpose(1, 2).reshape(b, t, w))
        return x + linear(self.fc2, F.gelu(linear(self.fc1, self.norm2(x)), approximate="tanh"))


class Tower(nn.Module):
    """SigLIP's encoder: patch embedding, learned positions, pre-norm blocks, post_layernorm."""

    def __init__(self):
        super().__init__()
        w = VISION["width"]
        self.stem = nn.Linear(3 * PATCH * PATCH, w)
        self.pos = nn.Parameter(torch.zeros(N_IMAGE, w))
        self.blocks = nn.ModuleList(VisionBlock() for _ in range(VISION["layers"]))
        self.norm = nn.LayerNorm(w, EPS)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=m.in_features ** -.5 * .7)
                nn.init.zeros_(m.bias)
        for b in self.blocks:
            b.out.weight.data *= .4
            b.fc2.weight.data *= .4
        self.look_around()

    @torch.no_grad()
    def look_around(self):
        """Four heads of the first block start by looking at the patches beside, above and below, four of the second
        at the diagonal ones, so that letters cut by a patch's border can be put together from the first step on.

        The last PLACE numbers of a token are waves of its place; a head that turns them by one step finds the
        neighbour where the turned waves of the query meet those of the key."""
        waves = torch.tensor([1., 2, 4, 6]) * math.pi / GRID
        y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")

        def place(x, y):
            return torch.cat([f(v.reshape(-1, 1) * waves) for v in (x, y) for f in (torch.cos, torch.sin)], 1)
        self.pos[:, -PLACE:] = 2 * place(x.float(), y.float())
        w, hd = VISION["width"], VISION["width"] // VISION["heads"]
        for b, steps in zip(self.blocks, (((1, 0), (-1, 0), (0, 1), (0, -1)), ((1, 1), (-1, -1), (1, -1), (-1, 1)))):
            for h, (dx, dy) in enumerate(steps):
                q, k = b.qkv.weight[h * hd:h * hd + hd], b.qkv.weight[w + h * hd:w + h * hd + hd]
                q *= .2
                k *= .2
                k[:PLACE, -PLACE:] = 1.5 * torch.eye(PLACE)
                for i, step in enumerate((dx, dy)):
                    c, s = (waves * step).cos(), (waves * step).sin()
                    at, n = i * 8, w - PLACE + i * 8
                    for j in range(4):
                        q[at + j, n + j], q[at + j, n + 4 + j] = 1.5 * c[j], -1.5 * s[j]
                        q[at + 4 + j, n + j], q[at + 4 + j, n + 4 + j] = 1.5 * s[j], 1.5 * c[j]

    @torch.no_grad()
    def whiten(self, x):
        """Starts the patch embedding as the whitened principal components of some patches x [*, 588]."""
        mean = x.mean(0)
        val, vec = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        w = self.stem.out_features - PLACE
        val, vec = val[-w:], vec[:, -w:]
        self.stem.weight.zero_()
        self.stem.weight[:w] = ((val + 0.02) ** -.5)[:, None] * vec.T
        self.stem.bias.copy_(-self.stem.weight @ mean)

    def forward(self, x):
        x = linear(self.stem, x) + self.pos
        for b in self.blocks:
            x = b(x)
        return self.norm(x)


class DenseHeads(nn.Module):
    """Linear read-outs that stage 1 trains the tower with; dropped at export."""
    BINS = 32

    def __init__(self):
        super().__init__()
        w = VISION["width"]
        # per patch: shape 6, colour 9, box 4 x 32, rank 5, characters 3 x 37, number 40, line 4, column 12,
        # background 9
        self.sizes = [6, 9, 4 * self.BINS, 5, 3 * 37, 40, 4, 12, 9]
        self.patch = nn.Linear(w, sum(self.sizes))
        # of the mean over patches: shapes in all, of each shape, of each colour (0..4), pairs present, lines of text
        self.pooled = nn.Linear(w, 5 + 25 + 40 + 40 + 4)
        self.codes = nn.Linear(w, 16 * 128)      # of the mask, where the centre of an object lies
        for m in (self.patch, self.pooled, self.codes):
            nn.init.normal_(m.weight, std=.02)
            nn.init.zeros_(m.bias)

    def forward(self, z):
        return self.patch(z).split(self.sizes, -1), self.pooled(z.mean(1)).split([5, 25, 40, 40, 4], -1)


def soft_bins(v, bins):
    """v in [0, 1) -> soft one-hot over `bins`, a Gaussian of 0.7 bins."""
    c = (torch.arange(bins, device=v.device) + .5) / bins
    return torch.softmax(-((v[..., None] - c) * bins) ** 2 / (2 * .7 ** 2), -1)


def dense_loss(heads, z, lab, glob):
    """-> loss, dict of measures. lab [B, 64, 13] as draw.patch_labels; glob [B, 56 + 64]: how many objects, of each
    shape, of each colour, the pairs there are, lines, background; the codes of up to four masks."""
    (shape, color, box, rank, chars, number, line, column, bg), (total, nshape, ncolor, pair, nlines) = heads(z)
    m = {}

    def ce(logits, target, weight):
        l = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
        weight = weight.flatten()
        return (l * weight).sum() / weight.sum().clamp(min=1)

    obj = lab[..., 0] > 0
    w = torch.where(obj, 1.0, .25)
    loss = ce(shape, lab[..., 0], w) + ce(color, lab[..., 1], w)
    centre = lab[..., 6] > 0
    if obj.any():
        box = box.unflatten(-1, (4, DenseHeads.BINS))
        t = soft_bins(lab[..., 2:6].float().add(.5) / 1024, DenseHeads.BINS)
        lp = box.log_softmax(-1)
        wobj = torch.where(centre, 3.0, 1.0) * obj
        lbox = (-(t * lp).sum(-1) + (t * t.clamp(min=1e-9).log()).sum(-1)).mean(-1)
        loss = loss + 1.5 * (lbox * wobj).sum() / wobj.sum()
        want = glob[:, 56:].unflatten(1, (4, 16))[centre.nonzero()[:, 0], lab[..., 6][centre] - 1]
        codes = heads.codes(z[centre]).unflatten(-1, (16, 128))
        loss = loss + .3 * F.cross_entropy(codes.flatten(0, 1), want.flatten())
    loss = loss + ce(rank, lab[..., 6], torch.where(centre, 1.0, torch.where(obj, .5, .1)))
    text = lab[..., 7:10].amax(-1) > 0
    near = F.max_pool2d(text.float().view(-1, 1, GRID, GRID), 3, 1, 1).view(text.shape) > 0
    chars = chars.unflatten(-1, (3, 37))
    letter = lab[..., 7:10] > 0
    loss = loss + 4 * ce(chars, lab[..., 7:10], torch.where(letter, 1.0, torch.where(near, .4, .05)[..., None]))
    counted = torch.where(text, (lab[..., 10] > 0).float(), .02)          # crowded pages have no reading order
    loss = loss + .4 * ce(number, lab[..., 10].clamp(max=39), counted)
    loss = loss + .3 * ce(line, lab[..., 11], counted) + .3 * ce(column, lab[..., 12].clamp(max=11), counted)
    named = (glob[:, 55] > 0).float()[:, None].expand(-1, N_IMAGE)
    loss = loss + .2 * ce(bg, (glob[:, 55:56] - 1).clamp(min=0).expand(-1, N_IMAGE), named)
    one = torch.ones(len(z), device=z.device)
    loss = loss + .4 * ce(total, glob[:, 0], one)
    loss = loss + .4 * ce(nshape.unflatten(-1, (5, 5)), glob[:, 1:6], one[:, None].expand(-1, 5))
    loss = loss + .4 * ce(ncolor.unflatten(-1, (8, 5)), glob[:, 6:14], one[:, None].expand(-1, 8))
    loss = loss + 2 * F.binary_cross_entropy_with_logits(pair, glob[:, 14:54].float())
    loss = loss + .2 * ce(nlines, glob[:, 54], one)
    with torch.no_grad():
        m["shape"] = (shape.argmax(-1) == lab[..., 0])[centre].float().mean()
        m["color"] = (color.argmax(-1) == lab[..., 1])[centre].float().mean()
        if obj.any():
            p = lp[centre].exp()
            mid = (torch.arange(DenseHeads.BINS, device=z.device) + .5) / DenseHeads.BINS
            m["codes"] = (codes.argmax(-1) == want).float().mean()
            m["box err"] = ((p * mid).sum(-1) - lab[..., 2:6][centre] / 1024).abs().mean()
        # a letter near the border of two thirds may be read in either
        rows = chars.argmax(-1).view(-1, GRID, GRID * 3)
        pad, want = F.pad(rows, (1, 1)), lab[..., 7:10].reshape(-1, GRID, GRID * 3)
        hit = (pad[..., 1:-1] == want) | (pad[..., :-2] == want) | (pad[..., 2:] == want)
        m["chars"] = hit[want > 0].float().mean()
        m["strict"] = (rows == want)[want > 0].float().mean()
        told = lab[..., 10] > 0
        m["number"] = (number.argmax(-1) == lab[..., 10].clamp(max=39))[told].float().mean()
        m["column"] = (column.argmax(-1) == lab[..., 12].clamp(max=11))[told].float().mean()
        m["rank"] = (rank.argmax(-1) == lab[..., 6])[centre].float().mean()
        m["centre fp"] = (rank.argmax(-1) > 0)[~centre].float().sum() / len(z)
        m["count"] = (total.argmax(-1) == glob[:, 0]).float().mean()
        m["bg"] = (bg.argmax(-1)[:, 0] == glob[:, 55] - 1)[glob[:, 55] > 0].float().mean()
    return loss, m


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), 1 + self.weight, EPS)


def rope(pos, dim=TEXT["head_dim"]):
    """pos [..., T] -> cos, sin [..., 1, T, dim], half-split pairs, theta 10000."""
    ang = pos[..., None].float() * 10000 ** (-torch.arange(0, dim, 2, device=pos.device).float() / dim)
    ang = torch.cat([ang, ang], -1)[..., None, :, :]
    return ang.cos(), ang.sin()


def rotate(x, cs):
    a, b = x.chunk(2, -1)
    return x * cs[0] + torch.cat([-b, a], -1) * cs[1]


def hidden(mask):
    """bool mask -> what is added to the scores"""
    return torch.zeros(mask.shape, dtype=LOW or torch.float32, device=mask.device).masked_fill_(~mask, -1e4)


class TextBlock(nn.Module):
    def __init__(self):
        super().__init__()
        w, hd, ff = TEXT["width"], TEXT["head_dim"], TEXT["ff"]
        self.norm1, self.norm2 = RMSNorm(w), RMSNorm(w)
        self.q = nn.Linear(w, TEXT["heads"] * hd, bias=False)
        self.k = nn.Linear(w, TEXT["kv_heads"] * hd, bias=False)
        self.v = nn.Linear(w, TEXT["kv_heads"] * hd, bias=False)
        self.o = nn.Linear(TEXT["heads"] * hd, w, bias=False)
        self.gate, self.up = nn.Linear(w, ff, bias=False), nn.Linear(w, ff, bias=False)
        self.down = nn.Linear(ff, w, bias=False)

    def kv(self, n, cs):
        b, t, _ = n.shape
        hd = TEXT["head_dim"]
        k = linear(self.k, n).float().view(b, t, -1, hd).transpose(1, 2)
        v = linear(self.v, n).float().view(b, t, -1, hd).transpose(1, 2)
        return rotate(k, cs), v

    def attend(self, n, cs, k, v, bias):
        """bias: 0 where the key is seen and -10000 where not, or None; [B, 1, T, keys] or one that spreads to it"""
        b, t, _ = n.shape
        hd, g = TEXT["head_dim"], TEXT["heads"] // TEXT["kv_heads"]
        low = LOW or torch.float32
        q = rotate(linear(self.q, n).float().view(b, t, -1, hd).transpose(1, 2), cs)
        s = q.to(low).unflatten(1, (-1, g)) * hd ** -.5 @ k.to(low)[:, :, None].transpose(-1, -2)
        if bias is not None:
            s = s + bias[:, None]
        a = torch.softmax(s, -1) @ v.to(low)[:, :, None]
        return linear(self.o, a.flatten(1, 2).transpose(1, 2).reshape(b, t, -1))

    def mlp(self, x):
        n = self.norm2(x)
        if LOW is not None:
            n = n.to(LOW)
        return linear(self.down, F.gelu(linear(self.gate, n), approximate="tanh") * linear(self.up, n))


class Decoder(nn.Module):
    """Projector and Gemma decoder. The rows of the location pieces are a smooth function of their place."""

    def __init__(self, vocab, loc0):
        super().__init__()
        w = TEXT["width"]
        self.loc0 = loc0
        self.proj = nn.Linear(VISION["width"], w)
        nn.init.orthogonal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.embed = nn.Parameter(torch.randn(vocab, w) * w ** -.5)
        knots = torch.linspace(-.03, 1.03, 40)
        basis = torch.exp(-((torch.arange(LOC) + .5)[:, None] / LOC - knots) ** 2 / (2 * .03 ** 2))
        self.register_buffer("basis", basis / basis.sum(1, keepdim=True), persistent=False)
        self.loc = nn.Parameter(torch.randn(40, w) * w ** -.5 * 1.5)
        self.blocks = nn.ModuleList(TextBlock() for _ in range(TEXT["layers"]))
        self.norm = RMSNorm(w)
        for b in self.blocks:
            for m in b.children():
                if isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, std=m.in_features ** -.5)
            b.o.weight.data *= .35
            b.down.weight.data *= .35

    def table(self):
        """The whole embedding table [vocab, width]."""
        return torch.cat([self.embed[:self.loc0], self.basis @ self.loc, self.embed[self.loc0 + LOC:]])

    def embed_text(self, table, ids):
        return F.embedding(ids, table) * TEXT["width"] ** .5

    POINTERS = (1, 2)       # blocks whose first head is shown where the next letter stands

    def pointing(self, b, nt, pos, k, mask, sel, point):
        """How surely the first head of block b looks at the patch of the letter to be read next: -> mean of -log"""
        at, which = (point >= 0).nonzero(as_tuple=True)
        row, hd = sel[at, which], TEXT["head_dim"]
        q = F.linear(nt[at, row], b.q.weight[:hd].to(nt.dtype)).float()
        q = rotate(q[:, None, None], rope(pos[at, row][:, None]))[:, 0, 0]
        s = torch.einsum("nd,ntd->nt", q, k[at, 0]) * hd ** -.5
        s = s.masked_fill(~mask[at, 0, row], -1e4)
        return -s.log_softmax(-1).gather(1, point[at, which][:, None]).mean()

    def packed(self, z, ids, pos, mask, sel, table, point=None):
        """Training form: z [B, 64, vision width] is seen by every text token, the image tokens see one another.

        ids, pos [B, T]; mask [B, 1, T, 64 + T]; sel [B, A] the text positions whose output is wanted.
        -> hidden states [B, A, width]. The last block works on those positions only. With point [B, A] (a patch, or
        -1) also the loss of pointing().
        """
        aim, bias = [], hidden(mask)
        xi, xt = self.proj(z), self.embed_text(table, ids)
        ci, ct = rope(torch.arange(N_IMAGE, device=z.device)), rope(pos)
        last = len(self.blocks) - 1
        for i, b in enumerate(self.blocks):
            ni, nt = b.norm1(xi), b.norm1(xt)
            if LOW is not None:
                ni, nt = ni.to(LOW), nt.to(LOW)
            ki, vi = b.kv(ni, ci)
            kt, vt = b.kv(nt, ct)
            if point is not None and i in self.POINTERS:
                aim.append(self.pointing(b, nt, pos, torch.cat([ki, kt], 2), mask, sel, point))
            if i < last:
                xi = xi + b.attend(ni, ci, ki, vi, None)
                xi = xi + b.mlp(xi)
            else:
                def rows(x):
                    return x.gather(1, sel[..., None].expand(-1, -1, x.shape[-1]))
                xt, nt, ct = rows(xt), rows(nt), rope(pos.gather(1, sel))
                bias = rows(bias[:, 0])[:, None]
            xt = xt + b.attend(nt, ct, torch.cat([ki, kt], 2), torch.cat([vi, vt], 2), bias)
            xt = xt + b.mlp(xt)
        return self.norm(xt) if point is None else (self.norm(xt), sum(aim) / len(aim))

    def true(self, z, ids, mask, cache=None, pos=None):
        """The released semantics. Without cache: prefix [image, ids] under mask [B, 1, 64+T, 64+T].

        With cache (list of k, v): ids [B, 1] at pos [B, 1]. -> hidden [B, T', width], cache.
        """
        table = self.table()
        x = self.embed_text(table, ids)
        if cache is None:
            x = torch.cat([self.proj(z), x], 1)
            pos = torch.arange(x.shape[1], device=x.device)
        cs, bias = rope(pos), hidden(mask)
        out = []
        for i, b in enumerate(self.blocks):
            n = b.norm1(x)
            k, v = b.kv(n, cs)
            if cache is not None:
                k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
            out.append((k, v))
            x = x + b.attend(n, cs, k, v, bias)
            x = x + b.mlp(x)
        return self.norm(x), out


TABLE = "language_model.model.embed_tokens.weight"


def released(tower, dec):
    """-> {name in the released files: view of the weights here}; all but TABLE, which Decoder.table() makes."""
    out = {}
    V, L = "vision_tower.vision_model.", "language_model.model."
    w = VISION["width"]
    out[V + "embeddings.patch_embedding.weight"] = tower.stem.weight.view(w, 3, PATCH, PATCH)
    out[V + "embeddings.patch_embedding.bias"] = tower.stem.bias
    out[V + "embeddings.position_embedding.weight"] = tower.pos
    for i, b in enumerate(tower.blocks):
        p = f"{V}encoder.layers.{i}."
        for name, m in (("layer_norm1", b.norm1), ("layer_norm2", b.norm2), ("self_attn.out_proj", b.out),
                        ("mlp.fc1", b.fc1), ("mlp.fc2", b.fc2)):
            out[p + name + ".weight"], out[p + name + ".bias"] = m.weight, m.bias
        for j, name in enumerate("qkv"):
            out[f"{p}self_attn.{name}_proj.weight"] = b.qkv.weight[j * w:(j + 1) * w]
            out[f"{p}self_attn.{name}_proj.bias"] = b.qkv.bias[j * w:(j + 1) * w]
    out[V + "post_layernorm.weight"], out[V + "post_layernorm.bias"] = tower.norm.weight, tower.norm.bias
    out["multi_modal_projector.linear.weight"] = dec.proj.weight
    out["multi_modal_projector.linear.bias"] = dec.proj.bias
    for i, b in enumerate(dec.blocks):
        p = f"{L}layers.{i}."
        for name, m in (("self_attn.q_proj", b.q), ("self_attn.k_proj", b.k), ("self_attn.v_proj", b.v),
                        ("self_attn.o_proj", b.o), ("mlp.gate_proj", b.gate), ("mlp.up_proj", b.up),
                        ("mlp.down_proj", b.down), ("input_layernorm", b.norm1),
                        ("post_attention_layernorm", b.norm2)):
            out[p + name + ".weight"] = m.weight
    out[L + "norm.weight"] = dec.norm.weight
    return out


@torch.no_grad()
def load_released(folder, tower, dec):
    """Takes over the weights of an exported folder; the rows of the location pieces as the nearest smooth function."""
    state = load_file(os.path.join(folder, "model.safetensors"))
    table = state.pop(TABLE).float()
    if table.shape != dec.embed.shape:
        raise SystemExit(f"{folder}: {len(table)} pieces, the tokenizer here makes it {len(dec.embed)}")
    views = released(tower, dec)
    if views.keys() != state.keys():
        raise SystemExit(f"{folder}: not of this architecture: {sorted(views.keys() ^ state.keys())[:3]}")
    for name, view in views.items():
        view.copy_(state[name])
    dec.embed.copy_(table)
    rows = table[dec.loc0:dec.loc0 + LOC]
    dec.loc.copy_(torch.linalg.lstsq(dec.basis.double(), rows.double()).solution)


@torch.no_grad()
def generate(dec, z, prompts, eos=1, limit=48, vocab=None, pad=0):
    """Greedy answers under the true prefix mask. z [B, 64, w], prompts: list of id lists. -> list of id lists."""
    dev = z.device
    b, t = len(prompts), max(map(len, prompts))
    ids = torch.full((b, t), pad, device=dev)
    lens = torch.tensor([len(p) for p in prompts], device=dev)
    for i, p in enumerate(prompts):
        ids[i, :len(p)] = torch.tensor(p, device=dev)
    ok = torch.cat([torch.ones(b, N_IMAGE, dtype=torch.bool, device=dev),
                    torch.arange(t, device=dev)[None] < lens[:, None]], 1)
    h, cache = dec.true(z, ids, ok[:, None, None, :])
    table = dec.table()[:vocab]
    h = h[torch.arange(b), N_IMAGE + lens - 1]
    out = [[] for _ in range(b)]
    done = torch.zeros(b, dtype=torch.bool, device=dev)
    for step in range(limit):
        nxt = (h @ table.T).argmax(-1)
        done |= nxt == eos
        for i in (~done).nonzero().flatten().tolist():
            out[i].append(int(nxt[i]))
        if bool(done.all()):
            break
        ok = torch.cat([ok, torch.ones(b, 1, dtype=torch.bool, device=dev)], 1)
        pos = (N_IMAGE + lens + step)[:, None]
        h, cache = dec.true(None, nxt[:, None], ok[:, None, None, :], cache, pos)
        h = h[:, 0]
    return out
