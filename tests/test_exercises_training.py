"""The exercises on training: right answers, named mistakes, and nonsense."""

import math

import pytest
import torch
import torch.nn.functional as F

from minisd.diffusion import add_noise
from minisd.exercises import (
    check_carbon,
    check_ema,
    check_info_nce,
    check_kl,
    check_noise_loss,
    check_samples_seen,
)
from minisd.toyworld.train_clip import contrastive_loss
from minisd.vae import Gaussian
from minisd.widgets.carbon import carbon_kg


def name(check, answer) -> str:
    verdict = check(answer)
    assert not verdict
    return verdict.message


# Batches

def test_the_right_number_of_samples() -> None:
    assert check_samples_seen(lambda m, g, a, b, steps: math.prod((m, g, a, b, steps)))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda m, g, a, b, n: m * g * a * b, "one gradient step"),
    (lambda m, g, a, b, n: m * g * b * n, "accumulation is missing"),
    (lambda m, g, a, b, n: m * g * b * n / a, "do not divide"),
    (lambda m, g, a, b, n: g * a * b * n, "one machine only"),
    (lambda m, g, a, b, n: m * a * b * n, "in each machine only"),
    (lambda m, g, a, b, n: a * b * n, "machines * gpus"),
    (lambda m, g, a, b, n: m * g * a * n, "per_gpu"),
    (lambda m, g, a, b, n: (m + g + a + b) * n, "added the factors"),
    (lambda m, g, a, b, n: 1, "values differ")])
def test_mistakes_of_the_batch(answer, said: str) -> None:
    assert said in name(check_samples_seen, answer)


# Carbon

def test_the_right_mass() -> None:
    assert check_carbon(carbon_kg)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda w, h, c, p: w * h * c * p, "A thousand times too much"),
    (lambda w, h, c, p: 1000 * w * h * c * p, "multiplied by 1000"),
    (lambda w, h, c, p: w * h * c * p / 1e6, "not tonnes"),
    (lambda w, h, c, p: w * h * c / 1e3, "overhead is missing"),
    (lambda w, h, c, p: w * h * c / p / 1e3, "not less"),
    (lambda w, h, c, p: w * h * p / 1e3, "That is energy"),
    (lambda w, h, c, p: w * h * p / c / 1e3, "divided by the grid"),
    (lambda w, h, c, p: 3.6 * w * h * p * c, "seconds"),
    (lambda w, h, c, p: 7, "values differ")])
def test_mistakes_of_the_bill(answer, said: str) -> None:
    assert said in name(check_carbon, answer)


# The average of the weights

def test_the_right_average() -> None:
    assert check_ema(lambda a, w, d: d * a + (1 - d) * w)
    assert check_ema(lambda a, w, d: a + (1 - d) * (w - a))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda a, w, d: d * w + (1 - d) * a, "swapped"),
    (lambda a, w, d: d * a + w, "(1 - decay) of the weights is missing"),
    (lambda a, w, d: a + (1 - d) * w, "factor decay of the average is missing"),
    (lambda a, w, d: a + (1 - d) * (a - w), "sign is wrong"),
    (lambda a, w, d: (a + w) / 2, "plain mean"),
    (lambda a, w, d: w, "forgets"),
    (lambda a, w, d: a, "never learns"),
    (lambda a, w, d: 0 * a, "values differ")])
def test_mistakes_of_the_average(answer, said: str) -> None:
    assert said in name(check_ema, answer)


# InfoNCE

def rows(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def both(logits):
    return (rows(logits) + rows(logits.T)) / 2


def test_the_right_contrast() -> None:
    assert check_info_nce(lambda i, t, s: contrastive_loss(i, t, torch.tensor(s))[0])
    assert check_info_nce(lambda i, t, s: -((s * i @ t.T).log_softmax(0).diag().mean()
                                            + (s * i @ t.T).log_softmax(1).diag().mean()) / 2)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda i, t, s: both(i @ t.T), "scale is missing"),
    (lambda i, t, s: both(i @ t.T / s), "divided by the scale"),
    (lambda i, t, s: rows(s * i @ t.T), "the caption of each picture. Add"),
    (lambda i, t, s: rows(s * t @ i.T), "the picture of each caption. Add"),
    (lambda i, t, s: 2 * both(s * i @ t.T), "Take their mean"),
    (lambda i, t, s: len(i) * both(s * i @ t.T), "summed over the batch"),
    (lambda i, t, s: -both(s * i @ t.T), "sign is wrong"),
    (lambda i, t, s: -s * (i * t).sum(1).mean(), "softmax"),
    (lambda i, t, s: torch.tensor(1.0), "values differ")])
