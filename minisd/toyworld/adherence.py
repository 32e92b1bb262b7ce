"""How well pictures follow their prompts: against guidance, on held-out pairs, over the training.

The judge reads every picture; a prompt is followed where all things, their colours, their relation
and the background are right.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from minisd import figures
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.load import load
from minisd.toyworld import bench, data
from minisd.toyworld.bench import ATTRIBUTES, Bench, Job, Options, Section, jobs, rates
from minisd.toyworld.captions import full_caption
from minisd.toyworld.judge import frechet_distance
from minisd.toyworld.rates import as_text, table
from minisd.toyworld.recipe import RECIPE
from minisd.toyworld.records import Row, read_summary
from minisd.toyworld.scenes import HELD_OUT_COLOURED, HELD_OUT_PAIRS
from minisd.unet import UNet

GUIDANCES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)    # of the model card of Stable Diffusion v1
PROMPTS, STAGE_PROMPTS, GUIDANCE_PROMPTS = 500, 200, 300        # of each kind
# Scenes for choosing the guidance scale, and drawn ones to compare with: apart from the test's.
CHOOSING, REFERENCE, REFERENCES = 100_000, 200_000, 1000


# Guidance

def measure_guidance(on: Bench, options: Options) -> Section | None:
    """Adherence and Frechet distance against the guidance scale, with PLMS."""
    wanted = jobs("seen", options.prompts or GUIDANCE_PROMPTS, CHOOSING)
    found = {scale: on.paint_and_judge(wanted, sampler="plms", steps=options.steps, guidance=scale)
             for scale in GUIDANCES}
    if on.share.rank > 0:
        return None
    reference, floor = (on.features(bench.drawn([job.scene for job in some], on.side))
                        for some in (jobs("seen", REFERENCES, REFERENCE), wanted))
    rows: list[Row] = [{"guidance": scale, **rates(painted), "frechet": frechet_distance(
        torch.tensor([row["features"] for row in painted]), reference)}
        for scale, painted in found.items()]
    best = max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))["guidance"]
    drawn = frechet_distance(floor, reference)
    figures.save(figures.guidance_curve(rows), options.figures / "guidance.png")
    text = table(("guidance", *(f"{name} %" for name in ATTRIBUTES), "Frechet"),
                 [(f"{row['guidance']:g}", *(as_text(row[name]) for name in ATTRIBUTES),
                   f"{row['frechet']:.4f}") for row in rows])
    return Section(on.identity({"sampler": "plms", "steps": options.steps}),
                   {"n": len(wanted), "best": best, "rows": rows, "frechet_drawn": drawn},
                   f"{text}\nPLMS, {options.steps} steps, n = {len(wanted)}; best guidance: "
                   f"{best:g}; as many drawn scenes have a Frechet distance of {drawn:.4f}")


def best_guidance(on: Bench, options: Options) -> float:
    """The guidance scale asked for, else the best one measured for this very model."""
    if options.guidance is not None:
        return options.guidance
    section = read_summary(on.folder / "summary.json").get("guidance", {})
    identity = on.identity()
    if any(section.get(key) != value for key, value in identity.items()):
        raise ValueError(f"the best guidance scale of model {identity['model']} is not known: run "
                         f"`python -m minisd.toyworld.evaluate guidance` first, or give --guidance")
    return section["best"]


# Adherence

def measure_adherence(on: Bench, options: Options) -> Section | None:
    """How often pictures show what their prompts say: pairs seen in training, and held-out ones."""
    guidance, count = best_guidance(on, options), options.prompts or PROMPTS
    wanted = jobs("seen", count) + jobs("held_out", count)
    painted = on.paint_and_judge(wanted, sampler="ddim", steps=options.steps, guidance=guidance)
    if on.share.rank > 0:
        return None
    rows = {name: [row for job, row in zip(wanted, painted, strict=True) if belongs(job)]
            for name, belongs in adherence_groups().items()}
    groups: dict[str, Row] = {name: {"n": len(mine), **rates(mine)}
                              for name, mine in rows.items()}
    bars = [{"group": name, "rates": rates(rows[name])} for name in rows if name[0] != " "]
    figures.save(figures.adherence_bars(bars), options.figures / "adherence.png")
    text = table(("prompts", "n", *(f"{name} %" for name in ATTRIBUTES)),
                 [(name, found["n"], *(as_text(found[a]) for a in ATTRIBUTES))
                  for name, found in groups.items()])
    return Section(on.identity({"sampler": "ddim", "steps": options.steps,
                                "guidance": guidance}),
                   {"n": count, "groups": groups},
                   f"{text}\nDDIM, {options.steps} steps, guidance {guidance:g}")


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


# Earlier stages of training

def measure_stages(on: Bench, options: Options) -> Section | None:
    """Adherence from earlier in training, as the model card of v1 compares v1-1 ... v1-4."""
    guidance, count = best_guidance(on, options), options.prompts or STAGE_PROMPTS
    wanted = jobs("seen", count) + jobs("held_out", count)
    rows: list[Row] = []
    for path in options.checkpoints:
        earlier, step = read_stage(on, options, path)
        painted = earlier.paint_and_judge(wanted, sampler="ddim", steps=options.steps,
                                          guidance=guidance)
        rows.append({"name": path.stem, "step": step, "model": earlier.identity()["model"],
                     **{split: rates([row for row in painted if row["split"] == split])
                        for split in bench.SPLITS}})
    if on.share.rank > 0:
        return None
    shown = [{"name": row["name"], **{split: row[split]["all"] for split in bench.SPLITS}}
             for row in rows]
    figures.save(figures.stages(shown), options.figures / "stages.png")
    text = table(("stage", "steps", *(f"{split}: all right %" for split in bench.SPLITS)),
                 [(row["name"], row["step"] or "-",
                   *(as_text(row[split]["all"]) for split in bench.SPLITS)) for row in rows])
    return Section(on.identity({"sampler": "ddim", "steps": options.steps,
                                "guidance": guidance}),
                   {"n": count, "rows": rows}, f"{text}\nn = {count} each, guidance {guidance:g}")


def read_stage(on: Bench, options: Options, path: Path) -> tuple[Bench, int | None]:
    """The bench with an earlier model: a folder holds a whole one, a file only its UNet."""
    whole = path.is_dir()
    sd = load(path if whole else options.model, device=str(on.sd.device), dtype=on.sd.dtype)
    return replace(on, sd=sd), None if whole else read_unet(sd.unet, path)


def read_unet(unet: UNet, path: Path) -> int | None:
    """Fill a UNet from a checkpoint of `loop.Fit` (its average) or from safetensors.

    Returns the step of the checkpoint, which safetensors do not tell. Raises ValueError where the
    sizes differ.
    """
    if path.suffix == ".safetensors":
        checkpoint.load_into(unet, path)
        return None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = {name: tuple(tensor.shape) for name, tensor in state["average"].items()}
    checkpoint.check_names(unet, found, path)
    unet.load_state_dict(state["average"])
    return state["step"]
