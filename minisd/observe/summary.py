"""What the networks are made of: every array, every layer, and what each block computes.

`summary` counts what a model is: parameters, arrays, layers by type. `cost` measures what it
does: each block's output shape and its floating-point operations. Both work without weights, on
networks built under `torch.device("meta")`, where tensors have shapes but no memory:

    with torch.device("meta"):
        sd = StableDiffusion(V1)
    print(summary(sd))
    print(cost_table(cost(sd)))

One FLOP is one multiplication or one addition. Convolutions, matrix products and attention are
counted; biases, norms, activations and the softmax are not: they cost time, but few operations.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from minisd.attention import Attention, FeedForward, SpatialTransformer, TransformerBlock
from minisd.clip import MLP, CLIPTextTransformer, TransformerLayer
from minisd.config import Config, TextConfig
from minisd.pipeline import StableDiffusion
from minisd.resblock import Downsample, ResBlock, TimestepEmbedding, Upsample
from minisd.unet import UNet
from minisd.vae import VAE, CellAttention

# What `cost` has one row for. All else is a row by itself if it is a single layer, and is looked
# into if it is not.
BLOCKS = (ResBlock, SpatialTransformer, CellAttention, TransformerLayer, TimestepEmbedding, Downsample,
          Upsample)
# What `summary` counts, in the order in which it is shown.
LAYERS = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding, *BLOCKS,
          TransformerBlock, Attention, FeedForward, MLP)
HALVES = {"quant_conv": "encoder", "post_quant_conv": "decoder"}    # of the VAE, and whose they are
STEPS = 50                      # of a picture, where info() adds up its cost

Network = UNet | VAE | CLIPTextTransformer
Row = Sequence[str | int]               # of a table
Shape = tuple[int, ...]
Shapes = dict[nn.Module, Shape]         # of what each module returned, in the order of returning


# What a model is

@dataclass(frozen=True)
class Array:
    """One named tensor of parameters."""

    name: str
    shape: Shape
    parameters: int


@dataclass(frozen=True)
class Part:
    """The totals of one part of a model."""

    name: str
    inside: str                 # the part that this one is half of, or ""
    arrays: int
    parameters: int
    layers: dict[str, int]      # type -> how many


@dataclass(frozen=True)
class Summary:
    """The contents of a model; printed, its tables of parts and layers."""

    model: str                  # its class
    arrays: list[Array]
    parts: dict[str, Part]      # by name; the VAE's are followed by its "encoder" and "decoder"
    layers: dict[str, int]      # type -> how many in the whole model

    @property
    def parameters(self) -> int:
        return sum(array.parameters for array in self.arrays)

    def __str__(self) -> str:
        rows: list[Row] = [("  " * bool(p.inside) + p.name, p.arrays, p.parameters,
                            f"{p.parameters / self.parameters:.1%}") for p in self.parts.values()]
        rows.append(("total", len(self.arrays), self.parameters, "100.0%"))
        split = {p.inside for p in self.parts.values()}
        apart = [p for p in self.parts.values() if p.name not in split]
        layers: list[Row] = [(kind, *(p.layers.get(kind, 0) for p in apart), count)
                             for kind, count in self.layers.items()]
        return "\n\n".join([
            f"{self.model}: {self.parameters:,} parameters in {len(self.arrays):,} arrays",
            _table(("part", "arrays", "parameters", "share"), rows),
            _table(("layers", *(p.name for p in apart), "total"), layers)])


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
              if name and _is_layer(module)]
    parts = {}
    for part in dict.fromkeys(part for array in arrays for part in _parts_of(array.name)):
        own = [array for array in arrays if part in _parts_of(array.name)]
        parts[part[0]] = Part(*part, len(own), sum(array.parameters for array in own),
                              _count(kind for name, kind in layers if part in _parts_of(name)))
    return Summary(type(model).__name__, arrays, parts, _count(kind for _, kind in layers))


def _is_layer(module: nn.Module) -> bool:
    """Of a known type, or of another that holds parameters itself."""
    return isinstance(module, LAYERS) or bool(list(module.parameters(recurse=False)))


def _count(kinds: Iterable[str]) -> dict[str, int]:
    """How many of each, in the order of LAYERS; others follow by name."""
    found = Counter(kinds)
    order = dict.fromkeys([kind.__name__ for kind in LAYERS] + sorted(found))
    return {kind: found[kind] for kind in order if found[kind]}


def _parts_of(name: str) -> list[tuple[str, str]]:
    """The (part, inside) pairs that something of this dotted name belongs to, outermost first."""
    first, _, rest = name.partition(".")
    if first != "vae":
        return [(HALVES.get(first, first), "")]
    half = rest.partition(".")[0]
    return [("vae", "")] + [(HALVES.get(half, half), "vae")] * bool(half)


# What a model does

@dataclass(frozen=True)
class BlockCost:
    """What one block computes in one pass over a batch."""

    part: str                   # "text_encoder", "unet", "encoder" or "decoder"
    name: str                   # model.get_submodule(name) is the block
    kind: str                   # its class
    output_shape: Shape | None  # None: its array is read without a call (CLIP's positions)
    parameters: int
    flops: int


def cost(model: StableDiffusion | Network, *, latent_size: tuple[int, int] | None = None,
         tokens: int | None = None, batch: int = 1) -> list[BlockCost]:
    """Measure each block of one pass through every part, in the order in which they run.

    The blocks are disjoint and together the whole model, so their columns add up. A network of
    the same sizes is run on the meta device: the model itself is not touched, nothing is computed.

    latent_size: (h, w) in latent cells, each 8 x 8 pixels of the picture in v1; needed for a UNet
        or VAE by itself, while a StableDiffusion has a default size of picture.
    tokens: of the prompt; as many as the text encoder takes, 77 in v1, if None.
    batch: pictures and prompts; guidance doubles what the UNet sees of each.
    Raises TypeError for another model, ValueError for sizes that cannot be.
    """
    if not isinstance(model, StableDiffusion | Network):
        raise TypeError(f"cost() runs a StableDiffusion, UNet, VAE or CLIPTextTransformer, got "
                        f"{type(model).__name__}: pass the network that it is part of")
    build: Any = type(model)
    with torch.device("meta"), torch.no_grad():
        blank = build(model.config)
        if not isinstance(blank, StableDiffusion):
            return list(_measure(blank, "", latent_size, tokens, batch))
        side = blank.config.image_size // blank.config.vae.downscale
        latent_size = (side, side) if latent_size is None else latent_size
        tokens = blank.config.text.max_length if tokens is None else tokens
        networks: dict[str, Network] = {"text_encoder.": blank.text_encoder, "unet.": blank.unet,
                                        "vae.": blank.vae}
        return [row for prefix, network in networks.items()
                for row in _measure(network, prefix, latent_size, tokens, batch)]


def _measure(network: Network, prefix: str, latent_size: tuple[int, int] | None,
             tokens: int | None, batch: int) -> Iterator[BlockCost]:
    """The blocks of one network on the meta device."""
    shapes: Shapes = {}

    def note(module: nn.Module, arguments: Any, output: Tensor) -> None:
        shapes[module] = tuple(output.shape)

    for module in network.modules():
        module.register_forward_hook(note)
    _run(network, latent_size, tokens, batch)
    order = {module: i for i, module in enumerate(shapes)}
    for name, block in sorted(_blocks(network), key=lambda pair: order.get(pair[1], -1)):
        part = _parts_of(name)[0][0] if isinstance(network, VAE) else (
            "unet" if isinstance(network, UNet) else "text_encoder")
        yield BlockCost(part, prefix + name, type(block).__name__, shapes.get(block),
                        sum(p.numel() for p in block.parameters()),
                        sum(_flops(layer, shapes) for layer in block.modules()))


def _run(network: Network, latent_size: tuple[int, int] | None, tokens: int | None,
         batch: int) -> None:
    """One pass over inputs of these sizes; for the VAE, one each way."""
    if isinstance(network, CLIPTextTransformer):
        tokens = network.config.max_length if tokens is None else tokens
        latent_size = (1, 1)                # which it never sees
    if latent_size is None:
        raise ValueError(f"latent_size is missing: a {type(network).__name__} by itself takes any, "
                         f"pass (h, w), such as (64, 64) for v1's pictures of 512 x 512")
    tokens = TextConfig.max_length if tokens is None else tokens
    if min(batch, tokens, *latent_size) < 1:
        raise ValueError(f"batch, tokens and latent_size must be at least 1, got {batch}, "
                         f"{tokens} and {latent_size}")
    if isinstance(network, CLIPTextTransformer):
        network(torch.zeros(batch, tokens, dtype=torch.long))
    elif isinstance(network, UNet):
        network(torch.empty(batch, network.config.latent_channels, *latent_size),
                torch.empty(batch), torch.empty(batch, tokens, network.config.context_dim))
    else:
        h, w = (network.config.downscale * side for side in latent_size)
        network.encode(torch.empty(batch, network.config.image_channels, h, w))
        network.decode(torch.empty(batch, network.config.latent_channels, *latent_size))


def _blocks(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost blocks and the layers between them, by name."""
    children = list(module.named_children())
    if isinstance(module, BLOCKS) or not children:
        yield name, module
        return
    for child, inner in children:
        yield from _blocks(inner, f"{name}.{child}" if name else child)


