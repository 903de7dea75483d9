"""MovingAverage: the average is what is validated and exported; the run goes on with its own weights, also resumed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from audiolm_kit.checkpoint import write_json
from audiolm_kit.training.averaging import MovingAverage
from audiolm_kit.training.task import Task

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
DECAY = 0.6


class Learning(Task):
    """One weight that falls by a step of its own each time, beside buffers that count; it writes down what it sees."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.weight = torch.nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor(0.0))
        self.register_buffer("number", torch.tensor(0))
        self.walked: list[float] = []
        self.judged: list[float] = []
        self.exported: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.walked.append(self.weight.item())
        self.seen += 1
        self.number += 1
        self.count_batch()
        return self.weight * (1 + self.batches_seen % 3)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.judged.append(self.weight.item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(100, 1))

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(1, 1))

    def save_checkpoint_folder(self, folder: str) -> None:
        self.exported.append(self.weight.item())
        write_json(Path(folder) / "config.json", {"weight": self.weight.item(), "seen": self.seen.item()})


class After(Callback):
    """The weight after each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        self.values.append(task.weight.item())


def train(root: Path, steps: int, average: MovingAverage, task: Task, *more: Callback, **options: Any) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in more)}
    path = options.pop("ckpt_path", None)
    callbacks = [average, *more]
    trainer = pl.Trainer(max_steps=steps, default_root_dir=root, callbacks=callbacks, **{**quiet, **options})
    trainer.fit(task, ckpt_path=path)


def averaged(values: list[float], decay: float = DECAY) -> float:
    """By hand."""
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    return average


def test_the_export_is_the_average_of_the_weights_after_each_step(tmp_path: Path) -> None:
    task, after = Learning(export=str(tmp_path / "model")), After()
    train(tmp_path, 4, MovingAverage(DECAY), task, after)
    assert len(set(after.values)) == 4
    exported = json.loads((tmp_path / "model" / "config.json").read_text())
    assert exported["weight"] == pytest.approx(averaged(after.values))
    assert exported["weight"] != pytest.approx(after.values[-1])
    assert exported["seen"] == pytest.approx(averaged([1, 2, 3, 4]))  # buffers go along; whole numbers have no average
    assert task.weight.item() == exported["weight"] and task.number == 4


def test_exports_on_the_way_are_averages_too_and_training_goes_on_unaware(tmp_path: Path) -> None:
    plain, after = Learning(), After()
    train(tmp_path, 6, MovingAverage(0.0), plain, after)
    task = Learning(export=str(tmp_path / "model"), export_every=2)
    train(tmp_path, 6, MovingAverage(DECAY), task)
    assert task.walked == plain.walked
    assert task.exported == pytest.approx([averaged(after.values[:n]) for n in (2, 4, 6, 6)])


def test_validation_sees_the_average(tmp_path: Path) -> None:
    task, after = Learning(), After()
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    train(tmp_path, 6, MovingAverage(DECAY), task, after, **options)
    assert task.judged == pytest.approx([averaged(after.values[:n]) for n in (2, 4, 6)])
    assert task.walked[1:] == after.values[:-1]


def test_every_counts_steps_of_the_optimizer_and_not_batches(tmp_path: Path) -> None:
    task, after = Learning(), After()
    train(tmp_path, 6, MovingAverage(DECAY, every=2), task, after, accumulate_grad_batches=2)
    assert task.batches_seen == 12
    assert task.weight.item() == pytest.approx(averaged([after.values[1], *after.values[3::4]]))


def test_a_resumed_run_ends_with_the_same_average(tmp_path: Path) -> None:
    whole = Learning()
    train(tmp_path, 7, MovingAverage(DECAY), whole)
    saved = ModelCheckpoint(tmp_path / "run", save_last=True, every_n_train_steps=3, save_top_k=0)
    train(tmp_path / "run", 3, MovingAverage(DECAY), Learning(), saved)
    resumed = Learning()
    train(tmp_path / "run", 7, MovingAverage(DECAY), resumed, ckpt_path=tmp_path / "run" / "last.ckpt")
    assert resumed.walked == whole.walked[3:]
    assert resumed.weight.item() == whole.weight.item() and resumed.seen == whole.seen


def test_a_checkpoint_of_the_very_end_holds_the_runs_own_weights(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=100, save_top_k=0)
    after = After()
    train(tmp_path, 4, MovingAverage(DECAY), Learning(), after, saved)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["state_dict"]["weight"].item() == after.values[-1]
    assert stored["averages"]["weight"].item() == pytest.approx(averaged(after.values))
    again = Learning(
        export=str(tmp_path / "model")
    )  # nothing is left to train, but the export is the average all the same
    train(tmp_path, 4, MovingAverage(DECAY), again, ckpt_path=tmp_path / "last.ckpt")
    assert again.walked == [] and again.exported == [stored["averages"]["weight"].item()]


def test_a_run_that_had_no_average_gets_one_with_a_word(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2, save_top_k=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_steps=2, default_root_dir=tmp_path, callbacks=[saved], **quiet).fit(Learning())
    task, after = Learning(), After()
    with pytest.warns(UserWarning, match="the average begins anew"):
        train(tmp_path, 4, MovingAverage(DECAY), task, after, ckpt_path=tmp_path / "last.ckpt")
    assert task.weight.item() == pytest.approx(averaged(after.values))


def test_a_validation_that_breaks_off_leaves_the_runs_own_weights(tmp_path: Path) -> None:
    class Breaking(Learning):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            raise RuntimeError("no")

    task, after = Breaking(), After()
    options = {"val_check_interval": 3, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    with pytest.raises(RuntimeError, match="no"):
        train(tmp_path, 6, MovingAverage(DECAY), task, after, **options)
    assert task.weight.item() == after.values[-1]


def test_weights_in_half_precision_are_averaged_in_single() -> None:
    task, average = Learning().bfloat16(), MovingAverage(0.999)
    for step in range(11):
        with torch.no_grad():
            task.weight.fill_(2.0 if step else 1.0)
        average.on_train_batch_end(SimpleNamespace(global_step=step + 1), task)
    average._put(task)
    assert task.weight.item() == pytest.approx(
        2 - 0.999**10, abs=0.005
    )  # bfloat16 again; so small a step is lost in it
    assert average._averages["weight"].item() == pytest.approx(2 - 0.999**10)


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
def test_impossible_averages_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wanted a share"):
        MovingAverage(**options)
