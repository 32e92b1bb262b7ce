"""The exercises on the forward process: right answers, named mistakes, and nonsense."""

import math

import pytest
import torch

from minisd.diffusion import add_noise
from minisd.exercises import check_add_noise, check_loss, check_predict_x0, check_snr

# Noise in one jump

def noised(signal, noise, shift=0):
    return lambda x0, n, t, bar: signal(bar[t + shift]) * x0 + noise(bar[t + shift]) * n


def root(a):
    return a ** 0.5


def other_root(a):
    return (1 - a) ** 0.5


@pytest.mark.parametrize("answer", [
    noised(root, other_root), noised(math.sqrt, lambda a: math.sqrt(1 - a)),
    lambda x0, noise, t, bar: bar.sqrt()[t] * x0 + torch.sqrt(1 - bar)[t] * noise])
def test_the_right_noise(answer) -> None:
    assert check_add_noise(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (noised(lambda a: a, lambda a: 1 - a), "Both roots are missing"),
    (noised(root, lambda a: 1 - a), "1 - alpha_bar is the noise's variance"),
    (noised(lambda a: a, other_root), "root of alpha_bar is missing"),
    (noised(root, lambda a: 1 - root(a)), "not 1 - sqrt(alpha_bar)"),
    (noised(other_root, root), "swapped"),
    (noised(lambda a: 1, other_root), "has to fade"),
    (noised(root, lambda a: 1), "as strong at every t"),
    (noised(root, lambda a: -other_root(a)), "sign is wrong"),
    (noised(root, other_root, shift=-1), "alpha_bar[t - 1]"),
    (noised(root, other_root, shift=1), "alpha_bar[t + 1]"),
    (noised(root, lambda a: 0), "values differ by up to")])
def test_mistakes_of_the_noise(answer, said: str) -> None:
    verdict = check_add_noise(answer)
    assert not verdict and said in verdict.message


# Signal to noise

def test_the_right_ratio() -> None:
    assert check_snr(lambda a: a / (1 - a)) and check_snr(lambda a: 1 / (1 / a - 1))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda a: a / 1 - a, "put brackets"),
    (lambda a: root(a) / other_root(a), "standard deviations"),
    (lambda a: (1 - a) / a, "Upside down"),
    (lambda a: other_root(a) / root(a), "That is sigma"),
    (lambda a: root(a) / (1 - a), "over the signal alone"),
    (lambda a: a / other_root(a), "over the noise alone"),
    (lambda a: a, "share of the whole"),
    (lambda a: 10 * torch.log10(a / (1 - a)), "decibels"),
    (lambda a: torch.log(a) - torch.log(1 - a), "logarithm"),
    (lambda a: 2 * a, "values differ by up to")])
def test_mistakes_of_the_ratio(answer, said: str) -> None:
    verdict = check_snr(answer)
    assert not verdict and said in verdict.message


# The way back

def test_the_right_x0() -> None:
    assert check_predict_x0(lambda x, e, a: (x - other_root(a) * e) / root(a))
    assert check_predict_x0(lambda x, e, a: (x - math.sqrt(1 - a) * e) / math.sqrt(a))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda x, e, a: (x + other_root(a) * e) / root(a), "sign is wrong"),
    (lambda x, e, a: (x - (1 - a) * e) / root(a), "root before the noise"),
    (lambda x, e, a: (x - other_root(a) * e) / a, "divide by alpha_bar"),
    (lambda x, e, a: (x - (1 - a) * e) / a, "Both roots"),
    (lambda x, e, a: x - other_root(a) * e, "forgot to divide"),
    (lambda x, e, a: (x - other_root(a) * e) * root(a), "multiplied"),
    (lambda x, e, a: x - other_root(a) * e / root(a), "brackets"),
    (lambda x, e, a: (x - e) / root(a), "needs its factor"),
    (lambda x, e, a: x - e, "values differ by up to")])
def test_mistakes_of_the_way_back(answer, said: str) -> None:
    verdict = check_predict_x0(answer)
    assert not verdict and said in verdict.message


# The loss of a batch

def noised_points(signal=root, noise=other_root, shift=0):
    def x_t(x0, n, t, bar):
        level = bar[t + shift].reshape(-1, 1)
        return signal(level) * x0 + noise(level) * n
    return x_t


NOISED = noised_points()


def loss(x_t=NOISED, target=lambda x0, n, x: n, over=lambda e: (e ** 2).mean()):
    def answer(net, x0, n, t, bar):
        x = x_t(x0, n, t, bar)
        return over(target(x0, n, x) - net(x, t))
    return answer


def looped(net, x0, n, t, bar):
    """Point by point, as someone writes it who does not like batches."""
    total = 0.0
    for i in range(len(t)):
        x = root(bar[t[i]]) * x0[i] + other_root(bar[t[i]]) * n[i]
        total += ((net(x[None], t[i:i + 1])[0] - n[i]) ** 2).sum().item()
    return total / x0.numel()


@pytest.mark.parametrize("answer", [
    loss(), looped, lambda net, x0, n, t, bar: torch.nn.functional.mse_loss(
        net(add_noise(x0, n, bar[t]), t), n)])
def test_the_right_loss(answer) -> None:
    assert check_loss(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (loss(target=lambda x0, n, x: x0), "You compare with x0"),
    (loss(target=lambda x0, n, x: x), "You compare with x_t"),
    (loss(noised_points(lambda a: a, lambda a: 1 - a)), "Both roots are missing"),
    (loss(noised_points(root, lambda a: 1 - a)), "missing before the noise"),
    (loss(noised_points(lambda a: a, other_root)), "missing before x0"),
    (loss(noised_points(other_root, root)), "swapped"),
    (loss(lambda x0, n, t, bar: x0), "saw the clean x0"),
    (loss(lambda x0, n, t, bar: n), "nothing but noise"),
    (loss(lambda x0, n, t, bar: x0 + n), "needs its factor"),
    (loss(noised_points(shift=-1)), "alpha_bar[t - 1]"),
    (loss(over=lambda e: e ** 2), "for each coordinate"),
    (loss(over=lambda e: (e ** 2).mean(-1)), "one number for each point. Take"),
    (loss(over=lambda e: (e ** 2).sum(-1)), "one number for each point, and a sum"),
    (loss(over=lambda e: (e ** 2).sum()), "You summed. "),
    (loss(over=lambda e: (e ** 2).sum(-1).mean()), "summed over the coordinates"),
    (loss(over=lambda e: -e.mean()), "The square is missing: "),
    (loss(over=lambda e: e.mean()), "The square is missing, and the sign"),
    (loss(over=lambda e: e.abs().mean()), "absolute differences"),
    (loss(over=lambda e: (e ** 2).mean().sqrt()), "root of the mean square"),
    (loss(over=lambda e: 3 * (e ** 2).mean()), "values differ by up to")])
def test_mistakes_of_the_loss(answer, said: str) -> None:
    verdict = check_loss(answer)
    assert not verdict and said in verdict.message


def test_an_alpha_bar_for_each_point_has_to_be_a_column() -> None:
    verdict = check_loss(lambda net, x0, n, t, bar: net(root(bar[t]) * x0, t).mean())
    assert not verdict and "RuntimeError" in verdict.message
