"""Looking into attention: a recorder of its weights, a way to change them, and word heat maps.

    with record_attention(sd.unet, rows=1) as record:           # 1: the picture's guided half
        sd.text_to_image("a red car")
    heat = word_maps(record, 3, size=(16, 16))                  # where "car" (token 3) was read

Both are context managers that add listeners to the attentions and take them off again, whatever
happens inside. The attention then runs the explicit formula instead of the fused kernel, so
results differ by rounding. One inside the other they work in the order they were entered.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd.attention import Attention

# Weights (b, heads, n, m) and the layer's name -> what takes their place, or None
Edit = Callable[[Tensor, str], Tensor | None]


@dataclass(frozen=True)
class AttentionMap:
    """The weights of one attention in one call of the network."""

    layer: str                      # its name in the network
    kind: str                       # "self" or "cross"
    call: int                       # of the network since recording began, from 0
    weights: Tensor                 # float16, (b, heads, n, m), or (b, n, m), the heads' mean


def attention_layers(network: nn.Module, kind: str | None = "cross", layers: Sequence[str] = ()
                     ) -> dict[str, Attention]:
    """The attentions of a network by name, in the order in which they were built.

    kind: "cross", "self", or None for both. layers: only those whose names begin like one of
    these, such as "mid" or "up.0"; () for all. Raises ValueError where none is left.
    """
    if kind not in ("self", "cross", None):
        raise ValueError(f"kind must be 'self', 'cross' or None, got {kind!r}")
    layers = (layers,) if isinstance(layers, str) else layers
    every = {name: module for name, module in network.named_modules()
             if isinstance(module, Attention)}
    chosen = {name: module for name, module in every.items()
              if kind in (None, kind_of(name))
              and (not layers or any(f"{name}.".startswith(f"{start}.") for start in layers))}
    if not chosen:
        raise ValueError(f"no attention of kind {kind} at {', '.join(layers) or 'all'}: this "
                         f"network has {', '.join(every) or 'none'}")
    return chosen


def kind_of(name: str) -> str:
    """"self" or "cross", by an attention's name."""
    return "cross" if name.endswith("cross_attn") else "self"


@contextmanager
def record_attention(network: nn.Module, *, kind: str | None = "cross",
                     layers: Sequence[str] = (), rows: int | None = None,
                     mean_of_heads: bool = False) -> Iterator[list[AttentionMap]]:
    """Collect the weights of every call made inside the `with`, in a list that grows.

    kind, layers: see attention_layers. Self-attention of v1 has 4096 x 4096 weights per head.
    rows: keep only so many, from the batch's end. With guidance the UNet's batch is first all
    unconditional, then all conditional: for b pictures rows=b keeps the conditional half.
    """
    record: list[AttentionMap] = []
    calls: Counter[str] = Counter()

    def hear(weights: Tensor, layer: str) -> None:
        kept = weights.detach().mean(1) if mean_of_heads else weights.detach()
        record.append(AttentionMap(layer, kind_of(layer), calls[layer],
                                   kept.to("cpu", torch.float16)))
        calls[layer] += 1

    with _listening(network, hear, kind, layers, rows):
        yield record


@contextmanager
def edit_attention(network: nn.Module, edit: Edit, *, rows: int | None = None) -> Iterator[None]:
    """Let `edit(weights, layer)` replace cross-attention in every call made inside the `with`.

    It gets (b, heads, n, m) and returns as much, or None to leave them; see scale_word.
    rows: see record_attention.
    """
    def hear(weights: Tensor, layer: str) -> Tensor | None:
        replaced = edit(weights.clone(), layer)
        if replaced is not None and replaced.shape != weights.shape:
            raise ValueError(f"the edit of {layer} returned weights of shape "
                             f"{tuple(replaced.shape)}, expected {tuple(weights.shape)}")
        return replaced

    with _listening(network, hear, "cross", (), rows):
        yield


@contextmanager
def _listening(network: nn.Module, hear: Edit, kind: str | None, layers: Sequence[str],
               rows: int | None) -> Iterator[None]:
    """Let `hear` have what this thread computes: a widget may use the same network beside it."""
    here = threading.get_ident()

    def listener(name: str) -> Callable[[Tensor], Tensor | None]:
        def listen(weights: Tensor) -> Tensor | None:
            if threading.get_ident() != here:
                return None
            first = 0 if rows is None else max(0, len(weights) - rows)
            replaced = hear(weights[first:], name)
            return None if replaced is None else torch.cat([weights[:first], replaced.to(weights)])

        return listen

    added = [(module.listeners, listener(name))
             for name, module in attention_layers(network, kind, layers).items()]
    try:
        for listeners, mine in added:
            listeners.append(mine)
        yield
    finally:
        for listeners, mine in added:
            if mine in listeners:
                listeners.remove(mine)


def scale_word(token_index: int | Sequence[int], factor: float) -> Edit:
    """An edit that multiplies what every cell reads of some tokens; 0 takes them away.

    The other weights stay as they are, so they no longer add up to 1.
    """
    def edit(weights: Tensor, layer: str) -> Tensor:
        weights[..., _tokens(token_index, weights)] *= factor
        return weights

    return edit


def word_maps(record: Iterable[AttentionMap], token_index: int | Sequence[int],
              size: tuple[int, int]) -> Tensor:
    """Where the picture reads a word: the mean of all cross-attention maps in `record`, (h, w).

    token_index: the word's position among the prompt's tokens, 0 being the start; several are
    added up. size: (height, width) of the latents. Of a batch the last row counts, the conditional
    half of a guided run of one picture. To see one layer or one step, select its maps:
    [m for m in record if m.call == 7]. The values are shares of a cell's attention, 0 .. 1.
    """
    maps = []
    for entry in record:
        if entry.kind == "cross":
            weights = entry.weights[-1].float()
            weights = weights.mean(0) if weights.ndim == 3 else weights         # n m
            share = weights[:, _tokens(token_index, weights)].sum(1)
            coarse = share.view(1, 1, *_level_size(len(share), size))
            maps.append(F.interpolate(coarse, size, mode="bilinear")[0, 0])
    if not maps:
        raise ValueError("the record holds no cross-attention: record with kind='cross', and run "
                         "the network inside the `with`")
    return torch.stack(maps).mean(0)


def _tokens(token_index: int | Sequence[int], weights: Tensor) -> list[int]:
    tokens = [token_index] if isinstance(token_index, int) else list(token_index)
    count = weights.shape[-1]
    if not tokens or not all(0 <= token < count for token in tokens):
        raise ValueError(f"token_index must be from 0 to {count - 1}, got {token_index}")
    return tokens


def _level_size(cells: int, size: tuple[int, int]) -> tuple[int, int]:
    """The size of the UNet's level that has so many cells; each level halves, rounding up."""
    height, width = size
    while height * width > cells:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != cells:
        raise ValueError(f"a map of {cells} cells belongs to no level of latents of {size}: give "
                         f"the (height, width) of the latents it was recorded with")
    return height, width
