"""What a run knows of itself when it exports: steps, seed, data, recipe, last validation. Model cards tell it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import SaveConfigCallback

from audiolm_kit import provenance
from audiolm_kit.data.manifest import Row
from audiolm_kit.data.pairs import Pairs
from audiolm_kit.data.shards import Shards

TOLD = (
    *("max_steps", "max_epochs", "precision", "strategy", "devices", "num_nodes", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "callbacks"),
)
"""Of a recipe's trainer: what decides the weights. Loggers may hold what is nobody's business."""
SOURCES = ("manifest", "shards", "prefix_shards", "valid_shards", "valid_prefix_shards")


def write_record(folder: str | Path, trainer: pl.Trainer, known: Mapping[str, Any]) -> None:
    """Put what a run knows into an exported folder: the same for the same run, and nothing of the machine.

    Args:
        known: what its task knows, plain data.
    """
    data = getattr(trainer, "datamodule", None)
    run = {
        "steps": trainer.global_step,
        "ranks": trainer.world_size,
        "precision": str(trainer.precision),
        "data": {} if data is None else data_of(data),
        "recipe": recipe_of(trainer),
    }
    provenance.write(folder, {**known, **run})


def data_of(data: pl.LightningDataModule) -> dict[str, Any]:
    """What was trained on: the names of its sources and, as far as it can be counted, how much of it there is.

    ``rows`` counts captions and variants of a recording each for itself, and so do ``hours``.
    """
    sources = {name: getattr(data, name) for name in SOURCES if getattr(data, name, None)}
    told = {"kind": type(data).__name__, **provenance.named(sources)}
    if (batch_size := getattr(data, "batch_size", None)) is not None:
        told["batch_size"] = batch_size
    rows = getattr(data, "rows", None)
    if isinstance(rows, Pairs):
        rows = rows.learned
    if isinstance(rows, Shards):
        seconds = float(rows.num_frames.sum()) / rows.format.frame_rate
        told |= {"rows": len(rows), "recordings": rows.num_recordings, "hours": round(seconds / 3600, 3)}
    elif isinstance(rows, list) and rows and all(isinstance(row, Row) for row in rows):
        seconds = sum(row.duration for row in rows)
        recordings = len({(row.path, row.start) for row in rows})
        told |= {"rows": len(rows), "recordings": recordings, "hours": round(seconds / 3600, 3)}
    return told


def recipe_of(trainer: pl.Trainer) -> dict[str, Any]:
    """The recipe that `fit` was given, all layers and defaults in one; empty where a trainer was made otherwise."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, SaveConfigCallback):
            whole = yaml.safe_load(callback.parser.dump(callback.config, skip_none=True))
            chosen = {name: whole[name] for name in ("seed_everything", "model", "data") if name in whole}
            chosen["trainer"] = {name: each for name, each in whole["trainer"].items() if name in TOLD}
            told: dict[str, Any] = provenance.named(_filled(chosen))
            return told
    return {}


def _filled(value: Any) -> Any:
    """Without what is not set: it says nothing, and there is much of it."""
    if isinstance(value, Mapping):
        kept = {name: _filled(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in (None, "", {})}
    return [_filled(each) for each in value] if isinstance(value, (list, tuple)) else value


def metrics_of(trainer: pl.Trainer) -> dict[str, Any]:
    """The step and the results of a validation that has just ended."""
    found = {name: float(f"{float(value):.6g}") for name, value in sorted(trainer.callback_metrics.items())}
    return {"step": trainer.global_step, **{name: each for name, each in found.items() if name.startswith("valid/")}}
