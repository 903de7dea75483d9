"""What tools/judge_arms.py has heard in the arms of an experiment, ready to be counted (in the judges' environment)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from measured import Entry, open_judges, record, row, score_of_models, write_json

Experiments = dict[str, Callable[[ModuleType, Path], list[Entry]]]
"""The judges and the recipe's folder of sounds -> the rows of a table, by the name of the experiment."""


class Heard(NamedTuple):
    """One arm's sounds with what was heard in them, and their embeddings ``[N, D]``."""

    sounds: list[Entry]
    vectors: np.ndarray

    def best(self) -> list[str]:
        """The word, or the class with the highest score, in each sound."""
        said = [sound["heard"] for sound in self.sounds]
        return [each if isinstance(each, str) else max(each, key=each.get) for each in said]

    def right(self, permuted: bool = False) -> np.ndarray:
        """Whether that is what was asked for (or, ``permuted``, what was asked of another sound): 0 or 1, ``[N]``."""
        wanted = [sound["labels"][0] for sound in self.sounds]
        if permuted:
            wanted = [wanted[place] for place in np.random.default_rng(0).permutation(len(wanted))]
        return np.array([name == label for name, label in zip(self.best(), wanted, strict=True)], float)

    def groups(self) -> list[str]:
        """What was asked for, as one name."""
        return ["+".join(sound["labels"]) for sound in self.sounds]


def heard(arm: Path) -> Heard:
    """One arm, judged."""
    told = json.loads((arm / "verdicts.json").read_text(encoding="utf-8"))
    return Heard(told["sounds"], np.load(arm / "vectors.npy"))


class Voices(NamedTuple):
    """The voices in one arm's sounds, before and behind the end of the prompt; zeros where nothing is said."""

    before: np.ndarray  # [N, D], of length 1
    behind: np.ndarray  # [N, D]
    labels: list[str]
    """Whose they should be."""


def voices(arm: Path) -> Voices:
    """One arm, its voices heard."""
    told = json.loads((arm / "voices.json").read_text(encoding="utf-8"))["sounds"]
    both = np.load(arm / "voices.npy").astype(float)
    return Voices(both[:, 0], both[:, 1], [sound["labels"][0] for sound in told])


class Labelled(Protocol):
    """Of an arm, what each of its sounds should be."""

    @property
    def labels(self) -> list[str]: ...


Arm = TypeVar("Arm")
Prompted = TypeVar("Prompted", bound=Labelled)


def read_arms(folder: Path, pattern: str, file: str, read: Callable[[Path], Arm]) -> list[Arm]:
    """The arms of all seeds that have a ``file``, in their order; a setting that was not run is an error."""
    found = [read(path.parent) for path in sorted(folder.glob(f"{pattern}/{file}"))]
    if not found:
        raise ValueError(f"{folder} has no arm {pattern}: write and judge the sounds first")
    return found


def arms(folder: Path, pattern: str) -> list[Heard]:
    """Those in which words or events are heard."""
    return read_arms(folder, pattern, "verdicts.json", heard)


def prompted(found: list[Prompted], real: Prompted) -> list[Prompted]:
    """The arms, if they have the prompts of the real recordings."""
    if any(arm.labels != real.labels for arm in found):
        raise ValueError("the continuations have other prompts than the recordings: write both anew")
    return found


def rights(found: list[Heard]) -> list[np.ndarray]:
    """What every model got right."""
    return [arm.right() for arm in found]


def differences(before: list[np.ndarray], after: list[np.ndarray]) -> list[np.ndarray]:
    """Sound by sound, of models and sounds that stand in the same order in both."""
    return [b - a for a, b in zip(before, after, strict=True)]


def floor(found: list[Heard]) -> Entry:
    """The same sounds judged by captions that are permuted."""
    return score_of_models([arm.right(permuted=True) for arm in found])


def plain(what: str, value: float) -> Entry:
    """A row without an interval."""
    return row(what, {"value": round(float(value), 4)}, percent=False)


def count(experiments: Experiments) -> None:
    """The command line of a recipe's results.py: count one experiment and write it as JSON."""
    parser = argparse.ArgumentParser(description="Count what the judges heard in the arms of one experiment.")
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("--judges", type=Path, required=True, help="folder with a judges.py")
    parser.add_argument("--sounds", type=Path, required=True, help="folder of the experiments' sounds")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--times", type=Path, help="folder with the seconds of each stage")
    parser.add_argument("--stages", nargs="+", default=["*"], help="patterns of those that the figures rest on")
    parser.add_argument("--command", default="", help="how the recipe was run, for the record")
    given = parser.parse_args()
    try:
        rows = experiments[given.experiment](open_judges(given.judges), given.sounds)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
    write_json(given.output, {"about": record(given.command, given.times, given.stages), "table": rows})
    rules = [each["rule"]["passed"] for each in rows if "rule" in each]
    print(f"{given.output}: {sum(rules)} of {len(rules)} rules are met")
