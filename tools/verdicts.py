"""What tools/judge_arms.py has heard in the arms of an experiment, ready to be counted (in the judges' environment)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measured import Entry, row, score_of_models


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


def arms(folder: Path, pattern: str) -> list[Heard]:
    """The arms of all seeds in their order; a setting that was not run is an error."""
    found = [heard(path.parent) for path in sorted(folder.glob(f"{pattern}/verdicts.json"))]
    if not found:
        raise ValueError(f"{folder} has no arm {pattern}: write and judge the sounds first")
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
