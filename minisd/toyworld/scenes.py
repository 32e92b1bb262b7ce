"""The drawn world: what a scene of toyworld is, how one is sampled, how one is drawn.

A scene is one or two coloured things on a background, small enough to be read back by a judge and
rich enough to need a text encoder: 16 kinds, 10 colours, 8 backgrounds, 4 relations. Some
combinations are held out of training, so that a picture of one shows composition, not memory.

Every thing is a stack of flat outlines painted back to front (`ART`), in a box from -1 to 1 with y
pointing down as in pictures. Details stay wider than 3 pixels at 128: the pictures have to pass
through an autoencoder that shrinks them eightfold.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

KINDS = ("circle", "square", "triangle", "star", "heart", "cross", "moon", "house", "tree", "car",
         "balloon", "boat", "flower", "fish", "mushroom", "umbrella")
COLOURS: dict[str, RGB] = {
    "red": (222, 38, 44), "orange": (250, 138, 22), "yellow": (253, 214, 40),
    "green": (40, 158, 66), "blue": (36, 88, 220), "purple": (140, 62, 196),
    "pink": (250, 134, 186), "brown": (134, 82, 44), "black": (28, 28, 34),
    "white": (248, 248, 250)}
BACKGROUNDS = ("white", "black", "gray", "sky", "sand", "grass", "night", "sea")
RELATIONS = ("above", "below", "left of", "right of")

# Colours that would vanish, or be taken for another, on a background.
HIDDEN = {"white": {"white"}, "black": {"black"}, "gray": set(), "sky": set(), "sand": {"yellow"},
          "grass": {"green"}, "night": {"black", "blue"}, "sea": {"blue", "green"}}
VISIBLE = {b: tuple(c for c in COLOURS if c not in HIDDEN[b]) for b in BACKGROUNDS}

HELD_OUT_COLOURED: frozenset[tuple[str, str]] = frozenset({
    ("purple", "circle"), ("pink", "square"), ("white", "triangle"), ("green", "star"),
    ("brown", "heart"), ("orange", "cross"), ("red", "moon"), ("black", "house"), ("blue", "tree"),
    ("green", "car"), ("brown", "balloon"), ("pink", "boat"), ("black", "flower"),
    ("white", "fish"), ("blue", "mushroom"), ("yellow", "umbrella")})
HELD_OUT_PAIRS: frozenset[frozenset[str]] = frozenset(map(frozenset, (
    ("circle", "star"), ("circle", "boat"), ("square", "moon"), ("square", "flower"),
    ("triangle", "fish"), ("triangle", "umbrella"), ("heart", "house"), ("cross", "tree"),
    ("moon", "mushroom"), ("car", "tree"), ("balloon", "flower"), ("star", "umbrella"))))

ONE_THING = 0.35                # the share of scenes with a single thing
SIZE_ALONE, SIZE_OF_TWO = (0.40, 0.70), (0.28, 0.44)
MARGIN, GAP, OFFSET = 0.03, 0.04, 0.10   # to the edge, between two things, across their axis
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """A coloured thing; `x`, `y` (its centre) and `size` are fractions of the picture's side."""
    kind: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """One or two things on a background; `things[0]` is `relation` (above, ...) `things[1]`.

    `relation` is None for one thing. `seed` sets what words do not say: the exact shades, the
    place of clouds and stars.
    """
    things: tuple[Thing, ...]
    background: str
    relation: str | None
    seed: int


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a coloured thing, or a pair of kinds, kept out of training."""
    return (any((t.colour, t.kind) in HELD_OUT_COLOURED for t in scene.things)
            or frozenset(t.kind for t in scene.things) in HELD_OUT_PAIRS)


def sample_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """A random scene: without anything held out, or (`held_out`) with at least one such element."""
    count = 1 if rng.random() < ONE_THING else 2
    wants_pair = held_out and count == 2 and rng.random() < 0.5
    while True:
        background = pick(rng, BACKGROUNDS)
        looks = [(pick(rng, VISIBLE[background]), pick(rng, KINDS)) for _ in range(count)]
        if wants_pair:
            kinds = rng.permutation(pick(rng, _SORTED_PAIRS)).tolist()
            looks = [(colour, kind) for (colour, _), kind in zip(looks, kinds, strict=True)]
        elif held_out:
            looks[rng.integers(count)] = pick(rng, _SORTED_COLOURED)
        if any(colour in HIDDEN[background] for colour, _ in looks) or len(set(looks)) < count:
            continue
        relation = pick(rng, RELATIONS) if count == 2 else None
        places = _places(rng, relation)
        things = tuple(Thing(kind, colour, *place)
                       for (colour, kind), place in zip(looks, places, strict=True))
        scene = Scene(things, background, relation, int(rng.integers(2**31)))
        if is_held_out(scene) == held_out:
            return scene


def pick(rng: np.random.Generator, options: tuple[Any, ...] | list[Any]) -> Any:
    """One of the options, all of them as likely."""
    return options[rng.integers(len(options))]


_SORTED_COLOURED = tuple(sorted(HELD_OUT_COLOURED))       # sets have no order to sample from
_SORTED_PAIRS = tuple(sorted(tuple(sorted(pair)) for pair in HELD_OUT_PAIRS))


def _places(rng: np.random.Generator, relation: str | None) -> list[tuple[float, float, float]]:
    """(x, y, size) of each thing: apart along the relation's axis, nearly level across it."""
    if relation is None:
        size = rng.uniform(*SIZE_ALONE)
        room = min(0.5 - size / 2 - MARGIN, 0.14)
        return [(*(0.5 + rng.uniform(-room, room, 2)).tolist(), float(size))]
    first, second = rng.uniform(*SIZE_OF_TWO, 2).tolist()
    slack = 1 - 2 * MARGIN - GAP - first - second         # free length along the axis, >= 0.02
    before, between, _ = (slack * rng.dirichlet((2, 2, 2))).tolist()
    low = MARGIN + before + first / 2
    high = low + first / 2 + GAP + between + second / 2
    middle = 0.5 + rng.uniform(-0.12, 0.12)
    across = (middle + rng.uniform(-OFFSET / 2, OFFSET / 2, 2)).tolist()
    places = [(low, across[0], first), (high, across[1], second)]       # along, across, size
    if relation in ("below", "right of"):
        places.reverse()
    if relation in ("above", "below"):
        places = [(x, y, size) for y, x, size in places]
    return places