def _flops(layer: nn.Module, shapes: Shapes) -> int:
    """Of this layer alone, without those inside it. A multiply and its add are two."""
    if isinstance(layer, nn.Conv2d):        # a value out is a sum of c_in * k * k products
        return 2 * prod(shapes[layer]) * layer.weight[0].numel()
    if isinstance(layer, nn.Linear):
        return 2 * prod(shapes[layer]) * layer.in_features
    if isinstance(layer, Attention):        # q k^T, then weights v: b n d sums of m products each
        m = shapes[layer.to_k][1]
        return 2 * 2 * prod(shapes[layer]) * m
    return 0


# As text

def cost_table(rows: Sequence[BlockCost]) -> str:
    """One table for each part, its total in the last line; share is of the part's FLOPs."""
    tables = []
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        total = sum(row.flops for row in own)
        lines: list[Row] = [
            (row.name, row.kind, _sides(row.output_shape), row.parameters,
             f"{row.flops / 1e6:,.1f}", f"{row.flops / max(total, 1):.1%}") for row in own]
        lines.append(("total", "", _sides(own[-1].output_shape), sum(r.parameters for r in own),
                      f"{total / 1e6:,.1f}", "100.0%"))
        tables.append(_table((part, "type", "output", "parameters", "MFLOP", "share"), lines))
    return "\n\n".join(tables)


