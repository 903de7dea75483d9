"""Which pitch classes sound: chroma of frames, how alike two sounds are in it, how many classes one spreads over.

Shapes: L samples, F frequency bins, T frames; 12 pitch classes, C first.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from audiolm_kit.audio import checked

LOWEST, HIGHEST = 110.0, 5000.0
"""Hertz: below, a semitone is narrower than a frame can tell; above, there is more noise than melody."""
SPREAD = 0.35
"""Of a bin over the pitch classes beside its own, in semitones."""
HEARD = 60.0
"""Decibels below the loudest frame; softer ones are silent."""


def chroma(audio: Tensor, sample_rate: int) -> Tensor:
    """Power of the pitch classes in frames of about 0.2 s, a quarter of it apart, [L] -> [12, T] float64.

    Equal temperament with a' at 440 Hz. What lies at once in two octaves is added.
    """
    samples = checked(audio, "a sound to hear pitches in").double()
    size = 1 << round(math.log2(0.2 * sample_rate))
    window = torch.hann_window(size, dtype=torch.float64)
    spectrum = torch.stft(samples, size, size // 4, window=window, pad_mode="constant", return_complex=True)
    return _classes(sample_rate, size) @ spectrum.abs().square()


def similarity(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """The mean cosine of two sounds' chroma, frame by frame, [L] twice -> 0 to 1.

    Frames that are silent in both do not count, frames that are silent in one count 0.

    Raises:
        ValueError: They differ in length, or both are silent.
    """
    if estimate.shape != reference.shape or estimate.dim() != 1:
        raise ValueError(
            f"estimate and reference are {list(estimate.shape)} and {list(reference.shape)}: cut both alike"
        )
    first, second = chroma(estimate, sample_rate), chroma(reference, sample_rate)
    one, other = sounding(first), sounding(second)
    if not bool((one | other).any()):
        raise ValueError("both sounds are silent: leave them out")
    alike = torch.nn.functional.cosine_similarity(first, second, dim=0, eps=1e-30) * (one & other)
    return float(alike.sum() / (one | other).sum())


def entropy(audio: Tensor, sample_rate: int) -> float:
    """Bits of the pitch classes of a whole sound, [L] -> 0 (one class) to log2 12 = 3.585 (all alike, as in noise).

    Frames weigh alike, however loud; silent ones do not count.

    Raises:
        ValueError: It is silent between 110 and 5000 Hz.
    """
    frames = chroma(audio, sample_rate)
    heard = sounding(frames)
    if not bool(heard.any()):
        raise ValueError("the sound is silent: leave it out")
    shares = (frames[:, heard] / frames[:, heard].sum(0)).mean(1)
    return float(-(shares * shares.clamp_min(1e-300).log2()).sum())


def sounding(frames: Tensor) -> Tensor:
    """Which of [12, T] are no silence, [T]."""
    power = frames.sum(0)
    return (power > power.max() * 10 ** (-HEARD / 10)) & (power > 1e-20)


@lru_cache(maxsize=16)
def _classes(sample_rate: int, size: int) -> Tensor:
    """How much of each bin belongs to each pitch class, [12, F]."""
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
    semitones = 12 * (bins.clamp_min(1e-6) / 440).log2() + 9  # above a C
    apart = (semitones - torch.arange(12, dtype=torch.float64)[:, None] + 6) % 12 - 6
    return (-0.5 * (apart / SPREAD).square()).exp() * ((bins >= LOWEST) & (bins <= HIGHEST))
