"""The bench on which models are measured: prompts painted in batches, pictures read by the judge.

A prompt is the full caption of a numbered scene, and its seed is the scene's number. Each picture
draws from its own generator, so batch size and number of processes change it by rounding only.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minisd import figures
from minisd.checkpoints import weights as checkpoint
from minisd.figures import Figure
from minisd.images import from_pil
from minisd.observe.files import written_whole
from minisd.pipeline import StableDiffusion
from minisd.toyworld import data
from minisd.toyworld.captions import full_caption
from minisd.toyworld.evaluation import shapes
from minisd.toyworld.evaluation.judge import Judge, Reading, agrees, frechet_distance, in_words
from minisd.toyworld.evaluation.rates import Rate, rate
from minisd.toyworld.scenes import Scene
from minisd.toyworld.training import loop

ATTRIBUTES = ("things", "colours", "relation", "background", "all")
# No scene of either was trained on; the pairs in those of "seen" were, in other scenes.
SPLITS = {"seen": data.UNSEEN, "held_out": data.HELD_OUT}

Row = dict[str, Any]


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
        """What names it on the disk; its prompt too, should the drawn world change."""
        return {"split": self.split, "index": self.index, "prompt": self.prompt}


def jobs(split: str, count: int, first: int = 0) -> list[Job]:
    return [Job(split, i) for i in range(first, first + count)]


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """The pixels that a person sees, (n, 3, h, w) in [-1, 1]."""
    return torch.cat([from_pil(picture) for picture in pictures])


def answers(reading: Reading, scene: Scene) -> dict[str, bool | None]:
    """What is right; a scene without relation gives no answer about it."""
    found: dict[str, bool | None] = {**agrees(reading, scene)}
    return found if scene.relation is not None else {**found, "relation": None}


def rates(rows: Sequence[Row], kind: str = "answers") -> dict[str, Rate]:
    """The rate of each attribute over rows."""
    return {name: rate(row[kind][name] for row in rows) for name in ATTRIBUTES}


def distance(rows: Sequence[Row], features: Tensor) -> float:
    """The Frechet distance of the `features` in rows to others, (n, f)."""
    return frechet_distance(torch.tensor([row["features"] for row in rows]), features)


def measured(rows: Sequence[Row], truth: Tensor) -> Row:
    """How many pictures are right, and how far they are from the drawn ones of features (n, f)."""
    return {"n": len(rows), **rates(rows), "paired": distance(rows, truth)}


def read_summary(folder: Path) -> dict[str, Row]:
    """The sections measured so far; {} before the first."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, value: object, indent: int | None = None) -> None:
    with written_whole(path) as part:
        part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Bench:
    """A model, a judge, what is asked for, and where what they did is kept."""

    sd: StableDiffusion
    judge: Judge
    folder: Path                            # of the rows and the summary
    figures: Path                           # folder of the figures
    batch: int = 32                         # prompts painted at once; also what a kill can cost
    steps: int = 50
    prompts: int | None = None              # of each kind; None: what the measurement wants
    guidance: float = 7.5                   # of pictures that are counted or shown
    samplers: Sequence[str] = ("ddim",)     # of the guidance curves

    def drawn(self, wanted: Sequence[Job]) -> Tensor:
        """The true pictures, (n, 3, h, w) in [-1, 1]."""
        return data.drawn((job.scene for job in wanted), self.sd.config.image_size)

    def identity(self, **settings: object) -> Row:
        """What has to be the same for two rows to belong together: the weights, the settings."""
        return {"model": checkpoint.fingerprint(self.sd),
                "judge": checkpoint.fingerprint(self.judge),
                "dtype": str(self.sd.dtype).removeprefix("torch."), **settings}

    def painting(self, guidance: float, sampler: str = "ddim") -> Row:
        """The identity of painted pictures."""
        return self.identity(sampler=sampler, steps=self.steps, guidance=guidance)

    def save(self, name: str, figure: Figure) -> None:
        """A figure, by the first process."""
        if loop.rank() == 0:
            figures.save(figure, self.figures / f"{name}.png")

    def finish(self, name: str, identity: Row, wanted: Sequence[Job],
               work: Callable[[Sequence[Job]], list[Row]]) -> list[Row]:
        """One row per job, by `work`, batch by batch, of which each process does its share.

        A finished batch is a file, named by a hash of what it depends on: a killed evaluation
        finds it again, and so do more or fewer processes.
        """
        def path(batch: Sequence[Job]) -> Path:
            key = json.dumps([identity, [job.label for job in batch]], sort_keys=True)
            digest = hashlib.sha256(key.encode()).hexdigest()[:24]
            return self.folder / "rows" / f"{name}-{digest}.json"

        batches = [wanted[i:i + self.batch] for i in range(0, len(wanted), self.batch)]
        mine = [batch for batch in batches[loop.mine()] if not path(batch).exists()]
        described = f"{name} {identity.get('sampler', '')} {identity.get('guidance', '')}"
        for batch in tqdm(mine, described, disable=loop.rank() > 0 or not mine):
            write_json(path(batch), work(batch))
        loop.wait_for_all()
        return [row for batch in batches
                for row in json.loads(path(batch).read_text(encoding="utf-8"))]

    def paint(self, wanted: Sequence[Job], **settings: Any) -> list[Image.Image]:
        """The pictures of some jobs; settings as of `text_to_image`."""
        batches = (wanted[i:i + self.batch] for i in range(0, len(wanted), self.batch))
        return [picture for batch in batches for picture in self.sd.text_to_image(
            [job.prompt for job in batch], seed=[job.index for job in batch], **settings)]

    def paint_and_judge(self, wanted: Sequence[Job], guidance: float, sampler: str = "ddim"
                        ) -> list[Row]:
        """Rows of each picture: the judge's `answers`, what it `read`, its `features`; `shape`."""

        def work(batch: Sequence[Job]) -> list[Row]:
            pictures = self.paint(batch, guidance_scale=guidance, steps=self.steps, sampler=sampler)
            images = as_tensor(pictures)
            readings, features = self.judge.read(images.to(self.sd.device)), self.features(images)
            return [{"answers": answers(reading, job.scene), "read": in_words(reading),
                     "features": [round(value, 5) for value in feature],
                     "shape": shapes.measure(np.asarray(picture), job.scene)
                     if len(job.scene.things) == 1 else None}
                    for job, picture, reading, feature in zip(batch, pictures, readings,
                                                              features.tolist(), strict=True)]

        return self.finish("pictures", self.painting(guidance, sampler), wanted, work)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The judge's features of pictures, (n, f) on the CPU."""
        return torch.cat([self.judge.features(part.to(self.sd.device)).cpu()
                          for part in images.split(self.batch)])
