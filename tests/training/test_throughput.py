"""Speed is in the log of every task, without padding, first batch and validation; a run that starves is told so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from audiolm_kit.data.walk import Steps, TimedLoader
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Throughput, Work

SECONDS = {"step": 2.0, "validation": 100.0}


class Clock:
    """Time that goes by only where it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Learner(Task):
    """Learns nothing, in two seconds a batch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.weight, self.clock = torch.nn.Parameter(torch.zeros(1)), clock

    def training_step(self, batch: int, batch_idx: int) -> torch.Tensor:
        self.clock.now += 1000.0 if self.batches_seen == 0 else SECONDS["step"]
        self.count_batch()
        return self.weight.sum()

    def validation_step(self, batch: int, batch_idx: int) -> None:
        self.clock.now += SECONDS["validation"]

    def work(self, batch: int) -> Work:
        return Work({"frames": torch.tensor(10 + batch)}, padding=torch.tensor(0.25), flops=4e12)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted(root: Path, throughput: Throughput | None, clock: Clock, wait: float = 0.0, **options: Any) -> pl.Trainer:
    def make(step: int) -> int:
        loader.waited += wait  # as if it had been waited for
        clock.now += wait
        return step

    loader = TimedLoader(Steps(make), batch_size=None)
    options = {
        "max_steps": 7,
        "log_every_n_steps": 3,
        "logger": CSVLogger(root),
        "enable_progress_bar": False,
    } | options
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = pl.Trainer(callbacks=[throughput] if throughput else [], default_root_dir=root, **options)
    trainer.fit(Learner(clock), loader, DataLoader([0, 0], batch_size=None))
    return trainer


def logged(root: Path) -> list[dict[str, float]]:
    import csv

    (file,) = root.rglob("metrics.csv")
    with file.open() as opened:
        rows = [{name: float(each) for name, each in row.items() if each} for row in csv.DictReader(opened)]
    return [row for row in rows if any(name.startswith("speed/") for name in row)]


def test_speed_is_that_of_the_steps_since_the_last_time(tmp_path: Path) -> None:
    clock = Clock()
    sparse = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    fitted(tmp_path, Throughput(peak_tflops=8, clock=clock), clock, **sparse)
    first, second = logged(tmp_path)
    assert (first["step"], second["step"]) == (2, 5)
    assert first["speed/seconds_per_step"] == pytest.approx(2.0)  # neither the first batch nor validation
    assert first["speed/frames_per_second"] == pytest.approx((11 + 12) / 4)
    assert second["speed/frames_per_second"] == pytest.approx((13 + 14 + 15) / 6)
    assert second["speed/padding"] == pytest.approx(0.25)
    assert second["speed/mfu"] == pytest.approx(4e12 / 2.0 / 8e12)
    assert second["speed/data_wait"] < 0.01


def test_gathered_gradients_count_as_one_step(tmp_path: Path) -> None:
    clock = Clock()
    fitted(tmp_path, Throughput(clock=clock), clock, accumulate_grad_batches=2, max_steps=6)
    second = logged(tmp_path)[-1]
    assert second["speed/seconds_per_step"] == pytest.approx(4.0)
    assert "speed/mfu" not in second  # nobody knows what this CPU can do


def test_a_run_that_starves_is_told_once(tmp_path: Path) -> None:
    clock = Clock()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(tmp_path, Throughput(clock=clock), clock, wait=2.0)
    told = [
        str(each.message) for each in caught if "num_workers" in str(each.message) and "give it" in str(each.message)
    ]
    assert len(told) == 1 and "\n" not in told[0]
    assert logged(tmp_path)[1]["speed/data_wait"] == pytest.approx(0.5, abs=0.01)


def test_every_task_has_one_unless_the_recipe_brings_its_own(tmp_path: Path) -> None:
    own = Throughput(peak_tflops=1)
    for given, count in ((own, 1), (None, 1)):
        trainer = fitted(tmp_path, given, Clock(), max_steps=1)
        found = [each for each in trainer.callbacks if isinstance(each, Throughput)]
        assert len(found) == count and (given is None or found == [own])


def test_an_impossible_peak_is_refused() -> None:
    with pytest.raises(ValueError, match="peak_tflops is -1"):
        Throughput(-1)
