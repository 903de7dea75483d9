"""The endless walk over shuffled rows: which of them make up the batch of a step, and how long it was waited for."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Steps(IterableDataset[Any]):
    """An endless stream ``make(start), make(start + 1), ...``, in this order for any number of loader workers."""

    def __init__(self, make: Callable[[int], Any], start: int = 0) -> None:
        self.make, self.start = make, start

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        # The loader takes from its workers in turn, so worker w makes every W-th step.
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        step = self.start + offset
        while True:
            yield self.make(step)
            step += stride


class TimedLoader(DataLoader[Any]):
    """A loader that knows how long was waited for its batches."""

    waited = 0.0
    """Seconds since it was made, those of the first batch (workers start up) among them."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begun
            if batch is None:
                return
            yield batch


def places_of_step(step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> range:
    """Where batch ``step`` of ``rank`` stands in the endless walk over shuffled epochs."""
    first = (step * ranks + rank) * batch_size
    return range(first, first + batch_size)


def row_of_place(place: int, num_rows: int, seed: int) -> int:
    """The row at one place of the walk: each epoch is a permutation of its own, every row comes once in it."""
    epoch, position = divmod(place, num_rows)
    return int(_permutation(num_rows, seed, epoch)[position])


class LikeLengths:
    """The same walk in batches of like lengths, so that little of them is padding.

    A pool of so many steps takes the places that it would anyhow, sorts them by the lengths of their rows, cuts them
    into as many steps again, and shuffles these. All ranks of a step share its lengths: none waits for another. A batch
    depends on seed, step, rank and number of ranks alone, and every row comes once an epoch.
    """

    def __init__(self, lengths: np.ndarray, pool: int, seed: int) -> None:
        """Walk over rows of ``lengths`` ``[rows]``, in pools of ``pool`` steps."""
        self.lengths, self.pool, self.seed = lengths, pool, seed
        self._kept: tuple[tuple[int, int], np.ndarray] | None = None

    def places_of_step(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> list[int]:
        """The places of batch ``step`` of ``rank``."""
        number, within = divmod(step, self.pool)
        together = self._pool(number, batch_size * ranks)[within]
        return [int(place) for place in together[rank::ranks]]

    def _pool(self, number: int, together: int) -> np.ndarray:
        """The places of a pool's steps, ``[pool, together]``; the last pool is kept, as the next step is of it too."""
        key = (number, together)
        if self._kept is None or self._kept[0] != key:
            size = self.pool * together
            places = np.arange(number * size, (number + 1) * size)
            rows = [row_of_place(int(place), len(self.lengths), self.seed) for place in places]
            alike = places[np.argsort(self.lengths[rows], kind="stable")].reshape(self.pool, together)
            self._kept = key, np.random.default_rng((self.seed, 3, number)).permutation(alike)
        return self._kept[1]


@functools.lru_cache(maxsize=4)
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_rows)
