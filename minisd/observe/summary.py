"""What the networks are made of: every array, every layer, and what each block computes.

`summary` counts what a model is: parameters, arrays, layers by type. `cost` measures what it
does: each block's output shape and its floating-point operations. Both work without weights, on
networks built under `torch.device("meta")`, where tensors have shapes but no memory:

    with torch.device("meta"):
        sd = StableDiffusion(V1)
    print(summary(sd))
    print(cost_table(cost(sd)))

FLOPs are those of torch's own counter: one is one multiplication or one addition, so a product of
matrices (n, k) and (k, m) takes 2 n k m. Convolutions, matrix products and attention are counted;
biases, norms, activations and the softmax are not: they cost time, but few operations.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minisd.attention import Attention, FeedForward, SpatialTransformer, TransformerBlock
from minisd.clip import MLP, CLIPTextTransformer, TransformerLayer
from minisd.config import Config, TextConfig
from minisd.observe.tables import aligned
from minisd.pipeline import StableDiffusion
from minisd.resblock import Downsample, ResBlock, TimestepEmbedding, Upsample
from minisd.unet import UNet
from minisd.vae import VAE, CellAttention

# What `cost` has one row for. All else is a row by itself if it is a single layer, and is looked
# into if it is not.
BLOCKS = (ResBlock, SpatialTransformer, CellAttention, TransformerLayer, TimestepEmbedding,
          Downsample, Upsample)
# What `summary` counts, in the order in which it is shown.
LAYERS = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding, *BLOCKS,
          TransformerBlock, Attention, FeedForward, MLP)
HALVES = {"quant_conv": "encoder", "post_quant_conv": "decoder"}    # of the VAE, and whose they are
NETWORKS = {CLIPTextTransformer: "text_encoder", UNet: "unet", VAE: "vae"}

Network = UNet | VAE | CLIPTextTransformer
Shape = tuple[int, ...]


# What a model is

@dataclass(frozen=True)
class Array:
    """One named tensor of parameters."""

    name: str
    shape: Shape
    parameters: int


@dataclass(frozen=True)
class Summary:
    """The contents of a model or of a part of it; printed, tables of its parts and layers."""

    model: str                  # its class, or the part's name
    arrays: list[Array]
    layers: dict[str, int]      # type -> how many
    parts: dict[str, "Summary"] = field(default_factory=dict)   # "vae", then "encoder", "decoder"

    @property
    def parameters(self) -> int:
        return sum(array.parameters for array in self.arrays)

    def __str__(self) -> str:
        apart = {name: part for name, part in self.parts.items() if name != "vae"}
        rows = [("  " * ("vae" in self.parts and name in HALVES.values()) + name,
                 len(part.arrays), part.parameters, f"{part.parameters / self.parameters:.1%}")
                for name, part in [*self.parts.items(), ("total", self)]]
        layers = [(kind, *(part.layers.get(kind, 0) for part in apart.values()), count)
                  for kind, count in self.layers.items()]
        return "\n\n".join([
            f"{self.model}: {self.parameters:,} parameters in {len(self.arrays):,} arrays",
            aligned([("part", "arrays", "parameters", "share"), *rows]),
            aligned([("layers", *apart, "total"), *layers])])


def summary(model: nn.Module) -> Summary:
    """Count the arrays, parameters and layers of a StableDiffusion, of its parts, of any module.

    The parts are the model's children, the VAE in two halves: the encoder with `quant_conv`, the
    decoder with `post_quant_conv`. Works on the meta device. Raises ValueError for a module
    without parameters.
    """
    arrays = [Array(name, tuple(p.shape), p.numel()) for name, p in model.named_parameters()]
    if not arrays:
        raise ValueError(f"{type(model).__name__} has no parameters to count: pass a network")
    layers = [(name, type(module).__name__) for name, module in model.named_modules()
              if name and (isinstance(module, LAYERS) or list(module.parameters(recurse=False)))]
    parts = dict.fromkeys(part for array in arrays for part in _parts_of(array.name))
    return Summary(type(model).__name__, arrays, _count(kind for _, kind in layers), {
        part: Summary(part, [array for array in arrays if part in _parts_of(array.name)],
                      _count(kind for name, kind in layers if part in _parts_of(name)))
        for part in parts})


def _count(kinds: Iterable[str]) -> dict[str, int]:
    """How many of each, in the order of LAYERS; others follow by name."""
    counts = Counter(kinds)
    order = dict.fromkeys([kind.__name__ for kind in LAYERS] + sorted(counts))
    return {kind: counts[kind] for kind in order if counts[kind]}


def _parts_of(name: str) -> list[str]:
    """The parts that something of this dotted name belongs to, outermost first."""
    first, _, rest = name.partition(".")
    if first == "vae" and rest:
        return ["vae", *_parts_of(rest)]
    return [HALVES.get(first, first)]


# What a model does

@dataclass(frozen=True)
class BlockCost:
    """What one block computes in one pass over one picture."""

    part: str                   # "text_encoder", "unet", "encoder" or "decoder"
    name: str                   # model.get_submodule(name) is the block
    kind: str                   # its class
    output_shape: Shape | None  # None: its array is read without a call (CLIP's positions)
    parameters: int
    flops: int


def cost(model: StableDiffusion | Network, *, latent_size: tuple[int, int] | None = None,
         tokens: int | None = None) -> list[BlockCost]:
    """Measure each block of one pass through every part, in the order in which they run.

    The blocks are disjoint and together the whole model, so their columns add up. A network of
    the same sizes is run on the meta device: the model itself is not touched, nothing is computed.

    latent_size: (h, w) in latent cells, each 8 x 8 pixels of the picture in v1; needed for a UNet
        or VAE by itself, while a StableDiffusion has a default size of picture.
    tokens: of the prompt; as many as the text encoder takes, 77 in v1, if None.
    Raises TypeError for another model, ValueError for sizes that cannot be.
    """
    if not isinstance(model, StableDiffusion | Network):
        raise TypeError(f"cost() runs a StableDiffusion, UNet, VAE or CLIPTextTransformer, got "
                        f"{type(model).__name__}: pass the network that it is part of")
    build: Any = type(model)
    with torch.device("meta"), torch.no_grad():
        blank, longest = build(model.config), TextConfig.max_length
        if isinstance(blank, CLIPTextTransformer):
            latent_size, longest = (1, 1), blank.config.max_length      # it sees no latents
        elif isinstance(blank, StableDiffusion):
            side = blank.config.image_size // blank.config.vae.downscale
            latent_size, longest = latent_size or (side, side), blank.config.text.max_length
        if latent_size is None:
            raise ValueError(f"latent_size is missing: a {type(model).__name__} by itself takes "
                             f"any, pass (h, w), such as (64, 64) for v1's pictures of 512 x 512")
        sizes = (longest if tokens is None else tokens, *latent_size)
        if min(sizes) < 1:
            raise ValueError(f"tokens, height and width must be at least 1, got {sizes}")
        if not isinstance(blank, StableDiffusion):
            return _measure(blank, "", *sizes)
        return [row for name in NETWORKS.values()
                for row in _measure(getattr(blank, name), f"{name}.", *sizes)]


def _measure(network: Network, prefix: str, tokens: int, h: int, w: int) -> list[BlockCost]:
    """The blocks of one network on the meta device, in one pass; for the VAE, one each way."""
    names = {block: name for name, block in _blocks(network)}
    shapes, flops = dict[nn.Module, Shape](), Counter[nn.Module]()
    with FlopCounterMode(display=False) as counter:
        def begin(block: nn.Module, inputs: Any) -> None:
            flops[block] -= counter.get_total_flops()

        def end(block: nn.Module, inputs: Any, output: Tensor) -> None:
            flops[block] += counter.get_total_flops()
            shapes[block] = tuple(output.shape)

        for block in names:
            block.register_forward_pre_hook(begin)
            block.register_forward_hook(end)
        if isinstance(network, CLIPTextTransformer):
            network(torch.zeros(1, tokens, dtype=torch.long))
        elif isinstance(network, UNet):
            network(torch.empty(1, network.config.latent_channels, h, w), torch.empty(1),
                    torch.empty(1, tokens, network.config.context_dim))
        else:
            f = network.config.downscale
            network.encode(torch.empty(1, network.config.image_channels, f * h, f * w))
            network.decode(torch.empty(1, network.config.latent_channels, h, w))
    not_called = [block for block in names if block not in shapes]
    return [BlockCost(_parts_of(f"{NETWORKS[type(network)]}.{names[block]}")[-1],
                      prefix + names[block], type(block).__name__, shapes.get(block),
                      sum(p.numel() for p in block.parameters()), flops[block])
            for block in (*not_called, *shapes)]


def _blocks(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost blocks and the layers between them, by name."""
    children = list(module.named_children())
    if isinstance(module, BLOCKS) or not children:
        yield name, module
        return
    for child, inner in children:
        yield from _blocks(inner, f"{name}.{child}" if name else child)


