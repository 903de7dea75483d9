"""The text vocabulary of a run: trained once on its captions, and kept in its checkpoints, as weights need it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from audiolm_kit.conditioning import TextConditioner
from audiolm_kit.text import Vocabulary, train

KEPT_AS = "text_vocabulary"


def vocabulary_of(texts: list[str], pieces: int, trainer: pl.Trainer) -> Vocabulary:
    """Of these captions, at most so many pieces: trained on the first rank, kept in the run's folder by their hash."""
    digest = hashlib.sha256("\n".join([str(pieces), *sorted(set(texts))]).encode()).hexdigest()[:16]
    path = Path(trainer.default_root_dir) / f"text-{digest}.model"
    if trainer.is_global_zero and not path.exists():
        train(texts, path, pieces)
    trainer.strategy.barrier("text vocabulary")
    return Vocabulary.load(path)


def keep(conditioner: TextConditioner | None, checkpoint: dict[str, Any]) -> None:
    """Put a conditioner's vocabulary, if it has one, into a run's checkpoint."""
    if conditioner is not None and conditioner.vocabulary is not None:
        content = bytearray(conditioner.vocabulary.model)
        checkpoint[KEPT_AS] = torch.frombuffer(content, dtype=torch.uint8)


def kept(checkpoint: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary of a run's checkpoint, even if the captions have changed since; None where it has none."""
    return Vocabulary(checkpoint[KEPT_AS].numpy().tobytes()) if KEPT_AS in checkpoint else None
