"""The bench on which models are measured: prompts painted in batches, pictures read by the judge.

A prompt is the full caption of a numbered scene, and its seed is the scene's number. Each picture
draws from its own generator, so batch size and number of processes change it by rounding only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minisd.checkpoints import weights as checkpoint
from minisd.diffusion import guide
from minisd.pipeline import StableDiffusion
from minisd.samplers import Guess, make_rule, sample
from minisd.toyworld import data, loop
from minisd.toyworld.captions import full_caption
from minisd.toyworld.judge import Judge, Reading, agrees
from minisd.toyworld.rates import Rate, rate
from minisd.toyworld.records import Records, Row
from minisd.toyworld.scenes import Scene, draw

ATTRIBUTES = ("things", "colours", "relation", "background", "all")
SPLITS = {"seen": data.UNSEEN, "held_out": data.HELD_OUT}   # unseen scenes; "seen" are their pairs


@dataclass(frozen=True)
class Options:
    """What a user of the evaluation asks for."""

    model: str                              # as minisd.load takes it
    figures: Path                           # where they go
    steps: int = 50
    prompts: int | None = None              # of each kind; None: what the measurement wants
    guidance: float | None = None           # None: the best scale that was measured
    checkpoints: tuple[Path, ...] = ()      # models or UNets of earlier stages, in this order


@dataclass(frozen=True)
class Section:
    """What one measurement found."""

    identity: Row                           # what was measured, see `Bench.identity`
    values: Row                             # for the summary
    text: str                               # for the terminal


@dataclass(frozen=True)
class Job:
    """One scene to measure."""

    split: str                  # "seen": pairs as in training; "held_out": with one never trained
    index: int                  # the scene's number in the split, and the seed of its picture

    @property
    def scene(self) -> Scene:
        return data.scene(self.index, split=SPLITS[self.split])

    @property
    def prompt(self) -> str:
        return full_caption(self.scene)

    @property
    def label(self) -> Row:
        """What a finished row says of its job."""
        return {"split": self.split, "index": self.index, "prompt": self.prompt}


def jobs(split: str, count: int, first: int = 0) -> list[Job]:
    return [Job(split, i) for i in range(first, first + count)]


@torch.no_grad()
def paint(sd: StableDiffusion, prompts: Sequence[str], seeds: Sequence[int], *,
          guidance_scale: float, steps: int, sampler: str) -> list[Image.Image]:
    """`sd.text_to_image` for many prompts at once, each with its own seed."""
    context = sd.encode_prompt(["", *prompts])
    context = torch.cat([context[:1].expand_as(context[1:]), context[1:]])      # 2b n d

    def predict(x_t: Tensor, t: float) -> Guess:
        timesteps = torch.full((len(context),), float(t), device=sd.device)
        both = sd.unet(x_t.to(sd.dtype).repeat(2, 1, 1, 1), timesteps, context).float()
        uncond, cond = both.chunk(2)
        return Guess(guide(uncond, cond, guidance_scale), uncond, cond)

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    side = sd.config.image_size // sd.config.vae.downscale
    shape = (sd.config.unet.latent_channels, side, side)

    def noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(sd.device)

    rule = make_rule(sampler, sd.schedule, steps)
    latents = noise() * rule.start_scale
    for step in sample(rule, sd.schedule, predict, latents, noise):
        latents = step.x_prev
    return sd.decode(latents)


def drawn(scenes: Sequence[Scene], side: int) -> Tensor:
    """The true pictures of scenes, (n, 3, side, side) in [-1, 1]."""
    return data.to_tensor(np.stack([draw(scene, side) for scene in scenes]))


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """The pixels that a person sees, (n, 3, h, w) in [-1, 1]."""
    return data.to_tensor(np.stack([np.asarray(picture) for picture in pictures]))


def answers(reading: Reading, scene: Scene) -> dict[str, bool | None]:
    """What is right; a scene without relation gives no answer about it."""
    found: dict[str, bool | None] = {**agrees(reading, scene)}
    return found if scene.relation is not None else {**found, "relation": None}


def rates(rows: Sequence[Row], kind: str = "answers") -> dict[str, Rate]:
    """The rate of each attribute over rows."""
    return {name: rate(row[kind][name] for row in rows) for name in ATTRIBUTES}


@dataclass(frozen=True)
class Bench:
    """A model, a judge, and where what they did is kept."""

    sd: StableDiffusion
    judge: Judge
    folder: Path                # of the rows and the summary
    share: loop.Share
    batch: int = 32             # prompts painted at once; also what a kill can cost

    @property
    def side(self) -> int:
        return self.sd.config.image_size

    def identity(self, settings: Row | None = None) -> Row:
        """What has to be the same for two rows to belong together: the weights, the settings."""
        return {"model": checkpoint.fingerprint(self.sd),
                "judge": checkpoint.fingerprint(self.judge),
                "dtype": str(self.sd.dtype).removeprefix("torch."), **(settings or {})}

    def finish(self, name: str, identity: Row, wanted: Sequence[Job],
               work: Callable[[Sequence[Job]], list[Row]]) -> list[Row]:
        """One row per job: those on disk as they are, the others by `work`, batch by batch.

        Each process does every world-th job. Returns the rows of all in the order of `wanted` to
        the process of rank 0, and nothing to the others.
        """
        records = Records(self.folder, name, self.share.rank)
        known = {_key(row) for row in records.matching(identity)}
        missing = [job for job in wanted[self.share.rank::self.share.world]
                   if _key(job.label) not in known]
        described = " ".join([name, *(str(identity[key]) for key in ("sampler", "guidance")
                                      if key in identity)])
        with tqdm(total=len(missing), desc=described, unit="prompt",
                  disable=self.share.rank > 0 or not missing) as bar:
            for start in range(0, len(missing), self.batch):
                batch = missing[start:start + self.batch]
                records.add([{**identity, **job.label, **row}
                             for job, row in zip(batch, work(batch), strict=True)])
                bar.update(len(batch))
        loop.wait_for_all(self.share)
        if self.share.rank > 0:
            return []
        found = {_key(row): row for row in records.matching(identity)}
        return [found[_key(job.label)] for job in wanted]

    def paint_and_judge(self, wanted: Sequence[Job], *, sampler: str, steps: int,
                        guidance: float) -> list[Row]:
        """Rows with the judge's `answers`, what it `read`, and its `features` of each picture."""

        def work(batch: Sequence[Job]) -> list[Row]:
            pictures = paint(self.sd, [job.prompt for job in batch], [job.index for job in batch],
                             guidance_scale=guidance, steps=steps, sampler=sampler)
            images = as_tensor(pictures).to(self.sd.device)
            readings, features = self.judge.read(images), self.features(images)
            return [{"answers": answers(reading, job.scene), "read": in_words(reading),
                     "features": [round(value, 5) for value in feature]}
                    for job, reading, feature in zip(batch, readings, features.tolist(),
                                                     strict=True)]

        identity = self.identity({"sampler": sampler, "steps": steps, "guidance": guidance})
        return self.finish("pictures", identity, wanted, work)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The judge's features of pictures, (n, f) on the CPU."""
        return torch.cat([self.judge.features(part.to(self.sd.device)).cpu()
                          for part in images.split(self.batch)])


def _key(row: Row) -> tuple[str, int, str]:
    """Names a job; by its prompt too, so that rows of another world's scenes are never taken."""
    return row["split"], row["index"], row["prompt"]


def in_words(reading: Reading) -> str:
    """A reading in one line, as it stands in the rows."""
    things = " + ".join(f"{thing.colour} {thing.kind}" for thing in reading.things) or "nothing"
    return f"{things}, {reading.background or 'unclear'}"
