"""Numbers with intervals: what other sounds of the same kind, as many, would have given.

Shapes: N sounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LEVELS = (0.025, 0.975)


class Measure(NamedTuple):
    """A value, the interval around it and how many sounds are behind it."""

    value: float
    low: float
    """NaN, as is high, where too few sounds are there to draw from."""
    high: float
    size: int
    """N."""


@dataclass(frozen=True)
class Bootstrap:
    """Draws as many sounds as there are, with replacement, again and again: the middle 95 % of what comes of it."""

    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 20:
            raise ValueError(f"draws is {self.draws}: an interval wants 20 or more")

    def mean(self, values: Sequence[float]) -> Measure:
        """Of a number for each sound."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, above: Sequence[float], below: Sequence[float] | np.ndarray) -> Measure:
        """Of a sum over sounds by another, as of errors by words; one below 0 counts as unknown.

        Raises:
            ValueError: There is none, or all of ``below`` are 0.
        """
        tops, bottoms = np.asarray(above, float), np.asarray(below, float)
        if not len(tops) or bottoms.sum() <= 0:
            raise ValueError("no sound is left to measure: look at the notes of those that were left out")
        return self.of_sets(lambda weights: float(weights @ tops / max(weights @ bottoms, 1e-12)), len(tops))

    def of_sets(
        self,
        statistic: Callable[..., float],
        *sizes: int,
        most: int | None = None,
        together: bool = False,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> Measure:
        """Of one or several sets of sounds; the first one is counted.

        What is drawn twice looks less varied than it is, which shifts whatever measures variety (a Frechet distance
        most of all). So the draws say how far values scatter, and are centred on the value that was found.

        Args:
            statistic: Gets weights [N] for each set: how often each sound is there.
            sizes: N of each set.
            most: At most so many draws, where one takes long.
            together: The sets are of one size, and what stands in one place is drawn together.
            bounds: What no value can be below or above.
        """
        value = statistic(*(np.ones(size) for size in sizes))
        if min(sizes) < 2:
            return Measure(value, math.nan, math.nan, sizes[0])
        generator = np.random.default_rng(self.seed)

        def weights() -> list[np.ndarray]:
            own = [generator.multinomial(size, np.full(size, 1 / size)).astype(float) for size in sizes]
            return own[:1] * len(sizes) if together else own

        drawn = np.array([statistic(*weights()) for _ in range(min(self.draws, most or self.draws))])
        low, high = np.quantile(drawn - drawn.mean(), LEVELS)
        edges = np.clip([value + min(float(low), 0.0), value + max(float(high), 0.0)], *bounds)
        return Measure(value, float(edges[0]), float(edges[1]), sizes[0])
