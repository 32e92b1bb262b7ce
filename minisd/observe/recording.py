"""A recording: what a model's networks returned, for machines that have no weights.

    MINISD_MODEL=v1-5 MINISD_RECORD=class       # where there is a GPU: run the notebooks once
    MINISD_MODEL=class                          # anywhere: run them again

A recording is a folder: config.json, tokenizer/, recording.json, and a file for each call of a
network. All but the networks is computed as ever: ids, noise, the samplers' steps, what widgets
draw. A network looks up what it is handed, row by row of a batch, and gives the numbers that were
returned for it; for anything else one error says what is there. Integers have to be equal. Of other
tensors a few random projections are compared, which leaves room for the rounding of two machines.
"""

import hashlib
import json
import math
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor

from minisd.checkpoints.config_file import read_own_config, write_config
from minisd.checkpoints.untrusted import read_json, reading, refusal, shown
from minisd.checkpoints.vocabulary import find_tokenizer
from minisd.observe.files import written_whole
from minisd.pipeline import StableDiffusion
from minisd.vae import Gaussian

ABOUT = "recording.json"
CALLS = (("text_encoder", "forward"), ("unet", "forward"), ("vae", "encode"), ("vae", "decode"))
PROJECTIONS = 8                 # numbers that stand for a tensor
TOLERANCE = 1e-4                # relative; a run in float32 differs by 1e-6 on another machine
LISTED = 6                      # prompts in an error

Row = tuple[Tensor, ...]


@lru_cache(8)
def _projections(size: int) -> Tensor:
    return torch.randn(PROJECTIONS, size, generator=torch.Generator().manual_seed(size))


def _keys(inputs: tuple[Tensor, ...]) -> list[Row]:
    """For each row of a call: the shape of every input, and its integers or projections."""
    def key(x: Tensor) -> Row:
        flat = x.detach().cpu().flatten()
        if flat.is_floating_point() or not x.ndim:      # a timestep may be an integer
            flat = _projections(len(flat)) @ flat.float()
        return torch.tensor(x.shape, dtype=torch.int64), flat

    return [tuple(part for x in inputs for part in key(x[i if len(x) > 1 else 0]))
            for i in range(max(map(len, inputs)))]


def _apart(key: Row, other: Row) -> float:
    """The largest relative difference; infinity where shapes or integers differ."""
    if not all(a.dtype == b.dtype and (a.is_floating_point() or a.equal(b))
               for a, b in zip(key, other, strict=True)):
        return math.inf
    return max((float((a - b).norm() / b.norm().clamp(min=1e-20))
                for a, b in zip(key, other, strict=True) if a.is_floating_point()), default=0.0)


# Making one

def record(sd: StableDiffusion, folder: Path, dtype: torch.dtype) -> StableDiffusion:
    """From now on keep in a folder what the networks of `sd` return, beside what is there.

    dtype: what "auto" stands for on this machine. Raises Refused for another model's recording.
    """
    about = {"weights": sd.weights, "dtype": str(dtype).removeprefix("torch.")}
    if (folder / ABOUT).exists() and (other := read_json(folder / ABOUT)) != about:
        raise refusal(folder, f"it is a recording of {shown(other)}, and this is {about}: name "
                              f"another folder in MINISD_RECORD")
    write_config(folder, sd.config)
    texts = {ABOUT: json.dumps(about)}
    if sd.tokenizer is not None:
        texts["tokenizer/vocab.json"] = json.dumps(sd.tokenizer.vocab)
        texts["tokenizer/merges.txt"] = "\n".join(map(" ".join, sd.tokenizer.merges))
    if words := getattr(sd.tokenizer, "known_words", None):
        texts["tokenizer/words.txt"] = "\n".join(sorted(words))
    for name, text in texts.items():
        with written_whole(folder / name) as file:
            file.write_text(text, encoding="utf-8")

    def call(name: str, compute: Callable[..., Any], *inputs: Tensor) -> Any:
        result, keys = compute(*inputs), _keys(inputs)
        outputs = vars(result).values() if isinstance(result, Gaussian) else [result]
        tensors = {f"{kind}.{i}": column.detach().cpu().contiguous() for kind, columns in (
            ("key", map(torch.stack, zip(*keys, strict=True))), ("out", outputs))
            for i, column in enumerate(columns)}
        data = safetensors.torch.save(tensors)
        path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
        if not path.exists():
            with written_whole(path) as file:
                file.write_bytes(data)
        return result

    for part, method in CALLS:
        network = sd.get_submodule(part)
        setattr(network, method, partial(call, f"{part}.{method}", getattr(network, method)))
    return sd


# Replaying it

class Recorded(StableDiffusion):
    """A recording in the place of a model: networks of the same sizes, without weights.

    dtype: None for the recorded one. Raises Refused where the folder is damaged.
    """

    device = torch.device("cpu")        # type: ignore[assignment]
    dtype = torch.float32               # type: ignore[assignment]

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        config, rows = read_own_config(folder / "config.json"), dict[str, list[tuple[Row, Row]]]()
        with torch.device("meta"):
            super().__init__(config, find_tokenizer(folder, config))
        with reading(folder, "recording"):
            about = read_json(folder / ABOUT)
            self.weights, self.dtype = str(about["weights"]), dtype or getattr(  # type: ignore[misc]
                torch, about["dtype"])
            for path in sorted(folder.glob("*.safetensors")):
                tensors = safetensors.torch.load_file(path)
                keys, outputs = (zip(*(tensors[name] for name in sorted(tensors)
                                       if name.startswith(kind)), strict=True)
                                 for kind in ("key", "out"))
                rows.setdefault(path.name.partition("-")[0], []).extend(
                    zip(keys, outputs, strict=True))
        self.rows = rows
        for module in self.modules():
            if module not in (self, self.text_encoder, self.unet, self.vae):
                module.register_forward_pre_hook(self._layer)
        for part, method in CALLS:
            setattr(self.get_submodule(part), method, partial(self._replay, part, method))
        self.eval().requires_grad_(False)

    def _replay(self, part: str, method: str, *inputs: Tensor) -> Any:
        network, found = self.get_submodule(part), []
        if any(getattr(module, "listeners", ()) or module is not network and module._forward_hooks
               for module in network.modules()):
            self._layer()
        for key in _keys(inputs):
            apart, outputs = min(((_apart(key, other), outputs) for other, outputs
                                  in self.rows.get(f"{part}.{method}", ())),
                                 key=lambda pair: pair[0], default=(math.inf, ()))
            if apart > TOLERANCE:
                raise self._error(f"no such call of {part}.{method}")
            found.append(outputs)
        columns = [torch.stack(column) for column in zip(*found, strict=True)]
        return Gaussian(*columns) if method == "encode" else columns[0]

    def _layer(self, *_: Any) -> NoReturn:
        raise self._error("only what whole networks returned, nothing of the layers inside them")

    def _error(self, lacking: str) -> ValueError:
        texts = dict.fromkeys(self.tokenizer.decode(key[1]) for key, _ in self.rows.get(
            "text_encoder.forward", ()) if self.tokenizer)
        return ValueError(
            f"this is a recording of {shown(self.weights)}, and holds {lacking}. It has runs with "
            f"{', '.join(map(repr, [*texts][:LISTED]))}{' ...' * (len(texts) > LISTED)}, and the "
            f"settings that were recorded with them. Run the notebooks' cells as they stand, or "
            f"load a model, such as minisd.load('toyworld')")
