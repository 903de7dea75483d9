"""Mini-batch k-means on standardised frames: fit, assign.

Shapes: N frames, D dimensions, V centroids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BATCH = 10_000
"""Frames of one step of k-means, as HuBERT's."""
STARTS = 5
"""The best of so many starts by k-means++ is gone on from."""


class Centroids(NamedTuple):
    """What k-means found, and by what it was standardised."""

    mean: Tensor
    """[D], over all frames."""
    deviation: Tensor
    """[D], over all frames; 1 where a dimension never changes."""
    centroids: Tensor
    """[V, D], of standardised frames."""


def fit_kmeans(
    batches: Iterable[np.ndarray], codebook_size: int, seed: int = 0, max_frames: int = 500_000
) -> Centroids:
    """Standardise each dimension, as AudioLM does (arXiv:2209.03143, section III-A), and find centroids.

    Args:
        batches: Frames ``[N, D]``, read once.
        codebook_size: V.
        seed: Of the frames that are kept and of the starts: the same gives the same again.
        max_frames: How many frames k-means sees: a uniform sample, held in memory, where there are more. Mean and
            deviation are of all of them.

    Raises:
        ValueError: Fewer frames, or fewer different ones, than centroids; NaN among them; a number out of range.
    """
    if codebook_size < 1 or max_frames < codebook_size:
        raise ValueError(
            f"codebook_size is {codebook_size} and max_frames {max_frames}: wanted at least 1, and at least as many "
            "frames as centroids"
        )
    sample = Sample(max_frames, seed)
    for batch in batches:
        sample.add(batch)
    if sample.count < codebook_size:
        raise ValueError(
            f"{sample.count} frames are too few for {codebook_size} centroids: give more recordings, or fewer centroids"
        )
    mean, deviation = sample.mean.astype(np.float32), sample.deviation.astype(np.float32)
    frames = sample.frames
    frames -= mean
    frames /= deviation
    centroids = _centroids(frames, codebook_size, seed)
    found = len(np.unique(centroids, axis=0))
    if found < codebook_size:
        raise ValueError(
            f"only {found} of {codebook_size} centroids differ: the recordings hold too little variety, ask for fewer"
        )
    return Centroids(torch.from_numpy(mean), torch.from_numpy(deviation), torch.from_numpy(centroids))


def _centroids(frames: np.ndarray, codebook_size: int, seed: int) -> np.ndarray:
    """``[N, D] -> [V, D]``."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import, and only those who fit need it

    model = MiniBatchKMeans(codebook_size, random_state=seed, batch_size=BATCH, n_init=STARTS)
    found: np.ndarray = model.fit(frames).cluster_centers_
    return np.ascontiguousarray(found, dtype=np.float32)


class Sample:
    """A uniform sample of a stream of frames, and mean and deviation of the whole stream."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.count = size, 0
        self._draw = np.random.default_rng(seed)
        self._kept = np.empty((0, 0), np.float32)
        self._mean = self._squares = np.zeros(0)

    @property
    def frames(self) -> np.ndarray:
        """What was kept, ``[at most size, D]`` float32."""
        return self._kept[: self.count]

    @property
    def mean(self) -> np.ndarray:
        """``[D]``, of all frames that were added."""
        return self._mean

    @property
    def deviation(self) -> np.ndarray:
        """``[D]``, of all frames that were added; 1 where a dimension is constant but for rounding."""
        found = np.sqrt(self._squares / max(1, self.count))
        return np.where(found > 1e-6 * np.maximum(1, np.abs(self._mean)), found, 1.0)

    def add(self, batch: np.ndarray) -> None:
        """Take in frames ``[N, D]``, finite numbers."""
        if batch.ndim != 2 or (self.count and batch.shape[1] != self._kept.shape[1]):
            wanted = self._kept.shape[1] if self.count else "D"
            raise ValueError(f"a batch of frames is of shape {list(batch.shape)}, wanted [N, {wanted}]")
        if not len(batch):
            return
        if not np.isfinite(batch).all():
            raise ValueError(
                f"the frames behind the first {self.count} hold NaN or infinite numbers: look at the sound"
            )
        if not self.count:
            self._kept = np.empty((self.size, batch.shape[1]), np.float32)
            self._mean = self._squares = np.zeros(batch.shape[1])
        self._keep(batch)
        self._count(batch.astype(np.float64))

    def _keep(self, batch: np.ndarray) -> None:
        """Frame i is kept with probability size / (i + 1), in the place of any other (Vitter 1985, algorithm R)."""
        numbers = np.arange(self.count, self.count + len(batch))
        places = np.where(numbers < self.size, numbers, self._draw.integers(0, numbers + 1))
        chosen = places < self.size
        self._kept[places[chosen]] = batch[chosen]  # of two for one place the later one stays, as one by one

    def _count(self, batch: np.ndarray) -> None:
        """Merge the moments of a batch into those of what came before (Chan et al. 1979)."""
        total = self.count + len(batch)
        mean = batch.mean(axis=0)
        shift = mean - self._mean
        within, between = ((batch - mean) ** 2).sum(axis=0), shift**2 * self.count * len(batch) / total
        self._squares = self._squares + within + between
        self._mean = self._mean + shift * len(batch) / total
        self.count = total


def assign(frames: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of ``[V, D]`` for each of ``[..., D]``: ``[...]`` int64; of two equally near ones the first."""
    return (frames @ centroids.T - centroids.square().sum(-1) / 2).argmax(-1)
