"""Check a folder of sounds against floors: is there sound, does the codec keep it, does the model follow its text?

    python tools/check_sounds.py FOLDER MANIFEST -o FOLDER/checks.json

FOLDER holds real/N.wav, reconstruction/N.wav (see reference_sounds.py) and generated/N.wav, made for the same texts.
Three checks, each against a floor that needs no model; the exit code is 1 if one of them fails:

1. No sound is silent.
2. More than half of the reconstructions are nearer to their own recording than to any other; chance is 1 in N.
3. A nearest-neighbour judge, which knows the training recordings of MANIFEST, hears the label that was asked for in
   generated sounds more than three times as often as by chance. What it hears in real ones stands beside it.

The file that it writes is one of results too: tools/results.py makes a table of it.

Shapes: L samples, M mel bands, T frames, N recordings.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measured import record
from torch import Tensor

from audiolm_kit.audio import Sound, fit, log_mel, read, rms_dbfs
from audiolm_kit.checkpoint import read_json, write_json
from audiolm_kit.data.manifest import read_manifest

SAMPLE_RATE = 16000
SILENCE = -50.0
"""dBFS; below this a sound counts as silent."""

ROLES = ("real", "reconstruction", "generated")
HEARD = 30.0
"""Decibels below a sound's own peak that are compared; what is softer is drowned."""


class Check(NamedTuple):
    """One claim: what was measured, the floor beside it, and whether it holds."""

    name: str
    value: float
    limit: float
    holds: bool
    told: str


def decibels(sound: Sound) -> Tensor:
    """Mel spectrogram in decibels, from -HEARD up to 0 at its own peak, [M, T]: loud or soft is all one."""
    levels = log_mel(fit(sound, SAMPLE_RATE, 1).samples[0], SAMPLE_RATE, num_mels=64) * (20 / math.log(10))
    return (levels - levels.max()).clamp_min(-HEARD)


def distance(first: Tensor, second: Tensor) -> float:
    """Mean difference of two spectrograms in decibels, over the frames that both have."""
    frames = min(first.shape[1], second.shape[1])
    return float((first[:, :frames] - second[:, :frames]).abs().mean())


def portrait(spectrogram: Tensor) -> Tensor:
    """What a sound is like, wherever in time it happens, [4 M]: its colour, how it varies, flickers and drifts."""
    half = spectrogram.shape[1] // 2
    drift = spectrogram[:, half:].mean(1) - spectrogram[:, :half].mean(1)
    flicker = spectrogram.diff(dim=1).abs().mean(1)
    return torch.cat([spectrogram.mean(1), spectrogram.std(1), 3 * flicker, drift])


class Judge:
    """Hears in a sound the label of the recording whose portrait is nearest."""

    def __init__(self, manifest: Path) -> None:
        rows = [row for row in read_manifest(manifest, "train") if row.label is not None]
        if not rows:
            raise ValueError(
                f"{manifest} has no labelled rows of split 'train': the judge has nothing to know sounds by"
            )
        self.labels = [row.label for row in rows]
        self.portraits = torch.stack([portrait(decibels(read(row.path, row.start, row.duration))) for row in rows])

    @property
    def chance(self) -> float:
        """The share that guessing would get right."""
        return 1 / len(set(self.labels))

    def hear(self, spectrogram: Tensor) -> str | None:
        """The label of the nearest recording."""
        nearest = (self.portraits - portrait(spectrogram)).abs().sum(1).argmin()
        return self.labels[int(nearest)]

    def accuracy(self, spectrograms: list[Tensor], labels: list[str]) -> float:
        """The share of sounds that are heard as they were meant."""
        right = [self.hear(spectrogram) == label for spectrogram, label in zip(spectrograms, labels, strict=True)]
        return sum(right) / len(right)


