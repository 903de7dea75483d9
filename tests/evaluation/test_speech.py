"""Errors of words by torchmetrics and by hand; PESQ and STOI where their packages are, one line where they are not."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from audiolm_kit.evaluation.speech import (
    RATES,
    Errors,
    character_errors,
    errors,
    required,
    score,
    word_errors,
    words,
)

PAIRS = [
    ("the cat sat on the mat", "the cat sat on mat"),
    ("one two three", "one three two four"),
    ("seven", "eleven seven"),
    ("a b c d e f", ""),
    ("it's nine o'clock", "it's nine o'clock"),
]


def test_edits_are_counted_as_few_as_it_takes() -> None:
    assert errors("kitten", "sitting") == Errors(3, 6)
    assert errors("", "abc") == Errors(3, 0)
    assert errors("abc", "") == Errors(3, 3)
    assert errors("abc", "abc").edits == 0


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_error_rates_are_those_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.text")
    said, heard = zip(*PAIRS, strict=True)
    for rate, kind in ((theirs.word_error_rate, word_errors), (theirs.char_error_rate, character_errors)):
        found = [kind(*pair) for pair in PAIRS]
        ours = sum(each.edits for each in found) / sum(each.length for each in found)
        assert ours == pytest.approx(float(rate(list(heard), list(said))))


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words("  It\u2019s NINE o'clock -- 'so', what?! ") == ["it's", "nine", "o'clock", "so", "what"]
    assert words("Grüße, Straße") == words("grüße STRASSE")
    assert word_errors("Hello, world.", "hello world").edits == 0
    assert words("...") == []


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "torchmetrics", torch)
    with pytest.raises(ValueError, match="pesq_wb needs the package pesq, .*: pip install pesq, or leave") as error:
        required("pesq_wb")
    assert "\n" not in str(error.value)


@pytest.mark.slow  # torchmetrics takes seconds to import
@pytest.mark.parametrize("name", list(RATES))
def test_a_clean_sound_scores_best_and_noise_worse(name: str) -> None:
    pytest.importorskip("pesq" if "pesq" in name else "pystoi")
    rate = RATES[name]
    steps = torch.arange(2 * rate) / rate
    tones = sum(torch.sin(2 * math.pi * 150 * n * steps) / n for n in range(1, 20))
    speech = 0.1 * tones * (torch.sin(2 * math.pi * 3 * steps) > 0)  # syllables of a kind
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(0))
    found = [score(name)(speech + level * noise, speech) for level in (0.0, 0.05, 0.5)]
    assert found[0] > found[1] > found[2]
    assert found[0] == pytest.approx({"pesq_wb": 4.64, "pesq_nb": 4.55}.get(name, 1.0), abs=0.02)


@pytest.mark.slow
def test_what_is_too_short_to_understand_is_refused() -> None:
    pytest.importorskip("pystoi")
    with pytest.raises(ValueError, match="stoi cannot tell"):
        score("stoi")(torch.randn(1000), torch.randn(1000))
