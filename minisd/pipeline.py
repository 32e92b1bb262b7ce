"""Stable Diffusion put together: prompt to context, noise to latents, latents to a picture.

Every run is a generator of steps (`StableDiffusion.steps`); pictures, traces, widgets and the
command line are made by consuming it. `z` is the VAE's own space, `latents` always means
z * scale_factor. Latents stay in float32 on the way; only the networks compute in `dtype`.
"""

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from minisd import checkpoint, images
from minisd.clip import CLIPTextTransformer
from minisd.config import Config
from minisd.diffusion import add_noise, guide, make_schedule
from minisd.samplers import Guess, SampleStep, make_rule, sample
from minisd.tokenizer import Tokenizer, warn
from minisd.unet import UNet
from minisd.vae import VAE

MAX_SEED = 2 ** 63 - 1
FEWEST_LEADING_STEPS = 5        # with fewer, samplers with leading spacing start far from noise
LARGEST_REFERENCE = 2           # reference pictures keep their size up to twice the model's

OnStep = Callable[[SampleStep], None]


@dataclass(frozen=True)
class Request:
    """What a user asks for, checked."""

    prompt: str
    negative_prompt: str
    guidance_scale: float
    steps: int
    sampler: str
    eta: float
    seed: int
    height: int
    width: int
    num_images: int
    latents: Tensor | None = None           # starting noise given by the user
    image: Tensor | None = None             # reference picture (1, 3, h, w) in [-1, 1]
    strength: float = 1.0
    both_predictions: bool = False

    @property
    def steps_to_run(self) -> int:
        """floor(steps * strength); the epsilon undoes float dust such as 0.29 * 100 = 28.999..."""
        return self.steps if self.image is None else math.floor(self.steps * self.strength + 1e-9)


