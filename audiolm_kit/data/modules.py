"""Lightning data modules: each batch is a pure function of seed, step and rank, so that training resumes anywhere.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audiolm_kit import audio as sounds
from audiolm_kit.data.manifest import Row, training_rows
from audiolm_kit.data.shards import Shards, TokenFormat, TokenRow, open_shards
from audiolm_kit.data.walk import LikeLengths, Steps, TimedLoader, places_of_step, row_of_place
from audiolm_kit.protocols import Codec


class SoundBatch(NamedTuple):
    """Waveforms of equal length."""

    audio: Tensor
    """[B, C, L], shorter sounds end in silence."""


# --- batches by step --------------------------------------------------------------------------------------------------


class _Rank(NamedTuple):
    """What a loader worker must know of the trainer."""

    global_rank: int
    world_size: int
    lightning_module: None = None


class SteppedData(pl.LightningDataModule):
    """A data module whose training batches are made by step; it starts where the task's checkpoint left off."""

    def __init__(self, batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, wanted at least 1")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers

    def __getstate__(self) -> dict[str, Any]:
        """Leave the trainer behind: where workers are not forked, all that they are given must be picklable."""
        trainer = self.trainer
        rank = None if trainer is None else _Rank(trainer.global_rank, trainer.world_size)
        return {**self.__dict__, "trainer": rank}

    def make_batch(self, step: int) -> Any:
        """The training batch of a step, on this rank."""
        raise ValueError(f"{type(self).__name__} makes no training batches: override make_batch")

    def places(self, step: int) -> Sequence[int]:
        """The places of this rank's batch in the walk over the rows."""
        return places_of_step(step, self.batch_size, *self._rank())

    def _rank(self) -> tuple[int, int]:
        """Which rank this is, of how many."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        """The stream of batches from the step that the task has reached."""
        # Lightning cannot see that this stream goes on where the checkpoint stopped.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
        task = self.trainer.lightning_module if self.trainer is not None else None
        steps = Steps(self.make_batch, start=getattr(task, "batches_seen", 0))
        return TimedLoader(
            steps,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


# --- sounds -----------------------------------------------------------------------------------------------------------


class Recordings:
    """Pieces of recordings at one rate; all are kept decoded in memory while they fit into ``cache_megabytes``."""

    def __init__(self, rows: list[Row], sample_rate: int, channels: int, cache_megabytes: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        megabytes = sum(row.duration for row in rows) * sample_rate * channels * 4 / 2**20
        self._cache: dict[Row, Tensor] | None = {} if megabytes <= cache_megabytes else None

    def piece(self, row: Row, first: int, length: int) -> Tensor:
        """At most ``length`` samples of a recording from sample ``first``, [C, L]; fewer where it ends."""
        if self._cache is None:
            start, seconds = first / self.sample_rate, length / self.sample_rate
            return self._read(row, row.start + start, min(seconds, row.duration - start))[:, :length]
        if row not in self._cache:
            self._cache[row] = self._read(row, row.start, row.duration)
        return self._cache[row][:, first : first + length]

    def _read(self, row: Row, start: float, seconds: float) -> Tensor:
        sound = sounds.read(row.path, start, seconds)
        return sounds.fit(sound, self.sample_rate, self.channels).samples


class AudioData(SteppedData):
    """Random crops of a manifest's recordings for codec training; ``valid`` rows are never trained on.

    Args:
        manifest: JSON lines with ``path``, ``duration`` and ``split``; a row without a split is for training.
        sample_rate: in hertz; recordings are resampled to it.
        seconds: the length of a crop; shorter recordings end in silence.
        peak: every crop is scaled to this peak first (0 leaves levels as recorded). Quiet recordings otherwise
            weigh little in the losses.
        gain_db: then a random gain from this range, in decibels, so that the codec learns more than one level.
        valid_batches: how many batches of the ``valid`` split one validation takes, each recording from its start.
        cache_megabytes: recordings are kept decoded in memory while they all fit into this.
    """

    def __init__(
        self,
        manifest: str,
        sample_rate: int,
        channels: int = 1,
        seconds: float = 1.0,
        batch_size: int = 16,
        peak: float = 0.9,
        gain_db: tuple[float, float] = (-6.0, 0.0),
        valid_batches: int = 8,
        cache_megabytes: int = 1024,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if round(seconds * sample_rate) < 1:
            raise ValueError(f"seconds is {seconds}, wanted at least one sample")
        self.manifest, self.sample_rate, self.channels, self.seconds = manifest, sample_rate, channels, seconds
        self.peak, self.gain_db, self.valid_batches = peak, gain_db, valid_batches
        self.cache_megabytes = cache_megabytes
        self.rows: list[Row] = []
        self.valid_rows: list[Row] = []
        self._recordings = Recordings([], sample_rate, channels, cache_megabytes)

    def setup(self, stage: str) -> None:
        """Read the manifest and split it."""
        self.rows, self.valid_rows = training_rows(self.manifest)
        both = self.rows + self.valid_rows
        self._recordings = Recordings(both, self.sample_rate, self.channels, self.cache_megabytes)

    def make_batch(self, step: int) -> SoundBatch:
        """Crops of the step's rows, each with its own start and gain, drawn from (seed, place)."""
        crops = []
        for place in self.places(step):
            draw = np.random.default_rng((self.seed, 1, place))
            row = self.rows[row_of_place(place, len(self.rows), self.seed)]
            crop = self._crop(row, start=draw.uniform(0, max(0.0, row.duration - self.seconds)))
            crops.append(crop * 10 ** (draw.uniform(*self.gain_db) / 20))
        return SoundBatch(torch.stack(crops))

    def val_dataloader(self) -> DataLoader[Any]:
        """The first seconds of the first ``valid`` rows, always the same."""
        rows = self.valid_rows[: self.valid_batches * self.batch_size]
        groups = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        batches = [SoundBatch(torch.stack([self._crop(row, 0.0) for row in group])) for group in groups]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset

    def _crop(self, row: Row, start: float) -> Tensor:
        """``seconds`` of a recording from ``start``, [C, L], padded with silence and scaled to the peak."""
        length, first = round(self.seconds * self.sample_rate), round(start * self.sample_rate)
        crop = self._recordings.piece(row, first, length)
        crop = torch.nn.functional.pad(crop, (0, length - crop.shape[1]))
        return crop if not self.peak else crop * (self.peak / crop.abs().amax().clamp_min(1e-3))


# --- codes -----------------------------------------------------------------------------------------------------------


class TokenBatch(NamedTuple):
    """Codes of equal length and what is said about them."""

    codes: Tensor
    """[B, K, T] int64; 0 where masked."""
    mask: Tensor
    """[B, T] bool, True at frames of the clip, False behind its end."""
    texts: list[str]
    """One caption an item; empty where there is none."""
    prefix: Tensor | None = None
    """Codes [B, K, T] of an earlier stage; in front of short ones stands their ``codebook_size``, which is no code."""


class TokenSource(SteppedData):
    """A data module of codes: what LMTask learns from. Its batches are ``TokenBatch``, however they came about."""

    def attach(self, codec: Codec, fingerprint: str) -> None:
        """Be handed the codec of the model that will learn, before ``format`` is asked for.

        Codes that are read from shards need none; what encodes on the fly does so with this one.
        """

    @property
    def format(self) -> TokenFormat:
        """What codec the codes are of."""
        raise ValueError(f"{type(self).__name__} names no codec: override format")

    @property
    def texts(self) -> list[str]:
        """The captions that are trained on."""
        raise ValueError(f"{type(self).__name__} has no captions: override texts")


class TokenData(TokenSource):
    """Windows of token shards for language models.

    Args:
        shards: one folder of shards, or several of one codec.
        frames: the length of a window; longer rows give one from a random place, shorter rows are masked at the end.
        valid_shards: a folder that is never trained on; each of its rows is taken once, from its start.
        like_lengths: batches of windows of like lengths, as long as the longest of them: so many steps are sorted
            together, 50 leave little padding (0: batches as the rows come, all as long as ``frames``). The same windows
            in each pool of steps, in other company; short ones then weigh more, as a batch is a batch.
    """

    def __init__(
        self,
        shards: str | list[str],
        frames: int,
        batch_size: int = 16,
        valid_shards: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        like_lengths: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if frames < 1:
            raise ValueError(f"frames is {frames}, wanted at least 1")
        if like_lengths < 0:
            raise ValueError(f"like_lengths is {like_lengths}, wanted a number of steps, or 0")
        self.shards, self.frames, self.valid_shards = shards, frames, valid_shards
        self.rows: Shards | None = None
        self.valid_rows: Shards | None = None
        self.like_lengths = like_lengths
        self._walk: LikeLengths | None = None

    def setup(self, stage: str) -> None:
        """Open the shards; training and validation must be of one codec."""
        self.rows = open_shards(self.shards)
        if self.valid_shards is not None:
            self.valid_rows = open_shards(self.valid_shards, self.rows.format.fingerprint)
        if self.like_lengths:
            lengths = self.rows.num_frames.clamp(max=self.frames).numpy()
            self._walk = LikeLengths(lengths, self.like_lengths, self.seed)

    @property
    def format(self) -> TokenFormat:
        """What codec the codes are of."""
        return self._opened().format

    @property
    def texts(self) -> list[str]:
        """The captions of all training rows."""
        return self._opened().texts

    def places(self, step: int) -> Sequence[int]:
        """The places of this rank's batch; of windows of like lengths where that is asked for."""
        if self._walk is None:
            return super().places(step)
        return self._walk.places_of_step(step, self.batch_size, *self._rank())

    def make_batch(self, step: int) -> TokenBatch:
        """Windows of the step's rows, each from its own place, drawn from (seed, place)."""
        rows = self._opened()
        items = []
        for place in self.places(step):
            row = rows[row_of_place(place, len(rows), self.seed)]
            draw = np.random.default_rng((self.seed, 2, place))
            items.append((row, int(draw.integers(0, max(0, row.codes.shape[1] - self.frames) + 1))))
        return self._collate(items, tight=self.like_lengths > 0)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Every row of ``valid_shards``, from its start, always in the same batches; none without ``valid_shards``."""
        if self.valid_rows is None:
            return []
        batches = Numbered(self._valid_batch, -(-len(self.valid_rows) // self.batch_size))
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers)

    def _valid_batch(self, number: int) -> TokenBatch:
        assert self.valid_rows is not None
        first = number * self.batch_size
        last = min(first + self.batch_size, len(self.valid_rows))
        return self._collate([(self.valid_rows[index], 0) for index in range(first, last)], tight=True)

    def _collate(self, items: list[tuple[TokenRow, int]], tight: bool) -> TokenBatch:
        """Cut each row at its start and mask what is missing at its end: up to ``frames``, or tight to the longest."""
        windows = [row.codes[:, start : start + self.frames] for row, start in items]
        lengths = torch.tensor([window.shape[1] for window in windows])
        num_frames = int(lengths.max()) if tight else self.frames
        codes = torch.stack([torch.nn.functional.pad(window, (0, num_frames - window.shape[1])) for window in windows])
        return TokenBatch(codes, torch.arange(num_frames) < lengths[:, None], [row.text for row, _ in items])

    def _opened(self) -> Shards:
        if self.rows is None:
            self.setup("fit")
        assert self.rows is not None
        return self.rows


class Numbered(Dataset[Any]):
    """``make(0)`` to ``make(count - 1)``, made when they are asked for."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < self.count:
            raise IndexError(f"batch {number} of {self.count}")
        return self.make(number)
