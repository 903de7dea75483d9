"""Task: what a step draws belongs to the step, a resumed run goes on counting, exports come only when they should."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.strategies import FSDPStrategy
from small_runs import make_trainer
from torch import Tensor

from audiolm_kit.checkpoint import write_json
from audiolm_kit.training.task import Task

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")


class Drawing(Task):
    """Notes what each step draws, and writes down its exports."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.drawn: list[float] = []
        self.exports: list[int] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.drawn.append(torch.rand(()).item())
        self.count_batch()
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> Any:
        torch.rand(self.batches_seen + 1)  # data may draw what it likes
        return torch.utils.data.DataLoader(torch.zeros(100, 1))

    def save_checkpoint_folder(self, folder: str) -> None:
        self.exports.append(self.batches_seen)
        write_json(Path(folder) / "config.json", {"batches": self.batches_seen})


class Stop(Callback):
    """Fails or interrupts after a step."""

    def __init__(self, after: int, error: type[BaseException]) -> None:
        self.after, self.error = after, error

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.after:
            raise self.error


def test_what_a_step_draws_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    pl.seed_everything(3, verbose=False)
    whole, other = Drawing(), Drawing()
    make_trainer(tmp_path, 6).fit(whole)
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=4)
    make_trainer(tmp_path, 4, saved).fit(other)
    pl.seed_everything(5, verbose=False)  # a forgotten seed does not matter: the run's own is in its checkpoint
    resumed, foreign = Drawing(), Drawing()
    make_trainer(tmp_path, 6).fit(resumed, ckpt_path=saved.best_model_path)
    make_trainer(tmp_path, 6).fit(foreign)
    assert other.drawn + resumed.drawn == whole.drawn and len(set(whole.drawn)) == 6
    assert (resumed.seed, resumed.batches_seen) == (3, 6)
    assert not set(foreign.drawn) & set(whole.drawn)


def test_ranks_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    task, drawn = Drawing(), []
    for rank in (0, 1):
        monkeypatch.setattr(Drawing, "global_rank", rank)
        task.on_train_batch_start(None, 0)
        drawn.append(torch.rand(()).item())
    assert drawn[0] != drawn[1]


def test_a_step_that_is_the_last_before_a_checkpoint_is_counted(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    make_trainer(tmp_path, 2, saved).fit(Drawing())
    stored = torch.load(saved.best_model_path, weights_only=False)
    assert stored["batches_seen"] == stored["global_step"] == 2


def test_the_largest_seed_works() -> None:
    task = Drawing()
    task.seed, task.batches_seen = 2**32 - 1, 10**6
    task.on_train_batch_start(None, 0)
    drawn = torch.rand(1)
    task.on_train_batch_start(None, 0)
    assert torch.equal(torch.rand(1), drawn)


def test_an_export_comes_at_the_end_and_on_the_way_where_asked_for(tmp_path: Path) -> None:
    at_end, on_the_way, none = (
        Drawing(export=str(tmp_path / "model")),
        Drawing(export=str(tmp_path / "model"), export_every=2),
        Drawing(),
    )
    for task in (at_end, on_the_way, none):
        make_trainer(tmp_path, 5).fit(task)
    assert (at_end.exports, on_the_way.exports, none.exports) == ([5], [2, 4, 5], [])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_breaks_off_exports_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    task = Drawing(export=str(tmp_path / "model"))
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        make_trainer(tmp_path, 5, Stop(2, error)).fit(task)
    assert task.exports == [] and not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", ["file", "folder"])
def test_an_export_replaces_nothing_but_a_checkpoint(tmp_path: Path, content: str) -> None:
    target = tmp_path / "mine"
    if content == "folder":
        target.mkdir()
    (target / "thesis.txt" if content == "folder" else target).write_text("years of work")
    task = Drawing(export=str(target))
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        make_trainer(tmp_path, 1).fit(task)
    assert task.drawn == []


def test_an_export_may_go_to_an_empty_folder_or_an_earlier_export(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for _ in range(2):
        task = Drawing(export=str(tmp_path / "model"))
        make_trainer(tmp_path, 1).fit(task)
        assert task.exports == [1]


def test_a_task_without_an_export_of_its_own_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Task exports nothing: leave `export` empty"):
        Task().save_checkpoint_folder(str(tmp_path / "model"))


def test_a_strategy_whose_weights_could_not_be_exported_is_refused_before_training() -> None:
    task = Drawing()
    task._trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(ValueError, match="use strategy fsdp2 or ddp") as refusal:
        task.setup("fit")
    assert "\n" not in str(refusal.value)


def test_a_task_that_is_not_made_to_be_sharded_says_so() -> None:
    with pytest.raises(ValueError, match="Drawing is not made to be sharded: use strategy ddp"):
        Drawing().shard(None, None)
