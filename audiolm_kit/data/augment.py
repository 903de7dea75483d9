"""Mild variations of a recording (place, loudness, speed), each a pure function of (seed, row, variant).

C channels, L samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiolm_kit.audio import Sound, fit


@dataclass(frozen=True)
class Variation:
    """What is done to one recording, in this order."""

    speed: float = 1.0
    """Above 1 is faster and higher."""
    gain_db: float = 0.0
    """Lowered where the loudest sample would pass full scale."""
    lead: int = 0
    """Samples of silence in front."""


@dataclass(frozen=True)
class VariationRanges:
    """Where the numbers of a variation are drawn from, uniformly."""

    speed: tuple[float, float] = (0.95, 1.05)
    gain_db: tuple[float, float] = (-6.0, 3.0)
    lead_seconds: float = 0.05
    """Longest extra silence in front, beyond the shift within a frame; half of the variations have some."""


def draw_variation(
    seed: int, row: int, variant: int, sample_rate: int, frame_length: int, ranges: VariationRanges = VariationRanges()
) -> Variation:
    """The variation of one row; variant 0 is the recording itself.

    The shift within a frame moves the codec's frame grid over the sound, so that one sound shows several codings.

    Args:
        sample_rate: in hertz, of the sound that will be varied.
        frame_length: samples of one codec frame.
    """
    if variant == 0:
        return Variation()
    draw = np.random.default_rng((seed, row, variant))
    shift = int(draw.integers(0, frame_length))
    extra = draw.uniform(0.0, ranges.lead_seconds) if draw.random() < 0.5 else 0.0
    speed, gain_db = float(draw.uniform(*ranges.speed)), float(draw.uniform(*ranges.gain_db))
    return Variation(speed, gain_db, shift + round(extra * sample_rate))


def vary(sound: Sound, variation: Variation) -> Sound:
    """Apply a variation, [C, L] -> [C, lead + L / speed]."""
    samples = change_speed(sound, variation.speed).samples
    samples = change_gain(samples, variation.gain_db)
    return Sound(torch.nn.functional.pad(samples, (variation.lead, 0)), sound.sample_rate)


def change_speed(sound: Sound, speed: float) -> Sound:
    """Play faster (above 1) or slower, pitch and all: the samples are read with another clock, then resampled."""
    if speed <= 0:
        raise ValueError(f"speed is {speed}, wanted above 0 (1 leaves the sound as it is)")
    clock = round(sound.sample_rate * speed)
    return fit(Sound(sound.samples, clock), sound.sample_rate, sound.samples.shape[0])


def change_gain(samples: Tensor, gain_db: float) -> Tensor:
    """Scale by decibels, at most until the loudest sample reaches full scale; never clips."""
    peak = float(samples.abs().max())
    gain = 10 ** (gain_db / 20)
    if gain > 1:
        gain = max(1.0, min(gain, 1.0 / peak)) if peak > 0 else 1.0
    return samples * gain


def pad_end(samples: Tensor, length: int) -> Tensor:
    """Add trailing silence up to at least ``length`` samples, [C, L] -> [C, max(L, length)]."""
    return torch.nn.functional.pad(samples, (0, max(0, length - samples.shape[-1])))
