"""Cut long recordings into pieces of equal length, as rows of a manifest; the sound files stay as they are.

    python pieces.py whole.jsonl -o recordings.jsonl --seconds 30

A model that attends to all frames of what it reads cannot read an hour at once, and pieces are encoded side by side.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiolm_kit.data.manifest import Row, read_manifest, write_manifest


def pieces_of(row: Row, seconds: float) -> list[Row]:
    """Equal parts of a recording, as few as can be and none longer than this; together they are all of it."""
    count = max(1, math.ceil(round(row.duration / seconds, 6)))
    cuts = [round(row.duration * place / count, 6) for place in range(count + 1)]
    return [
        replace(row, start=round(row.start + a, 6), duration=round(b - a, 6))
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]


def some(rows: list[Row], most: int, seed: int = 0) -> list[Row]:
    """So many of the rows at most, drawn evenly, in their order."""
    if len(rows) <= most:
        return rows
    places = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[place] for place in sorted(places.tolist())]


def main() -> None:
    """Read the command line and write the manifest."""
    parser = argparse.ArgumentParser(description="Cut long recordings into pieces of equal length.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0, help="no piece is longer, default: %(default)s")
    parser.add_argument("--most", type=int, help="only so many pieces, drawn evenly over all")
    given = parser.parse_args()
    try:
        if not (math.isfinite(given.seconds) and given.seconds > 0):
            raise ValueError(f"seconds is {given.seconds}: give a positive number")
        if given.most is not None and given.most < 1:
            raise ValueError(f"most is {given.most}: give 1 or more, or leave it out")
        rows = read_manifest(given.manifest)
        found = [piece for row in rows for piece in pieces_of(row, given.seconds)]
        found = found if given.most is None else some(found, given.most)
        write_manifest(given.output, found)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{given.output}: {len(found)} pieces of {len(rows)} recordings")


if __name__ == "__main__":
    main()
