"""Whole trajectories against diffusers' schedulers, and the promises of the generator."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from parity import TOLERANCE, relative_error
from torch import Tensor

from minisd.diffusion import Schedule, add_noise, ddim_coefficients, predict_x0, take_step
from minisd.rules import leading_timesteps
from minisd.samplers import Guess, SampleStep, make_rule, sample

SHAPE = (2, 5, 3, 7)
COUNTS = [1, 2, 3, 7, 20, 50, 999]
Network = Callable[[Tensor, float], Tensor]


def network(schedule: Schedule) -> Network:
    """A formula in place of the UNet: of x and of t, its values near 1 as true noise is.

    sqrt(1 - alpha_bar) x is what a perfect network says of data that are themselves normal noise;
    it keeps x_t at variance 1. The wave is there so that every t and every value counts.
    """
    def eps(x: Tensor, t: float) -> Tensor:
        return (1 - schedule.at(int(t))) ** 0.5 * x + 0.3 * torch.sin(2 * x.roll(1, -1) + t / 60)

    return eps


def noise_stream(seed: int = 5, shape: tuple[int, ...] = SHAPE) -> Callable[[], Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=g)


def run(name: str, schedule: Schedule, steps: int, *, eta: float = 0.0, start: int = 0,
        x: Tensor | None = None, counter: list[float] | None = None) -> Iterator[SampleStep]:
    """Ours, over the fake network; counter collects the timesteps at which it was asked."""
    net, asked = network(schedule), counter if counter is not None else []

    def predict(x: Tensor, t: float) -> Guess:
        asked.append(t)
        return Guess(net(x, t))

    return sample(make_rule(name, schedule, steps, eta), schedule, predict,
                  first_noise() if x is None else x, noise_stream(), start=start)


def first_noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))


def reference(name: str, schedule: Schedule, steps: int, eta: float = 0.0
              ) -> tuple[list[int], list[Tensor]]:
    """Diffusers' timesteps and its x after each of them, on the same noise stream."""
    import diffusers

    common = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
              "timestep_spacing": "leading"}
    v1 = {"steps_offset": 1, "set_alpha_to_one": False}
    g = torch.Generator().manual_seed(5)
    options: dict[str, object] = {}
    if name == "ddpm":
        scheduler = diffusers.DDPMScheduler(**common, steps_offset=0, clip_sample=False)
        options = {"generator": g}
    elif name == "ddim":
        scheduler = diffusers.DDIMScheduler(**common, **v1, clip_sample=False)
        options = {"generator": g, "eta": eta}
    else:
        scheduler = diffusers.PNDMScheduler(**common, **v1, skip_prk_steps=True)
    scheduler.set_timesteps(steps)
    net, x, after = network(schedule), first_noise(), []
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, int(t)), t, x, **options).prev_sample
        after.append(x)
    return [int(t) for t in scheduler.timesteps], after


CASES = [("ddpm", 0.0, n) for n in [*COUNTS, 1000]]
CASES += [("ddim", eta, n) for eta in (0.0, 0.5, 1.0) for n in COUNTS]
CASES += [("plms", 0.0, n) for n in COUNTS]


@pytest.mark.parametrize(("name", "eta", "steps"), CASES)
def test_trajectories_like_diffusers(schedule: Schedule, name: str, eta: float, steps: int
                                     ) -> None:
    """The same timesteps, and the same x after every one of them."""
    asked: list[float] = []
    ours = list(run(name, schedule, steps, eta=eta, counter=asked))
    visited, theirs = reference(name, schedule, steps, eta)
    assert asked == visited
    if name == "plms" and steps > 1:
        theirs = theirs[1:]             # its second answer revises the first
    assert len(ours) == len(theirs) == steps
    found = [step.x_prev for step in ours]
    assert relative_error(torch.stack(found), torch.stack(theirs)) < TOLERANCE
    # And every single x, where diffusers takes 1 - alpha_bar of a float32 alpha_bar near 1: at
    # 1000 steps it ends 2.4e-5 off a float64 run, and we 1e-6 (tested below).
    assert max(map(relative_error, found, theirs)) < 3e-5
    assert 0.3 < float(ours[-1].x_prev.std()) < 3       # the fake network stays in range


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0),
                                           ("plms", 0.0)])
