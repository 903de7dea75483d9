"""Mild variations of a recording (place, loudness, speed, tempo), each a pure function of (seed, row, variant).

C channels, L samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiolm_kit.audio import Sound, fit

WINDOW, REACH = 0.04, 0.01
"""Seconds of the pieces of which a sound of another tempo is put together, and how far each may lie from its place."""
OCTAVE = 12
"""Semitones."""


@dataclass(frozen=True)
class Variation:
    """What is done to one recording, in this order."""

    speed: float = 1.0
    """Above 1 is faster and higher."""
    gain_db: float = 0.0
    """Lowered where the loudest sample would pass full scale."""
    lead: int = 0
    """Samples of silence in front."""
    tempo: float = 1.0
    """Above 1 is faster, at the same pitch."""


@dataclass(frozen=True)
class VariationRanges:
    """Where the numbers of a variation are drawn from, uniformly."""

    speed: tuple[float, float] = (0.95, 1.05)
    gain_db: tuple[float, float] = (-6.0, 3.0)
    lead_seconds: float = 0.05
    """Longest extra silence in front, beyond the shift within a frame; half of the variations have some."""
    tempo: tuple[float, float] = (1.0, 1.0)
    """Drawn so that twice as fast is as likely as half as fast."""
    semitones: int = 0
    """Above 0, the speed is one at which music is so many whole semitones higher or lower at most, and in tune."""

    def __post_init__(self) -> None:
        if not 0 < self.tempo[0] <= self.tempo[1] < math.inf:
            raise ValueError(f"tempo is {self.tempo[0]:g},{self.tempo[1]:g}, wanted a range above 0, as 0.75,1.33")
        if not 0 <= self.semitones <= OCTAVE:
            raise ValueError(f"semitones is {self.semitones}, wanted 0 (any mild speed) to {OCTAVE}")


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
    slowest, fastest = (math.log(tempo) for tempo in ranges.tempo)
    tempo = math.exp(draw.uniform(slowest, fastest))
    if ranges.semitones:
        speed = 2 ** (int(draw.integers(-ranges.semitones, ranges.semitones + 1)) / OCTAVE)
    return Variation(speed, gain_db, shift + round(extra * sample_rate), tempo)


def vary(sound: Sound, variation: Variation) -> Sound:
    """Apply a variation, [C, L] -> [C, lead + L / speed / tempo]."""
    samples = change_tempo(change_speed(sound, variation.speed), variation.tempo).samples
    samples = change_gain(samples, variation.gain_db)
    return Sound(torch.nn.functional.pad(samples, (variation.lead, 0)), sound.sample_rate)


def change_speed(sound: Sound, speed: float) -> Sound:
    """Play faster (above 1) or slower, pitch and all: the samples are read with another clock, then resampled."""
    if speed <= 0:
        raise ValueError(f"speed is {speed}, wanted above 0 (1 leaves the sound as it is)")
    clock = round(sound.sample_rate * speed)
    return fit(Sound(sound.samples, clock), sound.sample_rate, sound.samples.shape[0])


def change_tempo(sound: Sound, tempo: float) -> Sound:
    """Play faster (above 1) or slower at the same pitch, [C, L] -> [C, L / tempo]: WSOLA (Verhelst and Roelands 1993).

    Windows of the sound are laid one over the other at a distance of their own, each taken from where it goes on most
    smoothly from the one before, within 10 ms of where the tempo has it.
    """
    if tempo <= 0:
        raise ValueError(f"tempo is {tempo}, wanted above 0 (1 leaves the sound as it is)")
    if tempo == 1:
        return sound
    hop, reach = max(1, round(WINDOW / 2 * sound.sample_rate)), round(REACH * sound.sample_rate)
    size, length = 2 * hop, round(sound.samples.shape[1] / tempo)
    count = math.ceil(length / hop) + 1
    # A hop of silence in front, and behind what the last window and its search may reach.
    behind = reach + size + max(0, math.ceil((count - 1) * hop * tempo) + size - sound.samples.shape[1] - hop)
    samples = torch.nn.functional.pad(sound.samples, (hop + reach, behind))
    mono = samples.mean(0)
    window = torch.hann_window(size, dtype=samples.dtype)
    made = samples.new_zeros(len(samples), (count + 1) * hop)
    start = reach
    for number in range(count):
        if number:
            wanted = mono[start + hop : start + hop + size]  # what would follow
            first = round(number * hop * tempo)
            start = first + int((mono[first : first + 2 * reach + size].unfold(0, size, 1) @ wanted).argmax())
        made[:, number * hop : number * hop + size] += window * samples[:, start : start + size]
    return Sound(made[:, hop : hop + length], sound.sample_rate)


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
