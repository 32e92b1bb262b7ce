"""What is measured: the autoencoder, guidance, adherence, earlier stages; and a sheet.

Adherence is judged: a prompt is followed where all things, their colours, their relation and the
background are right. Every measurement returns what the summary keeps, and tables to print.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from minisd import figures
from minisd.checkpoints.load import load
from minisd.images import to_pil
from minisd.observe.pictures import psnr
from minisd.toyworld import data
from minisd.toyworld.captions import full_caption
from minisd.toyworld.evaluation import bench, shapes
from minisd.toyworld.evaluation.bench import ATTRIBUTES, SPLITS, Bench, Job, Row, jobs, rates
from minisd.toyworld.evaluation.judge import frechet_distance
from minisd.toyworld.evaluation.rates import rate
from minisd.toyworld.scenes import HELD_OUT_COLOURED, HELD_OUT_PAIRS, draw
from minisd.toyworld.training.recipe import RECIPE

GUIDANCES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0)
SCENES, PROMPTS, STAGE_PROMPTS, GUIDANCE_PROMPTS = 500, 500, 200, 300       # of each kind
# Scenes for choosing the guidance scale, and drawn ones to compare with: apart from the test's.
CHOOSING, REFERENCE, REFERENCES = 100_000, 200_000, 1000
# In percent, of GenEval (Ghosh et al. 2023, table 2): any English; toyworld's words are few.
SD_1_5 = {"one thing": 97, "two things": 38, "colours": 76, "position": 4, "colour attribution": 6}
SHEET_SEEN, SHEET_HELD_OUT = 48, 16
HEADER = 6                      # of them, in the README's picture

Section = tuple[Row, dict[str, Mapping[str, Row]]]


def measure_vae(on: Bench) -> Section:
    """How well the autoencoder gives scenes back, and how well the judge reads both."""

    def work(batch: Sequence[Job]) -> list[Row]:
        before = on.drawn(batch)
        after = bench.as_tensor(on.sd.decode(on.sd.encode_image(before)))
        read = [on.judge.read(images.to(on.sd.device)) for images in (before, after)]
        return [{"psnr": round(decibels, 3), "drawn": bench.answers(first, job.scene),
                 "autoencoded": bench.answers(second, job.scene), "features": features}
                for decibels, first, second, features, job in zip(
                    psnr(after, before).tolist(), *read, on.features(after).tolist(), batch,
                    strict=True)]

    values: Row = {}
    for split in SPLITS:
        wanted = jobs(split, on.prompts or SCENES)
        rows = on.finish("autoencoded", on.identity(), wanted, work)
        found = np.array([row["psnr"] for row in rows])
        values[split] = {
            "n": len(rows), "psnr_mean": float(found.mean()), "psnr_min": float(found.min()),
            "drawn": rates(rows, "drawn"), "autoencoded": rates(rows, "autoencoded"),
            "paired": frechet_distance(features_of(rows), on.features(on.drawn(wanted)))}
    return {**on.identity(), **values}, {"scenes": values}


def features_of(rows: Sequence[Row]) -> torch.Tensor:
    return torch.tensor([row["features"] for row in rows])


def measure_guidance(on: Bench) -> Section:
    """Adherence and Frechet distances against the guidance scale, a curve for each sampler.

    "frechet" is to drawings of other scenes, "paired" to drawings of the very scenes prompted.
    """
    wanted = jobs("seen", on.prompts or GUIDANCE_PROMPTS, CHOOSING)
    reference, same = (on.features(on.drawn(some))
                       for some in (jobs("seen", REFERENCES, REFERENCE), wanted))
    curves: dict[str, list[Row]] = {sampler: [] for sampler in on.samplers}
    for sampler, curve in curves.items():
        for scale in GUIDANCES:
            painted = on.paint_and_judge(wanted, sampler=sampler, guidance=scale)
            curve.append({"guidance": scale, **rates(painted),
                          "frechet": frechet_distance(features_of(painted), reference),
                          "paired": frechet_distance(features_of(painted), same)})
    first = on.samplers[0]
    best = max(curves[first], key=lambda row: (row["all"]["share"], -row["frechet"]))["guidance"]
    on.save("guidance", figures.guidance_curve(curves[first]))
    return ({**on.identity(sampler=first, steps=on.steps), "n": len(wanted), "best": best,
             "rows": curves[first], "frechet_drawn": frechet_distance(same, reference),
             "curves": {name: curves[name] for name in on.samplers[1:]}},
            {sampler: {f"{row['guidance']:g}": row for row in curve}
             for sampler, curve in curves.items()})


def best_guidance(on: Bench) -> float:
    """The guidance scale asked for, else the best one measured for this very model."""
    if on.guidance is not None:
        return on.guidance
    section, identity = bench.read_summary(on.folder).get("guidance", {}), on.identity()
    if not section.items() >= identity.items():
        raise ValueError(f"the best guidance scale of model {identity['model']} is not known: run "
                         f"`python -m minisd.toyworld.evaluate guidance` first, or give --guidance")
    return section["best"]


def measure_adherence(on: Bench) -> Section:
    """How often pictures show what their prompts say: pairs seen in training, and held-out ones."""
    guidance, count = best_guidance(on), on.prompts or PROMPTS
    pairs: list[tuple[Job, Row]] = []
    for split in SPLITS:
        wanted = jobs(split, count)
        painted = on.paint_and_judge(wanted, sampler="ddim", guidance=guidance)
        pairs += zip(wanted, painted, strict=True)
    rows = {name: [row for job, row in pairs if belongs(job)]
            for name, belongs in adherence_groups().items()}
    groups = {name: {"n": len(mine), **rates(mine)} for name, mine in rows.items()}
    marks = {"pairs seen": composition(rows["pairs seen in training"]),
             "pairs held out": composition(rows["pairs held out"]), "SD v1.5": SD_1_5}
    alone = [(job.scene, row["shape"]) for job, row in pairs if row["shape"]]
    found = {"painted": [one for _, one in alone],
             "drawn": [shapes.measure(draw(scene), scene) for scene, _ in alone]}
    shape = {name: {what: float(np.mean([one[what] for one in several]))
                    for what in ("outline", "spread")} for name, several in found.items() if alone}
    failures = [{**job.label, "read": row["read"],
                 "wrong": [name for name in ATTRIBUTES[:-1] if row["answers"][name] is False]}
                for job, row in pairs if not row["answers"]["all"]]
    return ({**on.identity(sampler="ddim", steps=on.steps, guidance=guidance), "n": count,
             "groups": groups, "composition": marks, "shapes": shape, "failures": failures},
            {"prompts": groups, "as GenEval": marks, "one thing": shape})


def adherence_groups() -> dict[str, Callable[[Job], bool]]:
    """Which prompts are counted together; an indented group is part of the one above it."""
    trained = {full_caption(data.scene(i, seed=RECIPE.seed)) for i in range(RECIPE.scenes)}

    def held_out(job: Job) -> bool:
        return job.split == "held_out"

    return {
        "pairs seen in training": lambda job: not held_out(job),
        "  of one thing": lambda job: not held_out(job) and len(job.scene.things) == 1,
        "  of two things": lambda job: not held_out(job) and len(job.scene.things) == 2,
        "  in words never trained": lambda job: not held_out(job) and job.prompt not in trained,
        "pairs held out": held_out,
        "  colour and thing": lambda job: held_out(job) and any(
            (thing.colour, thing.kind) in HELD_OUT_COLOURED for thing in job.scene.things),
        "  thing and thing": lambda job: held_out(job) and frozenset(
            thing.kind for thing in job.scene.things) in HELD_OUT_PAIRS}


def composition(painted: Sequence[Row]) -> Row:
    """The marks of GenEval, whose prompts name one thing or two, as far as they apply here."""
    one, two = ([row["answers"] for row in painted if (row["answers"]["relation"] is None) == alone]
                for alone in (True, False))
    asked = (one, "things"), (two, "things"), (one, "colours"), (two, "relation"), (two, "colours")
    return {mark: rate(answer[what] for answer in answers)
            for mark, (answers, what) in zip(SD_1_5, asked, strict=True)}


def measure_stages(on: Bench) -> Section:
    """Adherence of earlier models, as the model card of v1 compares v1-1 ... v1-4."""
    guidance, count = best_guidance(on), on.prompts or STAGE_PROMPTS
    rows: list[Row] = []
    for path in on.checkpoints:
        earlier = replace(on, sd=load(path, device=str(on.sd.device), dtype=on.sd.dtype))
        rows.append({"name": path.stem, "model": earlier.identity()["model"], **{
            split: rates(earlier.paint_and_judge(jobs(split, count), sampler="ddim",
                                                 guidance=guidance)) for split in SPLITS}})
    return ({**on.identity(sampler="ddim", steps=on.steps, guidance=guidance), "n": count,
             "rows": rows}, {"stage": {row["name"]: row for row in rows}})


def draw_sheet(on: Bench) -> Section:
    """64 prompts with their pictures, the last of pairs held out; the first few for the README."""
    guidance = best_guidance(on)
    shown = jobs("seen", SHEET_SEEN) + jobs("held_out", SHEET_HELD_OUT)
    pictures = on.paint(shown, guidance_scale=guidance, steps=on.steps, sampler="ddim")
    readings = on.judge.read(bench.as_tensor(pictures).to(on.sd.device))
    right = [bool(bench.answers(reading, job.scene)["all"])
             for reading, job in zip(readings, shown, strict=True)]
    on.save("samples", figures.sample_sheet(
        pictures, [job.prompt if good else f"✗ {job.prompt}"
                   for job, good in zip(shown, right, strict=True)],
        f"{sum(right)} of {len(shown)} prompts come out right (✗: the judge reads something else); "
        f"the last {SHEET_HELD_OUT} hold pairs never trained"))
    first = shown[:HEADER]
    on.save("header", figures.picture_grid(
        [pictures[:HEADER], to_pil(on.drawn(first))], ["painted", "drawn"],
        [job.prompt for job in first],
        f"{on.sd.config.name}: the first {HEADER} sentences that it never saw", side=2.0))
    return {**on.identity(sampler="ddim", steps=on.steps, guidance=guidance), "n": len(shown),
            "right": sum(right)}, {}


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "vae": measure_vae, "guidance": measure_guidance, "adherence": measure_adherence,
    "stages": measure_stages, "sheet": draw_sheet}
