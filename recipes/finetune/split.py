"""Hold out some recordings of a manifest that has none for validation.

    python split.py MANIFEST -o MANIFEST [--share 0.1]

A manifest that says which recordings are ``valid`` is kept as it is. Of any other, this share of the recordings becomes
``valid``: always the same ones, by a hash of their names, and all rows of a recording together.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from dataclasses import replace
from pathlib import Path

from audiolm_kit.data.manifest import Row, read_manifest, write_manifest


def held_out(rows: list[Row], share: float) -> list[Row]:
    """The rows, each with a split: ``train`` where it had none, and ``valid`` where it is held out.

    Raises:
        ValueError: there are not enough recordings to train on some and hold out others.
    """
    if any(row.split == "valid" for row in rows):
        return [replace(row, split=row.split or "train") for row in rows]
    free = sorted({row.path for row in rows if row.split in (None, "train")}, key=_place)
    count = math.ceil(share * len(free))
    if not 0 < count < len(free):
        raise ValueError(f"{count} of {len(free)} recordings are to be held out, and some to be trained on: give more")
    valid = set(free[:count])
    return [replace(row, split="valid" if row.path in valid else row.split or "train") for row in rows]


def _place(path: str) -> tuple[str, str]:
    """Where a recording stands among all, wherever its folder lies."""
    return hashlib.sha256(Path(path).name.encode()).hexdigest(), path


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the manifest."""
    parser = argparse.ArgumentParser(description="Hold out some recordings for validation, where none are.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the manifest to write")
    parser.add_argument("--share", type=float, default=0.1, help="of the recordings, where none is valid yet")
    options = parser.parse_args(arguments)
    try:
        rows = held_out(read_manifest(options.manifest), options.share)
        write_manifest(options.output, rows)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "valid")}
    print(f"{options.output}: {counts['train']} rows to train on, {counts['valid']} held out")


if __name__ == "__main__":
    main()