# Outlines: (n, 2) arrays of points.

def _poly(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points)


def _oval(x: float, y: float, rx: float, ry: float, start=0, stop=360) -> np.ndarray:
    angle = np.radians(np.linspace(start, stop, 37))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def _box(x0: float, y0: float, x1: float, y1: float, r: float = 0.08) -> np.ndarray:
    corners = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
    return np.concatenate([_oval(x, y, r, r, 90 * i, 90 * i + 90)[::6]
                           for i, (x, y) in enumerate(corners)])


def _star(points: int, inner: float) -> np.ndarray:
    angle = np.pi * np.arange(2 * points) / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 61)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -(y + 2.5) / 15], 1)


def _moon() -> np.ndarray:
    outer, inner = _oval(0.16, 0, 1, 1, 46.6, 313.4), _oval(0.66, 0, 0.75, 0.75, 284.5, 75.5)
    return np.concatenate([outer, inner])


def _canopy(half: float, folds: int) -> np.ndarray:
    x = np.linspace(half, -half, 12 * folds + 1)
    hem = 0.1 - 0.1 * np.abs(np.sin(np.pi * folds * (x / half + 1) / 2))
    return np.concatenate([_oval(0, 0.1, half, 0.95, 180, 360), np.stack([x, hem], 1)])


def _envelope(width: float) -> np.ndarray:
    crown, mouth = _oval(0, -0.25, 0.76, 0.75, 148, 392), _poly((0.22, 0.56), (-0.22, 0.56))
    return np.concatenate([crown, mouth]) * (width, 1)