def test_float32_is_enough(schedule: Schedule, name: str, eta: float) -> None:
    """Coefficients are float64, so only the latents' own rounding adds up, over 999 steps."""
    net, noise = network(schedule), noise_stream()
    exact = sample(make_rule(name, schedule, 999, eta), schedule, lambda x, t: Guess(net(x, t)),
                   first_noise().double(), lambda: noise().double())
    for step, expected in zip(run(name, schedule, 999, eta=eta), exact, strict=True):
        assert relative_error(step.x_prev, expected.x_prev) < 5e-6


def test_the_timesteps_of_fifty_steps(schedule: Schedule) -> None:
    assert leading_timesteps(schedule, 50, 1) == list(range(981, 0, -20))
    assert make_rule("ddpm", schedule, 3).timesteps == [666, 333, 0]
    assert make_rule("ddim", schedule, 3).timesteps == [667, 334, 1]
    asked: list[float] = []
    list(run("plms", schedule, 50, counter=asked))
    assert asked == [981, 961, *range(961, 0, -20)]     # 961 twice


@pytest.mark.parametrize("name", ["ddpm", "ddim", "plms"])
@pytest.mark.parametrize("steps", [*COUNTS, 13, 600])
def test_timesteps_fall_and_stay_in_range(schedule: Schedule, name: str, steps: int) -> None:
    timesteps = make_rule(name, schedule, steps).timesteps
    assert len(timesteps) == steps
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert 0 <= timesteps[-1] <= timesteps[0] <= 999


# What a step reports

@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.7)])
def test_a_step_says_what_it_did(schedule: Schedule, name: str, eta: float) -> None:
    net, noise, x = network(schedule), noise_stream(), first_noise()
    for i, step in enumerate(run(name, schedule, 7, eta=eta)):
        assert (step.index, step.total, step.evaluations) == (i, 7, i + 1)
        assert torch.equal(step.x_t, x)                 # where the step before ended
        assert torch.equal(step.eps, net(x, step.t))
        assert torch.equal(step.x0, predict_x0(x, step.eps, schedule.at(int(step.t))))
        c = step.coefficients
        assert torch.equal(step.x_prev, take_step(x, step.eps, noise() if c.noise else None, c))
        x = step.x_prev


def test_both_predictions_are_handed_on(schedule: Schedule) -> None:
    def predict(x: Tensor, t: float) -> Guess:
        return Guess(x, 2 * x, 3 * x)

    rule = make_rule("plms", schedule, 3)
    for step in sample(rule, schedule, predict, first_noise(), noise_stream()):
        assert torch.equal(step.eps, step.x_t)
        assert step.eps_uncond is not None and step.eps_cond is not None
        assert torch.equal(step.eps_uncond, 2 * step.x_t)
        assert torch.equal(step.eps_cond, 3 * step.x_t)
    assert next(run("ddim", schedule, 3)).eps_uncond is None


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_plms_asks_once_more_than_it_steps(schedule: Schedule, steps: int) -> None:
    asked: list[float] = []
    for step in run("plms", schedule, steps, counter=asked):
        assert step.evaluations == len(asked)
    assert len(asked) == (steps + 1 if steps > 1 else 1)    # one step has nothing to look ahead to


def test_the_perfect_network_leads_back_to_the_picture(schedule: Schedule) -> None:
    """If there is one picture only, its noise is known exactly and every sampler finds it."""
    x0 = first_noise().double()

    def predict(x: Tensor, t: float) -> Guess:
        level = schedule.at(int(t))
        return Guess((x - level ** 0.5 * x0) / (1 - level) ** 0.5)

    for name, eta in (("ddpm", 0), ("ddim", 0), ("ddim", 1), ("plms", 0)):
        noise = noise_stream(6)
        *_, last = sample(make_rule(name, schedule, 20, eta), schedule, predict,
                          noise().double(), lambda noise=noise: noise().double())
        torch.testing.assert_close(last.x0, x0, atol=1e-9, rtol=0)
        # DDPM ends at x0; the others keep the schedule's last bit of noise, sqrt(1 - .99915).
        off = (last.x_prev - schedule.at(0) ** 0.5 * x0).std() if name != "ddpm" else (
            last.x_prev - x0).std()
        assert float(off) < (1e-9 if name == "ddpm" else 0.04)


