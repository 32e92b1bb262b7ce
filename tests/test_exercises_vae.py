"""The exercises on the autoencoder: right answers, the mistakes that are named, and nonsense."""

import math

import pytest
import torch

from minisd.exercises import check_posterior_sample, check_psnr, check_to_z
from minisd.vae import Gaussian

# PSNR

def mse(a, b) -> float:
    return (a - b).square().mean().item()


@pytest.mark.parametrize("answer", [
    lambda a, b: 10 * torch.log10(4 / (a - b).square().mean()),
    lambda a, b: 20 * math.log10(2 / math.sqrt(mse(a, b))),
    lambda a, b: -10 * math.log10(mse((a + 1) / 2, (b + 1) / 2))])
def test_the_right_psnr(answer) -> None:
    assert check_psnr(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda a, b: 10 * math.log10(1 / mse(a, b)), "6.02 dB short"),
    (lambda a, b: 20 * math.log10(255 / math.sqrt(mse(a, b))), "255"),
    (lambda a, b: 10 * math.log10(2 / mse(a, b)), "did not square the peak"),
    (lambda a, b: 10 * math.log(4 / mse(a, b)), "natural logarithm"),
    (lambda a, b: 10 * math.log2(4 / mse(a, b)), "binary logarithm"),
    (lambda a, b: math.log10(4 / mse(a, b)), "factor 10 is missing"),
    (lambda a, b: 20 * math.log10(4 / mse(a, b)), "10 * log10"),
    (lambda a, b: 10 * math.log10(mse(a, b) / 4), "sign is wrong"),
    (lambda a, b: 10 * math.log10(4 / (a - b).abs().mean()), "absolute differences"),
    (lambda a, b: 10 * math.log10(4 / (a - b).square().sum()), "summed")])
def test_mistakes_of_the_psnr(answer, said: str) -> None:
    verdict = check_psnr(answer)
    assert not verdict and said in verdict.message


# A sample of the posterior

def test_the_right_sample() -> None:
    assert check_posterior_sample(lambda mean, logvar, noise: mean + logvar.exp().sqrt() * noise)
    assert check_posterior_sample(lambda mean, logvar, noise:
                                  mean + Gaussian(mean, logvar).std * noise)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda m, v, n: m + torch.exp(v) * n, "exp(logvar) is the variance"),
    (lambda m, v, n: m + v * n, "logarithm of the variance"),
    (lambda m, v, n: m + 0.5 * torch.exp(v) * n, "belongs inside"),
    (lambda m, v, n: m + n / torch.exp(0.5 * v), "sign inside exp"),
    (lambda m, v, n: m + n, "did not scale the noise"),
    (lambda m, v, n: m + torch.exp(0.5 * v), "forgot the noise"),
    (lambda m, v, n: torch.exp(0.5 * v) * n, "forgot the mean"),
    (lambda m, v, n: m, "not a sample"),
    (lambda m, v, n: m + v.sqrt() * n, "not finite")])
def test_mistakes_of_the_sample(answer, said: str) -> None:
    verdict = check_posterior_sample(answer)
    assert not verdict and said in verdict.message


# The scale factor

def test_the_right_way_back_to_z() -> None:
    assert check_to_z(lambda latents, factor: latents / factor)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda x, f: x, "forgot the scale factor"),
    (lambda x, f: x * f, "You multiplied"),
    (lambda x, f: x - f, "not an offset"),
    (lambda x, f: f / x, "inverse"),
    (lambda x, f: x / f ** 0.5, "no variance"),
    (lambda x, f: x + 9 * f, "values differ by up to")])
def test_mistakes_of_the_scale_factor(answer, said: str) -> None:
    verdict = check_to_z(answer)
    assert not verdict and said in verdict.message
