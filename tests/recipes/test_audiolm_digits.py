"""The recipe's own scripts: strings of digits that keep a rule or break it at every step."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from reading import RECIPES, load

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

RECIPE = RECIPES / "audiolm_digits"


strings = load("audiolm_digits", "strings")


def digit(number: int, speaker: int) -> torch.Tensor:
    """A tone of the digit's own pitch with silence around it, a quarter of a second at 4 kHz."""
    time = torch.arange(600) / 4000
    tone = 0.2 * torch.sin(2 * torch.pi * (200 + 100 * number + 30 * speaker) * time)
    return torch.nn.functional.pad(tone, (200, 200))[None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of strings, made by the script from the digits of two speakers."""
    folder, rows = tmp_path_factory.mktemp("digits"), []
    for speaker in range(2):
        for number, word in enumerate(strings.DIGITS):
            path = folder / f"{number}_{speaker}.wav"
            audio.write(path, Sound(digit(number, speaker), 4000))
            rows += [Row(str(path), 0.25, None, word, word, f"s{speaker}", split) for split in ("train", "valid")]
    write_manifest(folder / "recordings.jsonl", rows)
    given = ["recordings.jsonl", "-o", "strings", "--train", "40", "--valid", "10", "--sample_rate", "4000"]
    subprocess.run([sys.executable, RECIPE / "strings.py", *given], cwd=folder, check=True, capture_output=True)
    return folder / "strings.jsonl"


def test_a_string_counts_up_all_along_or_nowhere(made: Path) -> None:
    kept = set()
    for row in read_manifest(made):
        digits = row.extra["digits"]
        steps = {(b - a) % 10 == 1 for a, b in pairwise(digits)}
        assert steps == {row.label == "rule"}
        assert row.transcript == " ".join(strings.DIGITS[each] for each in digits)
        kept.add((row.label, len(digits)))
    assert kept == {(label, length) for label in ("rule", "free") for length in (3, 4, 5)}


def test_digits_stand_where_the_manifest_says_and_pauses_between_them(made: Path) -> None:
    for row in read_manifest(made, "valid"):
        samples, rate = audio.read(row.path)
        assert samples.shape[1] / rate == pytest.approx(row.duration)
        for end in row.extra["ends"]:
            at = round(end * rate)
            assert samples[:, at : at + round(0.11 * rate)].abs().max() == 0
            assert samples[:, at - round(0.1 * rate) : at].abs().max() > 0.05


def test_the_speaker_of_a_string_says_all_of_it(made: Path) -> None:
    """A tone's pitch tells digit and speaker: the spectrum of each digit peaks at its own."""
    for row in read_manifest(made, "train")[:6]:
        samples, rate = audio.read(row.path)
        for number, end in zip(row.extra["digits"], row.extra["ends"], strict=True):
            piece = samples[0, round(end * rate) - 500 : round(end * rate) - 100]
            heard = float(torch.fft.rfft(piece).abs().argmax()) * rate / 400
            assert heard == pytest.approx(200 + 100 * number + 30 * int((row.speaker or "")[1:]), abs=11)


def test_a_speaker_who_lacks_a_digit_is_told_of(made: Path, tmp_path: Path) -> None:
    rows = [row for row in read_manifest(made.parent / "recordings.jsonl") if row.label != "nine"]
    write_manifest(tmp_path / "some.jsonl", rows)
    given = [sys.executable, RECIPE / "strings.py", "some.jsonl", "-o", "out"]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no speaker of split 'train' says all of zero, one" in done.stderr
