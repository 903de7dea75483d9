"""Pairs: the accuracy is the share of pairs whose good one scores higher; lists with faults are refused by line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.inference import scoring
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.inference.scoring import Pair, PairScore, accuracy_of, read_pairs, score_pairs, summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sounds 1.wav to 6.wav of as many hundred samples, on the side of their list."""
    for number in range(1, 7):
        samples = 0.1 * torch.randn(1, 100 * number, generator=torch.Generator().manual_seed(number))
        audio.write(tmp_path / "sounds" / f"{number}.wav", Sound(samples, 8000))
    return tmp_path


def a_list(folder: Path, text: str) -> Path:
    path = folder / "pairs.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def rows(*scores: tuple[float, float, str]) -> list[PairScore]:
    return [PairScore(Pair(Path("a"), Path("b"), group), good, bad) for good, bad, group in scores]


def test_ties_count_half_and_groups_are_told_apart() -> None:
    result = summary(rows((2, 1, "x"), (1, 1, "x"), (0, 1, "y"), (-3, -4, "")))
    assert result.overall.accuracy == 2.5 / 4 and result.overall.pairs == 4
    assert {name: each.accuracy for name, each in result.groups.items()} == {"x": 0.75, "y": 0.0}
    assert result.lines()[0].startswith("all: 62.5 % of 4 pairs (95 % interval ")


def test_the_interval_holds_the_accuracy_and_shrinks_with_pairs() -> None:
    few, many = accuracy_of([1, 0, 1, 1] * 5), accuracy_of([1, 0, 1, 1] * 500)
    assert few.low < 0.75 < few.high and many.low < 0.75 < many.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(0.75 * 0.25 / 2000), rel=0.15)
    assert accuracy_of([1.0] * 9) == (1.0, 1.0, 1.0, 9)
    assert accuracy_of([1, 0] * 9, seed=1) == accuracy_of([1, 0] * 9, seed=1)
    with pytest.raises(ValueError, match="no pairs to score"):
        accuracy_of([])


def test_each_recording_is_scored_once_and_pairs_keep_their_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH", 2)
    heard: list[int] = []

    def length(sounds: list[Sound]) -> list[float]:
        assert len(sounds) <= 2
        heard.extend(sound.samples.shape[1] for sound in sounds)
        return [float(sound.samples.shape[1]) for sound in sounds]

    text = (
        "good\tbad\tgroup\nsounds/3.wav\tsounds/1.wav\tlong\n\nsounds/1.wav\tsounds/3.wav\nsounds/2.wav\tsounds/2.wav\n"
    )
    result = score_pairs(length, read_pairs(a_list(folder, text)))
    assert sorted(heard) == [100, 200, 300]
    assert [(row.good, row.bad, row.credit) for row in result.rows] == [(300, 100, 1), (100, 300, 0), (200, 200, 0.5)]
    result.save(folder / "result.json")
    stored = json.loads((folder / "result.json").read_text())
    assert stored["accuracy"] == 0.5 and stored["groups"]["long"]["pairs"] == 1
    assert stored["rows"][0]["good"].endswith("3.wav") and stored["rows"][0]["good_score"] == 300


def test_a_model_scores_a_list(folder: Path, audiolm: AudioLM) -> None:
    pairs = read_pairs(a_list(folder, "sounds/5.wav\tsounds/6.wav\nsounds/6.wav\tsounds/5.wav"))
    result = score_pairs(audiolm.log_likelihood, pairs)
    [nats] = audiolm.log_likelihood([audio.read(pairs[0].good)])
    assert result.rows[0].good == pytest.approx(nats) and result.overall.accuracy == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no pairs"),
        ("good\tbad\n", "holds no pairs"),
        ("sounds/1.wav\n", "line 1: 'sounds/1.wav' is not good<TAB>bad"),
        ("sounds/1.wav\tsounds/2.wav\na\tb\tc\td", "line 2: .* is not good<TAB>bad"),
        ("sounds/1.wav\t\n", "line 1: .* is not good<TAB>bad"),
        ("sounds/1.wav\tsounds/2.wav\nsounds/1.wav\tnone.wav", "line 2: no sound file .*none.wav"),
    ],
)
def test_lists_with_faults_are_refused(folder: Path, text: str, told: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        read_pairs(a_list(folder, text))


def test_missing_lists_and_scores_that_are_no_numbers_are_refused(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no list of pairs at"):
        read_pairs(folder / "none.tsv")
    (folder / "binary.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        read_pairs(folder / "binary.tsv")
    pairs = read_pairs(a_list(folder, "sounds/1.wav\tsounds/2.wav"))
    with pytest.raises(ValueError, match="1.wav is NaN"):
        score_pairs(lambda sounds: [math.nan] * len(sounds), pairs)
