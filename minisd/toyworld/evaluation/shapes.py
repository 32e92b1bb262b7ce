"""How true a painted thing is to its outline, and how flat its colours: for prompts of one thing.

The judge takes a wobbly circle for a circle. Here the thing's pixels are those nearer to one of
its tones than to any colour of its background, and the ideal is the drawn silhouette, moved and
scaled until place and area are theirs: a prompt does not say where a thing stands, or how large.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from minisd.toyworld.scenes import ART, Scene, draw, tones


def measure(picture: np.ndarray, scene: Scene) -> dict[str, float]:
    """Of a picture (h, h, 3) of a scene of one thing, wherever it stands.

    Returns:
        "outline": 1 - intersection over union of the thing's pixels and the ideal silhouette;
        "spread": the standard deviation of the colour inside the parts of one tone, in levels of
        255.
    """
    kind, mask = scene.things[0].kind, thing_pixels(picture, scene)
    if not mask.any():
        return {"outline": 1.0, "spread": 0.0}
    ideal = fitted(kind, mask)
    overlap = (mask & (ideal > 0)).sum() / (mask | (ideal > 0)).sum()
    deviations = [np.zeros((0, 3))]
    for part in range(1, len(ART[kind]) + 1):
        inner = Image.fromarray((ideal == part).astype(np.uint8)).filter(ImageFilter.MinFilter(5))
        pixels = picture[np.asarray(inner) > 0]
        if len(pixels):
            deviations.append(pixels - pixels.mean(0))
    spread = np.sqrt(np.square(np.concatenate(deviations)).sum() / max(1, 3 * (ideal > 0).sum()))
    return {"outline": round(1 - float(overlap), 4), "spread": round(float(spread), 2)}


def thing_pixels(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """(h, h) booleans; what a thing encloses belongs to it."""
    thing, = scene.things
    palette = tones(thing.colour, np.random.default_rng(0))
    # A fish's pupil is as dark as some backgrounds, and enclosed.
    own = np.array([palette[tone] for tone, _ in ART[thing.kind] if tone != "pupil"])
    nearer = _distance(picture, own) < _distance(picture, _background_colours(scene.background))
    image = Image.fromarray(np.pad(nearer, 1).astype(np.uint8)).copy()     # one to paint on
    ImageDraw.floodfill(image, (0, 0), 2)
    return np.asarray(image)[1:-1, 1:-1] != 2


def fitted(kind: str, mask: np.ndarray) -> np.ndarray:
    """(h, h): the part of the ideal thing, from 1 on, that each pixel shows; 0 is none."""
    def parts(place: np.ndarray, size: float) -> np.ndarray:
        image = Image.new("L", (4 * len(mask), 4 * len(mask)))
        for i, (_, outline) in enumerate(ART[kind], 1):
            points = (place + outline * (size / 2)) * 4 * len(mask)
            ImageDraw.Draw(image).polygon(points.ravel().tolist(), fill=i)
        return np.asarray(image)[2::4, 2::4]

    def middle(of: np.ndarray) -> np.ndarray:
        return (np.argwhere(of).mean(0)[::-1] + 0.5) / len(mask)

    place, size = np.array([0.5, 0.5]), 0.5
    for _ in range(3):              # sizes are whole pixels, so once is not enough
        ideal = parts(place, size) > 0
        size *= np.sqrt(mask.sum() / ideal.sum())
        place = place + middle(mask) - middle(parts(place, size) > 0)
    return parts(place, size)


@lru_cache
def _background_colours(background: str) -> np.ndarray:
    """(n, 3) colours that the drawn background has, in steps of 8."""
    empty = [draw(Scene((), background, None, seed), 64) for seed in range(4)]
    return np.unique(np.stack(empty).reshape(-1, 3) // 8 * 8 + 4, axis=0)


def _distance(picture: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(h, h): how far each pixel is from the nearest of some colours (n, 3), squared."""
    return np.min([np.square(picture - colour.astype(float)).sum(2) for colour in colours], axis=0)
