"""What a picture shows, and whether that is what its prompt says, in words."""

import re
from collections.abc import Callable, Sequence
from functools import cache

import torch
from PIL import Image

from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.images import from_pil
from minisd.toyworld.captions import BACKGROUND_PHRASES, RELATION_PHRASES, full_caption
from minisd.toyworld.evaluation.judge import Judge, Reading, agrees, in_words, load_judge, relation
from minisd.toyworld.scenes import COLOURS, KINDS, Scene, Thing

MOST = 8                        # pictures that are read aloud; the others are counted

Verdict = Callable[[Image.Image, str], tuple[str, str]]


def shipped() -> Verdict:
    """The shipped judge: picture and prompt -> what it reads, and "right" or "wrong: ...".

    The verdict is "" where the prompt is not a caption of toyworld. Raises FileNotFoundError where
    there is no judge.
    """
    judge = _judge()

    def verdict(picture: Image.Image, prompt: str) -> tuple[str, str]:
        reading, scene = judge.read(from_pil(picture))[0], scene_of(prompt)
        found = {} if scene is None else agrees(reading, scene)
        unsaid = {"all"} if scene and scene.background else {"all", "background"}
        wrong = [name for name, right in found.items() if not right and name not in unsaid]
        return (in_words(reading),
                f"wrong: {', '.join(wrong)}" if wrong else "right" if found else "")

    return verdict


def aloud(text: str, pictures: Sequence[Image.Image]) -> str:
    """An alternative text, and behind it what the shipped judge reads from pictures of toyworld.

    Size and colour tell them: v1's are larger, maps are smaller or gray. The text alone where there
    is none with a thing in it, or no judge.
    """
    kind = ("RGB", (TOYWORLD.image_size,) * 2)
    own = [picture for picture in pictures if (picture.mode, picture.size) == kind]
    if not own:
        return text
    try:
        judge = _judge()
    except (OSError, ValueError):
        return text
    readings = judge.read(torch.cat([from_pil(picture) for picture in own[:MOST]]))
    if not any(reading.things for reading in readings):
        return text
    more = f"; and {len(own) - MOST} more" if len(own) > MOST else ""
    stop = "" if text.endswith((".", "?", "!")) else "."
    return f"{text}{stop} The judge reads: {'; '.join(map(caption_of, readings))}{more}."


@cache
def _judge() -> Judge:
    """The shipped one; its random start leaves the reader's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        return load_judge(SHIPPED / "judge.safetensors")


def caption_of(reading: Reading) -> str:
    """A reading as toyworld's caption, where a scene could look so; else in plain words."""
    things, background = reading.things, reading.background
    if not background or len(things) not in (1, 2):
        return in_words(reading)
    return full_caption(Scene(
        tuple(Thing(seen.kind, seen.colour, seen.x, seen.y, 0.5) for seen in things), background,
        relation(*things) if len(things) == 2 else None, 0))


def scene_of(prompt: str) -> Scene | None:
    """What a caption asks for, in any of toyworld's ways to name a thing, a relation, a background.

    None for other sentences. The background is "" where it is left open.
    """
    text = f" {' '.join(prompt.lower().split())}"
    found = list(re.finditer(rf"\b({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b", text))
    if not 1 <= len(found) <= 2:
        return None
    between = text[found[0].end():found[1].start()] if len(found) == 2 else ""
    relation = next((name for name, phrases in RELATION_PHRASES.items() for phrase in phrases
                     if re.fullmatch(f"( is)? {phrase} an? ", between)), None)
    background = next((name for name, phrases in BACKGROUND_PHRASES.items()
                       if text.endswith(phrases)), "")
    things = tuple(Thing(one[2], one[1], 0.5, 0.5, 0.5) for one in found)
    return None if len(found) == 2 and relation is None else Scene(things, background, relation, 0)
