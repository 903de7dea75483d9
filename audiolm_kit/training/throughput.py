"""How fast a run learns, in its log: frames and codes a second, time that it waits for data, use of the device."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from audiolm_kit.training.flops import peak_flops

STARVED = 0.1
"""Share of the time that a run may wait for its data without a word."""


class Work(NamedTuple):
    """What there is to do in a batch; tensors stay where they are until the log asks for them."""

    units: Mapping[str, Tensor | float]
    """How much of what, by its name in the log: there it is ``speed/NAME_per_second``."""
    padding: Tensor | float | None = None
    """The share of the batch that is nothing but padding, if that is known."""
    flops: float = 0.0
    """Operations on this rank; 0: not counted."""


class Throughput(pl.Callback):
    """Log speed every ``log_every_n_steps`` steps, of the steps since the last time; every task of ours has one.

    ``speed/seconds_per_step`` and ``speed/UNIT_per_second`` (of all ranks, as far as they are like this one: frames and
    codes of language models without their padding, sound_seconds of what learns from recordings); ``speed/padding`` and
    ``speed/data_wait``, shares of the batches and of the time; ``speed/mfu``, operations of the model by its formula,
    as a share of what the device can do. Validation does not count as time, nor does the first batch: what is compiled
    or started is so then. The CPU never waits for a device but where the log does.

    Args:
        peak_tflops: what the device can do, in 10^12 operations a second at the run's precision; 0: by its name.
    """

    def __init__(self, peak_tflops: float = 0.0, clock: Callable[[], float] = time.perf_counter) -> None:
        if peak_tflops < 0:
            raise ValueError(f"peak_tflops is {peak_tflops}, wanted above 0, or 0 to look it up")
        self.peak, self.clock = peak_tflops * 1e12, clock
        self._begun: float | None = None  # None until the first batch is over
        self._paused = self._waited = 0.0
        self._told_at, self._warned = -1, False
        self._clear()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look up what the device can do."""
        self._begun, self._told_at = None, trainer.global_step
        device = trainer.strategy.root_device
        if self.peak or device.type != "cuda":
            return
        name = torch.cuda.get_device_name(device)
        tf32 = torch.get_float32_matmul_precision() != "highest"
        self.peak = peak_flops(name, str(trainer.precision), tf32)
        if not self.peak:
            told = f"what {name} can do in {trainer.precision} is not known: for speed/mfu in the log, give peak_tflops"
            rank_zero_info(f"{told} to a callback audiolm_kit.training.throughput.Throughput")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a batch up; tell of them where the log listens."""
        work = pl_module.work(batch)
        if work is None:
            return
        if self._begun is None:
            self._restart(trainer)
            return
        self._add(work)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step != self._told_at and trainer.global_step % every == 0:
            pl_module.log_dict(self._measured(trainer))
            self._told_at = trainer.global_step
            self._restart(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._paused = self.clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on as if no time had passed."""
        if self._begun is not None:
            self._begun += self.clock() - self._paused

    def _clear(self) -> None:
        self._units: defaultdict[str, Tensor | float] = defaultdict(float)
        self._padding: Tensor | float = 0.0
        self._knows_padding = False
        self._flops, self._batches, self._steps_from = 0.0, 0, 0

    def _restart(self, trainer: pl.Trainer) -> None:
        self._clear()
        self._begun, self._waited, self._steps_from = self.clock(), waited(trainer), trainer.global_step

    def _add(self, work: Work) -> None:
        for name, amount in work.units.items():
            self._units[name] = self._units[name] + amount
        if work.padding is not None:
            self._padding, self._knows_padding = self._padding + work.padding, True
        self._flops += work.flops
        self._batches += 1

    def _measured(self, trainer: pl.Trainer) -> dict[str, float]:
        # Reading what was added up waits for the device: so does the clock, which is read behind it.
        amounts = {name: float(amount) * trainer.world_size for name, amount in self._units.items()}
        padding = float(self._padding) / self._batches
        assert self._begun is not None
        seconds = max(self.clock() - self._begun, 1e-9)
        told = {"seconds_per_step": seconds / max(1, trainer.global_step - self._steps_from)}
        told |= {f"{name}_per_second": amount / seconds for name, amount in amounts.items()}
        told["data_wait"] = (waited(trainer) - self._waited) / seconds
        if self._knows_padding:
            told["padding"] = padding
        if self.peak and self._flops:
            told["mfu"] = self._flops / seconds / self.peak
        self._warn(trainer, told["data_wait"])
        return {f"speed/{name}": value for name, value in told.items()}

    def _warn(self, trainer: pl.Trainer, share: float) -> None:
        if share <= STARVED or self._warned or not trainer.is_global_zero:
            return
        self._warned = True
        given = getattr(getattr(trainer, "datamodule", None), "num_workers", 0)
        told = f"for {share:.0%} of the time training waits for its data, which {given} num_workers make: give it more"
        warnings.warn(told, stacklevel=2)


def waited(trainer: pl.Trainer) -> float:
    """How long the run has waited for training batches; 0 where its loader does not know."""
    return float(getattr(trainer.train_dataloader, "waited", 0.0))