@pytest.mark.parametrize(("name", "eta", "draws"), [("ddpm", 0.0, 6), ("ddim", 0.0, 0),
                                                    ("ddim", 0.3, 7), ("plms", 0.0, 0)])
def test_noise_is_drawn_only_where_it_is_used(schedule: Schedule, name: str, eta: float,
                                              draws: int) -> None:
    """A draw too many would change every later picture of the same generator."""
    drawn, noise = [], noise_stream()
    list(sample(make_rule(name, schedule, 7, eta), schedule, lambda x, t: Guess(0.9 * x),
                first_noise(), lambda: drawn.append(1) or noise()))
    assert len(drawn) == draws


# Starting on the way

@pytest.mark.parametrize(("name", "start"), [("ddim", 0), ("ddim", 6), ("ddpm", 13), ("ddim", 19)])
def test_starting_late_is_the_end_of_the_whole_run(schedule: Schedule, name: str, start: int
                                                   ) -> None:
    whole = list(run(name, schedule, 20))
    if name == "ddpm":          # whose noise stream would have to start late as well
        rule, noise = make_rule(name, schedule, 20), noise_stream()
        for _ in range(start):
            noise()
        late = list(sample(rule, schedule, lambda x, t: Guess(network(schedule)(x, t)),
                           whole[start].x_t, noise, start=start))
    else:
        late = list(run(name, schedule, 20, start=start, x=whole[start].x_t))
    assert [s.t for s in late] == [s.t for s in whole[start:]]
    assert [(s.index, s.total) for s in late] == [(i, 20 - start) for i in range(20 - start)]
    for a, b in zip(late, whole[start:], strict=True):
        assert torch.equal(a.x_prev, b.x_prev)


@pytest.mark.parametrize("start", [0, 6, 18, 19])
def test_plms_starts_late_with_its_own_look_ahead(schedule: Schedule, start: int) -> None:
    net, asked = network(schedule), []
    x = add_noise(torch.zeros(SHAPE), first_noise(), schedule.at(951 - 50 * start))
    first, *rest = run("plms", schedule, 20, start=start, x=x, counter=asked)
    assert len(rest) == 19 - start
    t = 951 - 50 * start
    if start == 19:
        assert asked == [1]
        return
    assert asked == [t, t - 50, *range(t - 50, 0, -50)]
    eps = net(x, t)
    plain = ddim_coefficients(schedule.at(t), schedule.at(t - 50))
    ahead = net(take_step(x, eps, None, plain), t - 50)
    expected = take_step(x, (eps + ahead) / 2, None, plain)
    assert relative_error(first.x_prev, expected) < TOLERANCE


def test_starting_after_the_last_step_does_nothing(schedule: Schedule) -> None:
    asked: list[float] = []
    assert list(run("ddim", schedule, 20, start=20, counter=asked)) == asked == []


# The generator

def test_nothing_is_computed_before_it_is_asked_for(schedule: Schedule) -> None:
    for name, at_first in (("ddpm", 1), ("ddim", 1), ("plms", 2)):
        asked: list[float] = []
        steps = run(name, schedule, 20, counter=asked)
        assert not asked
        next(steps)
        assert len(asked) == at_first
        next(steps)
        steps.close()
        assert len(asked) == at_first + 1


