"""Chroma: tones where they belong, octaves alike, semitones apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiolm_kit.evaluation.music import chroma, entropy, similarity

RATE = 16000


def tone(*semitones: float, seconds: float = 1.0) -> Tensor:
    """A chord; 0 is a' at 440 Hz."""
    steps = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return sum((torch.sin(2 * math.pi * 440 * 2 ** (each / 12) * steps) for each in semitones), torch.zeros(len(steps)))


def noise(seed: int) -> Tensor:
    return torch.randn(2 * RATE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("semitone", range(-14, 12))
def test_a_tone_sounds_in_its_pitch_class(semitone: int) -> None:
    frames = chroma(tone(semitone), RATE)
    assert frames.shape[0] == 12
    middle = frames[:, frames.shape[1] // 2]
    assert int(middle.argmax()) == (semitone + 9) % 12
    assert float(middle.max() / middle.sum()) > 0.9


def test_an_octave_is_the_same_and_a_semitone_is_not() -> None:
    assert similarity(tone(0), tone(12), RATE) > 0.97
    assert similarity(tone(0), tone(1), RATE) < 0.2
    assert similarity(tone(0, 4, 7), tone(0, 4, 7), RATE) == pytest.approx(1)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_pitch_classes_do_not_depend_on_the_rate(rate: int) -> None:
    steps = torch.arange(rate, dtype=torch.float64) / rate
    frames = chroma(torch.sin(2 * math.pi * 261.63 * steps), rate)
    assert int(frames.sum(1).argmax()) == 0


def test_similarity_does_not_depend_on_gain_and_is_symmetric() -> None:
    first, second = noise(0), noise(1)
    wanted = similarity(first, second, RATE)
    assert similarity(0.01 * first, 3 * second, RATE) == pytest.approx(wanted)
    assert similarity(second, first, RATE) == pytest.approx(wanted)


def test_frames_that_sound_in_one_alone_are_unlike() -> None:
    half = torch.cat([tone(0), torch.zeros(RATE)])
    both = torch.cat([tone(0), tone(0)])
    assert 0.4 < similarity(half, both, RATE) < 0.6
    assert similarity(half, half, RATE) == pytest.approx(1)


def test_entropy_reaches_from_a_tone_to_noise() -> None:
    found = [entropy(each, RATE) for each in (tone(0), tone(0, 4, 7), noise(0))]
    assert found == sorted(found) and found[0] < 0.4
    assert found[1] == pytest.approx(math.log2(3), abs=0.4)
    assert 3.3 < found[2] <= math.log2(12)


def test_silence_is_refused() -> None:
    with pytest.raises(ValueError, match="both sounds are silent"):
        similarity(torch.zeros(RATE), torch.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="the sound is silent"):
        entropy(torch.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="cut both alike"):
        similarity(tone(0), tone(0, seconds=0.5), RATE)
