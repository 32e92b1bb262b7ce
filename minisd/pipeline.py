"""Stable Diffusion put together: prompt to context, noise to latents, latents to a picture.

Every run is a generator of steps (`StableDiffusion.steps`); pictures, traces, widgets and the
command line are made by consuming it. `z` is the VAE's own space, `latents` always means
z * scale_factor. Latents stay in float32 on the way; only the networks compute in `dtype`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn

from minisd import images
from minisd.checkpoints import weights as checkpoint
from minisd.clip import CLIPTextTransformer
from minisd.config import Config
from minisd.diffusion import add_noise, guide, make_schedule
from minisd.observe import preview
from minisd.observe.attention_maps import AttentionMap, record_attention
from minisd.observe.trace import Trace, snapshot_marks
from minisd.request import Request, make_request
from minisd.samplers import Guess, Keep, SampleStep, make_rule, sample
from minisd.tokenizer import Tokenizer, warn
from minisd.unet import UNet
from minisd.vae import VAE

OnStep = Callable[[SampleStep], None]
Decoded = Literal["snapshots", "all", "none"]


class StableDiffusion(nn.Module):
    """The three networks, the tokenizer and the noise schedule of one model.

    `StableDiffusion(config)` has random weights, and no memory at all under
    `torch.device("meta")`; `minisd.load` gives a trained one.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.weights = ""                       # the file or folder they came from, its name alone
        self.left_out: dict[str, str] = {}      # part that was not loaded -> the error it raises
        self.text_encoder = CLIPTextTransformer(config.text)
        self.unet = UNet(config.unet)
        self.vae = VAE(config.vae)
        with torch.device("cpu"):
            self.schedule = make_schedule(config.schedule)

    @property
    def device(self) -> torch.device:
        return self._some_weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._some_weight.dtype

    @property
    def _some_weight(self) -> Tensor:
        """Any that is in memory: parts may have been left out of loading."""
        return next((weight for weight in self.parameters() if not weight.is_meta),
                    self.unet.conv_in.weight)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that name these weights, as they are now."""
        return checkpoint.fingerprint(self)

    @property
    def identity(self) -> dict[str, str]:
        """What painted a picture, for its record: model, weights, fingerprint and dtype."""
        return {"model": self.config.name, "weights": self.weights,
                "fingerprint": self.fingerprint, "dtype": str(self.dtype).removeprefix("torch.")}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Under to(device) and its like: what was left out of loading has nothing to move."""
        if not self.left_out:
            return super()._apply(fn, recurse)
        return super()._apply(lambda weight: weight if weight.is_meta else fn(weight), recurse)

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
    def encode_image(self, image: Any, *,
                     generator: torch.Generator | Sequence[torch.Generator] | None = None
                     ) -> Tensor:
        """A picture (PIL, path, uint8 array, or tensor in [-1, 1]) -> latents (b, c, h/8, w/8).

        The posterior's mean, or with a generator a sample of it, with several one of each; float32.
        Raises TypeError for a tensor of whole numbers, and what images.from_pil raises.
        """
        if isinstance(image, Tensor) and not image.is_floating_point():
            raise TypeError(f"a picture as a tensor holds floating-point numbers in [-1, 1], got "
                            f"{image.dtype}: divide levels by 127.5 and subtract 1")
        pixels = image if isinstance(image, Tensor) else images.from_pil(image)
        posterior = self.vae.encode(pixels.to(self.device, self.dtype))
        if generator is None:
            z = posterior.mean
        else:
            each = [generator] if isinstance(generator, torch.Generator) else generator
            z = torch.cat([posterior.sample(g) for g in each])
        return z.float() * self.config.vae.scale_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (b, c, h, w) -> b pictures of 8h x 8w.

        Raises ValueError for latents that are not finite, FloatingPointError for such a picture.
        """
        if not latents.isfinite().all():
            raise ValueError("the latents contain NaN or infinity: look for the first step that "
                             "gave them")
        z = latents.to(self.device, torch.float32) / self.config.vae.scale_factor
        pixels = self.vae.decode(z.to(self.dtype)).float()
        if not pixels.isfinite().all():
            advice = ("load with dtype='float32' or 'bfloat16'" if self.dtype == torch.float16 else
                      "the latents are far too large")
            raise FloatingPointError(f"the decoded picture is not finite, the VAE overflows in "
                                     f"{str(self.dtype).removeprefix('torch.')}: {advice}")
        return images.to_pil(pixels)

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Latents (b, c, h, w) -> b pictures of 8h x 8w, blurred and at no cost: see preview.py."""
        return preview.to_pictures(latents, preview.factors_of(self.config.vae),
                                   self.config.vae.downscale)

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
        request = make_request(
            self.config, self.schedule, prompt, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, steps=steps, sampler=sampler, eta=eta, seed=seed,
            height=height, width=width, num_images=num_images, latents=latents)
        return self.decode(self._last_latents(request, on_step))

    def image_to_image(self, prompt: str, image: Any, *, strength: float = 0.75,
                       negative_prompt: str = "", guidance_scale: float = 7.5, steps: int = 50,
                       sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
                       height: int | None = None, width: int | None = None, num_images: int = 1,
                       on_step: OnStep | None = None) -> list[Image.Image]:
        """Repaint a picture as the prompt says (SDEdit, Meng et al. 2022).

        image: PIL picture, path, or uint8 array. strength: 0 returns it autoencoded, 1 keeps
        almost nothing of it; floor(steps * strength) steps are run. The other arguments are
        those of text_to_image; the default size is the picture's own, up to twice the model's.
        """
        if image is None:
            raise TypeError("image_to_image takes a picture, got None: see text_to_image")
        request = make_request(
            self.config, self.schedule, prompt, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, steps=steps, sampler=sampler, eta=eta, seed=seed,
            height=height, width=width, num_images=num_images, image=image, strength=strength)
        return self.decode(self._last_latents(request, on_step))

    def inpaint(self, prompt: str, image: Any, mask: Any, *, strength: float = 1.0,
                negative_prompt: str = "", guidance_scale: float = 7.5, steps: int = 50,
                sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
                height: int | None = None, width: int | None = None, num_images: int = 1,
                on_step: OnStep | None = None, paste: bool = False) -> list[Image.Image]:
        """Repaint the part of a picture where the mask is white.

        mask: a picture of the same size, or an array (h, w) of bool or uint8. After every step
        the latents outside it become the picture's again, noised as far as that step goes.
        strength: 1 starts from noise under the mask, less from the picture as in image_to_image.
        paste: take the pixels outside the mask from the picture itself, exactly; otherwise they
        come back autoencoded. The other arguments are those of image_to_image.
        """
        if image is None or mask is None:
            raise TypeError("inpaint takes a picture and a mask, got None: see image_to_image")
        request = make_request(
            self.config, self.schedule, prompt, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, steps=steps, sampler=sampler, eta=eta, seed=seed,
            height=height, width=width, num_images=num_images, image=image,
            mask=mask, strength=strength)
        painted = self.decode(self._last_latents(request, on_step))
        return [request.paste(picture) for picture in painted] if paste else painted

    def steps(self, prompt: str, *, negative_prompt: str = "", guidance_scale: float = 7.5,
              steps: int = 50, sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
              height: int | None = None, width: int | None = None, num_images: int = 1,
              latents: Tensor | None = None, image: Any = None, mask: Any = None,
              strength: float | None = None, both_predictions: bool = False
              ) -> Iterator[SampleStep]:
        """The run itself, step by step; with image that of image_to_image, with mask of inpaint.

        A consumer that stops early causes no further work. both_predictions computes the
        unconditional and the conditional prediction even where guidance needs only one.
        strength: None is 0.75 with an image and 1 with a mask.
        The arguments are checked at once, not at the first step.
        """
        request = make_request(
            self.config, self.schedule, prompt, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, steps=steps, sampler=sampler, eta=eta, seed=seed,
            height=height, width=width, num_images=num_images, latents=latents,
            image=image, mask=mask, strength=strength, both_predictions=both_predictions)
        self._check_parts(request, decoder=False)
        return _seen(self._run(request))

    def trace(self, prompt: str, *, negative_prompt: str = "", guidance_scale: float = 7.5,
              steps: int = 50, sampler: str = "ddim", eta: float = 0.0, seed: int | None = None,
              height: int | None = None, width: int | None = None, num_images: int = 1,
              latents: Tensor | None = None, image: Any = None, mask: Any = None,
              strength: float | None = None, both_predictions: bool = False,
              pictures: Decoded = "snapshots", attention: bool = False,
              on_step: OnStep | None = None) -> Trace:
        """The whole run of `steps`, recorded: see trace.py.

        pictures: decode x_t and x0 at every quarter ("snapshots"), after each step ("all"), or
        never ("none"); the rest has linear previews. attention: keep the UNet's cross-attention
        of every step, the conditional half (at guidance 0 there is only the other one), the mean
        of the heads; 4 MB a step for v1.
        """
        if pictures not in ("snapshots", "all", "none"):
            raise ValueError(f"pictures must be 'snapshots', 'all' or 'none', got {pictures!r}")
        request = make_request(
            self.config, self.schedule, prompt, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, steps=steps, sampler=sampler, eta=eta, seed=seed,
            height=height, width=width, num_images=num_images, latents=latents,
            image=image, mask=mask, strength=strength, both_predictions=both_predictions)
        self._check_parts(request, decoder=pictures != "none")
        recorder: AbstractContextManager[list[AttentionMap]] = (
            record_attention(self.unet, rows=num_images, mean_of_heads=True) if attention
            else nullcontext([]))
        with recorder as maps:
            trace = Trace.record(_seen(self._run(request), on_step), maps)
        about = request.about | self.identity | {"torch": torch.__version__}
        marks = {"none": [], "all": range(len(trace) + 1),
                 "snapshots": snapshot_marks(len(trace))}[pictures]
        return replace(trace.with_pictures(self.decode, marks), about=about,
                       factors=preview.factors_of(self.config.vae),
                       enlarge=self.config.vae.downscale)

    # How a run goes

    def _check_parts(self, request: Request, *, decoder: bool = True) -> None:
        """Raise ValueError for a part that the run will need and that was not loaded."""
        needed = {"text_encoder": True, "unet": True, "encoder": request.image is not None,
                  "decoder": decoder}
        for part, error in self.left_out.items():
            if needed[part]:
                raise ValueError(error)

    def _last_latents(self, request: Request, on_step: OnStep | None) -> Tensor:
        """What is left to decode of a whole run."""
        self._check_parts(request)
        run = self._run(request)
        latents = next(run)
        assert isinstance(latents, Tensor)
        for step in _seen(run, on_step):
            latents = step.x_prev
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
        start, keep = request.steps - request.steps_to_run, None
        if request.image is None:
            latents = (noise() if request.latents is None else
                       request.latents.detach().to(self.device, torch.float32)) * rule.start_scale
        else:
            original = self.encode_image(request.image, generator=generators)
            first = noise()             # after the posterior's, from the same generators
            level = self.schedule.at(rule.timesteps[start]) if start < request.steps else 1.0
            latents = add_noise(original, first, level)
            if request.mask is not None:
                keep = self._keeper(request, original, first)
                if request.from_noise:
                    latents = keep(first * rule.start_scale, level)
        yield latents
        yield from sample(rule, self.schedule, predict, latents, noise, start=start, keep=keep)

    def _keeper(self, request: Request, original: Tensor, noise: Tensor) -> Keep:
        """Puts the picture's latents back outside the mask, at any noise level."""
        repainted = request.cells(self.config.vae.downscale).to(self.device)

        def keep(latents: Tensor, level: float) -> Tensor:
            return torch.where(repainted, latents, add_noise(original, noise, level))

        return keep

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


def _seen(run: Iterator[SampleStep | Tensor], on_step: OnStep | None = None
          ) -> Iterator[SampleStep]:
    """The steps of a run alone, each shown to on_step."""
    for item in run:
        if isinstance(item, SampleStep):
            if on_step is not None:
                on_step(item)
            yield item