def test_mistakes_of_the_contrast(answer, said: str) -> None:
    assert said in name(check_info_nce, answer)


# Kullback-Leibler

def divergence(inside):
    return lambda m, v: 0.5 * (m ** 2 + inside(v)).flatten(1).sum(1)


def test_the_right_divergence() -> None:
    assert check_kl(lambda m, v: Gaussian(m, v).kl())
    exact = torch.distributions.kl_divergence
    assert check_kl(lambda m, v: exact(torch.distributions.Normal(m, (v / 2).exp()),
                                       torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3)))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda m, v: -divergence(lambda v: v.exp() - 1 - v)(m, v), "never negative"),
    (divergence(lambda v: v.exp() - 1 + v), "sign of logvar"),
    (divergence(lambda v: v - 1 - v.log()), "logvar for the variance"),
    (divergence(lambda v: v - 1 - v), "exponential is missing"),
    (divergence(lambda v: (v / 2).exp() - 1 - v), "standard deviation"),
    (lambda m, v: 2 * Gaussian(m, v).kl(), "half is missing"),
    (divergence(lambda v: v.exp() - v), "- 1 is missing"),
    (lambda m, v: 0.5 * (m + v.exp() - 1 - v).flatten(1).sum(1), "counts squared"),
    (lambda m, v: Gaussian(m, v).kl() / m[0].numel(), "add up"),
    (lambda m, v: Gaussian(m, v).kl().sum(), "one number for the whole batch"),
    (lambda m, v: Gaussian(m, v).kl().mean(), "mean over the batch"),
    (lambda m, v: 0.5 * (m ** 2 + v.exp() - 1 - v), "one number per value"),
    (lambda m, v: Gaussian(m, v).kl() + 1, "values differ")])
def test_mistakes_of_the_divergence(answer, said: str) -> None:
    assert said in name(check_kl, answer)


# The UNet's loss

def loss(seen, target=lambda x0, noise, x_t: noise, measure=F.mse_loss):
    def answer(net, x0, noise, t, alpha_bar):
        x_t = add_noise(x0, noise, alpha_bar)
        return measure(net(seen(x0, noise, x_t, alpha_bar), t), target(x0, noise, x_t))
    return answer


def noisy(x0, noise, x_t, alpha_bar):
    return x_t


def test_the_right_loss() -> None:
    assert check_noise_loss(loss(noisy))
    assert check_noise_loss(lambda net, x0, n, t, a: (net(
        math.sqrt(a) * x0 + math.sqrt(1 - a) * n, torch.tensor(t)) - n).pow(2).mean())


@pytest.mark.parametrize(("answer", "said"), [
    (loss(noisy, lambda x0, noise, x_t: x0), "You compare with x0"),
    (loss(noisy, lambda x0, noise, x_t: x_t), "You compare with x_t"),
    (loss(lambda x0, noise, x_t, a: x0), "saw the clean x0"),
    (loss(lambda x0, noise, x_t, a: noise), "nothing but noise"),
    (loss(lambda x0, noise, x_t, a: a * x0 + (1 - a) * noise), "Both roots"),
    (loss(lambda x0, noise, x_t, a: add_noise(x0, noise, 1 - a)), "swapped"),
    (loss(noisy, measure=F.l1_loss), "absolute"),
    (loss(noisy, measure=lambda a, b: (a - b).square().sum()), "You summed"),
    (loss(noisy, measure=lambda a, b: F.mse_loss(a, b).sqrt()), "root out"),
    (loss(lambda x0, noise, x_t, a: 0 * x0), "values differ")])
def test_mistakes_of_the_loss(answer, said: str) -> None:
    assert said in name(check_noise_loss, answer)
