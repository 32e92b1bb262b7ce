"""One recorded run, saved and replayed without a model.

    trace = sd.trace("a red car", attention=True)
    trace.save("car.safetensors")
    for snapshot in Trace.load("car.safetensors").snapshots(ratio=0.25):
        show(snapshot.x_t_picture, snapshot.x0_picture)

A trace keeps the tensors of every step, a few kilobytes each for toyworld and 330 for v1, and
decoded pictures of some. On disk it is one safetensors file: stacked tensors, and in the header
JSON with all plain numbers and a checksum.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisd.checkpoints.weights import identity
from minisd.diffusion import StepCoefficients
from minisd.observe import files, preview
from minisd.observe.attention_maps import AttentionMap, record_attention
from minisd.observe.pictures import grid
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.settings import Run, Settings, plan

FORMAT_KEY = "minisd_trace"     # in the file's metadata, beside "data" and "sha256"
FORMAT = 1                      # counts up when older programs could no longer read it
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
    and layer, `call` being the step's index (see taps.py).
    """

    steps: tuple[SampleStep, ...]
    about: dict[str, Any] = field(default_factory=dict)
    factors: Tensor | None = None                   # None: the first three channels
    enlarge: int = 8                                # pixels along each side of one latent cell
    pictures: dict[int, Pictures] = field(default_factory=dict)
    attention: tuple[AttentionMap, ...] = ()

    @classmethod
    def record(cls, run: Iterable[SampleStep], maps: Iterable[AttentionMap] = ()) -> "Trace":
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
        # Some samplers look ahead: of a step's calls the first is the one at its own x_t.
        firsts = {call: step.index for call, step in
                  zip([0, *(step.evaluations for step in steps)], steps, strict=False)}
        return cls(steps, attention=tuple(replace(entry, call=firsts[entry.call])
                                          for entry in maps if entry.call in firsts))

    def with_pictures(self, decode: Callable[[Tensor], list[Image.Image]], marks: Iterable[int]
                      ) -> "Trace":
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

    # Looking at it

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
        return [self._after(done) for done in snapshot_marks(len(self.steps), ratio)]

    def _after(self, done: int) -> Snapshot:
        t, x_t, x0 = self.at(done)
        recorded = self.pictures.get(done)
        noisy, clean = ((_side_by_side(row) for row in recorded) if recorded
                        else (self.preview(x_t), self.preview(x0)))
        return Snapshot(done, len(self.steps), t, x_t, x0, noisy, clean, recorded is not None)

    def preview(self, step: int | Tensor) -> Image.Image:
        """The linear preview of latents (b, c, h, w), or of the x0 of step number `step`."""
        latents = step if isinstance(step, Tensor) else self.steps[step].x0
        factors = preview.plain_factors(latents.shape[1]) if self.factors is None else self.factors
        return _side_by_side(preview.to_pictures(latents, factors, self.enlarge))

    # On disk

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path = Path(path)
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
            tensors[f"attention.{i}"] = entry.weights.contiguous()
        text = json.dumps({
            "about": self.about, "enlarge": self.enlarge,
            "steps": [{"index": s.index, "total": s.total, "t": s.t, "evaluations": s.evaluations,
                       "coefficients": asdict(s.coefficients)} for s in self.steps],
            "attention": [[entry.layer, entry.kind, entry.call] for entry in self.attention]})
        metadata = {FORMAT_KEY: str(FORMAT), "data": text, "sha256": _digest(text, tensors)}
        with files.written_whole(path) as part:
            save_file(tensors, part, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """The trace that `save` wrote, equal to the last bit; no model is needed.

        Raises FileNotFoundError, and ValueError for a file that is damaged or no trace.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no trace at {path}: check the path")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                version = metadata.get(FORMAT_KEY, "")
                names = file.keys() if version == str(FORMAT) else []   # others are left alone
                tensors = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged, cut off, or no trace ({error}): expected a file "
                             f"that Trace.save wrote") from error
        if version.isdigit() and version != str(FORMAT):
            raise ValueError(f"{path} is a trace of format {version}, this program reads {FORMAT}: "
                             f"update minisd")
        if not version:
            raise ValueError(f"{path} is a safetensors file, but no trace: expected a file that "
                             f"Trace.save wrote")
        text = metadata.get("data", "")
        if metadata.get("sha256") != _digest(text, tensors):
            raise ValueError(f"{path} is damaged, its checksum is wrong: copy or record it again")
        return cls._from_file(json.loads(text), tensors)

    @classmethod
    def _from_file(cls, data: dict[str, Any], tensors: dict[str, Tensor]) -> "Trace":
        latents, steps = tensors["latents"], []
        for i, row in enumerate(data["steps"]):
            eps, uncond, cond, x0 = (tensors[name][i] if name in tensors else None
                                     for name in PER_STEP)
            assert eps is not None and x0 is not None
            past = tuple(row["coefficients"].pop("past"))
            coefficients = StepCoefficients(**row["coefficients"], past=past)
            steps.append(SampleStep(row["index"], row["total"], row["t"], latents[i], eps, uncond,
                                    cond, x0, latents[i + 1], coefficients, row["evaluations"]))
        pictures = {}
        for name, pixels in tensors.items():
            if name.startswith("pictures."):
                of_x_t, of_x0 = ([Image.fromarray(picture) for picture in row.numpy()]
                                 for row in pixels)
                pictures[int(name.removeprefix("pictures."))] = (of_x_t, of_x0)
        attention = tuple(AttentionMap(layer, kind, call, tensors[f"attention.{i}"])
                          for i, (layer, kind, call) in enumerate(data["attention"]))
        return cls(tuple(steps), data["about"], tensors.get("factors"), data["enlarge"], pictures,
                   attention)


def _on_cpu(step: SampleStep) -> SampleStep:
    uncond, cond = (None if eps is None else eps.cpu() for eps in (step.eps_uncond, step.eps_cond))
    return replace(step, x_t=step.x_t.cpu(), eps=step.eps.cpu(), eps_uncond=uncond, eps_cond=cond,
                   x0=step.x0.cpu(), x_prev=step.x_prev.cpu())


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    return grid(pictures, len(pictures))


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def record(sd: StableDiffusion, prompt: str | Sequence[str], *, pictures: Decoded = "snapshots",
           attention: bool = False, **settings: Unpack[Settings]) -> Trace:
    """The whole run of `sd.steps(prompt, **settings)`, recorded.

    pictures: decode x_t and x0 at every quarter ("snapshots"), after each step ("all"), or never
    ("none"); the rest has linear previews. attention: keep the UNet's cross-attention of every
    step, the conditional half (at guidance 0 there is only the other one), the mean of the heads;
    4 MB a step for v1.
    """
    if pictures not in ("snapshots", "all", "none"):
        raise ValueError(f"pictures must be 'snapshots', 'all' or 'none', got {pictures!r}")
    run = plan(sd.config, prompt, settings)
    recorder: AbstractContextManager[list[AttentionMap]] = (
        record_attention(sd.unet, rows=len(run.prompts), mean_of_heads=True) if attention
        else nullcontext([]))
    fixed: Settings = {**settings, "seed": run.seeds}       # drawn at random where it was None
    with recorder as maps:
        trace = Trace.record(_shown(sd.steps(prompt, **fixed), run.on_step), maps)
    marks = {"none": [], "all": range(len(trace) + 1),
             "snapshots": snapshot_marks(len(trace))}[pictures]
    about = about_run(run, trace.latents, sd.config.vae.downscale) | identity(sd) | {"torch": torch.__version__}
    return replace(trace.with_pictures(sd.decode, marks), about=about,
                   factors=preview.factors_of(sd.config.vae), enlarge=sd.config.vae.downscale)


def _shown(steps: Iterable[SampleStep], on_step: Callable[[SampleStep], None] | None
           ) -> Iterator[SampleStep]:
    for step in steps:
        if on_step is not None:
            on_step(step)
        yield step


def about_run(run: Run, latents: Tensor, downscale: int) -> dict[str, Any]:
    """In plain words and numbers, all that decides a result beside the model and pictures."""
    height, width = (side * downscale for side in latents.shape[-2:])
    return {"prompt": run.prompts[0], "negative_prompt": run.negative_prompt,
            "guidance_scale": run.guidance_scale, "steps": run.steps, "sampler": run.sampler,
            "eta": run.eta, "seed": run.seeds[0], "height": height,
            "width": width, "num_images": len(run.prompts),
            "strength": None if run.image is None else run.strength,
            "task": ("text_to_image" if run.image is None else
                     "image_to_image" if run.mask is None else "inpaint")}