def _fish() -> np.ndarray:
    u = np.linspace(0, 1, 25)
    edge = np.stack([-1 + 1.6 * u, 0.56 * np.sin(np.pi * u) ** 0.75], 1)
    return np.concatenate([edge, edge[::-1] * (1, -1)])


def _rim(outline: np.ndarray, scale: float = 0.86, dx: float = -0.05, dy: float = -0.05
         ) -> tuple[tuple[str, np.ndarray], ...]:
    """A darker rim, wider at the lower right: the outline, and a smaller one on it."""
    return ("dark", outline), ("base", outline * scale + (dx, dy))


def _tier(top: float, half: float, height: float) -> np.ndarray:
    return _poly((0, top), (half, top + height), (-half, top + height))


_PLUS = _poly((-.36, -1), (.36, -1), (.36, -.36), (1, -.36), (1, .36), (.36, .36), (.36, 1),
              (-.36, 1), (-.36, .36), (-1, .36), (-1, -.36), (-.36, -.36))
_HOOK = np.concatenate([_oval(.2, .7, .28, .3, 0, 180), _oval(.2, .7, .12, .14, 180, 0)])

# Kind: its parts from back to front, each a tone (see `tones`) and an outline.
ART: dict[str, tuple[tuple[str, np.ndarray], ...]] = {
    "circle": _rim(_oval(0, 0, 1, 1)),
    "square": _rim(_box(-.9, -.9, .9, .9, .1)),
    "triangle": _rim(_poly((0, -.92), (1, .86), (-1, .86)), .8, -.04, .04),
    "star": _rim(_star(5, .46) * 1.04 + (0, .08), .8, -.02, .0),
    "heart": (*_rim(_heart(), .88, -.04, -.03), ("light", _oval(-.5, -.45, .2, .16))),
    "cross": _rim(_PLUS, .86, -.05, -.05),
    "moon": (("base", _moon()), ("dark", _oval(-.42, -.3, .17, .17)),
             ("dark", _oval(-.25, .42, .21, .21)), ("dark", _oval(-.62, .14, .1, .1))),
    "house": (("deep", _box(.4, -.85, .66, -.2, .02)), ("base", _box(-.78, -.2, .78, .96, .04)),
              ("dark", _poly((0, -1), (1, -.06), (-1, -.06))),
              ("deep", _box(-.5, .3, -.08, .96, .04)), ("glass", _box(.16, .22, .58, .62, .04))),
    "tree": (("wood", _box(-.17, .5, .17, 1, .03)), ("base", _tier(-.25, .9, .95)),
             ("dark", _tier(-.25, .49, .52)), ("base", _tier(-.6, .72, .75)),
             ("dark", _tier(-.6, .37, .38)), ("base", _tier(-1, .54, .68))),
    "car": (("base", _poly((-.72, -.1), (-.5, -.7), (.3, -.7), (.68, -.1))),
            ("glass", _poly((-.5, -.12), (-.36, -.52), (-.14, -.52), (-.14, -.12))),
            ("glass", _poly((.04, -.12), (.04, -.52), (.2, -.52), (.46, -.12))),
            ("base", _box(-1, -.16, 1, .46, .2)), ("dark", _box(-.98, .26, .98, .46, .1)),
            ("lamp", _oval(.86, .06, .13, .14)),
            ("tyre", _oval(-.52, .42, .3, .3)), ("hub", _oval(-.52, .42, .13, .13)),
            ("tyre", _oval(.52, .42, .3, .3)), ("hub", _oval(.52, .42, .13, .13))),
    "balloon": (("base", _envelope(1)), ("dark", _envelope(.64)), ("base", _envelope(.3)),
                ("deep", _poly((-.22, .5), (.22, .5), (.17, .7), (-.17, .7))),
                ("wood", _box(-.24, .66, .24, 1, .06))),
    "boat": (("wood", _box(-.09, -1, .09, .4, .02)),
             ("base", _poly((.12, -.9), (.86, .24), (.12, .24))),
             ("light", _poly((-.12, -.66), (-.12, .24), (-.74, .24))),
             ("base", _poly((-1, .38), (1, .38), (.66, .92), (-.66, .92))),
             ("dark", _poly((-.84, .66), (.84, .66), (.66, .92), (-.66, .92)))),
    "flower": (("leaf", _box(-.1, .1, .1, 1, .02)), ("leaf", _oval(.34, .74, .3, .14)),
               *(("base", _oval(.42 * np.cos(a), -.3 + .42 * np.sin(a), .29, .29))
                 for a in np.pi * (np.arange(6) / 3 + 1 / 6)),
               ("dark", _oval(0, -.3, .32, .32)), ("yolk", _oval(0, -.3, .23, .23))),
    "fish": (("dark", _poly((.34, 0), (1, -.58), (.84, 0), (1, .58))), ("base", _fish()),
             ("dark", _poly((-.1, .06), (.26, -.12), (.26, .28))),
             ("white", _oval(-.56, -.12, .19, .19)), ("pupil", _oval(-.6, -.12, .11, .11))),
    "mushroom": (("shade", _box(-.3, -.1, .3, .96, .14)), ("stem", _box(-.3, -.1, .14, .96, .14)),
                 ("base", _canopy(1, 1) + (0, .1)),
                 ("spot", _oval(-.48, -.18, .2, .17)), ("spot", _oval(.08, -.48, .2, .17)),
                 ("spot", _oval(.54, -.1, .18, .15))),
    "umbrella": (("grip", _box(-.08, -1, .08, .8, .04)), ("grip", _HOOK),
                 ("base", _canopy(1, 5)), ("dark", _canopy(.6, 3)), ("base", _canopy(.2, 1))),
}

