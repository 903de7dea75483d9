"""What all tasks share: a step counter, randomness that belongs to the step, and a checkpoint folder at the end."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy
from torch.distributed.device_mesh import DeviceMesh

from audiolm_kit.checkpoint import refuse_foreign
from audiolm_kit.training.averaging import MovingAverage
from audiolm_kit.training.record import metrics_of, write_record
from audiolm_kit.training.sharding import NAME as SHARDED
from audiolm_kit.training.throughput import Throughput, Work


class Task(pl.LightningModule):
    """A LightningModule that resumes exactly.

    Before each batch the random state is set from (seed, step, rank). Dropout, quantizer dropout and the rest then draw
    the same in a run that was killed and went on as in one that was not; the data modules do likewise.

    Args:
        export: folder that the finished model is written to as a checkpoint; empty for none.
        export_every: also write it every so many batches (0: only at the end).
    """

    def __init__(self, export: str = "", export_every: int = 0) -> None:
        super().__init__()
        self.export, self.export_every = export, export_every
        self.batches_seen = 0
        """How many training batches this task has learned from; where the data goes on."""
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        self.validated: dict[str, Any] = {}
        """The results of the last validation, and the step that it came after."""

    def setup(self, stage: str) -> None:
        """Before any training, refuse what would come to nothing at its end.

        An export replaces its folder: none that holds something else.
        """
        if self.export:
            refuse_foreign(Path(self.export))
        if isinstance(self.trainer.strategy, (FSDPStrategy, DeepSpeedStrategy)):
            name = type(self.trainer.strategy).__name__
            raise ValueError(f"{name} lays out weights in ways that cannot be exported: use strategy {SHARDED} or ddp")

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the model as a checkpoint folder that needs nothing of its training; called on the first rank."""
        raise ValueError(f"{type(self).__name__} exports nothing: leave `export` empty")

    def write_export(self, folder: str) -> None:
        """Called on every rank, where weights may have to be gathered; the first one writes."""
        if self.trainer.is_global_zero:
            self.save_checkpoint_folder(folder)

    def work(self, batch: Any) -> Work | None:
        """What there is to do in a training batch, for the log's ``speed/``; None: nobody has counted."""
        return None

    def configure_callbacks(self) -> list[pl.Callback]:
        """Tell the speed in the log, unless the recipe has its own way of it."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if any(isinstance(each, Throughput) for each in callbacks) else [Throughput()]

    def known(self) -> dict[str, Any]:
        """What the record of an export says of this task, beside what its trainer knows; plain data."""
        return {
            "task": type(self).__name__,
            "batches": self.batches_seen,
            "seed": self.seed,
            "validated": self.validated,
        }

    @staticmethod
    def _pair(either: Any) -> list[Any]:
        """What Lightning keeps for a task of two optimizers: it types a list as perhaps one, perhaps none."""
        return cast("list[Any]", either)

    def shard(self, mesh: DeviceMesh, dtype: torch.dtype | None) -> None:
        """Cut the model up over the ranks of ``mesh`` (see ``sharding.shard``), before it has optimizers."""
        raise ValueError(f"{type(self).__name__} is not made to be sharded: use strategy ddp")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tie all that the step draws to the step."""
        torch.manual_seed((self.seed * 1_000_003 + self.batches_seen) * 4096 + self.global_rank)

    def count_batch(self) -> None:
        """Called once by each training step when its batch has been used.

        It belongs into the step and not into a hook: checkpoint callbacks run before a module's own
        ``on_train_batch_end``.
        """
        self.batches_seen += 1

    def on_validation_end(self) -> None:
        """Keep the results for whoever wants to know them of an export."""
        if not self.trainer.sanity_checking:
            self.validated = metrics_of(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Export on the way, where that is asked for."""
        if self.export_every and self.batches_seen % self.export_every == 0:
            self._export()

    def on_fit_end(self) -> None:
        """Export when training ends by itself (after averaged weights have been put in place)."""
        if self.trainer.state.status != "interrupted":
            self._export()

    def _export(self) -> None:
        if not self.export:
            return
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        averages = [each for each in callbacks if isinstance(each, MovingAverage)]
        averaged: AbstractContextManager[None] = averages[0].in_place(self) if averages else nullcontext()
        with averaged:
            self.write_export(self.export)
        if self.trainer.is_global_zero:
            write_record(self.export, self.trainer, self.known())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the counter, the seed and the results of the last validation."""
        checkpoint["batches_seen"], checkpoint["seed"] = self.batches_seen, self.seed
        checkpoint["validated"] = self.validated

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting where the checkpoint stopped."""
        self.batches_seen, self.seed = checkpoint["batches_seen"], checkpoint["seed"]
        self.validated = checkpoint.get("validated", {})  # which runs of version 0.1.0 did not keep
