"""Where single words stand in a sound, by its silences; and how much of a string is a prompt.

L samples, T blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiolm_kit.audio import Sound

BEHIND = 0.06
"""Seconds that a prompt goes on behind its last digit's end: half of the shortest pause (strings.py)."""
BLOCK = 0.01
"""Seconds over which loudness is measured."""
QUIET = 10 ** (-30 / 10)
"""What has less than this share of the loudest block's power is silence."""
GAP = 0.09
"""Seconds; shorter silences are part of a word, as stops close the mouth for nearly as long."""
LEAST = 0.06
"""Seconds that a word is loud for; less is a click, or the last of the word before."""
MARGIN = 0.05
"""Seconds that are left on both sides of a word, for what begins or ends softly."""


def prompt_seconds(ends: Sequence[float], digits: int, frame_rate: float) -> float:
    """The length of a prompt of so many digits: whole frames, up to just behind the last one's end."""
    if not 0 < digits < len(ends):
        raise ValueError(f"a prompt of {digits} digits from a string of {len(ends)}: leave at least one of each")
    return int((ends[digits - 1] + BEHIND) * frame_rate + 1e-6) / frame_rate


def words(sound: Sound, start: float = 0.0) -> list[slice]:
    """The samples of each word behind ``start`` seconds: of what lies between two silences.

    Loudness is that of the whole sound, what is before ``start`` included.
    """
    size, margin = (round(seconds * sound.sample_rate) for seconds in (BLOCK, MARGIN))
    begin, end = -(-round(start * sound.sample_rate) // size), sound.samples.shape[1]
    loud = [int(place) for place in loudest(sound.samples.mean(0), size).nonzero()[:, 0] if place >= begin]
    found = [run for run in runs(loud, round(GAP / BLOCK)) if len(run) >= round(LEAST / BLOCK)]
    return [slice(max(begin * size, run[0] * size - margin), min(end, (run[-1] + 1) * size + margin)) for run in found]


def loudest(samples: Tensor, size: int) -> Tensor:
    """Which blocks of ``size`` samples are no silence, [L] -> [T] bool; samples that fill none are left out."""
    blocks = samples[: len(samples) - len(samples) % size].reshape(-1, size)
    power = blocks.square().mean(-1)
    if not (power > 0).any():
        return torch.zeros(len(power), dtype=torch.bool)
    return power >= QUIET * power.max()


def runs(blocks: Sequence[int], gap: int) -> list[list[int]]:
    """Rising numbers in groups: fewer than ``gap`` are missing between neighbours of one group."""
    groups: list[list[int]] = []
    for block in blocks:
        if groups and block - groups[-1][-1] <= gap:
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def cut(sound: Sound, start: float, stop: float) -> Sound:
    """What lies between two times, in seconds."""
    first, last = (round(edge * sound.sample_rate) for edge in (start, stop))
    return Sound(sound.samples[:, first:last], sound.sample_rate)
