"""Runs that a scheduler or a shutdown ends before their time."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException


class SaveOnTermination(pl.Callback):
    """Writes the run's last checkpoint when SIGTERM ends it, so that it goes on at the very step it had reached.

    Lightning lets the step end that the signal fell into. Where that step is not whole (gradients still gather, or a
    validation was cut short), or where other processes may have come to another one, the checkpoint of the last
    interval stands.

    Args:
        checkpoints: what saves ``last.ckpt`` at its intervals.
    """

    def __init__(self, checkpoints: ModelCheckpoint) -> None:
        self.checkpoints = checkpoints

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save, if it was SIGTERM."""
        whole = trainer.training and trainer.accumulate_grad_batches == 1 and trainer.world_size == 1
        if isinstance(exception, SIGTERMException) and whole:
            last = Path(str(self.checkpoints.dirpath)) / "last.ckpt"
            self.checkpoints.last_model_path = str(last)  # else the run that goes on writes last-v1.ckpt beside it
            trainer.save_checkpoint(last)
