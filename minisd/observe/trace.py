"""One recorded run, saved and replayed without a model.

    trace = sd.trace("a red car", attention=True)
    trace.save("car.safetensors")
    for snapshot in Trace.load("car.safetensors").snapshots(ratio=0.25):
        show(snapshot.x_t_picture, snapshot.x0_picture)

A trace keeps the tensors of every step, a few kilobytes each for toyworld and 330 for v1, and
decoded pictures of some. On disk it is one safetensors file: stacked tensors, and in the header
JSON with all plain numbers and a checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from minisd.checkpoints.untrusted import Refused, reading, shown
from minisd.diffusion import StepCoefficients
from minisd.observe import preview
from minisd.observe.attention_maps import AttentionMap, record_attention
from minisd.observe.files import written_whole
from minisd.observe.pictures import grid
from minisd.observe.reading import MOST_PIXELS
from minisd.samplers import SampleStep
from minisd.settings import RunSettings, plan

if TYPE_CHECKING:                   # replaying needs no network
    from minisd.pipeline import StableDiffusion

FORMAT_KEY = "minisd_trace"     # in the file's metadata, beside "data" and "sha256"
FORMAT = "1"                    # counts up when older programs could no longer read it
PER_STEP = ("eps", "eps_uncond", "eps_cond", "x0")      # stacked on disk; x_t and x_prev are one

Decoded = Literal["snapshots", "all", "none"]
Pictures = tuple[list[Image.Image], list[Image.Image]]  # of x_t and of x0, one per batch row


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run after `done` of its `total` steps. Pictures of a batch stand side by side."""

    done: int
    total: int
    t: float                        # the timestep of x_t; 0 at the end
    x_t: Tensor                     # (b, c, h, w): noise at first, the result at the end
    x0: Tensor                      # what the network takes for the result now
    x_t_picture: Image.Image
    x0_picture: Image.Image
    decoded: bool                   # the pictures, by the VAE; else they are linear previews

    @property
    def share(self) -> float:
        """From 0, nothing done yet, to 1."""
        return self.done / self.total


