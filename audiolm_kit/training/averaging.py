"""Averaged weights: a moving average of the weights is validated and exported, while training goes on with its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from audiolm_kit.training.sharding import gathered, is_sharded, part, scatter

KEPT_AS = "averages"


class MovingAverage(pl.Callback):
    """Average what a task learns: ``average = decay * average + (1 - decay) * weight`` after a step.

    It begins with the weights after the first step and averages floating-point buffers too, such as codebooks.
    Every rank averages its own part, in float32. (Lightning's ``EMAWeightAveraging`` cannot follow sharded weights, and
    what is exported on the way, by ``export_every``, would not be its average.)

    Args:
        decay: the share of the average that stays.
        every: average every so many optimizer steps.
    """

    def __init__(self, decay: float = 0.999, every: int = 1) -> None:
        if not 0 <= decay < 1 or every < 1:
            raise ValueError(f"decay is {decay} and every {every}, wanted a share from 0 to below 1, and at least 1")
        self.decay, self.every = decay, every
        self._averages: dict[str, Tensor] = {}  # this rank's parts, in float32
        self._whole: dict[str, Tensor] | None = None  # of the checkpoint that the run goes on from, until it does
        self._kept: dict[str, Tensor] | None = None  # the run's own parts, while the averages stand in their place
        self._steps = 0

    # --- averaging ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the averages of the checkpoint, now that the weights are where they stay."""
        self._steps = trainer.global_step
        self._take_up(pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Average, if the batch ended with a step of the optimizer."""
        if trainer.global_step == self._steps:
            return  # gradients of this batch wait for more
        self._steps = trainer.global_step
        if not self._averages:
            self._averages = {name: weight.float().clone() for name, weight in parts(pl_module).items()}
        elif self._steps % self.every == 0:
            for name, weight in parts(pl_module).items():
                self._averages[name].lerp_(weight.float(), 1 - self.decay)

    # --- in place of the weights --------------------------------------------------------------------------------------

    @contextmanager
    def in_place(self, task: pl.LightningModule) -> Iterator[None]:
        """A context in which the task has its averaged weights."""
        self._put(task)
        try:
            yield
        finally:
            self._take_back(task)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._put(pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the weights; checkpoints are saved after this."""
        self._take_back(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A validation that breaks off must leave no averages behind in a checkpoint."""
        self._take_back(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the task; it comes before the task's own hook, which exports."""
        self._take_up(pl_module)  # a run that had ended before has not trained at all
        write(self._averages, pl_module)
        self._averages = {}

    def _take_up(self, task: pl.LightningModule) -> None:
        if self._whole is None:
            return
        if is_sharded(task):
            own = {name: weight.clone() for name, weight in parts(task).items()}
            scatter(task, self._whole)
            self._averages = {name: weight.float().clone() for name, weight in parts(task).items()}
            write(own, task)
        else:
            present = parts(task)
            self._averages = {name: each.float().to(present[name].device) for name, each in self._whole.items()}
        self._whole = None

    def _put(self, task: pl.LightningModule) -> None:
        if self._averages and self._kept is None:
            self._kept = {name: weight.clone() for name, weight in parts(task).items()}
            write(self._averages, task)

    def _take_back(self, task: pl.LightningModule) -> None:
        if self._kept is not None:
            write(self._kept, task)
            self._kept = None

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the averages beside the weights, whole."""
        if not self._averages:
            return
        if is_sharded(pl_module):
            with self.in_place(pl_module):
                checkpoint[KEPT_AS] = gathered(pl_module)
        else:
            checkpoint[KEPT_AS] = self._averages

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember them until the weights are in place."""
        self._whole = checkpoint.get(KEPT_AS)
        if self._whole is None and checkpoint["global_step"]:
            warnings.warn("the checkpoint holds no averaged weights: the average begins anew from here", stacklevel=2)


@torch.no_grad()
def parts(task: pl.LightningModule) -> dict[str, Tensor]:
    """This rank's parts of all floating-point weights and buffers that a checkpoint of the task holds."""
    state = task.state_dict(keep_vars=True)
    return {name: part(weight) for name, weight in state.items() if weight.is_floating_point()}


@torch.no_grad()
def write(values: dict[str, Tensor], task: pl.LightningModule) -> None:
    """Copy values of these names into the task's parts."""
    present = parts(task)
    for name, value in values.items():
        present[name].copy_(value)
