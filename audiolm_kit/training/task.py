"""What all tasks share: a step counter, randomness that belongs to the step, and a checkpoint folder at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from audiolm_kit.checkpoint import refuse_foreign


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

    def setup(self, stage: str) -> None:
        """An export replaces its folder: before any training, refuse one that holds something else."""
        if self.export:
            refuse_foreign(Path(self.export))

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the model as a checkpoint folder that needs nothing of its training."""
        raise ValueError(f"{type(self).__name__} exports nothing: leave `export` empty")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tie all that the step draws to the step."""
        torch.manual_seed((self.seed * 1_000_003 + self.batches_seen) * 4096 + self.global_rank)

    def count_batch(self) -> None:
        """Called once by each training step when its batch has been used.

        It belongs into the step and not into a hook: checkpoint callbacks run before a module's own
        ``on_train_batch_end``.
        """
        self.batches_seen += 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Export on the way, where that is asked for."""
        if self.export_every and self.batches_seen % self.export_every == 0:
            self._export()

    def on_fit_end(self) -> None:
        """Export when training ends by itself (after averaged weights have been put in place)."""
        if self.trainer.state.status != "interrupted":
            self._export()

    def _export(self) -> None:
        if self.export and self.trainer.is_global_zero:
            self.save_checkpoint_folder(self.export)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the counter and the seed."""
        checkpoint["batches_seen"], checkpoint["seed"] = self.batches_seen, self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting where the checkpoint stopped."""
        self.batches_seen, self.seed = checkpoint["batches_seen"], checkpoint["seed"]
