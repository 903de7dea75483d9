"""AudioData and the walk by step: batches are pure functions of seed, step and rank; crops are whole, scaled and right.

TokenData has its own file, test_token_data.py.
"""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.modules import AudioData
from audiolm_kit.data.walk import places_of_step, row_of_place

RATE = 1000
LENGTHS = (2000, 2000, 2000, 2000, 300, 2000, 2000)  # samples; the fifth is shorter than a crop
VALID = 2


def tone(number: int, length: int) -> Tensor:
    """A rising line that names its row by its slope: sample i of row n is (n + 1) i / 2^15, [1, L]."""
    return ((number + 1) * torch.arange(length) / 2**15)[None]


def write_tone(path: Path, number: int, length: int, rate: int = RATE) -> Row:
    audio.write(path, audio.Sound(tone(number, length), rate))
    return Row(str(path), length / rate, split="valid" if number < VALID else "train")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven recordings, the first two for validation."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = [write_tone(folder / f"{number}.wav", number, length) for number, length in enumerate(LENGTHS)]
    write_manifest(folder / "manifest.jsonl", rows)
    return str(folder / "manifest.jsonl")


def make_data(manifest: str, **options: Any) -> AudioData:
    """Levels as recorded, unless asked for."""
    plain = {"sample_rate": RATE, "seconds": 0.5, "batch_size": 2, "peak": 0.0, "gain_db": (0.0, 0.0)}
    data = AudioData(manifest, **{**plain, **options})
    data.setup("fit")
    return data


def row_of(crop: Tensor) -> int:
    """Which recording a crop [1, L] was cut from."""
    return round(float(crop[0, 1] - crop[0, 0]) * 2**15) - 1


def start_of(crop: Tensor) -> int:
    """The sample at which a crop begins."""
    return round(float(crop[0, 0]) * 2**15 / (row_of(crop) + 1))


def on_rank(data: AudioData, rank: int, ranks: int, batches_seen: int = 0) -> AudioData:
    task = SimpleNamespace(batches_seen=batches_seen)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, lightning_module=task)
    return data


# --- the walk


