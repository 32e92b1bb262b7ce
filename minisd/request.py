"""What a user asks of a run, checked before any work: one record instead of sixteen arguments."""

import math
import numbers
import secrets
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.config import Config
from minisd.diffusion import Schedule
from minisd.samplers import as_whole, make_rule
from minisd.tokenizer import warn

MAX_SEED = 2 ** 63 - 1
NEAR_NOISE = 0.8                # of the schedule's length; from there on x_t is nearly all noise
FEWEST_LEADING_STEPS = 5        # that samplers with leading spacing need to start from there
LARGEST_REFERENCE = 2           # reference pictures keep their size up to twice the model's
STRENGTH = 0.75                 # of image-to-image, where none is given; with a mask it is 1


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
    mask: Tensor | None = None              # (1, 1, h, w) bool, True where it is repainted
    strength: float = 1.0
    both_predictions: bool = False

    @property
    def steps_to_run(self) -> int:
        """floor(steps * strength); the epsilon undoes float dust such as 0.29 * 100 = 28.999..."""
        return self.steps if self.image is None else math.floor(self.steps * self.strength + 1e-9)

    @property
    def from_noise(self) -> bool:
        """Whether what is painted starts as pure noise, nothing of a picture in it."""
        return self.image is None or (self.mask is not None and self.strength == 1)

    @property
    def about(self) -> dict[str, Any]:
        """In plain words and numbers, all that decides the result beside the model and pictures."""
        painting = self.image is None
        return {"prompt": self.prompt, "negative_prompt": self.negative_prompt,
                "guidance_scale": self.guidance_scale, "steps": self.steps,
                "sampler": self.sampler, "eta": self.eta, "seed": self.seed,
                "height": self.height, "width": self.width, "num_images": self.num_images,
                "strength": None if painting else self.strength,
                "task": ("text_to_image" if painting else
                         "image_to_image" if self.mask is None else "inpaint")}

    def cells(self, factor: int) -> Tensor:
        """The mask for latents, (1, 1, h/8, w/8): a cell is repainted if any of its pixels is."""
        assert self.mask is not None
        return F.max_pool2d(self.mask.float(), factor) > 0

    def paste(self, painted: Image.Image) -> Image.Image:
        """What was painted under the mask, and outside it the reference's own pixels."""
        assert self.image is not None and self.mask is not None
        original, = images.to_pil(self.image)
        return Image.composite(painted, original, Image.fromarray(self.mask[0, 0].numpy()))


