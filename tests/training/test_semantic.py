"""MaskedTask learns a tokenizer's codes, resumes exactly, exports what the next one is made of, checks its parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import Learned, make_trainer

from audiolm_kit import audio, checkpoint
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.modules import AudioData, SteppedData
from audiolm_kit.semantic.fit import features_from, fit_tokenizer
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel
from audiolm_kit.training.semantic import MaskedTask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")

MASKED = MaskedConfig(sample_rate=1600, hop=32, num_mels=16, dim=16, heads=2, layers=2, codebook_size=8, class_dim=8)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six rising tones of half a second, one of them for validation."""
    folder, rows, clock = tmp_path_factory.mktemp("tones"), [], torch.arange(800) / 1600
    for number in range(6):
        wave = 0.4 * torch.sin(2 * torch.pi * 60 * (number + 1) * (1 + clock) * clock)
        audio.write(folder / f"{number}.wav", audio.Sound(wave[None], 1600))
        rows.append(Row(str(folder / f"{number}.wav"), 0.5, split="train" if number else "valid"))
    write_manifest(folder / "manifest.jsonl", rows)
    return str(folder / "manifest.jsonl")


@pytest.fixture(scope="module")
def targets(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of k-means of the recordings' cepstra."""
    folder = tmp_path_factory.mktemp("targets") / "mfcc"
    waves = [audio.read(path).samples[0] for path in sorted(Path(manifest).parent.glob("*.wav"))]
    checkpoint.save(fit_tokenizer(features_from("mfcc", sample_rate=1600), waves, 8), folder)
    return str(folder)


def make_data(manifest: str, **options: Any) -> AudioData:
    return AudioData(manifest, **{"sample_rate": 1600, "seconds": 0.4, "batch_size": 4, **options})


def make_task(targets: str, masked: MaskedConfig = MASKED, **options: Any) -> MaskedTask:
    pl.seed_everything(1, verbose=False)
    optimizer = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3)}
    return MaskedTask(masked, targets, **{"span": 3, **optimizer, **options})


def test_two_steps_train_every_weight_and_no_target(manifest: str, targets: str, tmp_path: Path) -> None:
    task = make_task(targets)
    before = {name: value.clone() for name, value in task.masked.named_parameters()}
    trainer = make_trainer(tmp_path, 2, val_check_interval=2, num_sanity_val_steps=0, check_val_every_n_epoch=None)
    trainer.fit(task, make_data(manifest))
    assert trainer.global_step == task.batches_seen == 2
    assert all(not torch.equal(value, before[name]) for name, value in task.masked.named_parameters())
    assert all(name.startswith("masked.") for name in task.state_dict())
    metrics = trainer.callback_metrics
    assert {"train/loss", "train/accuracy", "valid/loss", "valid/accuracy"} <= metrics.keys()
    assert all(bool(value.isfinite()) for value in metrics.values())


@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed"}])
def test_it_learns_to_tell_what_it_does_not_hear(
    manifest: str, targets: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    quick = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)}
    learned, task = Learned(), make_task(targets, alpha=0.7, gradient_checkpointing=True, **quick)
    make_trainer(tmp_path, 40, learned, **options).fit(task, make_data(manifest, seconds=0.5))
    losses = [step["train/loss"] for step in learned.steps]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    accuracies = [step["train/accuracy"] for step in learned.steps]
    assert sum(accuracies[-5:]) > sum(accuracies[:5])


def test_validation_always_masks_the_same(manifest: str, targets: str, tmp_path: Path) -> None:
    task, data = make_task(targets), make_data(manifest)
    trainer = make_trainer(tmp_path, 1)
    found = [trainer.validate(task, data, verbose=False)[0] for _ in range(2)]
    assert found[0] == found[1]


def test_a_run_that_was_killed_goes_on_as_if_it_had_not(manifest: str, targets: str, tmp_path: Path) -> None:
    whole, first, second = Learned(), Learned(), Learned()
    wanted = make_task(targets)
    make_trainer(tmp_path / "whole", 6, whole).fit(wanted, make_data(manifest))

    saved = ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_last=True, save_top_k=0)
    make_trainer(tmp_path / "killed", 4, first, saved).fit(make_task(targets), make_data(manifest))
    assert first.steps == whole.steps[:4]

    task = make_task(targets)
    for parameter in task.parameters():
        torch.nn.init.zeros_(parameter)  # all of it must come from the checkpoint
    last = str(tmp_path / "killed" / "last.ckpt")
    make_trainer(tmp_path / "killed", 6, second).fit(task, make_data(manifest), ckpt_path=last)
    assert second.steps == whole.steps[3:]
    state = wanted.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
    assert len({step["train/loss"] for step in whole.steps}) == 6


def test_what_it_exports_gives_the_targets_of_the_next(manifest: str, targets: str, tmp_path: Path) -> None:
    task = make_task(targets, export=str(tmp_path / "masked"))
    make_trainer(tmp_path / "run", 2).fit(task, make_data(manifest))
    model = checkpoint.load(MaskedModel, tmp_path / "masked")
    assert model.config == MASKED
    state = task.masked.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    waves = [audio.read(path).samples[0] for path in sorted(Path(manifest).parent.glob("*.wav"))]
    again = fit_tokenizer(features_from(str(tmp_path / "masked"), 1), waves, 6)
    checkpoint.save(again, tmp_path / "second")
    following = make_task(str(tmp_path / "second"), replace(MASKED, codebook_size=6))
    make_trainer(tmp_path / "run", 2).fit(following, make_data(manifest))
    assert following.batches_seen == 2


# --- refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codebook_size": 9}, "masked.codebook_size is 9, but the targets of .*mfcc have 8: set masked.codebook_size"),
        ({"hop": 16}, "masked.hop is 16, but the targets of .*mfcc have 32"),
    ],
)
def test_targets_of_another_shape_are_refused(
    manifest: str, targets: str, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, 1).fit(make_task(targets, replace(MASKED, **changed)), make_data(manifest))


def test_other_data_are_refused(manifest: str, targets: str, tmp_path: Path) -> None:
    for options in ({"sample_rate": 3200}, {"channels": 2}):
        with pytest.raises(ValueError, match=r"the model wants 1600 Hz and 1: set data.sample_rate"):
            make_trainer(tmp_path, 1).fit(make_task(targets), make_data(manifest, **options))
    rate = replace(MASKED, sample_rate=3200)
    with pytest.raises(ValueError, match="masked.sample_rate is 3200, but the targets .* have 1600"):
        make_trainer(tmp_path, 1).fit(make_task(targets, rate), make_data(manifest, sample_rate=3200))
    with pytest.raises(ValueError, match="learns from recordings, got data of SteppedData"):
        make_trainer(tmp_path, 1).fit(make_task(targets), SteppedData(1, 0, 0))
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        make_trainer(tmp_path, 1).fit(make_task(str(tmp_path / "none")), make_data(manifest))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_probability": 0.0}, "mask_probability is 0.0"),
        ({"span": 0}, "span is 0"),
        ({"alpha": 1.5}, "alpha is 1.5"),
    ],
)
def test_options_out_of_range_are_refused(targets: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(targets, **options)
