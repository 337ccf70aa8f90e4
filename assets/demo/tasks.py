"""What may be asked about a scene, in PaliGemma's prompt grammar and in free wording, with the true answers.

A scene is described by draw.facts(): (background or None, [(shape, colour, box, mask codes)] left to right, [line of text]).
"""
from draw import COLORS, SHAPES, BACKGROUNDS

LOC_BINS = 1024
NUMBER = ["0", "1", "2", "3", "4"]
PLURAL = {s: s + "s" for s in SHAPES}


def a_(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(facts):
    things = [a_(f"{o[1]} {o[0]}") for o in facts[1]]
    if facts[2]:
        things.append("some text")
    if not things:
        return "nothing"
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]


def place(box, margin=0.02):
    """The ninth of the picture that holds the centre, or None when it is too near a border to say."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for v in (cx, cy):
        if min(abs(v - 1 / 3), abs(v - 2 / 3)) < margin:
            return None
    h = "left" if cx < 1 / 3 else "right" if cx > 2 / 3 else ""
    v = "top" if cy < 1 / 3 else "bottom" if cy > 2 / 3 else ""
    return (v + " " + h).strip() or "center"


def loc(v):
    return f"<loc{min(LOC_BINS - 1, max(0, int(v * LOC_BINS))):04d}>"


def box_pieces(box):
    return loc(box[1]) + loc(box[0]) + loc(box[3]) + loc(box[2])


def code_pieces(codes):
    """16 codes of a mask (mask.py), row by row."""
    return "".join(f"<seg{c:03d}>" for c in codes)


class Asker:
    """Draws questions about scenes; `rng` is a numpy generator."""

    def __init__(self, rng):
        self.rng = rng

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p):
        return self.rng.random() < p

    # -- wording -----------------------------------------------------------

    def style(self, q):
        """A question as people type it: with and without capital and question mark."""
        r = self.rng.random()
        if r < .40:
            return q[0].upper() + q[1:] + "?"
        if r < .65:
            return q + "?"
        if r < .88:
            return q
        return q[0].upper() + q[1:]

    def formal(self, q):
        """`answer en`, mostly lower case with a question mark as in PaliGemma's training mixture."""
        r = self.rng.random()
        if r < .7:
            return "answer en " + q + "?"
        if r < .85:
            return "answer en " + q
        return "answer en " + q[0].upper() + q[1:] + "?"

    def word(self, q, free=None):
        """-> prompt; about half `answer en`, half free."""
        if free is None:
            free = self.chance(.5)
        return self.style(q) if free else self.formal(q)

    # -- questions: each returns (question without '?', answer) or None ------

    def q_color(self, f):
        objs = f[1]
        uniq = [o for o in objs if sum(p[0] == o[0] for p in objs) == 1]
        if not uniq:
            return None
        o = uniq[int(self.rng.integers(len(uniq)))]
        s = o[0]
        if len(objs) == 1 and self.chance(.25):
            return self.pick("what color is it", "what color is the shape", "what color is this",
                             "what color is the thing"), o[1], o
        q = self.pick(f"what color is the {s}", f"what color is the {s}", f"what color is the {s}",
                      f"what colour is the {s}", f"what is the color of the {s}", f"which color is the {s}",
                      f"what's the color of the {s}", f"tell me the color of the {s}")
        return q, o[1], o

    def q_shape(self, f):
        objs = f[1]
        uniq = [o for o in objs if sum(p[1] == o[1] for p in objs) == 1]
        if not uniq:
            return None
        o = uniq[int(self.rng.integers(len(uniq)))]
        c = o[1]
        if len(objs) == 1 and self.chance(.3):
            return self.pick("what shape is it", "what shape is this", "what shape is there",
                             "what shape is in the picture"), o[0], o
        q = self.pick(f"what shape is {c}", f"what shape is {c}", f"which shape is {c}", f"what is the {c} thing",
                      f"what shape is the {c} thing", f"what is {c}", f"what is the {c} shape")
        return q, o[0], o

    def q_count(self, f):
        objs = f[1]
        r = self.rng.random()
        if r < .4:
            n = len(objs)
            if n == 0 and self.chance(.5):
                return None
            q = self.pick("how many shapes are there", "how many shapes are there", "how many shapes",
                          "how many things are there", "how many objects are there", "count the shapes",
                          "how many shapes are in the picture")
            return q, NUMBER[n], None
        which, names = (0, SHAPES) if r < .75 else (1, COLORS)
        have = [o[which] for o in objs]
        if have and self.chance(.8):
            key = have[int(self.rng.integers(len(have)))]
        else:
            key = names[int(self.rng.integers(len(names)))]
        n = have.count(key)
        if which == 0:
            q = self.pick(f"how many {PLURAL[key]} are there", f"how many {PLURAL[key]} are there",
                          f"how many {PLURAL[key]}", f"how many {PLURAL[key]} are in the picture")
        else:
            q = self.pick(f"how many {key} shapes are there", f"how many {key} things are there",
                          f"how many {key} shapes")
        return q, NUMBER[n], None

    def q_yesno(self, f):
        objs = f[1]
        r = self.rng.random()
        want = self.chance(.5)
        if r < .08:
            return self.pick("is there any text", "is there text", "is there some text"), \
                "yes" if f[2] else "no", None
        if r < .22 and objs:
            uniq = [o for o in objs if sum(p[0] == o[0] for p in objs) == 1]
            if uniq:
                o = uniq[int(self.rng.integers(len(uniq)))]
                c = o[1] if want else self.pick(*[c for c in COLORS if c != o[1]])
                return self.pick(f"is the {o[0]} {c}", f"is the {o[0]} {c}"), "yes" if want else "no", o
        if r < .62:
            present = {(o[0], o[1]) for o in objs}
            o = None
            if want and objs:
                o = objs[int(self.rng.integers(len(objs)))]
                s, c = o[0], o[1]
            else:
                for _ in range(20):
                    s, c = self.pick(*SHAPES), self.pick(*COLORS)
                    if objs and self.chance(.7):      # one half right
                        near = objs[int(self.rng.integers(len(objs)))]
                        s, c = (near[0], c) if self.chance(.5) else (s, near[1])
                    if (s, c) not in present:
                        break
                else:
                    return None
            thing = f"{c} {s}"
            ok = (s, c) in present
        elif r < .84:
            have = [o[0] for o in objs]
            absent = [s for s in SHAPES if s not in have]
            thing = self.pick(*have) if want and have else self.pick(*absent)
            ok = thing in have
            o = next((p for p in objs if p[0] == thing), None)
        else:
            have = [o[1] for o in objs]
            c = self.pick(*have) if want and have else self.pick(*[c for c in COLORS if c not in have])
            q = self.pick(f"is there anything {c}", f"is there a {c} shape", f"is there a {c} thing")
            q = q.replace("a orange", "an orange")
            return q, "yes" if c in have else "no", next((p for p in objs if p[1] == c), None)
        if len(thing.split()) == 1 and self.chance(.2):
            return self.pick(f"are there any {PLURAL[thing]}", f"do you see any {PLURAL[thing]}"), \
                "yes" if ok else "no", o if ok else None
        q = self.pick(f"is there {a_(thing)}", f"is there {a_(thing)}", f"is there {a_(thing)}",
                      f"do you see {a_(thing)}", f"is there {a_(thing)} in the picture",
                      f"can you see {a_(thing)}")
        return q, "yes" if ok else "no", o if ok else None

    def q_where(self, f):
        objs = f[1]
        cand = []
        for o in objs:
            p = place(o[2])
            if p is None:
                continue
            if sum(q[0] == o[0] for q in objs) == 1:
                cand += [(o[0], o, p)] * 2
            if sum(q[:2] == o[:2] for q in objs) == 1:
                cand.append((f"{o[1]} {o[0]}", o, p))
            if sum(q[1] == o[1] for q in objs) == 1:
                cand.append((f"{o[1]} thing", o, p))
        if not cand:
            return None
        name, o, p = cand[int(self.rng.integers(len(cand)))]
        return self.pick(f"where is the {name}", f"where is the {name}", f"where is the {name}", f"where's the {name}",
                         f"where is the {name} in the picture"), p, o

    def q_background(self, f):
        if not f[0]:
            return None
        return self.pick("what color is the background", "what color is the background",
                         "what is the background color", "what color is behind it"), f[0], None

    def q_caption(self, f):
        return self.pick("what is in the picture", "what is in the image", "what do you see", "what is this",
                         "what is shown here", "describe the picture", "what can you see",
                         "what is in this picture", "describe the image", "what's in the picture",
                         "describe this image", "describe this picture", "caption this image",
                         "what's in this image"), caption(f), None

    def q_text(self, f):
        if not f[2]:
            if self.chance(.85):
                return None
            return self.pick("what does the text say", "what is written here", "what does it say"), "no text", None
        return self.pick("what does the text say", "what does the text say", "what is written here",
                         "what does it say", "read the text", "what is the text"), "\n".join(f[2]), None

    QUESTIONS = ["color", "shape", "count", "yesno", "where", "background", "caption", "text"]

    # -- complete prompts: (task, prompt, answer) ------------------------------

    def p_caption(self, f):
        r = self.rng.random()
        if r < .6:
            return "caption", self.pick("caption en", "caption en", "caption en", "cap en", "describe en"), caption(f)
        if r < .65:
            return "caption", "", caption(f)
        q, ans, _ = self.q_caption(f)
        return "caption", self.word(q, self.chance(.8)), ans

    def p_detect(self, f, task="detect"):
        objs = f[1]
        names = []
        want = 1 if self.chance(.5) or len(objs) < 2 or task == "segment" else 2
        for _ in range(want):
            r = self.rng.random()
            if objs and r < .96:
                o = objs[int(self.rng.integers(len(objs)))]
                n = f"{o[1]} {o[0]}" if self.chance(.6) else o[0]
            else:
                n = self.pick(*SHAPES) if self.chance(.4) else f"{self.pick(*COLORS)} {self.pick(*SHAPES)}"
            if n not in names:
                names.append(n)
        items = []
        for n in names:
            items += [box_pieces(o[2]) + (code_pieces(o[3]) if task == "segment" else "") + " " + n
                      for o in objs if n in (o[0], f"{o[1]} {o[0]}")]
        return task, f"{task} " + " ; ".join(names), " ; ".join(items)

    def p_segment(self, f):
        return self.p_detect(f, "segment")

    def p_ocr(self, f):
        if not f[2] and self.chance(.8):
            return None
        return "ocr", "ocr", "\n".join(f[2])

    def p_question(self, f, kind):
        r = getattr(self, "q_" + kind)(f)
        return r and (kind if kind != "text" else "ocr", self.word(r[0]), r[1])

    def p_history(self, f):
        """Earlier turns, then a question that stands alone."""
        turns = []
        for _ in range(self.pick(1, 1, 2, 3)):
            r = getattr(self, "q_" + self.pick("color", "shape", "count", "yesno", "where", "background",
                                               "caption", "yesno"))(f)
            if r:
                turns.append(self.style(r[0]) + "\n" + r[1])
        kind = self.pick("color", "shape", "count", "yesno", "where", "caption")
        r = getattr(self, "q_" + kind)(f)
        if not turns or not r:
            return None
        return "history", "\n".join(turns + [self.style(r[0])]), r[1]

    def p_follow(self, f):
        """A question that makes sense only after the earlier one."""
        objs = f[1]
        if not objs:
            return None
        r = self.rng.random()
        if r < .5:                       # "it"
            kind = self.pick("color", "shape", "where", "yesno")
            first = getattr(self, "q_" + kind)(f)
            if not first or first[2] is None or (kind == "yesno" and first[1] == "no"):
                return None
            o = first[2]
            named = [i for i in (0, 1) if o[i] in first[0]]
            if sum(all(p[i] == o[i] for i in named) for p in objs) > 1:
                return None
            second = [k for k in ("color", "shape", "where") if k != kind]
            if kind == "color":
                second = ["where", "where", "where"]
            k = self.pick(*second)
            ans = {"color": o[1], "shape": o[0], "where": place(o[2])}[k]
            if ans is None:
                return None
            q = {"color": self.pick("what color is it", "what color is it", "and what color is it",
                                    "what is its color"),
                 "shape": self.pick("what shape is it", "and what shape is it"),
                 "where": self.pick("where is it", "where is it", "and where is it")}[k]
        elif r < .8:                     # "and the star?"
            uniq = [o for o in objs if sum(p[0] == o[0] for p in objs) == 1]
            kind = self.pick("color", "where", "count")
            if kind == "count":
                a, b = self.rng.choice(SHAPES, 2, replace=False)
                have = [o[0] for o in objs]
                first = (f"how many {PLURAL[a]} are there", NUMBER[have.count(a)], None)
                q, ans = self.pick(f"and {PLURAL[b]}", f"and how many {PLURAL[b]}"), NUMBER[have.count(b)]
            else:
                if len(uniq) < 2:
                    return None
                i, j = self.rng.choice(len(uniq), 2, replace=False)
                a, b = uniq[i], uniq[j]
                if kind == "color":
                    first, ans = (f"what color is the {a[0]}", a[1], a), b[1]
                else:
                    first, ans = (f"where is the {a[0]}", place(a[2]), a), place(b[2])
                    if first[1] is None or ans is None:
                        return None
                q = self.pick(f"and the {b[0]}", f"and the {b[0]}", f"what about the {b[0]}")
        else:                            # the other one of two
            if len(objs) != 2 or objs[0][0] == objs[1][0]:
                return None
            i = int(self.rng.integers(2))
            a, b = objs[i], objs[1 - i]
            kind = self.pick("color", "where", "shape")
            if kind == "shape" and a[1] == b[1]:
                return None
            first = {"color": (f"what color is the {a[0]}", a[1]), "shape": (f"what shape is {a[1]}", a[0]),
                     "where": (f"where is the {a[0]}", place(a[2]))}[kind]
            k = self.pick(kind, "color", "shape", "where")
            ans = {"color": b[1], "shape": b[0], "where": place(b[2])}[k]
            if first[1] is None or ans is None:
                return None
            if k == kind and self.chance(.6):
                q = self.pick("and the other one", "what about the other one", "and the other")
            else:
                q = {"color": "what color is the other one", "shape": "what shape is the other one",
                     "where": "where is the other one"}[k]
        before = []
        if self.chance(.2):
            x = getattr(self, "q_" + self.pick("count", "yesno", "caption"))(f)
            if x:
                before = [self.style(x[0]), x[1]]
        return "follow", "\n".join(before + [self.style(first[0]), first[1], self.style(q)]), ans

    def ask(self, facts, count, weights=None):
        """About `count` different prompts about one scene."""
        objs, lines = facts[1], facts[2]
        w = dict(caption=3.0, color=2.0, shape=2.0, count=1.6, yesno=2.6, where=1.5, background=.4,
                 detect=3.0, segment=2.0, history=.8, follow=1.8 if len(objs) > 1 else .5, ocr=.15, text=.15)
        if lines:
            w.update(ocr=1.2, text=.8, caption=1.6, yesno=1.6, background=.3)
        if not objs:
            w.update(color=0, shape=0, where=0, count=.4, detect=.15, segment=.1, history=.1, follow=0, caption=.6, yesno=.8)
        if weights:
            w = {k: v * weights.get(k, 1) for k, v in w.items()}
        keys = list(w)
        p = [w[k] for k in keys]
        total = sum(p)
        out, seen = [], set()
        for k in self.rng.choice(len(keys), count, p=[x / total for x in p]):
            k = keys[k]
            r = getattr(self, "p_" + k)(facts) if hasattr(self, "p_" + k) else self.p_question(facts, k)
            if r and r[1] not in seen:
                seen.add(r[1])
                out.append(r)
        return out
