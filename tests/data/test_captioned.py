"""Windows with captions: a pure function of seed and step, varied in place, speed and noise, never of other lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.data.captioned import CaptionedAudio
from audiolm_kit.data.manifest import Row, write_manifest

RATE = 1600


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Clicks and tones of half a second and of two, one in four of them for validation, and one without a caption."""
    rows = []
    for number in range(12):
        seconds = 0.5 if number % 2 else 2.0
        steps = torch.arange(round(seconds * RATE)) / RATE
        wave = 0.5 * torch.sin(2 * torch.pi * 100 * (1 + number % 4) * steps)
        audio.write(tmp_path / f"{number}.wav", audio.Sound(wave[None], RATE))
        split, caption = "train" if number % 4 else "valid", None if number == 11 else f"tone {number % 4}"
        label = "odd" if number % 2 else "even"
        rows.append(Row(str(tmp_path / f"{number}.wav"), seconds, caption=caption, label=label, split=split))
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return str(tmp_path / "manifest.jsonl")


def data_of(manifest: str, **options: object) -> CaptionedAudio:
    data = CaptionedAudio(manifest, RATE, **{"batch_size": 6, **options})  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_batches_depend_on_seed_and_step_alone(manifest: str) -> None:
    one, other = data_of(manifest).make_batch(3), data_of(manifest).make_batch(3)
    assert torch.equal(one.audio, other.audio) and one.texts == other.texts
    assert one.audio.shape == (6, RATE) and set(one.texts) <= {"tone 1", "tone 2", "tone 3"}
    assert not torch.equal(one.audio, data_of(manifest, seed=1).make_batch(3).audio)


def test_what_has_no_caption_is_passed_over(manifest: str, tmp_path: Path) -> None:
    assert len(data_of(manifest).texts) == 8  # nine for training, one of them without
    audio.write(tmp_path / "mute.wav", audio.Sound(torch.rand(1, RATE), RATE))
    write_manifest(tmp_path / "mute.jsonl", [Row(str(tmp_path / "mute.wav"), 1.0)])
    with pytest.raises(ValueError, match="has a caption"):
        data_of(str(tmp_path / "mute.jsonl"))


def test_sounds_of_one_label_may_be_of_one_kind(manifest: str) -> None:
    apart, together = data_of(manifest).make_batch(0), data_of(manifest, kinds="label").make_batch(0)
    assert apart.kinds == apart.texts == together.texts
    assert set(together.kinds) <= {"odd", "even"} and len(set(apart.kinds)) == 3


def test_short_sounds_stand_anywhere_in_their_window(manifest: str) -> None:
    data = data_of(manifest, noise_db=(-200.0, -200.0), speed=(1.0, 1.0))
    starts = set()
    for step in range(20):
        for window, text in zip(*data.make_batch(step)[:2], strict=True):
            heard = (window.abs() > 1e-3).nonzero()
            if text != "tone 2":  # those of half a second
                starts.add(int(heard[0]))
                assert abs(int(heard[-1] - heard[0]) - 800) < 8
    assert min(starts) < 100 and max(starts) > 700 and len(starts) > 20


def test_speed_changes_pitch_within_its_range(manifest: str) -> None:
    data = data_of(manifest, noise_db=(-200.0, -200.0), speed=(0.8, 1.25))
    found = []
    for step in range(10):
        for window, text in zip(*data.make_batch(step)[:2], strict=True):
            if text == "tone 2":  # 300 Hz, longer than the window
                found.append(float(torch.fft.rfft(window * torch.hann_window(RATE)).abs().argmax()))
    assert 238 <= min(found) < 290 and 310 < max(found) <= 377


def test_noise_is_as_loud_as_asked(manifest: str) -> None:
    clean, noisy = (data_of(manifest, noise_db=(level, level)).make_batch(0).audio for level in (-200.0, -20.0))
    peaks, levels = clean.abs().amax(1), (noisy - clean).std(1)
    assert torch.allclose(levels, peaks / 10, rtol=0.1)


def test_each_batch_of_validation_has_rows_from_all_over(manifest: str) -> None:
    data = data_of(manifest, batch_size=2)
    data.valid_rows = data.valid_rows * 2
    batches = list(data.val_dataloader())
    assert [len(batch.texts) for batch in batches] == [2, 2, 2] and all(
        batch.audio.shape[1] == RATE for batch in batches
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [({"speed": (0.0, 1.0)}, "wanted a range above 0"), ({"noise_db": (-10.0, -20.0)}, "from low to high")],
)
def test_ranges_that_are_none_are_refused(manifest: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data_of(manifest, **options)
