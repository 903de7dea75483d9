"""Training runs as small as they get: a codec, captions, a trainer that says nothing, and what a run went through."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig
from audiolm_kit.codec.rvq import QuantizerConfig

QUIET = [
    pytest.mark.filterwarnings("ignore:.*captions make.*"),  # four captions are few
    pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]
CAPTIONS = ("a bell rings", "rain on a roof", "a siren far away", "two clicks")


def a_codec(num_codebooks: int = 2) -> CodecConfig:
    """Codebooks of 16 entries, 100 frames a second."""
    body = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=16, fft_size=32, frames_per_code=1)
    return CodecConfig(sample_rate=1600, convnext=body, quantizer=QuantizerConfig(num_codebooks, 16, dim=4))


class Losses(Callback):
    """The loss of every training batch, exactly."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: dict[str, Tensor], *_: object
    ) -> None:
        self.values.append(outputs["loss"].item())


class Learned(Callback):
    """What every step logged, exactly."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        self.steps.append(logged)

    def values(self, name: str) -> list[float]:
        """One of them, step by step."""
        return [step[name] for step in self.steps]


def make_trainer(root: Path, steps: int, *callbacks: Callback, **options: object) -> pl.Trainer:
    """On the CPU, without a log."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    return pl.Trainer(max_steps=steps, default_root_dir=root, callbacks=list(callbacks), **{**quiet, **options})
