"""Cut recordings into windows in which something is heard, as rows of a manifest; the sound files stay as they are.

    python windows.py recordings.jsonl -o windows.jsonl --seconds 3 --hop 1 --balance

Many recordings of single events hold them for a second and silence for the rest, and a model that learns the silence
under the event's name says it as often. A window is kept when its loudest 50 ms come within 20 dB of the recording's.
Labels that are left with few windows are cut more finely with ``--balance``, for training alone: a model hears each
label about as often, and what it is judged by stays as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from audiolm_kit.audio import read
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

PIECE = 0.05
"""Seconds that loudness is looked at."""
LOUD = 10 ** (-20 / 20)
"""A piece this much below the recording's loudest one still counts."""
ENOUGH, HALVINGS = 0.9, 4
"""What share of the most frequent label's windows is wanted of all of them, and how often a hop is halved for it."""


def windows_of(row: Row, seconds: float, hop: float) -> list[Row]:
    """The windows of one recording in which something is heard, the first one always among those it starts from."""
    sound = read(row.path, row.start, row.duration)
    size = round(PIECE * sound.sample_rate)
    mono = sound.samples.mean(0)
    pieces = torch.nn.functional.pad(mono, (0, -len(mono) % size)).reshape(-1, size).square().mean(1).sqrt()
    found = []
    for start in starts(row.duration, seconds, hop):
        heard = pieces[round(start / PIECE) : round((start + seconds) / PIECE)]
        if heard.max() >= LOUD * pieces.max():
            found.append(replace(row, start=row.start + start, duration=min(seconds, row.duration - start)))
    return found


def starts(duration: float, seconds: float, hop: float) -> Iterator[float]:
    """Where windows begin; the last one ends where the recording does, or later if it is shorter than a window."""
    last, start = max(0.0, round(duration - seconds, 6)), 0.0
    while start < last - 1e-6:
        yield start
        start = round(start + hop, 6)
    yield last


def balanced(rows: list[Row], seconds: float, hop: float) -> list[Row]:
    """The windows of all rows; training rows of labels with few windows are cut again at smaller hops."""
    found = {place: windows_of(row, seconds, hop) for place, row in enumerate(rows)}
    places: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        if row.split == "train":
            places.setdefault(row.label, []).append(place)
    counts = {label: sum(len(found[place]) for place in own) for label, own in places.items()}
    wanted = ENOUGH * max(counts.values(), default=0)
    for label, own in places.items():
        for halving in range(1, HALVINGS + 1):
            if counts[label] >= wanted:
                break
            found |= {place: windows_of(rows[place], seconds, hop / 2**halving) for place in own}
            counts[label] = sum(len(found[place]) for place in own)
    return [window for windows in found.values() for window in windows]


def main() -> None:
    """Read the command line and write the manifest."""
    parser = argparse.ArgumentParser(description="Cut recordings into windows in which something is heard.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0, help="default: %(default)s")
    parser.add_argument("--hop", type=float, default=1.0, help="seconds between two windows, default: %(default)s")
    parser.add_argument("--balance", action="store_true", help="cut training rows of rarer labels more finely")
    parser.add_argument("--labels", nargs="+", help="only recordings with one of these labels")
    given = parser.parse_args()
    try:
        if not (given.seconds > 0 and given.hop > 0):
            raise ValueError(f"seconds and hop are {given.seconds} and {given.hop}: give positive numbers")
        rows = [row for row in read_manifest(given.manifest) if not given.labels or row.label in given.labels]
        if given.balance:
            found = balanced(rows, given.seconds, given.hop)
        else:
            found = [window for row in rows for window in windows_of(row, given.seconds, given.hop)]
        if not found:
            raise ValueError(f"{given.manifest} gives no windows: look at its labels")
        write_manifest(given.output, found)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{given.output}: {len(found)} windows of {len(rows)} recordings")


if __name__ == "__main__":
    main()
