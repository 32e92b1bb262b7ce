"""Training and painting with every objective, at a size of seconds."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import RECIPE, words
from torch import Tensor

from minisd.beyond import compare, train
from minisd.beyond.denoising import Coefficients
from minisd.beyond.mdt import MDT, MDTConfig
from minisd.beyond.painter import EMBEDDED, OBJECTIVES
from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.pipeline import StableDiffusion
from minisd.toyworld.evaluation.judge import agrees, load_judge
from minisd.toyworld.scenes import is_held_out

PROMPTS = ["a red circle", "a blue star"]
SMALL = {"height": 32, "width": 32}         # of a close-up


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    """Untrained, for pictures of 64 pixels: latents of 8 cells, close-ups of 4."""
    torch.manual_seed(0)
    config = tiny_training.config()
    unet = replace(config.unet, channels=tuple(2 * c for c in config.unet.channels))
    return StableDiffusion(replace(config, image_size=64, unet=unet), words()).eval()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, and a transformer as tiny as the other networks."""
    tiny_training.plain(monkeypatch.setattr)
    monkeypatch.setattr(train, "MDTConfig", partial(
        MDTConfig, encoder_blocks=1, decoder_blocks=1))


def posteriors() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(RECIPE.scenes, 2, 5, 8, 8, generator=g).abs().half()


@pytest.mark.parametrize("name", ["pfgmpp-128", "mdt"])
def test_a_training_that_is_interrupted_ends_with_the_same_weights(
        sd: StableDiffusion, name: str, tmp_path: Path) -> None:
    """To the bit, for both compute the same; a pause comes after every step."""
    whole = train.fit(name, sd, posteriors(), tmp_path / "whole", recipe=RECIPE)
    for _ in range(RECIPE.unet_small.steps):
        train.fit(name, sd, posteriors(), tmp_path / "parted", recipe=RECIPE, minutes=0)
    expected, untrained, parted = (made.unet.state_dict() for made in (
        whole, train.painter(name, sd), train.load(name, sd, tmp_path / "parted")))
    assert all(parted[key].equal(value) for key, value in expected.items())
    assert not all(untrained[key].equal(value) for key, value in expected.items())
    header, *rows = (tmp_path / "whole" / name / "unet_small.csv").read_text().splitlines()
    assert ("masked" in header) == (name == "mdt") and len(rows) == RECIPE.unet_small.steps