def snapshot_marks(total: int, ratio: float = 0.25) -> list[int]:
    """0, ratio, 2 ratio, ... and all of `total` steps, rounded down to whole steps.

    Raises ValueError for a ratio outside (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, such as 0.25, got {ratio}")
    count = int(1 / ratio + 1e-9)                   # 1 / 0.1 may fall short of 10 by a rounding
    return sorted({int(i * ratio * total + 1e-9) for i in range(count + 1)} | {total})


@dataclass(frozen=True, eq=False)
class Trace:
    """The steps of one run, first to last, on the CPU; iterating yields them again.

    about: what was asked for, and of which model, as JSON holds it. factors: (c + 1, 3), see
    preview.py. pictures: decoded ones, by the number of steps done. attention: one entry per step
    and layer, `call` being the step's index (see attention_maps.py).
    """

    steps: tuple[SampleStep, ...]
    about: dict[str, Any] = field(default_factory=dict)
    factors: Tensor | None = None                   # None: the latent space is unknown
    enlarge: int = 8                                # pixels along each side of one latent cell
    pictures: dict[int, Pictures] = field(default_factory=dict)
    attention: tuple[AttentionMap, ...] = ()

    @classmethod
    def record(cls, run: Iterable[SampleStep], maps: Iterable[AttentionMap] = ()) -> Trace:
        """Consume a run, such as sd.steps(...). maps: a list that record_attention fills meanwhile.

        Raises ValueError for a run without steps.
        """
        steps = tuple(_on_cpu(step) for step in run)
        if not steps:
            raise ValueError("this run has no steps to record: with a reference picture, take a "
                             "larger strength")
        if not all(torch.equal(a.x_prev, b.x_t) for a, b in pairwise(steps)):
            raise ValueError("these are not the steps of one run: a step has to start where the "
                             "one before it ended")
        # Some samplers predict twice: of a step's calls the first is the one at its own x_t.
        firsts = {call: step.index for call, step in
                  zip([0, *(step.evaluations for step in steps)], steps, strict=False)}
        return cls(steps, attention=tuple(replace(entry, call=firsts[entry.call])
                                          for entry in maps if entry.call in firsts))

    def with_pictures(self, decode: Callable[[Tensor], list[Image.Image]], marks: Iterable[int]
                      ) -> Trace:
        """The same, with x_t and x0 decoded at these numbers of steps done."""
        pictures = {}
        for done in marks:
            _, x_t, x0 = self.at(done)
            noisy = decode(x_t)
            pictures[done] = noisy, noisy if x0 is x_t else decode(x0)
        return replace(self, pictures=self.pictures | pictures)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[SampleStep]:
        return iter(self.steps)

    def __getitem__(self, index: int) -> SampleStep:
        return self.steps[index]

    @property
    def latents(self) -> Tensor:
        """(b, c, h, w), the result."""
        return self.steps[-1].x_prev

    def at(self, done: int) -> tuple[float, Tensor, Tensor]:
        """t, x_t and x0 after `done` steps; at the end both are the result."""
        if done == len(self.steps):
            return 0.0, self.latents, self.latents
        step = self.steps[done]
        return step.t, step.x_t, step.x0

    def snapshots(self, ratio: float = 0.25) -> list[Snapshot]:
        """The run at 0, ratio, 2 ratio, ... and 100 % of its steps, rounded down to whole steps.

        At 0 %, x_t is the starting noise and x0 the first prediction; at 100 % both are the
        result. Raises ValueError for a ratio outside (0, 1].
        """
        snapshots = []
        for done in snapshot_marks(len(self), ratio):
            (t, x_t, x0), decoded = self.at(done), self.pictures.get(done)
            noisy, clean = ((grid(row, len(row)) for row in decoded) if decoded else
                            (self.preview(x_t), self.preview(x0)))
            snapshots.append(Snapshot(done, len(self), t, x_t, x0, noisy, clean, bool(decoded)))
        return snapshots

    def preview(self, step: int | Tensor) -> Image.Image:
        """The linear preview of latents (b, c, h, w), or of the x0 of step number `step`."""
        latents = step if isinstance(step, Tensor) else self.steps[step].x0
        return grid(preview.to_pictures(latents, self.factors, self.enlarge), len(latents))

    # On disk

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {"latents": torch.stack([s.x_t for s in self.steps] + [self.latents])}
        for name in PER_STEP:
            values = [getattr(step, name) for step in self.steps]
            if all(value is not None for value in values):
                tensors[name] = torch.stack(values)
        if self.factors is not None:
            tensors["factors"] = self.factors
        for done, rows in self.pictures.items():
            pixels = np.stack([[np.asarray(picture) for picture in row] for row in rows])
            tensors[f"pictures.{done}"] = torch.from_numpy(pixels)          # 2 b h w 3
        for i, entry in enumerate(self.attention):
            tensors[f"attention.{i}"] = entry.weights
        text = json.dumps({
            "about": self.about, "enlarge": self.enlarge,
            "steps": [{"index": s.index, "total": s.total, "t": s.t, "evaluations": s.evaluations,
                       "coefficients": asdict(s.coefficients)} for s in self.steps],
            "attention": [[entry.layer, entry.kind, entry.call] for entry in self.attention]})
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {FORMAT_KEY: FORMAT, "data": text, "sha256": _digest(text, tensors)}
        with written_whole(Path(path)) as part:
            part.write_bytes(safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """The trace that `save` wrote, equal to the last bit; no model is needed.

        Raises FileNotFoundError, and ValueError for a file that is damaged or no trace.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no trace at {shown(path)}: check the path")
        with reading(path, "trace"), safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            version, text = metadata.get(FORMAT_KEY, ""), metadata.get("data", "")
            if version != FORMAT:
                raise Refused(f"it is a trace of format {shown(version)}, this program reads "
                              f"{FORMAT}: update minisd" if version else "it is a safetensors "
                              "file, but no trace: expected a file that Trace.save wrote")
            tensors = {name: file.get_tensor(name) for name in file.keys()}     # noqa: SIM118
            if metadata.get("sha256") != _digest(text, tensors):
                raise ValueError("its checksum is wrong")
            return cls._from_file(json.loads(text), tensors)

    @classmethod
    def _from_file(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> Trace:
        """Raises an error of any kind where header and tensors do not fit together."""
        latents, enlarge, factors = tensors["latents"], int(data["enlarge"]), tensors.get("factors")
        per_step = {name: tensors[name] for name in PER_STEP
                    if name in tensors or name in ("eps", "x0")}
        steps = tuple(_step(row, x_t=latents[i], x_prev=latents[i + 1], **{
            name: per_step[name][i] if name in per_step else None for name in PER_STEP})
            for i, row in enumerate(data["steps"]))
        pixels = {int(name.removeprefix("pictures.")): tensor.numpy()
                  for name, tensor in tensors.items() if name.startswith("pictures.")}
        pictures = {done: ([*map(Image.fromarray, noisy)], [*map(Image.fromarray, clean)])
                    for done, (noisy, clean) in pixels.items()}
        maps = tuple(AttentionMap(str(layer), str(kind), int(call), tensors[f"attention.{i}"])
                     for i, (layer, kind, call) in enumerate(data["attention"]))
        b, c, h, w = latents.shape[1:]
        n = len(steps)
        if not (len(latents) == n + 1 > 1 and latents.numel() and enlarge > 0
                and h * w * enlarge ** 2 <= MOST_PIXELS
                and all(x.shape == (n, b, c, h, w) for x in per_step.values())
                and all(x.is_floating_point() for x in (latents, *per_step.values()))
                and (factors is None or factors.shape == (c + 1, 3))
                and all(0 <= done <= n and (x.ndim, x.shape[1], x.shape[-1]) == (5, b, 3)
                        for done, x in pixels.items())
                and all(m.weights.ndim in (3, 4) for m in maps)):
            raise ValueError("its header and its tensors do not fit together")
        return cls(steps, dict(data["about"]), factors, enlarge, pictures, maps)


def _step(row: dict[str, Any], **tensors: Any) -> SampleStep:
    """The step that a row of the header describes; an error of any kind if it is none."""
    given = row["coefficients"]
    x_t, eps, noise, ahead = (given[name] for name in ("x_t", "eps", "noise", "ahead"))
    past = tuple(given["past"])
    if not (0 <= row["index"] < row["total"] and row["evaluations"] > 0
            and all(map(math.isfinite, [row["t"], x_t, eps, noise, ahead, *past]))):
        raise ValueError("a step's numbers make no sense")
    return SampleStep(index=row["index"], total=row["total"], t=row["t"],
                      coefficients=StepCoefficients(x_t, eps, noise, ahead, past),
                      evaluations=row["evaluations"], **tensors)


def _on_cpu(step: SampleStep) -> SampleStep:
    tensors: dict[str, Any] = {name: value.cpu() for name, value in vars(step).items()
                               if isinstance(value, Tensor)}
    return replace(step, **tensors)


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


# Of a model

def record(sd: StableDiffusion, prompt: str | Sequence[str], *, pictures: Decoded = "snapshots",
           attention: bool = False, **settings: Unpack[RunSettings]) -> Trace:
    """The whole run of `sd.steps(prompt, **settings)`, recorded.

    pictures: decode x_t and x0 at every quarter ("snapshots"), after each step ("all"), or never
    ("none"); the rest has linear previews. attention: keep the UNet's cross-attention of every
    step, the conditional half (at guidance 0 there is only the other one), the mean of the heads;
    4 MB a step for v1.
    """
    from minisd.checkpoints.weights import identity

    if pictures not in ("snapshots", "all", "none"):
        raise ValueError(f"pictures must be 'snapshots', 'all' or 'none', got {pictures!r}")
    run = plan(sd.config, prompt, settings)
    fixed: RunSettings = {**settings, "seed": run.seeds}       # drawn at random where it was None
    recorder: AbstractContextManager[list[AttentionMap]] = (
        record_attention(sd.unet, rows=len(run.prompts), mean_of_heads=True) if attention
        else nullcontext([]))
    with recorder as maps:
        trace = Trace.record(_watched(sd.steps(prompt, **fixed), run.on_step), maps)
    marks = {"none": [], "all": range(len(trace) + 1),
             "snapshots": snapshot_marks(len(trace))}[pictures]
    factor = sd.config.vae.downscale
    height, width = (side * factor for side in trace.latents.shape[-2:])
    g = run.guidance_scale              # of a schedule, the scale of every step is kept
    about = {"prompt": run.prompts[0], "negative_prompt": run.negative_prompt,
             "guidance_scale": [g(step.t) for step in trace] if callable(g) else g,
             "steps": run.steps, "sampler": run.sampler, "eta": run.eta, "seed": run.seeds[0],
             "height": height, "width": width, "num_images": len(run.prompts),
             "strength": None if run.image is None else run.strength,
             "task": ("text_to_image" if run.image is None else
                      "image_to_image" if run.mask is None else "inpaint"),
             **identity(sd), "torch": torch.__version__}
    return replace(trace.with_pictures(sd.decode, marks), about=about,
                   factors=preview.factors_of(sd.config.vae), enlarge=factor)


def _watched(steps: Iterable[SampleStep], on_step: Callable[[SampleStep], None] | None
             ) -> Iterator[SampleStep]:
    for step in steps:
        if on_step is not None:
            on_step(step)
        yield step
