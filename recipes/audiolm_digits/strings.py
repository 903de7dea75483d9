"""Put spoken digits of one speaker one behind the other: strings of 3 to 5, of which a share counts up by one.

    python strings.py recordings.jsonl -o build/audiolm_digits/strings --train 2500 --valid 250

In a string with the rule each digit is the one before it plus one, 9 before 0; in the others no digit follows that
way. So the rule is either kept or not, and which digit comes next can be heard.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiolm_kit.audio import Sound, fit, normalise, read, write
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTHS = (3, 4, 5)
QUIET = 10 ** (-40 / 20)
"""What is this much below a recording's peak at its ends is cut away: pauses are ours alone."""
FADE = 0.005
"""Seconds of a ramp at both ends of a digit, so that no cut clicks."""


@dataclass(frozen=True)
class Asked:
    """What a string is made of."""

    count: int
    """Strings in all."""
    rule: float
    """The share of them that keeps the rule."""
    pause: tuple[float, float]
    """Seconds of silence between two digits are drawn from this range."""
    sample_rate: int


def successions(draw: np.random.Generator, length: int, rule: bool) -> list[int]:
    """Digits that count up all along, or nowhere."""
    digits = [int(draw.integers(10))]
    while len(digits) < length:
        step = 1 if rule else int(draw.choice([step for step in range(10) if step != 1]))
        digits.append((digits[-1] + step) % 10)
    return digits


def strings(rows: list[Row], split: str, asked: Asked, folder: Path) -> Iterator[Row]:
    """Write the strings of one split, made of its own recordings alone, speakers in turn; yield their rows."""
    spoken: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.split == split and row.label in DIGITS:
            spoken[row.speaker or ""][row.label].append(row)
    speakers = sorted(speaker for speaker, of in spoken.items() if len(of) == len(DIGITS))
    if not speakers:
        raise ValueError(f"no speaker of split {split!r} says all of {', '.join(DIGITS)}: see label, speaker and split")
    for number in range(asked.count):
        draw = np.random.default_rng((ord(split[0]), number))
        speaker = speakers[number % len(speakers)]
        rule = bool(draw.random() < asked.rule)
        digits = successions(draw, int(draw.choice(LENGTHS)), rule)
        sources = [spoken[speaker][DIGITS[digit]] for digit in digits]
        chosen = [of[int(draw.integers(len(of)))] for of in sources]
        samples, ends = joined([trimmed(row, asked.sample_rate) for row in chosen], asked, draw)
        path = folder / split / f"{number:05d}.flac"
        write(path, Sound(samples, asked.sample_rate))
        words = " ".join(DIGITS[digit] for digit in digits)
        extra = {"digits": digits, "ends": ends}
        label = "rule" if rule else "free"
        yield Row(str(path), samples.shape[1] / asked.sample_rate, None, words, label, speaker, split, extra=extra)


def trimmed(row: Row, sample_rate: int) -> Tensor:
    """A digit without silence at its ends, at the loudness of all others, [1, L]."""
    sound = fit(read(row.path, row.start, row.duration), sample_rate, 1)
    loud = (sound.samples.abs()[0] >= QUIET * sound.samples.abs().max()).nonzero()[:, 0]
    cut = sound.samples[:, int(loud[0]) : int(loud[-1]) + 1]
    samples = normalise(Sound(cut, sample_rate)).samples.clone()
    size = min(round(FADE * sample_rate), samples.shape[1] // 2)
    ramp = torch.linspace(0, 1, size + 1)[1:]
    samples[:, :size] *= ramp
    samples[:, samples.shape[1] - size :] *= ramp.flip(0)
    return samples


def joined(spoken: list[Tensor], asked: Asked, draw: np.random.Generator) -> tuple[Tensor, list[float]]:
    """Digits with pauses between and behind them, [1, L], and the second at which each of them ends."""
    pieces, ends, length = [], [], 0
    for digit in spoken:
        pause = torch.zeros(1, round(draw.uniform(*asked.pause) * asked.sample_rate))
        pieces += [digit, pause]
        ends.append(round((length + digit.shape[1]) / asked.sample_rate, 4))
        length += digit.shape[1] + pause.shape[1]
    return torch.cat(pieces, dim=1), ends


def main() -> None:
    """Read the command line and write sounds and manifest."""
    parser = argparse.ArgumentParser(description="Put spoken digits of one speaker one behind the other.")
    parser.add_argument("manifest", type=Path, help="recordings of single digits: label, speaker, split")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; the manifest is FOLDER.jsonl")
    parser.add_argument("--train", type=int, default=2500, help="strings to train on, default: %(default)s")
    parser.add_argument("--valid", type=int, default=250, help="strings held out, default: %(default)s")
    parser.add_argument("--rule", type=float, default=0.5, help="share that counts up, default: %(default)s")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.12, 0.2), help="seconds, default: %(default)s")
    parser.add_argument("--sample_rate", type=int, default=8000, help="default: %(default)s")
    given = parser.parse_args()
    try:
        if not (min(given.train, given.valid) > 0 and 0 <= given.rule <= 1 and 0 <= given.pause[0] <= given.pause[1]):
            raise ValueError("train and valid are counts above 0, rule a share from 0 to 1, pause two rising seconds")
        rows, made = read_manifest(given.manifest), []
        for split, count in (("train", given.train), ("valid", given.valid)):
            asked = Asked(count, given.rule, tuple(given.pause), given.sample_rate)
            made += strings(rows, split, asked, given.output)
        write_manifest(given.output.with_suffix(".jsonl"), made)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    hours = sum(row.duration for row in made) / 3600
    print(f"{given.output.with_suffix('.jsonl')}: {len(made)} strings, {hours:.2f} h")


if __name__ == "__main__":
    main()
