"""The made-up sounds: a function of their seed, told apart by measurement, described by their captions."""

from __future__ import annotations

from pathlib import Path

import make_sounds as tool
import numpy as np
import pytest

from audiolm_kit import audio
from audiolm_kit.data.manifest import read_manifest

NUM_KINDS = 13


@pytest.fixture(scope="module")
def clips() -> dict[str, list[np.ndarray]]:
    """Four waveforms of every kind, [L] each, scaled to the same peak."""
    made: dict[str, list[np.ndarray]] = {}
    for index in range(4 * NUM_KINDS):
        clip = tool.make_clip(index, tool.SoundSet(4 * NUM_KINDS))
        wave = clip.sound.samples[0].numpy()
        made.setdefault(clip.label, []).append(wave / np.abs(wave).max())
    return made


def centroid(wave: np.ndarray) -> float:
    """The middle of the power spectrum, in Hz."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.fft.rfftfreq(len(wave), 1 / 16000)).sum() / power.sum())


def pitch_slope(wave: np.ndarray) -> float:
    """The last quarter's centroid over the first's, in octaves."""
    quarter = len(wave) // 4
    return float(np.log2(centroid(wave[-quarter:]) / centroid(wave[:quarter])))


def onsets(wave: np.ndarray) -> int:
    """How often the level of 10 ms blocks jumps fourfold, to a tenth of the peak at least."""
    level = np.abs(wave[: len(wave) // 160 * 160]).reshape(-1, 160).max(1)
    return int(((level[1:] > 4 * level[:-1]) & (level[1:] > 0.1)).sum())


def crest(wave: np.ndarray) -> float:
    """Peak over RMS."""
    return float(1 / np.sqrt(np.mean(wave**2)))


def make(folder: Path, *options: str) -> dict[str, bytes]:
    """Run the tool; its sound files' contents by name."""
    tool.main([str(folder), "--seconds", "0.5", *options])
    return {path.name: path.read_bytes() for path in sorted((folder / "sounds").iterdir())}


def test_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    first, again = make(tmp_path / "a", "--count", "13"), make(tmp_path / "b", "--count", "13")
    assert len(first) == 13 and first == again
    assert (tmp_path / "a/manifest.jsonl").read_bytes() == (tmp_path / "b/manifest.jsonl").read_bytes()


def test_another_seed_makes_other_sounds(tmp_path: Path) -> None:
    first, other = make(tmp_path / "a", "--count", "13"), make(tmp_path / "b", "--count", "13", "--seed", "1")
    assert first.keys() == other.keys() and all(first[name] != other[name] for name in first)


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small, large = make(tmp_path / "a", "--count", "5"), make(tmp_path / "b", "--count", "9")
    assert len(large) == 9 and small.items() <= large.items()


def test_sirens_rise_fall_and_wail(clips: dict[str, list[np.ndarray]]) -> None:
    assert all(pitch_slope(wave) > 0.4 for wave in clips["rising_siren"])
    assert all(pitch_slope(wave) < -0.4 for wave in clips["falling_siren"])
    for wave in clips["wailing_siren"]:
        pitches = np.array([centroid(part) for part in np.array_split(wave, 40)])
        turns = np.diff(np.sign(np.diff(np.convolve(pitches, np.ones(5) / 5, mode="valid"))))
        assert np.count_nonzero(turns) >= 4


@pytest.mark.parametrize(
    ("measure", "less", "more", "factor"),
    [
        (centroid, "low_bell", "high_bell", 2),
        (centroid, "engine", "low_bell", 1.5),
        (centroid, "engine", "wind", 1.5),
        (centroid, "wind", "heavy_rain", 3),
        (centroid, "beeps", "bird", 2),
        (onsets, "slow_clicks", "fast_clicks", 2.5),
        (crest, "heavy_rain", "light_rain", 1.5),
        (crest, "fast_clicks", "slow_clicks", 1.3),
    ],
)
def test_kinds_differ_in_every_clip(clips, measure, less: str, more: str, factor: float) -> None:
    highest, lowest = max(map(measure, clips[less])), min(map(measure, clips[more]))
    assert lowest > factor * highest, f"{measure.__name__}: {less} up to {highest:.3g}, {more} from {lowest:.3g}"


@pytest.mark.parametrize(("label", "fewest", "most"), [("slow_clicks", 3, 6), ("fast_clicks", 14, 25)])
def test_clicks_come_at_their_tempo(clips, label: str, fewest: int, most: int) -> None:
    assert all(fewest <= onsets(wave) <= most for wave in clips[label])


def test_captions_name_their_label_and_no_caption_has_two() -> None:
    owners: dict[str, str] = {}
    for kind in tool.KINDS:
        assert len(set(kind.captions)) >= 2
        noun = kind.label.split("_")[-1].rstrip("s")
        for caption in kind.captions:
            assert noun in caption or noun[:4] in caption, f"{caption!r} does not speak of {kind.label}"
            assert owners.setdefault(caption, kind.label) == kind.label
    assert len({kind.label for kind in tool.KINDS}) == NUM_KINDS


def test_no_clip_is_silent_or_clipped_and_lengths_are_exact() -> None:
    wanted = tool.SoundSet(2 * NUM_KINDS, seconds=0.5, sample_rate=8000, seed=3)
    for index in range(wanted.count):
        samples = tool.make_clip(index, wanted).sound.samples
        assert samples.shape == (1, 4000)
        assert 0.3 < float(samples.abs().max()) < 0.9


def test_manifest_reads_back_with_both_splits_in_every_kind(tmp_path: Path) -> None:
    make(tmp_path, "--count", str(8 * NUM_KINDS), "--format", "wav")
    rows = read_manifest(tmp_path / "manifest.jsonl")
    assert len(rows) == 8 * NUM_KINDS
    captions = {kind.label: kind.captions for kind in tool.KINDS}
    assert all(row.caption in captions[row.label] for row in rows)
    for split, each in (("train", 7), ("valid", 1)):
        labels = [row.label for row in read_manifest(tmp_path / "manifest.jsonl", split=split)]
        assert {labels.count(label) for label in captions} == {each}
    sound = audio.read(rows[0].path)
    assert (sound.sample_rate, sound.samples.shape[1], rows[0].duration) == (16000, 8000, 0.5)


@pytest.mark.parametrize("option", [("--count", "0"), ("--seconds", "nan"), ("--sample-rate", "10"), ("--seed", "-1")])
def test_bad_options_end_with_one_line_and_no_manifest(tmp_path: Path, capsys, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(tmp_path), *option])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "manifest.jsonl").exists()