# Tones that do not follow the named colour.
FIXED: dict[str, RGB] = {
    "wood": (150, 104, 66), "grip": (138, 96, 66), "tyre": (62, 62, 70), "hub": (190, 192, 200),
    "glass": (196, 228, 244), "lamp": (255, 236, 150), "leaf": (64, 148, 72),
    "yolk": (252, 204, 72), "white": (252, 252, 252), "pupil": (24, 24, 30),
    "stem": (252, 242, 226), "shade": (216, 196, 172)}


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def tones(colour: str, rng: np.random.Generator) -> dict[str, RGB]:
    """The shades of one thing: its colour, a little off, and what goes with it."""
    jitter = rng.integers(-5, 6) + rng.integers(-3, 4, 3)
    base: RGB = tuple(np.clip(np.array(COLOURS[colour]) + jitter, 0, 255).tolist())
    shadow = (255, 255, 255) if colour == "black" else (20, 16, 40)    # black is shaded upwards
    spot = FIXED["shade"] if colour == "white" else (255, 250, 240)
    return FIXED | {"base": base, "spot": spot, "light": _mix(base, (255, 255, 255), 0.3),
                    "dark": _mix(base, shadow, 0.16), "deep": _mix(base, shadow, 0.42)}


# Backgrounds: the colours at the top and at the bottom, and quiet layers over them.
GRADIENTS: dict[str, tuple[RGB, RGB]] = {
    "white": ((255, 255, 255), (250, 250, 252)), "black": ((8, 8, 10), (14, 14, 17)),
    "gray": ((158, 158, 162), (150, 150, 154)), "sky": ((100, 174, 240), (154, 206, 247)),
    "sand": ((246, 224, 176), (238, 210, 156)), "grass": ((158, 214, 112), (128, 194, 90)),
    "night": ((14, 18, 62), (50, 56, 118)), "sea": ((92, 190, 200), (36, 140, 162))}
