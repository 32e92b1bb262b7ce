"""What a caption asks for is read back from it; the judge's verdict says what is wrong."""

from PIL import Image

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
