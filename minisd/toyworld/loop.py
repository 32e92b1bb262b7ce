"""The training loop under all of toyworld's networks: resumable, distributed, logged.

What a step sees is a function of (seed, step) alone, and every process draws the whole batch's
randomness before it keeps its share. So a killed run continues as if nothing had happened, and
two processes take the same gradient step as one.
"""

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from minisd import figures
from minisd.attention import AttentionTap
from minisd.toyworld.recipe import Part

CHECKPOINT_SECONDS = 60.0           # how much work a kill can cost


Batch = TypeVar("Batch", Tensor, list)


@dataclass(frozen=True)
class Share:
    """One process among `world`; it works on every world-th sample of a batch."""

    rank: int = 0
    world: int = 1

    def of(self, batch: Batch) -> Batch:
        return batch[self.rank::self.world]


Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[torch.Generator, Share], dict[str, Tensor]]    # "loss" and whatever to log
Sheet = Callable[[Path], None]                                  # draws samples to a file


def join_processes() -> Share:
    """This process's share under `torchrun`; everything when started alone."""
    if "WORLD_SIZE" not in os.environ:
        return Share()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Share(dist.get_rank(), dist.get_world_size())


def wait_for_all(share: Share) -> None:
    """Return once every process has come this far."""
    if share.world > 1:
        dist.barrier()


@contextmanager
def first_alone(share: Share) -> Iterator[None]:
    """The first process does what is inside alone; the others do it after, and find it done."""
    if share.rank > 0:
        wait_for_all(share)
    yield
    if share.rank == 0:
        wait_for_all(share)


def device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def autocast() -> torch.autocast:
    """bfloat16 arithmetic where the hardware has it (GPUs, AVX512-BF16 and AMX processors)."""
    capable = torch.cuda.is_available() or any(
        torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast(device().type, torch.bfloat16, enabled=capable)


def lay_open(model: nn.Module) -> None:
    """Make every attention compute its formula in full instead of in one fused kernel.

    A CPU trains faster so: a step of the UNet takes 0.70 s instead of 0.84 s, one of CLIP 0.48 s
    instead of 0.81 s.
    """
    for module in model.modules():
        if isinstance(module, AttentionTap) and not module.listeners:
            module.listeners.append(lambda weights: None)


def learning_rate(part: Part, step: int) -> float:
    """Linear warm-up, a plateau, and a half cosine over the last `cooldown` steps."""
    rate = part.lr * min(1.0, (step + 1) / max(part.warmup, 1))
    left = part.steps - step
    if left < part.cooldown:
        rate *= 0.5 - 0.5 * math.cos(math.pi * left / part.cooldown)
    return rate


def generator(seed: int, step: int, micro: int) -> torch.Generator:
    """The randomness of one micro-batch, the same however often and wherever it is drawn."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + micro)


class Fit(Generic[Network]):
    """One network's training: `Fit(...).run()` continues from what `folder` holds."""

    def __init__(self, name: str, model: Network, part: Part, loss: Loss, folder: Path, *,
                 seed: int = 0, share: Share | None = None, sheet: Sheet | None = None,
                 sheet_every: int = 500) -> None:
        """sheet draws a page of samples from the averaged model, every sheet_every steps.

        Raises ValueError for a batch that the processes cannot share evenly.
        """
        if share and part.batch % share.world:
            raise ValueError(f"{name}: {share.world} processes cannot share a batch of "
                             f"{part.batch} evenly: start another number of them")
        self.name, self.model, self.part, self.loss = name, model, part, loss
        self.folder, self.seed, self.share = folder, seed, share or Share()
        self.sheet, self.sheet_every = sheet, sheet_every
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=part.lr, betas=part.betas,
            weight_decay=part.weight_decay, fused=True)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / f"{name}.pt"
        self.metrics = folder / f"{name}.csv"

    # One gradient step

    def take_step(self) -> dict[str, float]:
        """Accumulate micro-batches, agree with the other processes, step; the metrics' means."""
        sums: dict[str, float] = {}
        for micro in range(self.part.accumulate):
            values = self.loss(generator(self.seed, self.step, micro), self.share)
            (values["loss"] / self.part.accumulate).backward()
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / self.part.accumulate
        self._average_gradients()
        params = [p for p in self.model.parameters() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(params, self.part.clip))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"{self.name}: the gradient is {norm} at step {self.step}; the last checkpoint is "
                f"sound: lower the learning rate and start again")
        rate = learning_rate(self.part, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return {**sums, "gradient_norm": norm, "lr": rate}

    def _average_gradients(self) -> None:
        """The mean over all processes, sent as one long vector: many small ones would be slow."""
        if self.share.world == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(together)
        for g, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g) / self.share.world)

    def _update_average(self) -> None:
        """EMA of the weights, its decay warmed up so that the start is forgotten."""
        decay = min(self.part.ema, self.step / (self.step + 10))
        with torch.no_grad():
            averaged, current = tuple(self.average.parameters()), tuple(self.model.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)

    # The whole run

    def run(self, minutes: float | None = None) -> Network:
        """Train to the last step, or for so many minutes; returns the averaged model."""
        self.resume()
        self.model.train()
        started = saved = time.monotonic()
        bar = tqdm(total=self.part.steps, initial=self.step, desc=self.name, mininterval=5,
                   disable=self.share.rank > 0)
        while self.step < self.part.steps:
            tick = time.monotonic()
            metrics = self.take_step()
            now = time.monotonic()
            metrics["images_per_second"] = self.part.batch * self.part.accumulate / (now - tick)
            if self.share.rank == 0:
                self._log(metrics)
            bar.update()
            bar.set_postfix({k: f"{metrics[k]:.4g}" for k in ("loss", "images_per_second")},
                            refresh=False)
            if self.sheet and self.share.rank == 0 and self.step % self.sheet_every == 0:
                self.sheet(self.folder / f"{self.name}-{self.step:06d}.png")
            if self.step % self.sheet_every == 0:
                self._draw_losses()
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = now
            if minutes is not None and self._first_of(now - started > 60 * minutes):
                break
        bar.close()
        with first_alone(self.share):   # nobody reads the checkpoint before it is whole
            self.save()
        self._draw_losses()
        return self.average

    def _first_of(self, value: int) -> int:
        """The first process's value, so that all of them decide alike."""
        if self.share.world == 1:
            return value
        told = torch.tensor(int(value), device=device())
        dist.broadcast(told, 0)
        return int(told)

    def _log(self, metrics: dict[str, float]) -> None:
        """One row per step; rows of steps that a resumed run repeats come twice, last one valid."""
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *metrics])
            writer.writerow([self.step, *(f"{value:.6g}" for value in metrics.values())])

    def _draw_losses(self) -> None:
        """A figure beside the CSV."""
        if self.share.rank == 0 and self.metrics.exists():
            figures.save(figures.losses(self.metrics), self.folder / f"{self.name}-losses.png")

    def save(self) -> None:
        """Write everything a continuation needs; a kill leaves the old file or the new one."""
        if self.share.rank > 0:
            return
        part = self.checkpoint.with_suffix(".part")
        with part.open("wb") as file:
            torch.save({"step": self.step, "model": self.model.state_dict(),
                        "average": self.average.state_dict(),
                        "optimiser": self.optimiser.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.checkpoint)

    def resume(self) -> None:
        """Continue from the checkpoint in the folder, if there is one.

        Raises RuntimeError where the processes find different ones.
        """
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=device(), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
        first = self._first_of(self.step)
        if self.step != first:
            raise RuntimeError(f"{self.name}: {self.folder} is at step {self.step} here and at "
                               f"step {first} in the first process: all of them need one folder")