@pytest.mark.parametrize(("batch_size", "ranks"), [(1, 1), (3, 1), (2, 3)])
def test_every_place_is_taken_once(batch_size: int, ranks: int) -> None:
    places = [
        place for step in range(10) for rank in range(ranks) for place in places_of_step(step, batch_size, rank, ranks)
    ]
    assert places == list(range(10 * batch_size * ranks))


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    epochs = [[row_of_place(place, 20, seed=3) for place in range(20 * n, 20 * n + 20)] for n in range(6)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[0] != [row_of_place(place, 20, seed=4) for place in range(20)]


# --- batches


def test_every_training_row_comes_once_an_epoch_and_no_other(manifest: str) -> None:
    data = make_data(manifest, batch_size=1)
    seen = [row_of(data.make_batch(step).audio[0]) for step in range(15)]
    for epoch in (seen[:5], seen[5:10], seen[10:]):
        assert Counter(epoch) == Counter(range(VALID, 7))


def test_a_batch_depends_on_seed_step_and_rank_alone(manifest: str) -> None:
    wanted = make_data(manifest).make_batch(5).audio
    walked = make_data(manifest)
    batches = [walked.make_batch(step).audio for step in (9, 2, 5, 5)]
    assert torch.equal(batches[2], wanted) and torch.equal(batches[3], wanted)
    assert not torch.equal(batches[0], wanted)
    assert not torch.equal(make_data(manifest, seed=1).make_batch(5).audio, wanted)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("start", [0, 7])
def test_the_loader_starts_at_the_tasks_step_with_any_number_of_workers(
    manifest: str, num_workers: int, start: int
) -> None:
    data = make_data(manifest, num_workers=num_workers)
    wanted = [data.make_batch(step).audio for step in range(start, start + 5)]
    found = itertools.islice(on_rank(data, 0, 1, start).train_dataloader(), 5)
    assert all(torch.equal(batch.audio, expected) for batch, expected in zip(found, wanted, strict=True))


def test_ranks_share_one_large_batch(manifest: str) -> None:
    whole = make_data(manifest, batch_size=4).make_batch(3).audio
    parts = [on_rank(make_data(manifest), rank, 2).make_batch(3).audio for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_data_module_travels_to_workers_without_its_trainer(manifest: str) -> None:
    data = on_rank(make_data(manifest), 1, 2)
    wanted = data.make_batch(4).audio
    data.trainer.hook = lambda: None  # what cannot be pickled
    assert torch.equal(pickle.loads(pickle.dumps(data)).make_batch(4).audio, wanted)
    assert data.trainer.world_size == 2


def test_a_trainer_takes_batches_from_the_step_of_its_task(manifest: str) -> None:
    class Listener(pl.LightningModule):
        def __init__(self, batches_seen: int) -> None:
            super().__init__()
            self.batches_seen, self.heard, self.validated = batches_seen, [], []
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: Any, index: int) -> Tensor:
            self.heard.append(batch.audio)
            return self.weight * 1

        def validation_step(self, batch: Any, index: int) -> None:
            self.validated.append(batch.audio)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([self.weight], 0.1)

    data, task = make_data(manifest), Listener(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_steps=2, enable_checkpointing=False, num_sanity_val_steps=1, **quiet).fit(task, data)
    assert all(torch.equal(heard, make_data(manifest).make_batch(3 + n).audio) for n, heard in enumerate(task.heard))
    assert len(task.heard) == 2
    assert [[row_of(crop) for crop in batch] for batch in task.validated] == [[0, 1]]


# --- crops


def test_crops_start_anywhere_and_are_pieces_of_their_recording(manifest: str) -> None:
    data = make_data(manifest, batch_size=50)
    crops = [crop for step in range(4) for crop in data.make_batch(step).audio if row_of(crop) != 4]
    starts = {start_of(crop) for crop in crops}
    for crop in crops:
        row, start = row_of(crop), start_of(crop)
        torch.testing.assert_close(crop, tone(row, 2000)[:, start : start + 500], atol=1e-4, rtol=0)
    assert len(starts) > 100 and min(starts) < 50 and max(starts) > 1450


def test_a_short_recording_ends_in_silence(manifest: str) -> None:
    data = make_data(manifest, batch_size=10)
    short = [crop for crop in data.make_batch(0).audio if row_of(crop) == 4]
    assert len(short) == 2
    for crop in short:
        torch.testing.assert_close(crop[:, :300], tone(4, 300), atol=1e-4, rtol=0)
        assert not crop[:, 300:].any()


def test_crops_are_scaled_to_the_peak_and_then_by_a_gain_of_their_own(manifest: str) -> None:
    peaks = make_data(manifest, peak=0.8, batch_size=20).make_batch(0).audio.abs().amax((1, 2))
    torch.testing.assert_close(peaks, torch.full((20,), 0.8))
    decibels = (
        20
        * make_data(manifest, peak=1.0, gain_db=(-6.0, -2.0), batch_size=100)
        .make_batch(0)
        .audio.abs()
        .amax((1, 2))
        .log10()
    )
    assert -6.01 <= float(decibels.min()) < -5.5 and -2.5 < float(decibels.max()) <= -1.99


def test_silence_stays_silence(tmp_path: Path) -> None:
    audio.write(tmp_path / "silent.wav", audio.Sound(torch.zeros(1, 800), RATE))
    write_manifest(tmp_path / "m.jsonl", [Row(str(tmp_path / "silent.wav"), 0.8)])
    batch = make_data(str(tmp_path / "m.jsonl"), peak=0.9, gain_db=(-6.0, 0.0)).make_batch(0)
    assert batch.audio.shape == (2, 1, 500) and not batch.audio.any()


@pytest.mark.parametrize("peak", [0.0, 0.9])
def test_kept_recordings_give_the_crops_that_are_read_from_files(manifest: str, peak: float) -> None:
    kept, read = (make_data(manifest, peak=peak, cache_megabytes=size) for size in (100, 0))
    assert kept._recordings._cache is not None and read._recordings._cache is None
    for step in range(5):
        assert torch.equal(kept.make_batch(step).audio, read.make_batch(step).audio)
    assert torch.equal(*(next(iter(data.val_dataloader())).audio for data in (kept, read)))


@pytest.mark.parametrize("cache_megabytes", [0, 100])
def test_rows_of_one_file_keep_to_their_own_piece(tmp_path: Path, cache_megabytes: int) -> None:
    write_tone(tmp_path / "long.wav", 2, 2000)
    pieces = [Row(str(tmp_path / "long.wav"), 0.3, start=start) for start in (0.2, 1.0)]
    write_manifest(tmp_path / "m.jsonl", pieces)
    data = make_data(str(tmp_path / "m.jsonl"), cache_megabytes=cache_megabytes)
    crops = sorted(data.make_batch(0).audio, key=start_of)
    for crop, start in zip(crops, (200, 1000), strict=True):
        torch.testing.assert_close(crop[:, :300], tone(2, 2000)[:, start : start + 300], atol=1e-4, rtol=0)
        assert not crop[:, 300:].any()  # and not the next piece


def test_recordings_are_brought_to_rate_and_channels(tmp_path: Path) -> None:
    time = torch.arange(2000) / 2000
    audio.write(tmp_path / "tone.wav", audio.Sound((torch.sin(2 * torch.pi * 50 * time) * 0.5)[None], 2000))
    write_manifest(tmp_path / "m.jsonl", [Row(str(tmp_path / "tone.wav"), 1.0)])
    for cache_megabytes in (0, 100):
        data = make_data(str(tmp_path / "m.jsonl"), channels=2, cache_megabytes=cache_megabytes)
        batch = data.make_batch(0).audio
        assert batch.shape == (2, 2, 500) and torch.equal(batch[:, 0], batch[:, 1])
        loudest = torch.fft.rfft(batch[0, 0]).abs().argmax()
        assert int(loudest) == 25  # 50 Hz in half a second


# --- validation


def test_validation_takes_the_valid_rows_from_their_start(manifest: str) -> None:
    data = make_data(manifest, batch_size=1)
    crops = [batch.audio[0] for batch in data.val_dataloader()]
    assert [(row_of(crop), start_of(crop)) for crop in crops] == [(0, 0), (1, 0)]
    assert len(list(make_data(manifest, batch_size=1, valid_batches=1).val_dataloader())) == 1
    assert [len(batch.audio) for batch in make_data(manifest, batch_size=5).val_dataloader()] == [2]


def test_without_valid_rows_there_is_no_validation(tmp_path: Path) -> None:
    row = write_tone(tmp_path / "a.wav", 5, 800)
    write_manifest(tmp_path / "m.jsonl", [row])
    assert list(make_data(str(tmp_path / "m.jsonl")).val_dataloader()) == []


# --- refusals


def test_a_manifest_without_training_rows_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [write_tone(tmp_path / "a.wav", 0, 800)])
    with pytest.raises(ValueError, match="has no rows to train on"):
        make_data(str(tmp_path / "m.jsonl"))
    with pytest.raises(FileNotFoundError, match="no manifest"):
        make_data(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "batch_size is 0"), ({"seconds": 0.0}, "seconds is 0.0"), ({"seconds": -1.0}, "seconds is")],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioData("m.jsonl", **{"sample_rate": RATE, **options})
