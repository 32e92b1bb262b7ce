"""Stable Diffusion put together: prompt to context, noise to latents, latents to a picture.

Every run is a generator of steps (`StableDiffusion.steps`); pictures, traces, widgets and the
command line are made by consuming it. `z` is the VAE's own space, `latents` always means
z * scale_factor. Latents stay in float32 on the way; only the networks compute in `dtype`.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from minisd import images
from minisd.clip import CLIPTextTransformer
from minisd.config import Config
from minisd.diffusion import add_noise, guide, make_schedule
from minisd.samplers import Predict, Prediction, SampleStep, make_sampler, sample
from minisd.settings import Run, RunSettings, Settings, plan
from minisd.tokenizer import Tokenizer, warn
from minisd.unet import UNet
from minisd.vae import VAE

NEAR_NOISE = 0.8                # of all timesteps; from there on x_t is nearly noise
DECODED_AT_ONCE = 2 ** 18       # pixels: v1 takes 0.9 GB to decode so many


class StableDiffusion(nn.Module):
    """The three networks, the tokenizer and the noise schedule of one model.

    `StableDiffusion(config)` has random weights; `minisd.load` gives a trained one.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.weights = ""           # the file or folder they came from, its name alone
        self.text_encoder = CLIPTextTransformer(config.text)
        self.unet = UNet(config.unet)
        self.vae = VAE(config.vae)
        with torch.device("cpu"):
            self.schedule = make_schedule(config.schedule)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @torch.no_grad()
    def encode_prompt(self, prompt: str | Sequence[str]) -> Tensor:
        """Text, or several -> (b, 77, d), the UNet's context."""
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer: put vocab.json and merges.txt into a "
                             "folder tokenizer/ beside its weights, or set sd.tokenizer")
        return self.text_encoder(self.tokenizer(prompt).to(self.device))

    @torch.no_grad()
    def encode_image(self, image: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """A picture -> latents (b, c, h/8, w/8): the posterior's mean, with a generator a sample.

        image: tensor (b, 3, h, w) in [-1, 1]; or PIL picture, path, uint8 array: see
        observe/reading.py, which raises for what is none of these.
        """
        floats = isinstance(image, Tensor) and image.is_floating_point()
        pixels = image if floats else import_module("minisd.observe.reading").to_tensor(image)
        posterior = self.vae.encode(pixels.to(self.device, self.dtype))
        z = posterior.mean if generator is None else posterior.sample(generator)
        return z.float() * self.config.vae.scale_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (b, c, h, w) -> b pictures of 8h x 8w; FloatingPointError where not finite."""
        z = latents.to(self.device, torch.float32) / self.config.vae.scale_factor
        pixels = z.shape[-2:].numel() * self.config.vae.downscale ** 2
        pictures = []
        for part in z.to(self.dtype).split(max(1, DECODED_AT_ONCE // pixels)):
            decoded = self.vae.decode(part).float()
            if not decoded.isfinite().all():
                raise FloatingPointError("the decoded picture is not finite: the latents hold NaN "
                                         "or are far too large, or the VAE overflows in float16")
            pictures += images.to_pil(decoded)
        return pictures

    def text_to_image(self, prompt: str | Sequence[str], **settings: Unpack[RunSettings]
                      ) -> list[Image.Image]:
        """Paint a prompt, or several together; bad settings raise before any work."""
        run = plan(self.config, prompt, settings)
        latents, steps = self._start(run)
        for step in steps:
            latents = step.x_prev
            if run.on_step is not None:
                run.on_step(step)
        return self.decode(latents)

    def image_to_image(self, prompt: str | Sequence[str], image: Any, *, strength: float = 0.75,
                       **settings: Unpack[Settings]) -> list[Image.Image]:
        """Repaint a picture as the prompt says (SDEdit, Meng et al. 2022).

        image: as encode_image takes it; the default size is its own, up to twice the model's.
        strength: 0 returns it autoencoded, 1 keeps almost nothing of it.
        """
        if image is None:
            raise TypeError("image_to_image takes a picture, got None: see text_to_image")
        return self.text_to_image(prompt, **settings, image=image, strength=strength)

    def inpaint(self, prompt: str | Sequence[str], image: Any, mask: Any, *, strength: float = 1.0,
                paste: bool = False, **settings: Unpack[Settings]) -> list[Image.Image]:
        """Repaint the part of a picture where the mask is white.

        mask: a picture of the same size, or an array (h, w) of bool or uint8. After every step the
        latents outside it become the picture's again, noised to that level. strength: 1 starts
        from noise under the mask. paste: take the pixels outside it from the picture itself.
        """
        if image is None or mask is None:
            raise TypeError("inpaint takes a picture and a mask, got None: see image_to_image")
        painted = self.text_to_image(prompt, **settings, image=image, mask=mask, strength=strength)
        return [import_module("minisd.observe.reading").paste(one, image, mask) if paste else one
                for one in painted]

    def steps(self, prompt: str | Sequence[str], **settings: Unpack[RunSettings]
              ) -> Iterator[SampleStep]:
        """The run itself; settings are checked at once, steps computed when they are asked for."""
        return self._start(plan(self.config, prompt, settings))[1]

    def trace(self, prompt: str | Sequence[str], **settings: Any) -> Any:
        """The whole run of `steps`, recorded as a Trace: see observe/trace.py."""
        return import_module("minisd.observe.trace").record(self, prompt, **settings)

    def _start(self, run: Run) -> tuple[Tensor, Iterator[SampleStep]]:
        """The starting latents of a run, and the steps that follow."""
        sampler = make_sampler(run.sampler, self.schedule, run.steps, run.eta)
        first = run.steps - run.steps_to_run
        level = sampler.alpha_bar[first] if first < run.steps else 1.0
        from_noise = run.strength == 1 and (run.image is None or run.mask is not None)
        if from_noise and sampler.timesteps[0] < NEAR_NOISE * len(self.schedule):
            warn(f"{run.steps} steps of {run.sampler} begin at t = {sampler.timesteps[0]:g}, where "
                 f"the picture should no longer be pure noise: take at least 5 steps, and a number "
                 f"that divides {len(self.schedule)}")
        if not (isinstance(run.image, Tensor | None) and isinstance(run.mask, Tensor | None)):
            run = import_module("minisd.observe.reading").read(run, self.config)
        sides = [run.height, run.width] if run.image is None else run.image.shape[-2:]
        factor = self.config.vae.downscale
        shape = (len(run.seeds), self.config.unet.latent_channels,
                 *((side or self.config.image_size) // factor for side in sides))
        generators = [torch.Generator().manual_seed(seed) for seed in run.seeds]

        def noise() -> Tensor:
            """Each picture draws from its own generator, on the CPU: one seed, one picture."""
            drawn = [torch.randn(shape[1:], generator=g, dtype=torch.float32) for g in generators]
            return torch.stack(drawn).to(self.device)

        def keep(latents: Tensor, level: float) -> Tensor:
            """Puts the picture's latents back outside the mask, at any noise level."""
            return torch.where(repainted, latents, add_noise(original, start, level))

        predict, keeper = self._predictor(run), None
        if run.image is None:
            start = noise() if run.latents is None else torch.as_tensor(run.latents).float()
            if start.shape != shape or not start.isfinite().all():
                raise ValueError(f"latents of shape {tuple(start.shape)}, expected finite ones of "
                                 f"{shape}: (pictures, channels, height / 8, width / 8)")
            latents = start.detach().to(self.device) * sampler.start_scale
        else:
            original = torch.cat([self.encode_image(run.image, generator=g) for g in generators])
            start = noise()             # after the posterior's, from the same generators
            latents = add_noise(original, start, level)
        if run.mask is not None:
            repainted = F.max_pool2d(run.mask.float(), factor).to(self.device) > 0
            keeper = keep
            latents = keep(start * sampler.start_scale if from_noise else latents, level)
        return latents, sample(sampler, predict, latents, noise, start=first, keep=keeper)

    def _predictor(self, run: Run) -> Predict:
        """The UNet behind classifier-free guidance; skips the half that guidance does not need."""
        g, b = run.guidance_scale, len(run.prompts)
        needs_uncond, needs_cond = (run.both_predictions or g != needless for needless in (1, 0))
        distinct = list(dict.fromkeys([run.negative_prompt] * needs_uncond
                                      + [*run.prompts] * needs_cond))
        rows = [run.negative_prompt] * b * needs_uncond + [*run.prompts] * needs_cond
        context = self.encode_prompt(distinct)[[distinct.index(text) for text in rows]]

        @torch.no_grad()
        def predict(x_t: Tensor, t: float) -> Prediction:
            timesteps = torch.full((len(rows),), t, dtype=torch.float32, device=self.device)
            eps = self.unet(x_t.to(self.dtype).repeat(len(rows) // b, 1, 1, 1), timesteps,
                            context).float()
            uncond, cond = eps[:b] if needs_uncond else None, eps[-b:] if needs_cond else None
            if uncond is None or cond is None or g in (0, 1):
                return Prediction(eps[-b:] if g else eps[:b], uncond, cond)
            return Prediction(guide(uncond, cond, g(t) if callable(g) else g), uncond, cond)

        return predict
