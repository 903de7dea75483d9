"""ContrastiveTask finds captions of sounds that it has not heard, resumes exactly, and exports what chooses takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import QUIET, Losses, make_trainer

from audiolm_kit import audio
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.data.captioned import CaptionedAudio
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.modules import AudioData
from audiolm_kit.evaluation.contrastive import ContrastiveConfig, ContrastiveScorer
from audiolm_kit.training.contrastive import ContrastiveTask

pytestmark = QUIET

KINDS = {"a low hum": 120.0, "a middle hum": 330.0, "a high hum": 620.0}
CONFIG = ContrastiveConfig(
    sample_rate=1600,
    seconds=0.4,
    fft_size=64,
    hop=16,
    mels=16,
    filters=(4, 8),
    dim=8,
    dropout=0.1,
    text=TextConfig(kind="small", dim=16, layers=1, heads=2, pieces=40),
)


def hum(kind: str, seed: int) -> audio.Sound:
    draw = torch.Generator().manual_seed(seed)
    pitch = KINDS[kind] * float(0.9 + 0.2 * torch.rand((), generator=draw))
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(480) / 1600) + 0.02 * torch.randn(480, generator=draw)
    return audio.Sound(0.4 * wave[None], 1600)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rows = tmp_path_factory.mktemp("hums"), []
    for number in range(18):
        kind = list(KINDS)[number % 3]
        audio.write(folder / f"{number}.wav", hum(kind, number))
        rows.append(Row(str(folder / f"{number}.wav"), 0.3, caption=kind, split="train" if number < 15 else "valid"))
    write_manifest(folder / "manifest.jsonl", rows)
    return str(folder / "manifest.jsonl")


def data_of(manifest: str, **options: object) -> CaptionedAudio:
    return CaptionedAudio(manifest, **{"sample_rate": 1600, "seconds": 0.4, "batch_size": 12, **options})  # type: ignore[arg-type]


def task_of(export: str = "", config: ContrastiveConfig = CONFIG) -> ContrastiveTask:
    pl.seed_everything(1, verbose=False)
    return ContrastiveTask(config, lambda parameters: torch.optim.AdamW(parameters, lr=1e-2), export=export)


@pytest.fixture(scope="module")
def trained(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> ContrastiveScorer:
    folder = tmp_path_factory.mktemp("scorer")
    checked = {"val_check_interval": 60, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    trainer = make_trainer(folder / "run", 60, **checked)
    trainer.fit(task_of(str(folder / "scorer")), data_of(manifest))
    assert float(trainer.callback_metrics["valid/found"]) == 1.0
    return ContrastiveScorer.load(folder / "scorer")


def test_sounds_that_it_has_not_heard_find_their_captions(trained: ContrastiveScorer) -> None:
    kinds = list(KINDS)
    sounds = trained.embed_sounds([hum(kind, 100 + number) for kind in kinds for number in range(4)])
    nearest = (sounds @ trained.embed_texts(kinds).T).argmax(1)
    assert nearest.tolist() == [number for number in range(3) for _ in range(4)]


def test_of_takes_it_takes_the_one_that_fits(trained: ContrastiveScorer) -> None:
    kinds = list(KINDS)
    scores = trained([hum(kind, 7) for kind in kinds], ["a middle hum"] * 3)
    assert int(scores.argmax()) == 1


def test_a_run_that_stopped_goes_on_as_if_it_had_not(manifest: str, tmp_path: Path) -> None:
    whole, begun, resumed = Losses(), Losses(), Losses()
    make_trainer(tmp_path / "whole", 8, whole).fit(task_of(), data_of(manifest))
    keeping = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_train_steps=4, save_top_k=0)
    make_trainer(tmp_path / "begun", 4, begun, keeping).fit(task_of(), data_of(manifest))
    last = str(tmp_path / "kept" / "last.ckpt")
    make_trainer(tmp_path / "other", 8, resumed).fit(task_of(), data_of(manifest), ckpt_path=last)
    assert begun.values + resumed.values == whole.values and len(whole.values) == 8


def test_data_that_do_not_fit_are_refused(manifest: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the data gives 0.5 s at 1600 Hz, the model hears 0.4 s at 1600 Hz"):
        make_trainer(tmp_path, 1).fit(task_of(), data_of(manifest, seconds=0.5))
    with pytest.raises(ValueError, match="got data of AudioData: set data to audiolm_kit.data.captioned"):
        make_trainer(tmp_path, 1).fit(task_of(), AudioData(manifest, 1600))
