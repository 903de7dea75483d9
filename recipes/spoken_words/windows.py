"""Cut recordings of single words to the window in which the word is said; the sound files stay as they are.

    python windows.py recordings.jsonl -o windows.jsonl --seconds 0.8

A corpus may give every word a whole second, wherever in it the word is said, another may cut its words out: a model of
both should hear them alike, a word soon after the start. A window begins a little before the first piece of a recording
that is loud, or earlier where the recording would end before the window; of what is loud for longer it is the loudest
part. What is no longer than a window stays as it is.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from audiolm_kit.audio import read
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

PIECE = 0.01
"""Seconds that loudness is looked at."""
LOUD = 10 ** (-25 / 20)
"""A piece this much below the recording's loudest one still counts."""
BEFORE = 0.05
"""Seconds of a window before the word."""


def window_of(row: Row, seconds: float) -> Row:
    """The window of one recording in which its word is said."""
    if row.duration <= seconds:
        return row
    sound = read(row.path, row.start, row.duration)
    start = min(begins(sound.samples.mean(0), sound.sample_rate, seconds), row.duration - seconds)
    return replace(row, start=round(row.start + start, 6), duration=seconds)


def begins(samples: Tensor, sample_rate: int, seconds: float) -> float:
    """The second at which a window should begin, given samples [L]."""
    size = round(PIECE * sample_rate)
    pieces = torch.nn.functional.pad(samples, (0, -len(samples) % size)).reshape(-1, size).square().mean(1)
    loud = (pieces >= LOUD**2 * pieces.max()).nonzero()[:, 0]
    first, last = int(loud[0]), int(loud[-1]) + 1
    width = round(seconds / PIECE)
    if last - first > width:  # noise, or a word that is longer
        return float(pieces.unfold(0, width, 1).sum(1).argmax()) * PIECE
    return max(0.0, first * PIECE - BEFORE)


def main() -> None:
    """Read the command line and write the manifest."""
    parser = argparse.ArgumentParser(description="Cut recordings of single words to the window of the word.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.8, help="default: %(default)s")
    given = parser.parse_args()
    try:
        if not given.seconds > 0:
            raise ValueError(f"seconds is {given.seconds}: give a positive number")
        rows = read_manifest(given.manifest)
        windows = [window_of(row, given.seconds) for row in rows]
        write_manifest(given.output, windows)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    cut = sum(row != window for row, window in zip(rows, windows, strict=True))
    print(f"{given.output}: {len(rows)} recordings, {cut} of them cut to {given.seconds:g} s")


if __name__ == "__main__":
    main()