class StableDiffusion(nn.Module):
    """The three networks, the tokenizer and the noise schedule of one model.

    `StableDiffusion(config)` has random weights, and no memory at all under
    `torch.device("meta")`; `models.load` gives a trained one.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.text_encoder = CLIPTextTransformer(config.text)
        self.unet = UNet(config.unet)
        self.vae = VAE(config.vae)
        with torch.device("cpu"):
            self.schedule = make_schedule(config.schedule)

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits that name these weights."""
        return checkpoint.fingerprint(self)

    # The stations

    @torch.no_grad()
    def encode_prompt(self, prompt: str | Sequence[str]) -> Tensor:
        """Text, or several -> (b, 77, d), the UNet's context.

        Warns of words that were cut off, and of words that the model never saw in training.
        """
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer: put vocab.json and merges.txt into a "
                             "folder tokenizer/ beside its weights, or set sd.tokenizer = "
                             "minisd.Tokenizer.from_folder(...)")
        ids = self.tokenizer(prompt)
        for text in [prompt] if isinstance(prompt, str) else prompt:
            unseen = self.tokenizer.unseen_words(text)
            if unseen:
                warn(f"{self.config.name} never saw {', '.join(map(repr, unseen))}: it can only "
                     f"guess what that means")
        return self.text_encoder(ids.to(self.device))

    @torch.no_grad()
    def encode_image(self, image: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """A picture (PIL, path, uint8 array, or tensor in [-1, 1]) -> latents (b, c, h/8, w/8).

        The posterior's mean, or with a generator a sample of it, in float32.
        """
        pixels = image if isinstance(image, Tensor) else images.from_pil(image)
        posterior = self.vae.encode(pixels.to(self.device, self.dtype))
        z = posterior.mean if generator is None else posterior.sample(generator)
        return z.float() * self.config.vae.scale_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (b, c, h, w) -> b pictures of 8h x 8w."""
        z = latents.to(self.device, torch.float32) / self.config.vae.scale_factor
        pixels = self.vae.decode(z.to(self.dtype)).float()
        if not pixels.isfinite().all():
            raise FloatingPointError("the decoded picture is not finite: the VAE overflows in "
                                     "float16, load with dtype='float32' or 'bfloat16'")
        return images.to_pil(pixels)

    # The runs

    def text_to_image(self, prompt: str, *, negative_prompt: str = "",
                      guidance_scale: float = 7.5, steps: int = 50, sampler: str = "ddim",
                      eta: float = 0.0, seed: int | None = None, height: int | None = None,
                      width: int | None = None, num_images: int = 1,
                      latents: Tensor | None = None, on_step: OnStep | None = None
                      ) -> list[Image.Image]:
        """Paint what the prompt says.

        negative_prompt takes the place of the empty prompt that guidance moves away from.
        guidance_scale: 0 ignores the prompt, 1 follows it plainly, 7.5 exaggerates it.
        steps: of the sampler, 1 .. 999. eta: DDIM's fresh noise, 0 .. 1.
        seed: picture i of num_images depends on seed + i alone; drawn at random if None.
        height, width: pixels, multiples of 8; the model's own size if None.
        latents: starting noise (num_images, c, height/8, width/8) instead of the seed's.
        on_step: called with every SampleStep.
        Raises ValueError or TypeError for input that makes no sense, before any work.
        """
        request = self._request(prompt, negative_prompt, guidance_scale, steps, sampler, eta, seed,
                                height, width, num_images, latents)
        return self.decode(self._last_latents(request, on_step))

    def image_to_image(self, prompt: str, image: Any, *, strength: float = 0.75,
                       negative_prompt: str = "", guidance_scale: float = 7.5, steps: int = 50,
                       sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
                       height: int | None = None, width: int | None = None, num_images: int = 1,
                       on_step: OnStep | None = None) -> list[Image.Image]:
        """Repaint a picture as the prompt says (SDEdit, Meng et al. 2022).

        image: PIL picture, path, or uint8 array. strength: 0 returns it autoencoded, 1 keeps
        almost nothing of it; floor(steps * strength) steps are run. The other arguments are
        those of text_to_image; the default size is the picture's own.
        """
        request = self._request(prompt, negative_prompt, guidance_scale, steps, sampler, eta, seed,
                                height, width, num_images, None, image, strength)
        return self.decode(self._last_latents(request, on_step))

    def steps(self, prompt: str, *, negative_prompt: str = "", guidance_scale: float = 7.5,
              steps: int = 50, sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
              height: int | None = None, width: int | None = None, num_images: int = 1,
              latents: Tensor | None = None, image: Any = None, strength: float = 0.75,
              both_predictions: bool = False) -> Iterator[SampleStep]:
        """The run itself, step by step; with `image`, that of image_to_image.

        A consumer that stops early causes no further work. both_predictions computes the
        unconditional and the conditional prediction even where guidance needs only one.
        The arguments are checked at once, not at the first step.
        """
        request = self._request(prompt, negative_prompt, guidance_scale, steps, sampler, eta, seed,
                                height, width, num_images, latents, image, strength,
                                both_predictions)
        return (step for step in self._run(request) if isinstance(step, SampleStep))

    def _last_latents(self, request: Request, on_step: OnStep | None) -> Tensor:
        latents = None
        for item in self._run(request):
            if isinstance(item, SampleStep):
                latents = item.x_prev
                if on_step is not None:
                    on_step(item)
            else:
                latents = item
        assert latents is not None
        return latents

    def _run(self, request: Request) -> Iterator[SampleStep | Tensor]:
        """The starting latents, then every step."""
        generators = [torch.Generator().manual_seed(request.seed + i)
                      for i in range(request.num_images)]
        factor = self.config.vae.downscale
        shape = (self.config.unet.latent_channels, request.height // factor,
                 request.width // factor)

        def noise() -> Tensor:
            """Each picture draws from its own generator, on the CPU: one seed, one picture."""
            drawn = [torch.randn(shape, generator=g) for g in generators]
            return torch.stack(drawn).to(self.device)

        predict = self._predictor(request)
        rule = make_rule(request.sampler, self.schedule, request.steps, request.eta)
        start = request.steps - request.steps_to_run
        if request.image is not None:
            latents = torch.cat([self.encode_image(request.image, generator=g)
                                 for g in generators])
            if start < request.steps:
                level = self.schedule.at(rule.timesteps[start])
                latents = add_noise(latents, noise(), level)
        elif request.latents is not None:
            latents = request.latents.detach().to(self.device, torch.float32) * rule.start_scale
        else:
            latents = noise() * rule.start_scale
        yield latents
        yield from sample(rule, self.schedule, predict, latents, noise, start=start)

    def _predictor(self, request: Request) -> Callable[[Tensor, float], Guess]:
        """The UNet behind classifier-free guidance; skips the half that guidance does not need."""
        g, both = request.guidance_scale, request.both_predictions
        needs_cond, needs_uncond = both or g != 0, both or g != 1
        prompts = ([request.negative_prompt] * needs_uncond + [request.prompt] * needs_cond)
        contexts = self.encode_prompt(prompts)

        @torch.no_grad()
        def predict(x_t: Tensor, t: float) -> Guess:
            b = len(x_t)
            timesteps = torch.full((b * len(prompts),), float(t), device=self.device)
            eps = self.unet(x_t.to(self.dtype).repeat(len(prompts), 1, 1, 1), timesteps,
                            contexts.repeat_interleave(b, 0)).float()
            uncond = eps[:b] if needs_uncond else None
            cond = eps[-b:] if needs_cond else None
            if g == 1 and cond is not None:
                guided = cond
            elif g == 0 and uncond is not None:
                guided = uncond
            else:
                assert uncond is not None and cond is not None
                guided = guide(uncond, cond, g)
            return Guess(guided, uncond, cond)

        return predict

    # Checking what was asked

    def _request(self, prompt: str, negative_prompt: str, guidance_scale: float, steps: int,
                 sampler: str, eta: float, seed: int | None, height: int | None,
                 width: int | None, num_images: int, latents: Tensor | None, image: Any = None,
                 strength: float = 1.0, both_predictions: bool = False) -> Request:
        """All arguments in one checked record."""
        for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be text, got {type(text).__name__}: {text!r}")
        rule = make_rule(sampler, self.schedule, steps, eta)
        if len(rule.timesteps) < FEWEST_LEADING_STEPS and rule.timesteps[0] < 0.9 * len(
                self.schedule) and image is None:
            warn(f"{steps} steps of {sampler} begin at t = {rule.timesteps[0]}, where the picture "
                 f"should no longer be pure noise: take at least {FEWEST_LEADING_STEPS} steps")
        seed = secrets.randbits(32) if seed is None else seed
        _check_whole("num_images", num_images, 1)
        _check_whole("seed", seed, 0, MAX_SEED - num_images)
        _check_number("guidance_scale", guidance_scale)
        _check_number("eta", eta, 0, 1)
        _check_number("strength", strength, 0, 1)
        factor = self.config.vae.downscale
        for name, side in (("height", height), ("width", width)):
            if side is not None:
                _check_side(name, side, factor)
        pixels = None if image is None else self._reference(image, height, width)
        height, width = ((height or self.config.image_size, width or self.config.image_size)
                         if pixels is None else pixels.shape[2:])
        if latents is not None:
            if image is not None:
                raise ValueError("latents and an image both say where to start: give one of them")
            _check_latents(latents, (num_images, self.config.unet.latent_channels,
                                     height // factor, width // factor))
        return Request(prompt, negative_prompt, float(guidance_scale), steps, sampler, float(eta),
                       seed, height, width, num_images, latents, pixels, float(strength),
                       both_predictions)

    def _reference(self, image: Any, height: int | None, width: int | None) -> Tensor:
        """The reference picture in the size asked for; else in its own, as far as that is sane."""
        factor = self.config.vae.downscale
        pixels = images.from_pil(image)
        own = pixels.shape[2:]
        shrink = min(1.0, LARGEST_REFERENCE * self.config.image_size / max(own))
        sane = [max(factor, int(side * shrink) // factor * factor) for side in own]
        size = (height or sane[0], width or sane[1])
        return pixels if size == tuple(own) else images.from_pil(image, size=size)


def _check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, got {value}")


def _check_side(name: str, value: int, factor: int) -> None:
    _check_whole(name, value, factor)
    if value % factor:
        raise ValueError(f"{name} must be a multiple of {factor}, got {value}: take "
                         f"{value // factor * factor} or {-(-value // factor) * factor}")


def _check_latents(latents: object, expected: tuple[int, ...]) -> None:
    if not isinstance(latents, Tensor):
        raise TypeError(f"latents must be a tensor of shape {expected}, got "
                        f"{type(latents).__name__}")
    if tuple(latents.shape) != expected:
        raise ValueError(f"latents have shape {tuple(latents.shape)}, expected {expected}: "
                         f"(num_images, channels, height / 8, width / 8)")
    if not latents.isfinite().all():
        raise ValueError("latents contain NaN or infinity: look for where they come from")


def _check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not low <= value <= high:
        limits = "finite" if math.isinf(low) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {limits}, got {value}")
