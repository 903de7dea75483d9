"""ABX: whether sounds of one category lie nearer to one another than to sounds of another category.

Shapes: T frames, D width, K codebooks, N and M items, C categories, S speakers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm_kit.evaluation.warping import Distance, digest, distances

DRAWS = 1000
"""Of speakers and categories, for an interval."""
CELLS = 1 << 22
"""Numbers of these draws in memory at once."""


class Item(NamedTuple):
    """One sound to be told apart: the frames of a word, a phone, a digit."""

    frames: Tensor
    """Features [T, D], or codes (integers) [T] or [K, T]."""
    category: str
    speaker: str


class Interval(NamedTuple):
    """The middle 95 % of what other speakers and categories of the same kind would have given."""

    low: float
    high: float


class Intervals(NamedTuple):
    """One for each error."""

    within: Interval
    across: Interval


class Counts(NamedTuple):
    """How much was compared."""

    items: int
    categories: int
    speakers: int
    within: int
    """Triplets."""
    across: int


class Tables(NamedTuple):
    """The error of each cell: [C, C, S], category of A and X, of B, speaker of A and B; NaN where none was compared.

    Scores of the same items can be compared cell by cell: ``interval(one.across - other.across)``.
    """

    within: Tensor
    across: Tensor
    categories: tuple[str, ...]
    speakers: tuple[str, ...]


class AbxScore(NamedTuple):
    """Shares of triplets that are wrong, from 0 (told apart always) over 0.5 (by chance) to 1."""

    within: float
    """A, B and X by one speaker; NaN if no speaker says one category twice and another one."""
    across: float
    """A and B by one speaker, X by another; NaN if no two speakers share a category."""
    intervals: Intervals
    counts: Counts
    tables: Tables


class _Errors(NamedTuple):
    """Of one speaker as A and B and one as X."""

    shares: Tensor
    """[C, C], category of A and X, of B; NaN where there are no triplets."""
    triplets: int


def abx(
    items: Sequence[Item], distance: Distance = "angular", per_cell: int = 10, others: int = 5, seed: int = 0
) -> AbxScore:
    """How often X, of A's category, is nearer to B, of another: ABX as in the Zero Resource Speech challenge.

    A triplet counts 1 where d(A, X) > d(B, X) and 1/2 where they are equal. Errors are averaged over the triplets of a
    cell, then over the speakers of X, of A and B, then over pairs of categories: each weighs the same, however often
    it is said. The order of the items does not matter.

    Args:
        distance: Of two frames (``distances`` says more): features by ``angular`` or ``euclidean``, codes by
            ``mismatch``; codes as their centroids are features.
        per_cell: At most so many items of one category by one speaker, drawn by ``seed``.
        others: At most so many speakers of X for each speaker of A and B, drawn by ``seed``.
    """
    kept = _kept(items, per_cell, seed)
    categories, speakers = (tuple(sorted(set(names))) for names in zip(*(item[1:] for item in kept), strict=True))
    said = {speaker: [item for item in kept if item.speaker == speaker] for speaker in speakers}
    partners = {speaker: _partners(said, speaker, others, seed) for speaker in speakers}
    errors = _errors(said, partners, categories, distance)
    within = [[errors[speaker, speaker]] for speaker in speakers]
    across = [[errors[speaker, other] for other in partners[speaker]] for speaker in speakers]
    triplets = [sum(each.triplets for found in some for each in found) for some in (within, across)]
    if not any(triplets):
        raise ValueError(
            f"{len(kept)} items of {len(categories)} categories by {len(speakers)} speakers make no triplet: "
            "a speaker must say two categories, and one of them twice, or as another speaker does"
        )
    tables = Tables(_table(within, len(categories)), _table(across, len(categories)), categories, speakers)
    intervals = Intervals(interval(tables.within, seed), interval(tables.across, seed))
    counts = Counts(len(kept), len(categories), len(speakers), *triplets)
    return AbxScore(mean(tables.within), mean(tables.across), intervals, counts, tables)


def choose(cells: Sequence[tuple[str, str]], per_cell: int, seed: int = 0) -> list[int]:
    """The places of at most ``per_cell`` items of each (category, speaker), rising; for one order always the same."""
    generator = np.random.default_rng(seed)
    places: dict[tuple[str, str], list[int]] = {}
    for place, cell in enumerate(cells):
        places.setdefault(cell, []).append(place)
    chosen: list[int] = []
    for cell in sorted(places):
        own = places[cell]
        chosen += own if len(own) <= per_cell else generator.choice(own, per_cell, replace=False).tolist()
    return sorted(chosen)


def mean(table: Tensor) -> float:
    """The error of a table of cells, [C, C, S]: over speakers, then over pairs of categories."""
    return float(table.nanmean(-1).nanmean())


def interval(table: Tensor, seed: int = 0) -> Interval:
    """Where the mean of [C, C, S] may lie: speakers and categories are both drawn anew, with replacement.

    Pairs of categories share their categories, so drawing the pairs themselves would promise too much.
    """
    num_categories, num_speakers = table.shape[1:]
    values = table.double().reshape(-1, num_speakers).numpy()
    known, values = (~np.isnan(values)).astype(float), np.nan_to_num(values)
    generator = np.random.default_rng(seed)
    speakers, categories = (
        generator.multinomial(size, np.full(size, 1 / size), DRAWS) for size in (num_speakers, num_categories)
    )
    means: list[float] = []
    side = max(1, CELLS // len(values))
    for start in range(0, DRAWS, side):
        voices, kinds = speakers[start : start + side].T, categories[start : start + side]
        weights = known @ voices  # [C * C, draws]
        shares = (kinds[:, :, None] * kinds[:, None]).reshape(len(kinds), -1).T * (weights > 0)
        sums = (shares * (values @ voices) / np.maximum(weights, 1)).sum(0)
        drawn = shares.sum(0)
        means += (sums[drawn > 0] / drawn[drawn > 0]).tolist()
    if not means:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def _kept(items: Sequence[Item], per_cell: int, seed: int) -> list[Item]:
    """Those that are compared, in an order of their own."""
    if per_cell < 1:
        raise ValueError(f"per_cell is {per_cell}: give 1 or more")
    if not items:
        raise ValueError("no items to compare: ABX wants labelled sounds of two categories at least")
    ordered = sorted(items, key=lambda item: (item.category, item.speaker, digest(item.frames)))
    return [ordered[place] for place in choose([item[1:] for item in ordered], per_cell, seed)]


def _partners(said: Mapping[str, list[Item]], speaker: str, others: int, seed: int) -> list[str]:
    """Speakers who say something that ``speaker`` says, too; some of them where they are many."""
    if others < 1:
        raise ValueError(f"others is {others}: give 1 or more")
    own = {item.category for item in said[speaker]}
    found = [name for name in said if name != speaker and any(item.category in own for item in said[name])]
    if len(found) <= others:
        return found
    generator = np.random.default_rng((seed, list(said).index(speaker)))
    return [found[place] for place in generator.choice(len(found), others, replace=False)]


def _errors(
    said: Mapping[str, list[Item]],
    partners: Mapping[str, list[str]],
    categories: Sequence[str],
    distance: Distance,
) -> dict[tuple[str, str], _Errors]:
    """Under the speaker of A and B and the speaker of X; no distance is measured twice."""
    wanted = {(speaker, other) for speaker in said for other in (speaker, *partners[speaker])}
    kinds = {name: torch.tensor([categories.index(item.category) for item in said[name]]) for name in said}
    frames = {name: [item.frames for item in said[name]] for name in said}
    found = {}
    for first, second in sorted({(min(pair), max(pair)) for pair in wanted}):
        apart = distances(frames[first], frames[second], distance)
        for one, other, turned in ((first, second, apart), (second, first, apart.T)):
            if (one, other) in wanted:
                counted = torch.ones_like(turned, dtype=torch.bool)
                if one == other:
                    counted.fill_diagonal_(False)  # a sound is not its own X
                found[one, other] = _count(turned, counted, (kinds[one], kinds[other]), len(categories))
    return found


def _count(apart: Tensor, counted: Tensor, kinds: tuple[Tensor, Tensor], num_categories: int) -> _Errors:
    """Compare d(A, X) and d(B, X) of all triplets.

    Args:
        apart: [N, M], from what may be A or B to what may be X.
        counted: [N, M], which of them may be A and X.
        kinds: [N] and [M], their categories.
    """
    own, heard = kinds
    members = F.one_hot(own, num_categories).double()
    sizes = members.sum(0)
    shares, triplets = torch.full((num_categories, num_categories), math.nan, dtype=torch.float64), 0
    for kind in sorted(set(own.tolist()) & set(heard.tolist())):
        these = heard == kind
        pairs = counted[own == kind][:, these]  # [A, X]
        near, far = apart[own == kind][:, None, these], apart[None, :, these]  # [A, 1, X] and [1, N, X]
        wrong = (near > far).double() + (near == far).double() / 2
        shares[kind] = (wrong * pairs[:, None]).sum((0, 2)) @ members / (pairs.sum() * sizes)
        shares[kind, kind] = math.nan
        triplets += int(pairs.sum()) * int(sizes.sum() - sizes[kind])
    return _Errors(shares, triplets)


def _table(errors: Sequence[Sequence[_Errors]], num_categories: int) -> Tensor:
    """Of each speaker some errors -> their means, [C, C, S]; NaN where there are none."""
    nothing = torch.full((num_categories, num_categories), math.nan, dtype=torch.float64)
    return torch.stack([torch.stack([nothing, *(each.shares for each in own)]).nanmean(0) for own in errors], dim=-1)
