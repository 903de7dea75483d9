"""What notes say of the music between two times: which pitch classes sound, how many begin, how they overlap.

Notes are rows of onset and offset in seconds and pitch as MIDI counts it, [N, 3]. Numpy and nothing of ours.
"""

from __future__ import annotations

import numpy as np

CHORD = 0.05
"""Seconds within which onsets are one: the notes of a chord."""
STATISTICS = ("notes a second", "seconds from onset to onset", "notes at once")


def sounding(notes: np.ndarray, start: float, end: float) -> np.ndarray:
    """How many seconds each note sounds between the times, [N]."""
    return (np.minimum(notes[:, 1], end) - np.maximum(notes[:, 0], start)).clip(0)


def chroma(notes: np.ndarray, start: float, end: float) -> np.ndarray:
    """The share of each pitch class in all that sounds between the times, [12]; zeros where nothing does."""
    classes = np.bincount(notes[:, 2].round().astype(int) % 12, sounding(notes, start, end), minlength=12)
    return classes / classes.sum() if classes.sum() else classes


def rhythm(notes: np.ndarray, start: float, end: float) -> np.ndarray:
    """STATISTICS of what begins or sounds between the times, [3]; with fewer than two onsets the gap is all of it."""
    seconds = end - start
    onsets = np.sort(notes[(notes[:, 0] >= start) & (notes[:, 0] < end), 0])
    new = onsets[np.diff(onsets, prepend=-np.inf) > CHORD]
    gap = float(np.diff(new).mean()) if len(new) > 1 else seconds
    return np.array([len(onsets) / seconds, gap, sounding(notes, start, end).sum() / seconds])


def chroma_distance(a: np.ndarray, b: np.ndarray) -> float:
    """How much of one has to move to make the other, from 0 to 1; between something and nothing 1."""
    if not (a.any() and b.any()):
        return float(a.any() != b.any())
    return float(np.abs(a - b).sum() / 2)


def rhythm_distance(a: np.ndarray, b: np.ndarray, spread: np.ndarray) -> float:
    """The mean distance of the statistics, each in units of its ``spread``, [3]."""
    return float((np.abs(a - b) / spread).mean())
