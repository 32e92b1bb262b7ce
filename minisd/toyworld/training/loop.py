"""The training loop under all of toyworld's networks: resumable, distributed, logged.

What a step sees is a function of (seed, step) alone, and every process draws the whole batch's
randomness before it keeps its shard. So a killed run continues as if nothing had happened, and
two processes take the same gradient step as one.
"""

import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from minisd import figures
from minisd.attention import Attention
from minisd.checkpoints.load import choose_dtype
from minisd.observe.files import written_whole
from minisd.toyworld.training import curves
from minisd.toyworld.training.recipe import Part

PATIENCE = timedelta(hours=6)        # with a process that draws, encodes or repaints alone
CHECKPOINT_SECONDS = 60.0           # how much work a kill can cost
SHEET_EVERY = 500                   # steps between two pages of samples, and figures of losses

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[torch.Generator], dict[str, Tensor]]   # "loss" and whatever to log
Sheet = Callable[[Path, Any], None]                     # draws samples of a network to a file


# Processes

def join_processes() -> None:
    """Join the others under `torchrun`; a process that is started alone is rank 0 of 1."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo",
                                timeout=PATIENCE)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Return once every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does what is inside before the others, which find it done."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def first_ones(value: int) -> int:
    """The first process's value, so that all of them decide alike."""
    shared = torch.tensor(int(value), device=device())
    if dist.is_initialized():
        dist.broadcast(shared, 0)
    return int(shared)


def mine() -> slice:
    """Which samples of a batch are this process's."""
    return slice(rank(), None, world_size())


def shard(batch: Tensor) -> Tensor:
    """This process's samples of a batch, on its device; floats in torch's default dtype."""
    dtype = torch.get_default_dtype() if batch.is_floating_point() else batch.dtype
    return batch[mine()].to(device(), dtype)


# Arithmetic

def device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """bfloat16 arithmetic where the hardware has it.

    Not where torch's default dtype is float64, in which two trainings can be compared.
    """
    fast = choose_dtype("auto", device()) != torch.float32 == torch.get_default_dtype()
    return torch.autocast(device().type, torch.bfloat16, enabled=fast)


def explicit_attention(model: nn.Module) -> None:
    """On a CPU, let attention compute its formula in full instead of in one fused kernel.

    Training is faster so: a step of the UNet 0.70 s instead of 0.84 s, of CLIP 0.48 s, not 0.81 s.
    """
    for module in model.modules() if device().type == "cpu" else ():
        if isinstance(module, Attention) and not module.listeners:
            module.listeners.append(lambda weights: None)


def generator(seed: int, step: int, micro: int) -> torch.Generator:
    """The randomness of one micro-batch, the same however often and wherever it is drawn."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + micro)


def learning_rate(part: Part, step: int) -> float:
    """Of the recipe's: linear warm-up, a plateau, a half cosine over the last `cooldown` steps."""
    rate = min(1.0, (step + 1) / max(part.warmup, 1))
    left = part.steps - step
    if left < part.cooldown:
        rate *= 0.5 - 0.5 * math.cos(math.pi * left / part.cooldown)
    return rate


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """EMA of the weights; its decay rises to the given one, so that the start is forgotten."""
    def update(averaged: Any, current: Any, steps: Any) -> None:
        get_ema_multi_avg_fn(min(decay, int(steps) / (int(steps) + 10)))(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=update).requires_grad_(False).eval()