# Hills, dunes and waves: height of the crest, its amplitude, its periods, its colour.
LAYERS: dict[str, tuple[tuple[float, float, float, RGB], ...]] = {
    "sand": ((0.42, 0.05, 0.8, (240, 212, 158)), (0.74, 0.04, 1.1, (231, 200, 144))),
    "grass": ((0.38, 0.05, 0.9, (136, 202, 96)), (0.72, 0.04, 1.2, (116, 186, 82))),
    "sea": ((0.28, 0.014, 3.0, (62, 168, 184)), (0.54, 0.016, 2.5, (42, 148, 170)),
            (0.80, 0.018, 2.0, (26, 126, 152)))}


def _scenery(background: str, rng: np.random.Generator) -> list[tuple[RGB, np.ndarray]]:
    """Coloured outlines, in fractions of the side, that make a background more than a gradient."""
    parts = []
    x = np.linspace(0, 1, 49)
    for height, amplitude, periods, colour in LAYERS.get(background, ()):
        wave = np.sin(2 * np.pi * (periods * x + rng.random()))
        crest = np.stack([x, height + rng.uniform(-.04, .04) + amplitude * wave], 1)
        parts.append((colour, np.concatenate([crest, _poly((1, 1), (0, 1))])))
    if background == "sky":
        for low, high, colour in ((.10, .26, (158, 206, 246)), (.66, .88, (186, 222, 249))):
            centre, r = (rng.uniform(.1, .9), rng.uniform(low, high)), rng.uniform(.055, .075)
            puffs = (_oval(-1.3, .2, 1, .8), _oval(0, -.2, 1.3, 1.2), _oval(1.4, .25, .9, .75))
            parts += [(colour, centre + r * puff) for puff in puffs]
    if background == "night":
        for column, row in product(range(3), range(2)):
            spot = (np.array([column, row]) + rng.uniform(.15, .85, 2)) / (3, 2)
            parts.append(((150, 156, 206), _oval(*spot, *[rng.uniform(.014, .02)] * 2)))
    if background == "grass":
        for column in range(3):
            root = ((column + rng.uniform(.2, .8)) / 3, rng.uniform(.2, .95))
            blades = _poly((-.05, 0), (-.056, -.07), (-.008, -.02), (.008, -.1), (.024, -.02),
                           (.064, -.06), (.05, 0))
            parts.append(((106, 178, 76), root + blades))
    return parts


@lru_cache(maxsize=32)
def _gradient(background: str, side: int) -> Image.Image:
    column = np.linspace(*GRADIENTS[background], side).round().astype(np.uint8)
    return Image.fromarray(column[:, None]).resize((side, side), Image.Resampling.NEAREST)


def draw(scene: Scene, size: int = 128) -> np.ndarray:
    """The picture of a scene, antialiased; the same scene and size give the same bytes.

    Args:
        size: the picture's side in pixels, at least 8.
    Returns:
        (size, size, 3) uint8.
    Raises:
        ValueError: for a size below 8, or an unknown kind, colour or background.
    """
    _check(scene, size)
    rng = np.random.default_rng(scene.seed)
    side = SUPERSAMPLE * size
    image = _gradient(scene.background, side).copy()
    pen = ImageDraw.Draw(image)
    for colour, outline in _scenery(scene.background, rng):
        pen.polygon((outline * side).ravel().tolist(), fill=colour)
    for thing in scene.things:
        shades = tones(thing.colour, rng)
        centre = np.array([thing.x, thing.y])
        for tone, outline in ART[thing.kind]:
            points = (centre + outline * (thing.size / 2)) * side
            pen.polygon(points.ravel().tolist(), fill=shades[tone])
    return np.array(image.reduce(SUPERSAMPLE))


def _check(scene: Scene, size: int) -> None:
    if size < 8:
        raise ValueError(f"a picture is at least 8 pixels wide, got size={size}")
    names: list[tuple[str, str, tuple[str, ...]]] = [("background", scene.background, BACKGROUNDS)]
    for thing in scene.things:
        names += [("kind", thing.kind, KINDS), ("colour", thing.colour, tuple(COLOURS))]
    for what, name, known in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")
