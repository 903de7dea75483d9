"""Pairwise accuracy: how often a model finds a right recording likelier than a wrong one (sWUGGY, sBLIMP and the like).

A list of pairs is a TSV, ``good<TAB>bad[<TAB>group]``: two sound files, named from where the list stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.inference.items import BATCH

Score = Callable[[list[Sound]], Sequence[float]]
"""One number for each sound, the higher the likelier; ``AudioLM.log_likelihood`` is one."""
DRAWS = 1000
"""Resamples of a bootstrap."""
COLUMNS = ("good", "bad", "group")


class Pair(NamedTuple):
    """Two recordings, of which the first should be the likelier one."""

    good: Path
    bad: Path
    group: str = ""


class PairScore(NamedTuple):
    """What a model thinks of a pair."""

    pair: Pair
    good: float
    bad: float

    @property
    def credit(self) -> float:
        """1 right, 0 wrong, 0.5 a tie."""
        return 0.5 if self.good == self.bad else float(self.good > self.bad)


class Accuracy(NamedTuple):
    """Mean credit of pairs, with a percentile bootstrap's 95 % interval."""

    accuracy: float
    low: float
    high: float
    pairs: int


class PairResult(NamedTuple):
    """Of a whole list."""

    overall: Accuracy
    groups: dict[str, Accuracy]
    """By group, in the list's order; empty where none is named."""
    rows: list[PairScore]

    def plain(self) -> dict[str, Any]:
        """As JSON has it; ``rows`` are one object for each pair."""
        rows = [
            {"good": str(row.pair.good), "bad": str(row.pair.bad), "group": row.pair.group}
            | {"good_score": row.good, "bad_score": row.bad, "credit": row.credit}
            for row in self.rows
        ]
        groups = {name: each._asdict() for name, each in self.groups.items()}
        return self.overall._asdict() | {"groups": groups, "rows": rows}

    def save(self, path: str | Path) -> None:
        """Write ``plain`` as a JSON file."""
        checkpoint.write_json(path, self.plain())

    def lines(self) -> list[str]:
        """What a reader wants to know, a line for all and one for each group."""
        named = {"all": self.overall} | self.groups
        return [
            f"{name}: {100 * each.accuracy:.1f} % of {each.pairs} pairs "
            f"(95 % interval {100 * each.low:.1f} to {100 * each.high:.1f})"
            for name, each in named.items()
        ]


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a list. Empty lines are passed over, and so is a first line that names the columns.

    Raises:
        FileNotFoundError: no list, or a file that it names is missing.
        ValueError: another number of columns, or no pairs; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list of pairs at {path}: give a TSV of good, bad and, if you like, group")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): give a TSV of good, bad and, if you like, group") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip() or (number == 1 and tuple(cells) == COLUMNS[: len(cells)]):
            continue
        if not 2 <= len(cells) <= len(COLUMNS) or not all(cells[:2]):
            raise ValueError(f"{path}, line {number}: {line!r} is not good<TAB>bad[<TAB>group]: mend the line")
        good, bad = (path.parent / cell for cell in cells[:2])
        for file in (good, bad):
            if not file.is_file():
                raise FileNotFoundError(f"{path}, line {number}: no sound file {file}")
        pairs.append(Pair(good, bad, *cells[2:]))
    if not pairs:
        raise ValueError(f"{path} holds no pairs: give lines of good<TAB>bad[<TAB>group]")
    return pairs


def score_pairs(score: Score, pairs: Sequence[Pair], seed: int = 0) -> PairResult:
    """Judge each recording once, however often it is named, and count how often the good one of a pair wins.

    Args:
        score: judges sounds; a batch of them at a time is read and held.
        seed: of the bootstrap.

    Raises:
        ValueError: no pairs, or a score that is no number.
    """
    files = list(dict.fromkeys(file for pair in pairs for file in (pair.good, pair.bad)))
    found: dict[Path, float] = {}
    for first in range(0, len(files), BATCH):
        batch = files[first : first + BATCH]
        scores = list(score([audio.read(file) for file in batch]))
        found.update(zip(batch, map(float, scores), strict=True))
    if broken := [str(file) for file, value in found.items() if math.isnan(value)]:
        raise ValueError(f"the score of {broken[0]} is NaN: scores must be numbers that can be compared")
    return summary([PairScore(pair, found[pair.good], found[pair.bad]) for pair in pairs], seed)


def summary(rows: Sequence[PairScore], seed: int = 0) -> PairResult:
    """The accuracy over all pairs, each counting alike, and over those of each named group."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.pair.group:
            groups.setdefault(row.pair.group, []).append(row.credit)
    overall = accuracy_of([row.credit for row in rows], seed)
    return PairResult(overall, {name: accuracy_of(each, seed) for name, each in groups.items()}, list(rows))


def accuracy_of(credits: Sequence[float], seed: int = 0) -> Accuracy:
    """The mean credit, and between which values 95 % of the means of ``DRAWS`` resamples of the pairs lie."""
    if not credits:
        raise ValueError("there are no pairs to score: give at least one")
    values = torch.tensor(credits, dtype=torch.float64)
    generator, count = torch.Generator().manual_seed(seed), len(values)
    means = torch.stack([values[torch.randint(count, (count,), generator=generator)].mean() for _ in range(DRAWS)])
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Accuracy(float(values.mean()), low, high, count)