@pytest.mark.parametrize("name", ["ddpm", "ddim", "plms"])
def test_gradients_are_off_inside_and_as_before_outside(schedule: Schedule, name: str) -> None:
    weight = torch.ones(1, requires_grad=True)
    inside: list[bool] = []

    def predict(x: Tensor, t: float) -> Guess:
        inside.append(torch.is_grad_enabled())
        return Guess(0.9 * weight * x)

    def steps() -> Iterator[SampleStep]:
        x = first_noise().requires_grad_()
        return sample(make_rule(name, schedule, 5), schedule, predict, x, noise_stream())

    def consume(steps: Iterator[SampleStep]) -> None:
        for step in steps:
            assert torch.is_grad_enabled()              # the consumer's own business
            assert not step.x_prev.requires_grad and not step.eps.requires_grad

    with torch.enable_grad():
        consume(steps())
    with torch.no_grad():
        started_elsewhere = steps()
        next(started_elsewhere)
        assert not torch.is_grad_enabled()
    consume(started_elsewhere)
    failed: list[BaseException] = []

    def in_a_thread() -> None:
        try:
            consume(begun_here)
        except BaseException as error:
            failed.append(error)

    begun_here = steps()
    next(begun_here)
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert not failed
    assert torch.is_grad_enabled()
    assert not any(inside) and len(inside) >= 15


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "plms"])
def test_latents_that_stop_being_finite_stop_the_run(schedule: Schedule, name: str, bad: float
                                                     ) -> None:
    net = network(schedule)

    def predict(x: Tensor, t: float) -> Guess:
        eps = net(x, t)
        if t < 200:
            eps[1, 0, 2, 3] = bad
        return Guess(eps)

    done: list[SampleStep] = []
    with pytest.raises(FloatingPointError, match=r"finite at step 4 of 5 \(t = 16[67]\).*"
                       r"float16.*bfloat16.*guidance"):
        for step in sample(make_rule(name, schedule, 6), schedule, predict, first_noise(),
                           noise_stream(), start=1):
            done.append(step)
    assert len(done) == 3


@pytest.mark.parametrize("name", ["ddpm", "ddim", "plms"])
def test_two_runs_at_once_do_not_disturb_each_other(schedule: Schedule, name: str) -> None:
    alone = [s.x_prev for s in run(name, schedule, 6, eta=0.5)]
    other = [s.x_prev for s in run(name, schedule, 6, eta=0.5, x=-first_noise())]
    pairs = zip(run(name, schedule, 6, eta=0.5),
                run(name, schedule, 6, eta=0.5, x=-first_noise()), strict=True)
    for i, (a, b) in enumerate(pairs):
        assert torch.equal(a.x_prev, alone[i])
        assert torch.equal(b.x_prev, other[i])


def test_steps_keep_what_they_showed(schedule: Schedule) -> None:
    """A list of steps is a trace: later steps write into no tensor of an earlier one."""
    for name in ("ddpm", "ddim", "plms"):
        kept = [(s, s.x_t.clone(), s.eps.clone(), s.x0.clone(), s.x_prev.clone())
                for s in run(name, schedule, 6)]
        for s, *copies in kept:
            assert all(torch.equal(a, b) for a, b in
                       zip((s.x_t, s.eps, s.x0, s.x_prev), copies, strict=True))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "plms"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_latents_keep_their_dtype(schedule: Schedule, name: str, dtype: torch.dtype) -> None:
    noise = noise_stream()
    for step in sample(make_rule(name, schedule, 4), schedule, lambda x, t: Guess(0.5 * x),
                       first_noise().to(dtype), lambda: noise().to(dtype)):
        assert {v.dtype for v in (step.x_t, step.eps, step.x0, step.x_prev)} == {dtype}


# Bad input

@pytest.mark.parametrize(("name", "most"), [("ddpm", 1000), ("ddim", 999), ("plms", 999)])
def test_numbers_of_steps_out_of_range(schedule: Schedule, name: str, most: int) -> None:
    assert len(make_rule(name, schedule, most).timesteps) == most
    for steps in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"from 1 to {most} for {name}, got {steps}"):
            make_rule(name, schedule, steps)


@pytest.mark.parametrize("steps", [2.5, 20.0, "20", True, None])
def test_steps_have_to_be_a_whole_number(schedule: Schedule, steps: object) -> None:
    with pytest.raises(TypeError, match="steps must be a whole number, got"):
        make_rule("ddim", schedule, steps)  # type: ignore[arg-type]


def test_an_unknown_sampler_is_told_the_known_ones(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="unknown sampler 'ddmp': choose one of ddpm, ddim, plms"):
        make_rule("ddmp", schedule, 20)