def array_table(arrays: Sequence[Array]) -> str:
    """One line for each array."""
    return _table(("array", "shape", "parameters"),
                  [(array.name, _sides(array.shape), array.parameters) for array in arrays])


def info(config: Config, *, arrays: bool = False) -> str:
    """All about a model of these sizes, as `python -m minisd info` shows it; needs no weights.

    arrays: list every single array at the end.
    """
    with torch.device("meta"):
        sd = StableDiffusion(config)
    content, rows, factor = summary(sd), cost(sd), config.vae.downscale
    flops: Counter[str] = Counter()
    for row in rows:
        flops[row.part] += row.flops
    picture = (config.vae.image_channels, config.image_size, config.image_size)
    latents = (config.vae.latent_channels, *(side // factor for side in picture[1:]))
    passes = {"text_encoder": 2, "unet": 2 * STEPS, "decoder": 1}
    total = sum(n * flops[part] for part, n in passes.items())
    sizes = [
        f"prompt     {config.text.max_length} tokens of {config.text.vocab_size:,} -> "
        f"{config.text.max_length} x {config.text.width}",
        f"picture    {_sides(picture)} = {prod(picture):,} numbers",
        f"latents    {_sides(latents)} = {prod(latents):,} numbers, "
        f"{prod(picture) / prod(latents):g} times fewer",
        f"one pass   {', '.join(f'{part} {_flop(flops[part])}' for part in flops)}",
        f"a picture  of {STEPS} guided steps: "
        f"{' + '.join(f'{n} x {part}' for part, n in passes.items())} = {_flop(total)}"]
    texts = [config.name + "\n" + "\n".join(sizes), str(content), cost_table(rows)]
    return "\n\n".join(texts + [array_table(content.arrays)] * arrays)


def _flop(count: int) -> str:
    """A count of operations in the unit that fits it."""
    tera = count >= 1e11
    return f"{count / (1e12 if tera else 1e9):,.3f} {'TFLOP' if tera else 'GFLOP'}"


def _sides(shape: Shape | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape))


def _table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns as wide as they must be: names to the left, what ends in digits to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    right = [all(not cell or cell[-1] in "0123456789%-" for cell in column[1:]) and i > 0
             for i, column in enumerate(zip(header, *texts, strict=True))]
    return "\n".join("  ".join(cell.rjust(width) if flush else cell.ljust(width) for
                               cell, width, flush in zip(line, widths, right, strict=True)).rstrip()
                     for line in [list(header), *texts])
