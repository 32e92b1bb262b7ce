"""What a caption asks for is read back from it; the judge's verdict says what is wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from minisd import figures
from minisd.toyworld import data
from minisd.toyworld.captions import full_caption
from minisd.toyworld.evaluation import verdict
from minisd.toyworld.scenes import draw


def test_full_captions_are_read_back() -> None:
    for scene in map(data.scene, range(40)):
        read = verdict.scene_of(full_caption(scene))
        assert read is not None
        assert (read.background, read.relation) == (scene.background, scene.relation)
        assert [(t.kind, t.colour) for t in read.things] == [
            (t.kind, t.colour) for t in scene.things]


def test_what_is_not_said_in_toyworlds_way_is_no_scene() -> None:
    assert verdict.scene_of("a red car is under a yellow balloon").relation == "below"
    assert verdict.scene_of("A  Red car").background == ""
    for prompt in ("", "a zebra", "a red car and a blue tree", "a car", "red car red car red car"):
        assert verdict.scene_of(prompt) is None, prompt


def test_the_shipped_judge_says_right_and_wrong() -> None:
    say, scene = verdict.shipped(), data.scene(0)
    picture = Image.fromarray(draw(scene, 128))
    reading, right = say(picture, full_caption(scene))
    assert right == "right" and all(thing.kind in reading for thing in scene.things)
    blank = Image.new("RGB", (128, 128), "white")
    assert say(blank, full_caption(scene))[1].startswith("wrong: things")
    assert say(blank, "a zebra")[1] == ""


def test_a_figure_reads_toyworlds_pictures_aloud() -> None:
    verdict._judge.cache_clear()
    scenes = [scene for scene in map(data.scene, range(60)) if len(scene.things) == 1][:10]
    drawn = [Image.fromarray(draw(scene, 128)) for scene in scenes]
    state = torch.get_rng_state()
    said = figures.picture_grid([drawn], ["drawn"], [""] * 10, "Ten")._repr_png_()[1]["alt"]
    assert torch.equal(torch.get_rng_state(), state)
    assert said == (f"Ten. The judge reads: {'; '.join(map(full_caption, scenes[:8]))}; "
                    f"and 2 more.")
    pair = next(scene for scene in map(data.scene, range(9)) if scene.relation)
    read = verdict.aloud("Two", [Image.fromarray(draw(pair, 128))]).removeprefix("Two. ")
    found = verdict.scene_of(read.removeprefix("The judge reads: ").removesuffix("."))
    assert found and {(t.kind, t.colour) for t in found.things} == {
        (t.kind, t.colour) for t in pair.things} and found.background == pair.background


def test_what_is_not_toyworlds_and_what_has_no_judge_is_not_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Image.fromarray(draw(data.scene(0), 128))
    noise = Image.fromarray(torch.randint(256, (128, 128, 3)).byte().numpy())
    assert verdict.aloud("v1", [drawn.resize((512, 512)), drawn.convert("L"), noise]) == "v1"
    verdict._judge.cache_clear()
    monkeypatch.setattr(verdict, "SHIPPED", tmp_path)
    assert verdict.aloud("toyworld", [drawn]) == "toyworld"