class LossModule(nn.Module):
    """A loss as the forward pass of the network it trains: what data-parallel training wraps."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, g: torch.Generator) -> dict[str, Tensor]:
        return self.loss(g)


class Fit(Generic[Network]):
    """One network's training: `Fit(...).run()` continues from what `folder` holds."""

    def __init__(self, name: str, model: Network, part: Part, loss: Loss, folder: Path, *,
                 seed: int = 0, sheet: Sheet | None = None) -> None:
        """sheet draws a page of samples from the averaged model, every `SHEET_EVERY` steps.

        Raises ValueError for a batch that the processes cannot share evenly, RuntimeError where
        they find different checkpoints.
        """
        if part.batch % world_size():
            raise ValueError(f"{name}: {world_size()} processes cannot share a batch of "
                             f"{part.batch} evenly: start another number of them")
        self.name, self.model, self.part, self.folder = name, model, part, folder
        self.seed, self.sheet, self.step = seed, sheet, 0
        self.checkpoint, self.metrics = folder / f"{name}.pt", folder / f"{name}.csv"
        self.averaged = moving_average(model, part.ema)
        self.optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=part.lr, betas=part.betas,
            weight_decay=part.weight_decay, fused=True)
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=device(), weights_only=True)
            model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
        if self.step != first_ones(self.step):
            raise RuntimeError(f"{name}: {folder} is not at the step of the first process, but at "
                               f"{self.step}: all of them need one folder")
        self.averaged.n_averaged.fill_(self.step + 1)
        self.losses: nn.Module = LossModule(model, loss)
        if world_size() > 1:                    # clip_words leaves the image tower out
            self.losses = DistributedDataParallel(
                self.losses, find_unused_parameters=name == "clip_words")

    @property
    def average(self) -> Network:
        """The network with the averaged weights."""
        return self.averaged.module         # type: ignore[return-value]

    def take_step(self) -> dict[str, float]:
        """Accumulate micro-batches, agree with the other processes, step; the metrics' means."""
        means: dict[str, float] = {}
        for micro in range(self.part.accumulate):
            values = self.losses(generator(self.seed, self.step, micro))
            (values["loss"] / self.part.accumulate).backward()
            means = {key: means.get(key, 0.0) + float(value.detach()) / self.part.accumulate
                     for key, value in values.items()}
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.part.clip))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"{self.name}: the gradient is {norm} at step {self.step}; the last checkpoint is "
                f"sound: lower the learning rate and start again")
        rate = self.part.lr * learning_rate(self.part, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.averaged.update_parameters(self.model)
        self.step += 1
        return {**means, "gradient_norm": norm, "lr": rate}

    def run(self, minutes: float | None = None) -> Network:
        """Train to the last step, or for so many minutes; returns the averaged model."""
        self.model.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        started = saved = time.monotonic()
        bar = tqdm(total=self.part.steps, initial=self.step, desc=self.name, mininterval=5,
                   disable=rank() > 0)
        while self.step < self.part.steps:
            tick = time.monotonic()
            metrics = self.take_step()
            now = time.monotonic()
            metrics["images_per_second"] = self.part.batch * self.part.accumulate / (now - tick)
            bar.update()
            bar.set_postfix({k: f"{metrics[k]:.4g}" for k in ("loss", "images_per_second")},
                            refresh=False)
            if rank() == 0:
                self._log(metrics)
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = now
            if minutes is not None and first_ones(now - started > 60 * minutes):
                break
        bar.close()
        with first_alone():             # nobody reads the checkpoint before it is whole
            self.save()
        return self.average

    def _log(self, metrics: dict[str, float]) -> None:
        """One row per step, of which a resumed run may repeat some; pictures now and then."""
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *metrics])
            writer.writerow([self.step, *(f"{value:.6g}" for value in metrics.values())])
        if self.step % SHEET_EVERY == 0 or self.step == self.part.steps:
            logged = curves.read_metrics(self.metrics)
            figure = figures.training_curves(
                {self.name: (logged["step"].tolist(), logged["loss"].tolist())},
                f"{self.name}, after {self.step:,} steps")
            figures.save(figure, self.folder / f"{self.name}-losses.png")
        if self.sheet and self.step % SHEET_EVERY == 0:
            self.sheet(self.folder / f"{self.name}-{self.step:06d}.png", self.average)

    def save(self) -> None:
        """Write everything a continuation needs; a kill leaves the old file or the new one."""
        if rank() == 0:
            with written_whole(self.checkpoint) as part:
                torch.save({"step": self.step, "model": self.model.state_dict(),
                            "average": self.average.state_dict(),
                            "optimiser": self.optimiser.state_dict()}, part)