# As text

def cost_table(rows: Sequence[BlockCost]) -> str:
    """One table for each part, its total in the last line; share is of the part's FLOPs."""
    tables = []
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        total = BlockCost(part, "total", "", own[-1].output_shape, sum(r.parameters for r in own),
                          sum(row.flops for row in own))
        tables.append(aligned([
            (part, "type", "output", "parameters", "MFLOP", "share"),
            *((row.name, row.kind, _sides(row.output_shape), row.parameters,
               f"{row.flops / 1e6:,.1f}", f"{row.flops / max(total.flops, 1):.1%}")
              for row in (*own, total))], left=(0, 1)))
    return "\n\n".join(tables)


def array_table(arrays: Sequence[Array]) -> str:
    """One line for each array."""
    return aligned([("array", "shape", "parameters"),
                    *((array.name, _sides(array.shape), array.parameters) for array in arrays)])


def info(config: Config, *, arrays: bool = False) -> str:
    """All about a model of these sizes, as `python -m minisd info` shows it; needs no weights.

    arrays: list every single array at the end.
    """
    with torch.device("meta"):
        sd = StableDiffusion(config)
    content, rows, flops = summary(sd), cost(sd), Counter[str]()
    for row in rows:
        flops[row.part] += row.flops
    picture = (config.vae.image_channels, config.image_size, config.image_size)
    latents = (config.vae.latent_channels, *(side // config.vae.downscale for side in picture[1:]))
    passes = {"text_encoder": 2, "unet": 2 * config.steps, "decoder": 1}
    total = sum(n * flops[part] for part, n in passes.items())
    texts = [
        f"{config.name}\n"
        f"prompt     {config.text.max_length} tokens of {config.text.vocab_size:,} -> "
        f"{config.text.max_length} x {config.text.width}\n"
        f"picture    {_sides(picture)} = {prod(picture):,} numbers\n"
        f"latents    {_sides(latents)} = {prod(latents):,} numbers, "
        f"{prod(picture) / prod(latents):g} times fewer\n"
        f"one pass   {', '.join(f'{part} {_flop(flops[part])}' for part in flops)}\n"
        f"a picture  of {config.steps} guided steps: "
        f"{' + '.join(f'{n} x {part}' for part, n in passes.items())} = {_flop(total)}",
        str(content), cost_table(rows)]
    return "\n\n".join(texts + [array_table(content.arrays)] * arrays)


def _flop(count: int) -> str:
    """A count of operations in the unit that fits it."""
    tera = count >= 1e11
    return f"{count / (1e12 if tera else 1e9):,.3f} {'TFLOP' if tera else 'GFLOP'}"


def _sides(shape: Shape | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape))
