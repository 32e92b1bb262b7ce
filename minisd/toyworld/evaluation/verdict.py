"""What a picture shows, and whether that is what its prompt says, in words."""

import re
from collections.abc import Callable

from PIL import Image

from minisd.checkpoints.places import SHIPPED
from minisd.images import from_pil
from minisd.toyworld.captions import BACKGROUND_PHRASES, RELATION_PHRASES
from minisd.toyworld.evaluation.judge import agrees, in_words, load_judge
from minisd.toyworld.scenes import COLOURS, KINDS, Scene, Thing

Verdict = Callable[[Image.Image, str], tuple[str, str]]


def shipped() -> Verdict:
    """The shipped judge: picture and prompt -> what it reads, and "right" or "wrong: ...".

    The verdict is "" where the prompt is not a caption of toyworld. Raises FileNotFoundError where
    there is no judge.
    """
    judge = load_judge(SHIPPED / "judge.safetensors")

    def verdict(picture: Image.Image, prompt: str) -> tuple[str, str]:
        reading, scene = judge.read(from_pil(picture))[0], scene_of(prompt)
        found = {} if scene is None else agrees(reading, scene)
        unsaid = {"all"} if scene and scene.background else {"all", "background"}
        wrong = [name for name, right in found.items() if not right and name not in unsaid]
        return (in_words(reading),
                f"wrong: {', '.join(wrong)}" if wrong else "right" if found else "")

    return verdict


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