@dataclass(frozen=True)
class Measured:
    """What was found in a folder of sounds."""

    count: int
    """Of texts, with a sound of each kind."""
    quietest: tuple[float, Path]
    found: float
    """The share of reconstructions that are nearest to their own recording."""
    heard: dict[str, float]
    """The share of sounds of each kind that are heard as they were meant."""
    chance: float

    def checks(self) -> list[Check]:
        """The three, against their floors."""
        level, path = self.quietest
        real, remade, made = (self.heard[role] for role in ROLES)
        beside = f"real {real:.0%}, reconstructions {remade:.0%}, chance {self.chance:.0%}"
        return [
            Check("quietest_dbfs", level, SILENCE, level > SILENCE, f"{path}"),
            Check("recordings_found", self.found, 0.5, self.found > 0.5, f"chance {1 / self.count:.0%}"),
            Check("text_followed", made, 3 * self.chance, made > 3 * self.chance, beside),
        ]

    def rows(self) -> list[dict[str, Any]]:
        """The same as rows of a table of results."""
        level, found, followed = self.checks()
        shares = [
            ("reconstructions that are nearest to their own recording", self.found, ruled("more than half", found)),
            ("wanted kind heard: real recordings (ceiling)", self.heard["real"], {}),
            ("wanted kind heard: their codec reconstructions", self.heard["reconstruction"], {}),
            ("wanted kind heard: generated", self.heard["generated"], ruled("three times chance", followed)),
            ("wanted kind heard: by chance (floor)", self.chance, {}),
        ]
        rows = [{"what": what, "value": value, "percent": True, **rule} for what, value, rule in shares]
        for row in rows[:4]:
            row["count"] = self.count
        loud = {"rule": {"wanted": f"more than {SILENCE:g}", "passed": level.holds}}
        return [*rows, {"what": "quietest sound, dBFS", "value": level.value, **loud}]


def ruled(wanted: str, check: Check) -> dict[str, Any]:
    """A row's rule."""
    return {"rule": {"wanted": wanted, "passed": check.holds}}


def measure(folder: Path, judge: Judge) -> Measured:
    """Listen to the sounds of a folder."""
    real, labels = numbered_sounds(folder / "real"), []
    for path in real:
        labels.append(str(read_json(path.with_suffix(".json"))["label"]))
    shown = {role: [decibels(read(folder / role / path.name)) for path in real] for role in ROLES}
    quietest = min((rms_dbfs(read(path).samples), path) for path in sorted(folder.rglob("*.wav")))
    found = share_found(shown["reconstruction"], shown["real"])
    heard = {role: judge.accuracy(spectrograms, labels) for role, spectrograms in shown.items()}
    return Measured(len(real), quietest, found, heard, judge.chance)


def share_found(made: list[Tensor], real: list[Tensor]) -> float:
    """The share of reconstructions whose nearest recording is the one that they were made from."""
    nearest = [min(range(len(real)), key=lambda number: distance(sound, real[number])) for sound in made]
    return sum(number == own for own, number in enumerate(nearest)) / len(made)


def numbered_sounds(folder: Path) -> list[Path]:
    """1.wav, 2.wav ... in the order of their numbers."""
    paths = sorted(folder.glob("*.wav"), key=lambda path: int(path.stem))
    if len(paths) < 2:
        raise FileNotFoundError(
            f"{folder} holds {len(paths)} sounds, two at least are compared: run reference_sounds.py"
        )
    return paths


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, tell, and exit with 1 if a check failed."""
    parser = argparse.ArgumentParser(description="Check a folder of sounds against floors.")
    parser.add_argument("folder", type=Path, help="with real/, reconstruction/ and generated/")
    parser.add_argument("manifest", type=Path, help="of the recordings that the judge knows labels by")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file for what was measured")
    parser.add_argument("--recipe", default="recipes/hello", help="whose sounds they are (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        measured = measure(options.folder, Judge(options.manifest))
        checks = measured.checks()
        about = record(f"make -C {options.recipe} smoke")
        told = [check._asdict() for check in checks]
        write_json(options.output, {"about": about, "table": measured.rows(), "checks": told})
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for check in checks:
        verdict = "holds" if check.holds else "FAILS"
        print(f"{verdict}  {check.name} {check.value:.2f}, limit {check.limit:.2f} ({check.told})")
    if not all(check.holds for check in checks):
        parser.exit(1, f"{parser.prog}: a check failed; {options.output} says by how much\n")


if __name__ == "__main__":
    main()