def make_request(config: Config, schedule: Schedule, prompt: str, *, negative_prompt: str,
                 guidance_scale: float, steps: int, sampler: str, eta: float, seed: int | None,
                 height: int | None, width: int | None, num_images: int,
                 latents: Tensor | None = None, image: Any = None, mask: Any = None,
                 strength: float | None = None, both_predictions: bool = False) -> Request:
    """All arguments of a run in one record. Their meaning stands in StableDiffusion.text_to_image.

    Raises ValueError or TypeError for the first that makes no sense, alone or with the others.
    """
    for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be text, got {type(text).__name__}: {text!r}")
    rule = make_rule(sampler, schedule, steps, eta)
    num_images = check_whole("num_images", num_images, 1)
    seed = check_whole("seed", secrets.randbits(32) if seed is None else seed, 0,
                       MAX_SEED - num_images)
    check_number("guidance_scale", guidance_scale)
    check_number("eta", eta, 0, 1)
    if strength is not None and image is None:
        raise ValueError("strength says how much of a picture to repaint: give the picture as "
                         "image, or leave strength out")
    if strength is None:
        strength = STRENGTH if mask is None else 1.0
    check_number("strength", strength, 0, 1)
    factor = config.vae.downscale
    height, width = (side if side is None else check_side(name, side, factor)
                     for name, side in (("height", height), ("width", width)))
    pixels, repaint = read_pictures(config, image, mask, height, width)
    height, width = ((height or config.image_size, width or config.image_size)
                     if pixels is None else pixels.shape[2:])
    if latents is not None:
        if image is not None:
            raise ValueError("latents and an image both say where to start: give one of them")
        check_latents(latents, (num_images, config.unet.latent_channels, height // factor,
                                width // factor))
    request = Request(prompt, negative_prompt, float(guidance_scale), as_whole("steps", steps),
                      sampler, float(eta), seed, height, width, num_images, latents, pixels,
                      repaint, float(strength), both_predictions)
    first = rule.timesteps[0]
    if request.from_noise and first < NEAR_NOISE * len(schedule):
        advice = f"at least {FEWEST_LEADING_STEPS}"
        if request.steps >= FEWEST_LEADING_STEPS:       # the most that have the same spacing
            advice = str(min(len(schedule) // (len(schedule) // request.steps), len(schedule) - 1))
        warn(f"{steps} steps of {sampler} begin at t = {first}, where the picture should no longer "
             f"be pure noise: take {advice} steps")
    return request


# Pictures

def read_pictures(config: Config, image: Any, mask: Any, height: int | None, width: int | None
                  ) -> tuple[Tensor | None, Tensor | None]:
    """The reference picture (1, 3, h, w) and the mask (1, 1, h, w), both in the run's size."""
    if image is None:
        if mask is not None:
            raise ValueError("a mask says what of a picture to repaint: give the picture as image")
        return None, None
    picture = images.to_rgb(image)
    size = reference_size(picture, config, height, width)
    return (images.from_pil(picture, size=size),
            None if mask is None else read_mask(mask, picture, size))


def reference_size(picture: Image.Image, config: Config, height: int | None, width: int | None
                   ) -> tuple[int, int]:
    """The (height, width) asked for; else the picture's own, as far as that is sane."""
    factor = config.vae.downscale
    shrink = min(1.0, LARGEST_REFERENCE * config.image_size / max(picture.size))
    sane = [max(factor, int(side * shrink) // factor * factor) for side in picture.size]
    return height or sane[1], width or sane[0]


def read_mask(mask: Any, picture: Image.Image, size: tuple[int, int]) -> Tensor:
    """A mask, white where the picture is repainted -> (1, 1, h, w) bool, True there.

    mask: a picture of any kind (see images.to_rgb), or an array (h, w) of bool or uint8. It has
    the picture's size and is cropped and resized with it; grey counts as the nearer of black and
    white. Raises ValueError for another size, TypeError for what is no picture.
    """
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype in (np.uint8, bool):
        if mask.dtype == np.uint8 and mask.max(initial=0) == 1:
            raise ValueError("the mask's values are 0 and 1, and white is 255: give it as an "
                             "array of bool, or multiply it by 255")
        mask = Image.fromarray(mask.astype(np.uint8) * (255 if mask.dtype == bool else 1))
    drawn = images.to_rgb(mask)
    if drawn.size != picture.size:
        raise ValueError(f"the mask is {drawn.width} x {drawn.height} pixels and the picture "
                         f"{picture.width} x {picture.height}: draw the mask in the picture's size")
    return images.from_pil(drawn, size=size).mean(1, keepdim=True) > 0


# Single arguments

def check_whole(name: str, value: SupportsIndex, low: int, high: int | None = None) -> int:
    number = as_whole(name, value)
    if number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, got {number}")
    return number


def check_side(name: str, value: SupportsIndex, factor: int) -> int:
    side = check_whole(name, value, factor)
    if side % factor:
        raise ValueError(f"{name} must be a multiple of {factor}, got {side}: take "
                         f"{side // factor * factor} or {-(-side // factor) * factor}")
    return side


def check_latents(latents: object, expected: tuple[int, ...]) -> None:
    if not isinstance(latents, Tensor):
        raise TypeError(f"latents must be a tensor of shape {expected}, got "
                        f"{type(latents).__name__}")
    if tuple(latents.shape) != expected:
        raise ValueError(f"latents have shape {tuple(latents.shape)}, expected {expected}: "
                         f"(num_images, channels, height / 8, width / 8)")
    if not latents.isfinite().all():
        raise ValueError("latents contain NaN or infinity: look for where they come from")


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not low <= float(value) <= high:
        limits = "finite" if math.isinf(low) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {limits}, got {value}")
