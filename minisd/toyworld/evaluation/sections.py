"""What is measured: the autoencoder, guidance, adherence, search; and a sheet.

Adherence is judged: a prompt is followed where all things, their colours, their relation and the
background are right. Every measurement returns what the summary keeps, and tables to print.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from minisd import figures
from minisd.figures.measured import best_guidance
from minisd.images import to_pil
from minisd.observe.pictures import psnr
from minisd.toyworld import data
from minisd.toyworld.captions import QUERY_WORDS, full_caption, queries
from minisd.toyworld.clip import load_clip
from minisd.toyworld.evaluation import bench, shapes
from minisd.toyworld.evaluation.bench import ATTRIBUTES, SPLITS, Bench, Job, Row, jobs, rates
from minisd.toyworld.evaluation.judge import frechet_distance
from minisd.toyworld.evaluation.rates import rate
from minisd.toyworld.scenes import HELD_OUT_COLOURED, HELD_OUT_PAIRS, draw
from minisd.toyworld.training.recipe import RECIPE

GUIDANCES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0)
SCENES, PROMPTS, GUIDANCE_PROMPTS = 500, 500, 300       # of each kind
# Scenes for choosing the guidance scale, and drawn ones to compare with: apart from the test's.
CHOOSING, REFERENCE, REFERENCES = 100_000, 200_000, 1000
# In percent, of GenEval (Ghosh et al. 2023, table 2): any English; toyworld's words are few.
SD_1_5 = {"one thing": 97, "two things": 38, "colours": 76, "position": 4, "colour attribution": 6}
GALLERIES, GALLERY = 10, 100    # of drawn pictures to search, and how many in each
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
            "paired": bench.distance(rows, on.features(on.drawn(wanted)))}
    return {**on.identity(), **values}, {"scenes": values}


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
            painted = on.paint_and_judge(wanted, scale, sampler)
            curve.append({"guidance": scale, **rates(painted),
                          "frechet": bench.distance(painted, reference),
                          "paired": bench.distance(painted, same)})
    first = on.samplers[0]
    best = best_guidance(curves[first])["guidance"]
    on.save("guidance", figures.guidance_curve(curves[first]))
    return ({**on.identity(sampler=first, steps=on.steps), "n": len(wanted), "best": best,
             "rows": curves[first], "frechet_drawn": frechet_distance(same, reference),
             "curves": {name: curves[name] for name in on.samplers[1:]}},
            {sampler: {f"{row['guidance']:g}": row for row in curve}
             for sampler, curve in curves.items()})


def measure_adherence(on: Bench) -> Section:
    """How often pictures of seen and held-out pairs are right, and how far from drawn ones."""
    count = on.prompts or PROMPTS
    pairs: list[tuple[Job, Row]] = []
    away: dict[str, Row] = {}
    for split in SPLITS:
        wanted = jobs(split, count)
        painted = on.paint_and_judge(wanted, on.guidance)
        pairs += zip(wanted, painted, strict=True)
        away[split] = {"paired": bench.distance(painted, on.features(on.drawn(wanted)))}
    rows = grouped(pairs[:count], pairs[count:])
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
    return ({**on.painting(on.guidance), "n": count, "groups": groups, "composition": marks,
             "distance": away, "shapes": shape, "failures": failures},
            {"prompts": groups, "as GenEval": marks, "distance": away, "one thing": shape})


def grouped(seen: Sequence[tuple[Job, Row]], held_out: Sequence[tuple[Job, Row]]
            ) -> dict[str, list[Row]]:
    """Rows that are counted together; an indented group is part of the one above it."""
    trained = {full_caption(data.scene(i, seed=RECIPE.seed)) for i in range(RECIPE.scenes)}
    return {
        "pairs seen in training": [row for _, row in seen],
        "  of one thing": [row for job, row in seen if len(job.scene.things) == 1],
        "  of two things": [row for job, row in seen if len(job.scene.things) == 2],
        "  in words never trained": [row for job, row in seen if job.prompt not in trained],
        "pairs held out": [row for _, row in held_out],
        "  colour and thing": [row for job, row in held_out if any(
            (thing.colour, thing.kind) in HELD_OUT_COLOURED for thing in job.scene.things)],
        "  thing and thing": [row for job, row in held_out if frozenset(
            thing.kind for thing in job.scene.things) in HELD_OUT_PAIRS]}


def composition(painted: Sequence[Row]) -> Row:
    """The marks of GenEval, whose prompts name one thing or two, as far as they apply here."""
    one, two = ([row["answers"] for row in painted if (row["answers"]["relation"] is None) == alone]
                for alone in (True, False))
    asked = (one, "things"), (two, "things"), (one, "colours"), (two, "relation"), (two, "colours")
    return {mark: rate(answer[what] for answer in answers)
            for mark, (answers, what) in zip(SD_1_5, asked, strict=True)}


@torch.no_grad()
def measure_search(on: Bench) -> Section:
    """How often the first of 100 drawn pictures fits a query of one word, two or about five.

    By both towers of CLIP that ship, on one query made of each picture, different ones once.
    """
    assert on.sd.tokenizer is not None
    clip, rng = load_clip(on.sd), np.random.default_rng(0)
    fits: dict[int, list[bool]] = {words: [] for words in QUERY_WORDS}
    for start in range(0, GALLERIES * GALLERY, GALLERY):
        wanted = jobs("seen", GALLERY, start)
        scenes = [job.scene for job in wanted]
        pictures = clip.embed_images(on.drawn(wanted).to(on.sd.device, on.sd.dtype))
        for words, found in fits.items():
            said, true = queries(scenes, words, rng, plainly=True)
            query = clip.embed_text(on.sd.tokenizer(said).to(on.sd.device))
            first = (query @ pictures.T).argmax(1, keepdim=True).cpu()
            found += true.gather(1, first)[:, 0].tolist()
    rows = {str(words): {"all": rate(found)} for words, found in fits.items()}
    return {**on.identity(), "n": GALLERIES * GALLERY, "rows": rows}, {"words": rows}


def draw_sheet(on: Bench) -> Section:
    """64 prompts with their pictures, the last of pairs held out; the first few for the README."""
    shown = jobs("seen", SHEET_SEEN) + jobs("held_out", SHEET_HELD_OUT)
    pictures = on.paint(shown, guidance_scale=on.guidance, steps=on.steps, sampler="ddim")
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
    return {**on.painting(on.guidance), "n": len(shown), "right": sum(right)}, {}


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "vae": measure_vae, "guidance": measure_guidance, "adherence": measure_adherence,
    "search": measure_search, "sheet": draw_sheet}
