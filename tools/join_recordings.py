"""Join short recordings of one speaker into strings, so that a model hears one voice say several things in a row.

    python tools/join_recordings.py MANIFEST OUTPUT --count 2000 --most 3 --split train --seed 0

writes OUTPUT/NUMBER.flac and, last, OUTPUT/manifest.jsonl; a folder without its manifest is not finished. The speakers
take turns, and a string is decided by the seed and its number alone: more strings leave the first ones as they were.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audiolm_kit.audio import Sound, fit, normalise, read, write
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

GAP = (0.05, 0.15)
"""Seconds of silence between two recordings, drawn uniformly."""
LEVEL = -20.0
"""Root mean square of each recording in a string, in dBFS: recordings of one speaker may differ by 30 dB."""


@dataclass(frozen=True)
class Joining:
    """How strings are drawn."""

    count: int
    least: int = 2
    """Recordings in the shortest string."""
    most: int = 3
    """Recordings in the longest."""
    split: str | None = None
    """Only recordings of this split; None takes all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}: ask for at least one string")
        if not 2 <= self.least <= self.most:
            raise ValueError(f"--least is {self.least}, --most {self.most}: give 2 <= least <= most")


def by_speaker(rows: list[Row], least: int) -> list[list[Row]]:
    """The rows of each speaker with enough recordings, speakers in the order of the alphabet."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.speaker:
            groups.setdefault(row.speaker, []).append(row)
    enough = [groups[speaker] for speaker in sorted(groups) if len(groups[speaker]) >= least]
    if not enough:
        raise ValueError(f"of {len(rows)} rows no speaker has {least}: strings are of one speaker, named in every row")
    return enough


def draw(speakers: list[list[Row]], number: int, joining: Joining) -> tuple[list[Row], list[float]]:
    """The recordings of a string, none twice, and the seconds of silence after each but the last."""
    rows = speakers[number % len(speakers)]
    generator = np.random.default_rng((joining.seed, number))
    length = int(generator.integers(joining.least, min(joining.most, len(rows)), endpoint=True))
    chosen = generator.choice(len(rows), length, replace=False)
    return [rows[place] for place in chosen], generator.uniform(*GAP, length - 1).tolist()


def join_sounds(rows: list[Row], gaps: list[float]) -> Sound:
    """Recordings, equally loud, end to end with silence between, at the first one's sample rate and channels."""
    first = normalise(read(rows[0].path, rows[0].start, rows[0].duration), LEVEL)
    rate, channels = first.sample_rate, len(first.samples)
    parts = [first.samples]
    for row, gap in zip(rows[1:], gaps, strict=True):
        sound = normalise(fit(read(row.path, row.start, row.duration), rate, channels), LEVEL)
        parts += [torch.zeros(channels, round(gap * rate)), sound.samples]
    return Sound(torch.cat(parts, dim=1), rate)


def join_captions(rows: list[Row]) -> str | None:
    """One caption for all: what they share once, then each one's transcript; or all, with "and then" between."""
    captions, said = [row.caption for row in rows], [row.transcript for row in rows]
    if not all(captions):
        return None
    shared = {ending_cut(caption or "", word or "") for caption, word in zip(captions, said, strict=True)}
    if len(shared) == 1 and (stem := shared.pop()):
        several = re.sub(r"\b(the \w*[^\W\ds])$", r"\1s", stem)  # "says the digit" -> "says the digits"
        return " ".join([several, *map(str, said)])
    return " and then ".join(map(str, captions))


def ending_cut(caption: str, ending: str) -> str | None:
    """The caption before a last word or words, None if it does not end with them."""
    ending = f" {ending}"
    return caption.removesuffix(ending) if ending != " " and caption.endswith(ending) else None


def join_rows(rows: list[Row], path: Path, duration: float) -> Row:
    """The row of a string; further columns stay where all recordings agree on them."""
    words = [row.transcript for row in rows]
    same = {key: value for key, value in rows[0].extra.items() if all(row.extra.get(key) == value for row in rows)}
    parts = [Path(os.path.relpath(row.path, path.parent)).as_posix() for row in rows]
    return Row(
        str(path),
        duration,
        caption=join_captions(rows),
        transcript=" ".join(map(str, words)) if all(words) else None,
        speaker=rows[0].speaker,
        split=rows[0].split if all(row.split == rows[0].split for row in rows) else None,
        extra=same | {"parts": parts},
    )


def write_strings(manifest: Path, output: Path, joining: Joining, with_singles: bool = False) -> list[Row]:
    """Write the strings, then their manifest, in which the recordings of the source come first if they are wanted."""
    everything = read_manifest(manifest)
    rows = [row for row in everything if joining.split in (None, row.split)]
    speakers = by_speaker(rows, joining.least)
    (output / "manifest.jsonl").unlink(missing_ok=True)
    joined = list(everything) if with_singles else []
    for number in range(joining.count):
        parts, gaps = draw(speakers, number, joining)
        sound, path = join_sounds(parts, gaps), output.absolute() / f"{number:06d}.flac"
        write(path, sound)
        joined.append(join_rows(parts, path, round(sound.samples.shape[1] / sound.sample_rate, 6)))
    write_manifest(output / "manifest.jsonl", joined)
    return joined


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, write the strings and say how long they are."""
    parser = argparse.ArgumentParser(description="Join recordings of one speaker into strings.")
    parser.add_argument("manifest", type=Path, help="JSON lines; every row names its speaker")
    parser.add_argument("output", type=Path, help="folder for the strings and their manifest.jsonl")
    parser.add_argument("--count", type=int, required=True, help="how many strings")
    parser.add_argument("--least", type=int, default=2, help="recordings in the shortest; default: %(default)s")
    parser.add_argument("--most", type=int, default=3, help="recordings in the longest; default: %(default)s")
    parser.add_argument("--split", help="take recordings of this split only")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--with-singles", action="store_true", help="list the source's own rows, too, of every split")
    options = parser.parse_args(arguments)
    try:
        joining = Joining(options.count, options.least, options.most, options.split, options.seed)
        rows = write_strings(options.manifest, options.output, joining, options.with_singles)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    hours = sum(row.duration for row in rows) / 3600
    print(f"{options.output / 'manifest.jsonl'}: {len(rows)} sounds, {hours:.2f} h, {options.count} of them strings")


if __name__ == "__main__":
    main()
