"""What `doctor` looks at second: the weights that ship, real ones, and the vocabulary.

Each check yields what it found, line by line; none of them changes anything.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from minisd.cli.arguments import WEIGHTS
from minisd.cli.installation import Finding, Findings, problem
from minisd.cli.terminal import short

TOYWORLD = ("config.json", "text_encoder.safetensors", "unet.safetensors", "vae.safetensors",
            "tokenizer/vocab.json", "tokenizer/merges.txt")
RESTORE = "take it from the repository again, in a clone with `git checkout -- weights/toyworld`"


def files() -> Findings:
    """Everything below weights/: dead links, and files that are no weights."""
    tops = sorted(WEIGHTS.iterdir()) if WEIGHTS.is_dir() else []
    places = [place for top in tops for place in (top, *sorted(top.rglob("*")))]
    faults = [finding for place in places if (finding := _fault(place))]
    yield from faults
    if not faults:
        yield Finding("weights", f"{WEIGHTS}, without dead links or broken files")


def _fault(place: Path) -> Finding | None:
    """What is wrong with one file or link, if anything."""
    name = place.relative_to(WEIGHTS)
    if place.is_symlink() and not place.exists():
        return problem("weights", f"{name} is a link to {os.readlink(place)}, which is not there",
                       "put the file back there, or remove the link")
    if not place.is_file() or place.name.startswith("."):
        return None
    if place.suffix == ".part":
        return Finding("weights", f"{name} is an unfinished download",
                       "the same `python -m minisd download` goes on with it")
    from minisd.checkpoints.untrusted import HEAD, impostor

    with place.open("rb") as file:
        found = impostor(file.read(HEAD))
    if found is None and place.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(place, framework="np"):
                pass
        except SafetensorError as error:
            found = f"is damaged or cut short ({error})", "fetch it again"
    return problem("weights", f"{name} {found[0]}", found[1]) if found else None


def toyworld() -> Findings:
    """Whether the model that ships is whole, and loads."""
    folder = WEIGHTS / "toyworld"
    missing = [name for name in TOYWORLD if not (folder / name).is_file()]
    if missing:
        yield problem("toyworld", f"{', '.join(missing)} missing in {folder}", RESTORE)
        return

    import minisd

    try:
        sd = minisd.load(folder, device="cpu", dtype="float32")
    except (ValueError, TypeError, OSError) as error:
        yield problem("toyworld", f"it does not load ({error})", RESTORE)
    else:
        yield Finding("toyworld", f"loads, fingerprint {sd.fingerprint}")


def real_weights() -> Findings:
    """Which of v1's are at hand, whether their prompts can be read, and what "auto" takes."""
    from minisd.checkpoints.registry import find, models
    from minisd.checkpoints.sources import config_of, open_model
    from minisd.checkpoints.vocabulary import find_tokenizer

    found = [model for model in models() if model.path and model.name != "toyworld"]
    if not found:
        yield Finding("real weights", "none, and none are needed; `python -m minisd download v1-5` "
                                      "fetches some")
    for model in found:
        assert model.path is not None
        try:
            known = find_tokenizer(model.path, config_of(open_model(model.path))) is not None
            fault = "" if known else "there is no vocabulary for it"
        except (ValueError, OSError) as error:
            fault = str(error)
        if fault:
            yield problem("real weights", f"{model.name} is at hand, and {fault}",
                          "run `python -m minisd download tokenizer`")
        else:
            yield Finding("real weights", f"{model.name} is at hand, with its vocabulary")
    with warnings.catch_warnings(record=True) as left_aside:
        warnings.simplefilter("always")
        best = find("auto")
    for warning in left_aside:
        yield Finding("real weights", str(warning.message), "see weights/README.md")
    yield Finding("auto", f"takes {short(best)}")
