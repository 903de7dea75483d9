"""The verbs that train: recipes in layers, runs that go on, one line for each mistake in a recipe."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from audiolm_kit.cli import main
from audiolm_kit.commands.training import bearable, hold, newest
from audiolm_kit.doctor import environment

TASK = '''
"""A task as small as tasks get."""
import os
import signal
from typing import Literal
import torch
from pytorch_lightning import LightningDataModule, LightningModule

class TinyTask(LightningModule):
    def __init__(self, pattern: Literal["delay", "flatten"] = "delay", rate: float = 0.1, terminated: bool = False):
        super().__init__()
        self.terminated = terminated
        if rate > 9:
            raise ValueError(f"rate is {rate}: give at most 9")
        self.layer = torch.nn.Linear(1, 1)
        self.rate = rate
    def training_step(self, batch, index):
        if self.terminated and self.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)

class TinyData(LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4, 1))
'''
RECIPE = """
model: {{class_path: tiny_task.TinyTask, init_args: {{pattern: delay}}}}
data: {{class_path: tiny_task.TinyData}}
trainer:
  accelerator: cpu
  max_steps: 2
  logger: {{class_path: pytorch_lightning.loggers.CSVLogger, init_args: {{save_dir: {run}}}}}
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {run}
  callbacks:
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {{dirpath: {run}/checkpoints, save_last: true}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a tiny task whose run folder is beside it."""
    (tmp_path / "tiny_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_task", raising=False)
    path = tmp_path / "base.yaml"
    path.write_text(RECIPE.format(run=tmp_path / "run"))
    return path


def steps_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=False)["global_step"])


def test_recipes_lie_in_layers_and_the_command_line_on_top(recipe: Path) -> None:
    (recipe.parent / "more.yaml").write_text("model: {init_args: {pattern: flatten, rate: 0.5}}")
    layers = ["-c", str(recipe), "-c", str(recipe.parent / "more.yaml")]
    assert main(["fit", *layers, "--trainer.max_steps", "3", "--model.rate", "0.25"]) == 0
    assert steps_of(recipe.parent / "run" / "checkpoints" / "last.ckpt") == 3
    saved = next((recipe.parent / "run").rglob("config.yaml")).read_text()
    assert "pattern: flatten" in saved and "rate: 0.25" in saved


def test_a_run_that_is_terminated_does_not_look_finished_and_goes_on(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Lightning's way out has no status: `make` took a run that a scheduler had stopped for a finished one.
    assert main(["fit", "-c", str(recipe), "--trainer.max_steps", "4", "--model.terminated", "true"]) == 143
    assert "the same command goes on" in capsys.readouterr().err
    last = recipe.parent / "run" / "checkpoints" / "last.ckpt"
    assert steps_of(last) == 2  # the step of the signal ended; checkpoints of the recipe are written after 4 alone
    assert main(["fit", "-c", str(recipe), "--trainer.max_steps", "4"]) == 0
    assert "goes on from" in capsys.readouterr().err and steps_of(last) == 4
    assert not list(last.parent.glob("*v1*"))


def test_fit_goes_on_from_its_last_checkpoint_unless_it_is_told_to_start_over(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = recipe.parent / "run" / "checkpoints" / "last.ckpt"
    assert main(["fit", "-c", str(recipe)]) == 0
    begun = torch.load(last, weights_only=False)["state_dict"]["layer.weight"]
    capsys.readouterr()

    assert main(["fit", "-c", str(recipe), "--trainer.max_steps", "5"]) == 0
    assert f"goes on from {last}" in capsys.readouterr().err
    gone_on = torch.load(last, weights_only=False)
    assert gone_on["global_step"] == 5
    torch.testing.assert_close(gone_on["state_dict"]["layer.weight"], begun - 3 * 0.1)  # its gradient is always 1

    assert main(["fit", "-c", str(recipe), "--fresh"]) == 0
    assert steps_of(last) == 2
    assert steps_of(last.parent.with_name("checkpoints.1") / "last.ckpt") == 5


def test_two_runs_do_not_share_a_folder(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recipe.parent / "run"
    with ExitStack() as held:
        hold(run, held)
        assert main(["fit", "-c", str(recipe)]) == 2
        told = capsys.readouterr().err
        assert f"{run}: another audiolm-kit fit is at work there, wait for it, or give another folder" in told
        assert not (run / "checkpoints").exists()
        assert main(["fit", "-c", str(recipe), "--trainer.default_root_dir", str(recipe.parent / "other")]) == 0
    for _ in range(2):  # a run that has ended is in nobody's way, one that failed no more than others
        assert main(["fit", "-c", str(recipe), "--model.rate", "much"]) == 2
        assert main(["fit", "-c", str(recipe)]) == 0


def test_processes_of_one_run_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as first, ExitStack() as second:
        hold(tmp_path, first)
        with pytest.raises(ValueError, match="another audiolm-kit fit is at work there"):
            hold(tmp_path, second)
        monkeypatch.setenv("LOCAL_RANK", "1")
        hold(tmp_path, second)


def test_a_moved_run_goes_on_from_its_newest_checkpoint_each_time(recipe: Path) -> None:
    assert main(["fit", "-c", str(recipe)]) == 0
    moved = recipe.parent / "moved"
    (recipe.parent / "run").rename(moved)
    recipe.write_text(RECIPE.format(run=moved))
    for steps in (3, 4, 5):
        assert main(["fit", "-c", str(recipe), "--trainer.max_steps", str(steps)]) == 0
        assert steps_of(newest(moved / "checkpoints") or recipe) == steps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.pattern", "dealy"], "model.pattern: expected Literal['delay', 'flatten'], got dealy"),
        (["--model.rate", "12"], "rate is 12.0: give at most 9"),
        (["--trainer.max_stepz", "1"], "unrecognized arguments: --trainer.max_stepz 1"),
        (["-c", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "tiny_task.Nobody"], "module 'tiny_task' has no attribute 'Nobody'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(
    recipe: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "-c", str(recipe), *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audiolm-kit fit:")]
    assert len(lines) == 1 and told in lines[0]
    assert not (recipe.parent / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("made_up", "precision", "accelerator", "expected"),
    [
        (True, "bf16-mixed", "cpu", "32-true"),
        (True, "bf16-mixed", "auto", "32-true"),
        (False, "bf16-mixed", "cpu", "bf16-mixed"),
        (True, "bf16-mixed", "cuda", "bf16-mixed"),
        (True, "bf16", "cpu", "bf16"),
        (True, "bf16-true", "cpu", "bf16-true"),
        (True, None, "cpu", None),
    ],
)
def test_made_up_bf16_becomes_fp32_and_is_said(
    made_up: bool,
    precision: str | None,
    accelerator: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environment, "emulates_bf16", lambda: made_up)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert bearable(precision, accelerator) == expected
    told = capsys.readouterr().err
    assert told.count("\n") == (precision != expected)
    assert precision == expected or "trainer.precision is 32-true (--trainer.precision bf16 insists)" in told


def test_a_run_goes_on_in_another_precision(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = recipe.parent / "run" / "checkpoints" / "last.ckpt"
    for steps, made_up in ((2, False), (4, True), (6, False)):
        monkeypatch.setattr(environment, "emulates_bf16", lambda made_up=made_up: made_up)
        options = ["--trainer.precision", "bf16-mixed", "--trainer.max_steps", str(steps)]
        assert main(["fit", "-c", str(recipe), *options]) == 0
        assert steps_of(last) == steps
        assert ("trainer.precision is 32-true" in capsys.readouterr().err) == made_up
