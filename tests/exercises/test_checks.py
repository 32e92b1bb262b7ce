"""Every check of every notebook: its answer, its mistakes, and what the package itself does."""

import ast
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from minisd import exercises
from minisd.checkpoints.vocabulary import clip_vocabulary
from minisd.clip import QUICK_GELU
from minisd.diffusion import Schedule, guide
from minisd.exercises.checking import Check, Raised
from minisd.exercises.model_card import carbon_kg
from minisd.samplers import Prediction, make_sampler, sample
from minisd.tokenizer import Tokenizer
from minisd.toyworld.training.tokenizer import learn_merges

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
KNOWN = {"F": F, "QUICK_GELU": QUICK_GELU, "itertools": itertools, "math": math, "torch": torch}
EVERY = {name: getattr(exercises, name) for name in exercises.__all__}
CHECKS = {name: check for name, check in EVERY.items() if isinstance(check, Check)}


def cells(pattern: str) -> list[str]:
    return ["".join(cell["source"]) for path in sorted(NOTEBOOKS.glob(pattern))
            for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def function(source: str, name: str):
    """A function out of the text of a cell."""
    namespace = dict(KNOWN)
    exec(source, namespace)
    return namespace[name]


def solution(name: str):
    return CHECKS[name].function()


@pytest.fixture(autouse=True)
def no_tries() -> None:
    for check in CHECKS.values():
        check.tries, check.last = 0, None


# Each check

@pytest.mark.parametrize("name", CHECKS)
def test_the_printed_answer_is_right_and_the_task_does_not_give_it_away(name: str) -> None:
    check = CHECKS[name]
    assert check(solution(name)), check.answer()
    assert not any(line.strip() in check.__doc__ for line in check.answer().splitlines()[1:])


@pytest.mark.parametrize("name", CHECKS)
def test_each_mistake_is_named(name: str) -> None:
    mistakes = CHECKS[name].mistakes
    assert 2 <= len(mistakes) <= 4
    for sentence, slips in mistakes.items():
        for slip in slips if isinstance(slips, list) else [slips]:
            answer = CHECKS[name].function(slip)
            verdict = CHECKS[name](answer)
            assert not verdict and sentence in verdict.message, (sentence, verdict)
            assert not any(isinstance(value, Raised) for value in CHECKS[name]._values(answer))


@pytest.mark.parametrize("name", CHECKS)
def test_hints_lead_to_the_answer(name: str) -> None:
    check = CHECKS[name]
    said = [check(lambda *_, i=i: f"answer {i}").message for i in range(4)]
    assert all(hint in message for hint, message in zip(check.hints, said, strict=False))
    assert "___" in said[2] and check.answer() not in "".join(said[:3]) and "`" not in said[2][30:]
    assert said[3].endswith(check.answer())
    assert max(map(len, check.answer().splitlines())) <= 96


# The notebooks

def test_notebooks_call_every_check() -> None:
    called = set(re.findall(r"\bcheck_\w+(?=\()", "\n".join(cells("*.ipynb"))))
    assert called == set(EVERY)


def test_a_check_has_a_cell_of_its_own_behind_the_answer() -> None:
    """Graders score cells, and keep the answers that learners hand in apart from the checks."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        before = ""
        for source in cells(path.name):
            if called := re.findall(r"\bcheck_\w+(?=\()", source):
                check = re.fullmatch(r"(?:exercises\.)?check_\w+\((\w+)\)", source)
                assert check, f"{path.stem}: {', '.join(called)} shares a cell"
                assert re.match(rf"(?:def {check[1]}\(|{check[1]} = \.\.\.)", before), source
            before = source


def test_the_solutions_are_right() -> None:
    """The answers of notebooks/solutions, without running all of those."""
    asked = [source for source in cells("solutions/*.ipynb") if "check_" in source]
    pairs = [(checks[0], ast.unparse(node)) for source in asked for node in ast.parse(source).body
             if isinstance(node, ast.FunctionDef) and (checks := re.findall(r"check_\w+", source))]
    assert len(pairs) >= 40
    for name, source in pairs:
        assert CHECKS[name](function(source, CHECKS[name].name)), (name, source)


# Mistakes that are described rather than named

@pytest.mark.parametrize(("name", "slip", "said"), [
    ("loss", ("[:, None]", ""), "a[:, None] makes a column"),
    ("timestep_embedding", ("[:, None]", ""), "a[:, None] makes a column"),
    ("loss", ("* noise", "* torch.randn(x0.shape)"), "draws random numbers"),
    ("noise_loss", ("* noise", "* torch.randn(x0.shape)"), "draws random numbers"),
    ("ddim_step", ("0.5 * eps", "0.5 * torch.randn(eps.shape)"), "draws random numbers")])
def test_slips_that_have_no_sentence_of_their_own_are_described(name, slip, said) -> None:
    check = CHECKS[f"check_{name}"]
    verdict = check(check.function(slip))
    assert not verdict and said in verdict.message, verdict


# The package does what the exercises call right

def test_padding_is_the_tokenizer_s() -> None:
    merges = learn_merges(["red"], 5)
    tokenizer = Tokenizer(clip_vocabulary(merges), merges)
    rename = {tokenizer.start_id: 49406, tokenizer.end_id: 49407, tokenizer.vocab["red</w>"]: 5}
    for count in (0, 3, 75, 80):
        ids = [rename[i] for i in tokenizer.encode("red " * count).ids]
        assert ids == solution("check_pad")([5] * count)


def test_samplers_step_so(schedule: Schedule) -> None:
    def run(name: str, steps: int) -> list:
        return list(sample(make_sampler(name, schedule, steps), lambda x, t: Prediction(
            x.roll(1, -1)), torch.randn(1, 2, 3, 5).double(), lambda: torch.zeros(())))

    for step in run("ddim", 50):
        torch.testing.assert_close(solution("check_ddim_step")(
            step.x_t, step.eps, schedule.alpha_bar, int(step.t), 20), step.x_prev)
    levels = make_sampler("euler", schedule, 10).alpha_bar
    for step, now, after in zip(run("euler", 10), levels, levels[1:], strict=False):
        sigma, sigma_next = ((1 / level - 1) ** 0.5 for level in (now, after))
        torch.testing.assert_close(solution("check_euler_step")(
            step.x_t / now ** 0.5, step.eps, sigma, sigma_next), step.x_prev / after ** 0.5)
    for count in (1, 2, 7):
        evaluations = run("heun", count)[-1].evaluations
        assert evaluations == solution("check_heun_evaluations")(count)


def test_the_pipeline_predicts_as_often(sd, picture) -> None:
    made: list[int] = []
    hook = sd.unet.register_forward_hook(lambda net, inputs, eps: made.append(len(eps)))
    for g in (7.5, 1, 0, 0.5, -1):
        made.clear()
        list(sd.steps("a red car", guidance_scale=g, steps=5, seed=1, height=16, width=16))
        assert sum(made) == solution("check_passes")(g, 5), g
    for steps, strength in ((10, 0.35), (6, 0.5), (3, 1.0)):
        made.clear()
        sd.image_to_image("a red car", picture, strength=strength, steps=steps, seed=1,
                          guidance_scale=7.5)
        assert sum(made) == solution("check_predictions")(steps, strength)
    hook.remove()


def test_the_other_convention_gives_the_same_noise() -> None:
    u, c = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for g in (0.0, 1.0, 7.5):
        s = solution("check_other_convention")(g)
        torch.testing.assert_close(c + s * (c - u), guide(u, c, g))


def test_the_average_over_points_is_bayes_rule() -> None:
    """By counting: points near x_t among many noised ones, and what they were."""
    g = torch.Generator().manual_seed(0)
    points, level = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]]), 0.6
    x0 = points[torch.randint(3, (400_000,), generator=g)]
    x_t = level ** 0.5 * x0 + (1 - level) ** 0.5 * torch.randn(x0.shape, generator=g)
    at = torch.tensor([[0.4, 0.1]])
    near = (x_t - at).norm(dim=1) < 0.1
    torch.testing.assert_close(solution("check_posterior_mean")(at, points, level)[0],
                               x0[near].mean(0), atol=0.05, rtol=0)


def test_the_carbon_of_the_model_card_of_stable_diffusion() -> None:
    assert carbon_kg(250, 150_000, 0.30) == pytest.approx(11_250)
    assert carbon_kg(20, 2, 0.3, 1.5) == pytest.approx(0.018)
    for factors in ((-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, 0.9)):
        with pytest.raises(ValueError, match="a pue of at least 1"):
            carbon_kg(*factors)
