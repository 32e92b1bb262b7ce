"""The sampler microscope: the terms that it shows add up to the step."""

import re

import pytest
import torch
from hands import counted, ready, turn

from minisd.samplers import SAMPLERS
from minisd.widgets import examples, microscope, sampler_microscope


@pytest.fixture
def scope(toy):
    with ready(sampler_microscope(toy)) as widget:
        yield widget


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_terms_add_up_to_x_prev(toy, sampler: str) -> None:
    words = examples("toyworld")
    steps = list(toy.steps(words.prompt, seed=words.seed, steps=7, sampler=sampler, eta=0.5))
    for index, step in enumerate(steps):
        found = microscope.terms(steps, index, sampler)
        total = sum(term.weight * term.values for term in found)
        torch.testing.assert_close(total, step.x_prev, rtol=1e-4, atol=1e-5)
        c = step.coefficients
        weights = [c.x_t, c.eps, *c.past, *[w for w in (c.noise, c.ahead) if w]]
        assert [term.weight for term in found] == weights
        for term in found:      # what was worked out is what it is called: as large as noise
            if term.name == "noise":
                assert 0.8 < float(term.values.std()) < 1.2


def test_every_sampler_and_step_can_be_looked_at(scope) -> None:
    seen = {scope.seen.picture.tobytes()}
    for sampler in SAMPLERS:
        for step in (2, microscope.STEPS):
            text = turn(scope, sampler=sampler, step=step)
            assert text.startswith(f"Step {step} of {microscope.STEPS}, at t = ")
            seen.add(scope.seen.picture.tobytes())
            *_, digits, last = text.splitlines()
            *terms, result = digits.split("= ")
            assert eval(" ".join(terms).partition(": ")[2]) == pytest.approx(
                float(result), abs=2e-2 if step == 2 else 1e-1)
            assert ("last step" in last) == (step == microscope.STEPS)
    assert len(seen) == 2 * len(SAMPLERS) + 1


def test_it_counts_evaluations_and_weights(scope, toy) -> None:
    assert "2 of 6 network evaluations" in turn(scope, sampler="heun", step=3)
    assert "1 of 23 network" in turn(scope, sampler="heun", step=microscope.STEPS)
    text = turn(scope, sampler="euler", step=3)
    assert "the weights are 1.0000 of the present latents" in text
    assert re.search(r"x_prev = \d\.\d{4} \(x_t\) - \d\.\d{4} \(eps\)$", text, re.MULTILINE)
    plain = turn(scope, sampler="ddim", eta=0.0)
    assert "(noise)" in turn(scope, eta=1.0) and "(noise)" not in plain
    before = turn(scope, sampler="euler")                   # eta belongs to ddim alone
    with counted(toy.unet) as calls:
        assert turn(scope, eta=0.0) == before and not calls