@pytest.mark.parametrize("name", train.RUNS)
def test_the_loss_of_a_network_that_says_nothing_is_the_targets_square(
        sd: StableDiffusion, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each objective's network sees inputs of about unit variance, at its levels."""
    made = train.painter(name, sd)
    stage = train.Stage(made, posteriors(), replace(RECIPE, unet_small=replace(
        RECIPE.unet_small, batch=200)))
    seen: list[tuple] = []

    def forward(x: Tensor, t: Tensor, context: Tensor, *kept: Tensor) -> Tensor:
        seen.append((x, t, kept))
        return torch.zeros_like(x)

    monkeypatch.setattr(made.unet, "forward", forward)
    monkeypatch.setattr(stage, "posteriors", torch.stack(
        [torch.zeros(10, 5, 8, 8), torch.full((10, 5, 8, 8), 1 / 0.7)], 1))    # latents N(0, 1)
    values = stage.loss(torch.Generator().manual_seed(0))
    # of EDM, v and eps the target has variance 1; of the flow, noise - x0, it is 2
    assert values["mse"] == pytest.approx(2 if name == "flow" else 1, rel=0.06)
    passes = 2 if name == "mdt" else 1
    assert float(values["loss"]) == pytest.approx(passes * float(values["mse"]))
    assert len(seen) == 1 + (name == "mdt") and [len(k) for _, _, k in seen] == [0, 1][:len(seen)]
    x, t, _ = seen[0]
    assert x.var() == pytest.approx(0.55 if name == "flow" else 1, rel=0.1)
    if name.startswith("pfgm") or name == "edm":        # ln sigma / 4, as EDM's network is told
        levels = 4 * t / EMBEDDED
        assert levels.mean() == pytest.approx(math.log(2) - 1.2, abs=0.3)
        assert levels.std() == pytest.approx(1.2, abs=0.2)
    else:
        assert t.min() >= 0 and t.max() <= 1000


@pytest.mark.parametrize("name", train.RUNS)
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_network_that_knows_the_answer_paints_it(sd: StableDiffusion, name: str, sampler: str
                                                   ) -> None:
    """The exact denoiser of one picture, in the answers of each objective."""
    made = train.painter(name, sd)
    known = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(1))

    now: list[Coefficients] = []

    def coefficients(sigma: Tensor) -> Coefficients:
        now[:] = [OBJECTIVES[train.RUNS[name]].coefficients(sigma)]
        return now[0]

    class Exact(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            c = now[0]
            assert t.unique().tolist() == pytest.approx([EMBEDDED * float(c.noise)])
            return c.target(x / float(c.input), known).float()

    made.objective = replace(made.objective, coefficients=coefficients)
    made.unet = Exact()
    steps = list(made.steps(PROMPTS, steps=6, sampler=sampler, seed=5, guidance_scale=2.0, **SMALL))
    assert [step.index for step in steps] == list(range(6)) and steps[0].x_t.shape == (2, 5, 4, 4)
    assert steps[-1].evaluations == (6 if sampler == "euler" else 11)
    error = float((steps[-1].x_prev - known).abs().max())
    assert error < 1e-4 * float(known.abs().max())      # float32
    for step in steps:
        assert 0 <= step.t <= 999 and 0.5 < step.x_t.std() < 1.5        # variance-preserving
    sizes = {picture.size for picture in made.text_to_image(PROMPTS, steps=2, seed=5, **SMALL)}
    assert sizes == {(32, 32)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_number_of_steps_begins_at_the_most_noise(name: str) -> None:
    grids = [OBJECTIVES[name].grid(steps) for steps in (1, 2, 25)]
    assert [len(grid) for grid in grids] == [2, 3, 26]
    assert grids[0][0] == grids[1][0] == grids[2][0] > 14
    assert all(a > b for grid in grids for a, b in zip(grid, grid[1:], strict=False))
    assert {grid[-1] for grid in grids} == {0.0}


def test_a_pictures_seed_decides_it_alone(sd: StableDiffusion) -> None:
    made = train.painter("pfgmpp-128", sd)
    both = [step.x_t for step in made.steps(PROMPTS, steps=1, seed=[3, 8])][0]
    alone = [step.x_t for step in made.steps(PROMPTS[:1], steps=1, seed=8)][0]
    assert both[1].equal(alone[0]) and not both[0].equal(both[1])


def test_what_it_cannot_do_is_refused(sd: StableDiffusion, tmp_path: Path) -> None:
    made = train.painter("flow", sd)
    for settings, message in (({"sampler": "plms"}, "paints with euler"), ({"eta": 0.5}, "eta 0"),
                              ({"latents": torch.zeros(1, 5, 8, 8)}, "from noise alone")):
        with pytest.raises(ValueError, match=message):
            made.text_to_image("a red circle", steps=2, **settings)
    with pytest.raises(ValueError, match="unknown run 'x'"):
        train.painter("x", sd)
    with pytest.raises(FileNotFoundError, match="minisd.beyond.train flow"):
        train.load("flow", sd, tmp_path)


def test_the_judge_reads_drawn_close_ups_as_what_they_are() -> None:
    """So what it misses in painted ones is the painter's; held-out looks are all held out."""
    judge = load_judge(SHIPPED / "judge.safetensors")
    for split in ("seen", "held_out"):
        crops = compare.unseen(split, 40, 16)
        assert len(crops) == 40 and {is_held_out(c.scene) for c in crops} == {split == "held_out"}
        read = judge.read(compare.framed(compare.drawn(split, crops, TOYWORLD)))
        right = sum(agrees(one, crop.scene)["all"] for one, crop in zip(read, crops, strict=True))
        assert right >= 38


def test_a_run_is_compared_once(sd: StableDiffusion, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows stay as long as the weights do."""
    monkeypatch.setattr(compare, "STEPS", (1, 3))
    monkeypatch.setattr(compare, "load_model", lambda *_, **__: sd)
    train.fit("mdt", sd, posteriors(), tmp_path, recipe=RECIPE)
    arguments = ["--folder", str(tmp_path), "--prompts", "3"]
    compare.main(arguments)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert list(found) == ["mdt"] and [row["steps"] for row in found["mdt"]["seen"]] == [1, 3]
    assert found["mdt"]["held_out"]["all"]["of"] == 3 and found["mdt"]["flop"] > 0
    monkeypatch.setattr(compare, "measure", lambda *_: pytest.fail("painted again"))
    compare.main(arguments)
    with pytest.raises(SystemExit):
        compare.main(["--folder", str(tmp_path / "empty")])


def test_the_transformers_differ_by_the_interpolater_alone(sd: StableDiffusion) -> None:
    masked, plain = (train.network(name, sd.config) for name in ("mdt", "mdt-unmasked"))
    assert isinstance(masked, MDT) and isinstance(plain, MDT)
    assert masked.config == replace(plain.config, mask_ratio=(0.3, 0.3))
    assert set(OBJECTIVES) | {"mdt", "mdt-unmasked"} == set(train.RUNS)
