"""`python -m minisd.beyond.distill train|export|measure`: a UNet that paints in four steps.

A guided run evaluates the network twice at each step. Distillation teaches a copy of the network to
do in one evaluation what its teacher does in several: one round of the progressive distillation of
Salimans & Ho (2022), with guidance distilled too (Meng et al. 2023). The student walks from noise
to a picture in four steps of its own, and at the states that it comes to (as in DAgger, Ross et
al. 2011) the teacher, with guidance, takes two finer steps to where the student's step shall end.
No pictures are needed, only captions and noise.

    student   x_t -----------------------------> x_s      1 evaluation
    teacher   x_t -----------> x -----------> x_s      4 evaluations, guidance among them

The loss is the squared distance of both x_s, without the weights by signal and noise of the paper.
The network predicts eps as its teacher does: at the first level alpha_bar is 0.0047, enough for it.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.beyond.painter import OBJECTIVES, Painter, read_average
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.load import load as load_model
from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.diffusion import ddim_coefficients, take_step
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, Predict, Sampler, sample
from minisd.settings import plan
from minisd.toyworld import data
from minisd.toyworld.captions import caption
from minisd.toyworld.evaluation.bench import SPLITS, Bench, Row, jobs, measured, write_json
from minisd.toyworld.evaluation.judge import load_judge
from minisd.toyworld.evaluation.rates import table
from minisd.toyworld.training import loop
from minisd.toyworld.training.recipe import RECIPE, Part
from minisd.unet import UNet

STAGE = "unet_few"
STEPS, TEACHER_STEPS = 4, 2     # the student's in all, and the teacher's for each one of them
GUIDANCE = TOYWORLD.guidance_scale
CURVE_PROMPTS, PROMPTS = 192, 500               # to measure with
TRAINING = Part(steps=500, batch=8, lr=3e-4, warmup=20, cooldown=370, ema=0.99)


def grid(schedule_length: int, steps: int) -> list[float]:
    """steps + 1 timesteps, even, from the noisiest one to 0, as `Painter` takes them for eps.

    Of four steps 999, 749.25, 499.5, 249.75, 0.
    """
    return np.linspace(schedule_length - 1, 0, steps + 1).tolist()


class Distillation:
    """A teacher, the student that begins as its copy, and the loss between them.

    sd, the teacher with its text encoder, is frozen.
    """

    def __init__(self, sd: StableDiffusion, part: Part, seed: int = RECIPE.seed) -> None:
        self.sd, self.part, self.seed = sd.requires_grad_(False).eval(), part, seed
        self.student: UNet = copy.deepcopy(sd.unet).requires_grad_(True)
        loop.explicit_attention(self.student)
        self.times = grid(len(sd.schedule), STEPS)
        self.levels = [sd.schedule.at(t) for t in self.times[:-1]] + [1.0]

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """How far the student's steps end from the teacher's, along one run of the student."""
        rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
        captions = [caption(data.random_scene(rng), rng) for _ in range(self.part.batch)]
        side = self.sd.config.image_size // self.sd.config.vae.downscale
        noise = torch.randn(len(captions), self.sd.config.unet.latent_channels, side, side,
                            generator=g)
        x = loop.shard(noise).to(self.sd.device)
        run = plan(self.sd.config, captions[loop.mine()], {"guidance_scale": GUIDANCE})
        context, teacher = self.sd.encode_prompt(run.prompts), self.sd._predictor(run)
        errors = []
        for i, t in enumerate(self.times[:-1]):
            target = self.teach(teacher, x, i)
            with loop.autocast():
                eps = self.student(x, torch.full((len(x),), t, device=x.device), context)
            x = take_step(ddim_coefficients(*self.levels[i:i + 2]), x, eps.to(x.dtype))
            errors.append((x - target).square().mean())
            x = x.detach()              # the next step begins where the student has come to
        return {"loss": torch.stack(errors).sum(),
                **{f"step {i}": error for i, error in enumerate(errors, 1)}}

    def teach(self, predict: Predict, x: Tensor, i: int) -> Tensor:
        """Where the teacher's finer steps lead from x, at the student's level i, to the next."""
        times = np.linspace(self.times[i], self.times[i + 1], TEACHER_STEPS, endpoint=False)
        levels = (*map(self.sd.schedule.at, times), self.levels[i + 1])
        finer = Sampler(SAMPLERS["dpm++2m"], tuple(times.tolist()), levels, 0.0, 1.0)
        *_, last = sample(finer, predict, x, lambda: torch.randn_like(x))
        return last.x_prev

    def fit(self, folder: Path, minutes: float | None = None) -> UNet:
        """Train, or go on with it, for so many minutes; the averaged student."""
        return loop.Fit(STAGE, self.student, self.part, self.loss, folder,
                        seed=self.seed).run(minutes)


def painter(sd: StableDiffusion, student: UNet) -> Painter:
    """A pipeline for a student, with all else of its teacher; by default 4 steps, no guidance.

    Guidance is in the weights: a scale other than 1 would apply it twice.
    """
    made = Painter(replace(sd.config, steps=STEPS, guidance_scale=1.0), sd.tokenizer,
                   OBJECTIVES["eps"])
    made.vae, made.text_encoder, made.unet = sd.vae, sd.text_encoder, student
    return made.to(sd.device).eval()


def load(sd: StableDiffusion, path: Path = SHIPPED / f"{STAGE}.safetensors") -> Painter:
    """The distilled model that ships beside toyworld; sd: toyworld."""
    student = copy.deepcopy(sd.unet)
    checkpoint.load_into(student, path)
    return painter(sd, student)


def trained(sd: StableDiffusion, folder: Path) -> Painter:
    """What was trained in a folder; FileNotFoundError where nothing was."""
    student = copy.deepcopy(sd.unet)
    student.load_state_dict(read_average(
        folder / f"{STAGE}.pt", f"python -m minisd.beyond.distill train --folder {folder}"))
    return painter(sd, student)


# Of the teacher and the student: sampler, guidance scale, evaluations a step, numbers of steps.
CURVES = {"ddim": ("ddim", GUIDANCE, 2, (5, 10, 25)),
          "dpm++2m": ("dpm++2m", GUIDANCE, 2, (1, 2, 4, 8, 12)),
          "distilled": ("euler", 1.0, 1, (1, 2, 4, 8))}


def measure(teacher: Bench, student: Bench) -> Row:
    """How many pictures are right, and how far from the drawn ones, after so many evaluations."""
    @cache
    def drawn(split: str, count: int) -> Tensor:
        """The judge's features of the scenes that are asked for."""
        return teacher.features(teacher.drawn(jobs(split, count)))

    def row(name: str, steps: int, split: str, count: int) -> Row:
        sampler, guidance, each, _ = CURVES[name]
        on = replace(student if name == "distilled" else teacher, steps=steps)
        painted = on.paint_and_judge(jobs(split, count), guidance, sampler)
        return {"evaluations": each * steps, **measured(painted, drawn(split, count))}

    return {"teacher": teacher.identity()["model"], "student": student.identity()["model"],
            "curves": {name: [row(name, steps, "seen", teacher.prompts or CURVE_PROMPTS)
                              for steps in curve[-1]] for name, curve in CURVES.items()},
            **{split: row("distilled", STEPS, split, teacher.prompts or PROMPTS)
               for split in SPLITS}}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m minisd.beyond.distill", description=__doc__)
    parser.add_argument("what", choices=["train", "export", "measure"],
                        help="export writes what was trained to the weights that ship; measure "
                             "paints with those, and writes few_steps.json beside them")
    parser.add_argument("--folder", type=Path, default=Path("runs/few"),
                        help="checkpoint, log, measured pictures (default: %(default)s)")
    parser.add_argument("--target", type=Path, default=SHIPPED, help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop the training after so long")
    parser.add_argument("--prompts", type=int,
                        help=f"to measure with (default: {CURVE_PROMPTS} for the curves, {PROMPTS} "
                             f"of each kind for the student's {STEPS} steps)")
    args = parser.parse_args(argv)
    loop.join_processes()
    sd = load_model("toyworld", device=str(loop.device()), dtype="float32",
                    fast=args.what == "measure")
    if args.what == "train":
        Distillation(sd, TRAINING).fit(args.folder, args.minutes)
    elif args.what == "export" and loop.rank() == 0:
        checkpoint.save(trained(sd, args.folder).unet, args.target / f"{STAGE}.safetensors")
    elif args.what == "measure":
        judge = load_judge(SHIPPED / "judge.safetensors").to(sd.device)
        teacher, student = (Bench(one, judge, args.folder, args.folder, prompts=args.prompts)
                            for one in (sd, load(sd, args.target / f"{STAGE}.safetensors")))
        found = measure(teacher, student)
        if loop.rank() == 0:
            for name, curve in found["curves"].items():
                print(table(name, {str(row["evaluations"]): row for row in curve}))
            write_json(args.target / "few_steps.json", found, indent=1)


if __name__ == "__main__":
    main()
