"""Recordings and their captions in batches, varied, for what learns which belong together.

B batch, L samples.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from audiolm_kit.audio import Sound
from audiolm_kit.data.augment import change_speed
from audiolm_kit.data.manifest import Row
from audiolm_kit.data.modules import AudioData
from audiolm_kit.data.walk import row_of_place


class CaptionedBatch(NamedTuple):
    """Mono windows of equal length, and what is said of each."""

    audio: Tensor
    """[B, L], shorter sounds with silence before and behind."""
    texts: list[str]
    kinds: list[str]
    """Items of one kind fit one another's captions."""


class CaptionedAudio(AudioData):
    """Windows of a manifest's recordings, each with its caption, for ``ContrastiveTask``.

    A recording that is longer than a window gives one from a random place, a shorter one stands at a random place in
    it. Levels do not matter to what learns from these.

    Args:
        manifest: JSON lines as of ``AudioData``; rows without a caption are passed over.
        sample_rate: in hertz; recordings are resampled to it.
        seconds: of a window.
        speed: recordings are played as much faster or slower, drawn so that twice as fast is as likely as half as fast.
        kinds: of ``label``, sounds of one label fit one another's captions, and what else these say need not be heard;
            of ``caption``, those of the same caption alone.
        noise_db: white noise is added, of a level from this range below the window's peak, in decibels.
    """

    def __init__(
        self,
        manifest: str,
        sample_rate: int,
        seconds: float = 1.0,
        batch_size: int = 48,
        speed: tuple[float, float] = (0.85, 1.18),
        noise_db: tuple[float, float] = (-70.0, -26.0),
        kinds: Literal["caption", "label"] = "caption",
        valid_batches: int = 8,
        cache_megabytes: int = 1024,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            manifest,
            sample_rate,
            seconds=seconds,
            batch_size=batch_size,
            peak=0.0,
            valid_batches=valid_batches,
            cache_megabytes=cache_megabytes,
            seed=seed,
            num_workers=num_workers,
        )
        if not 0 < speed[0] <= speed[1] < math.inf:
            raise ValueError(f"speed is {list(speed)}, wanted a range above 0, as [0.85, 1.18]")
        if noise_db[0] > noise_db[1]:
            raise ValueError(f"noise_db is {list(noise_db)}, wanted a range from low to high")
        self.speed, self.noise_db, self.kinds = speed, noise_db, kinds

    def setup(self, stage: str) -> None:
        """Read the manifest, and keep what has a caption."""
        super().setup(stage)
        self.rows, self.valid_rows = ([row for row in rows if row.caption] for rows in (self.rows, self.valid_rows))
        if not self.rows:
            raise ValueError(f"no row of {self.manifest} has a caption: give a manifest with captions")

    @property
    def texts(self) -> list[str]:
        """The captions of all training rows."""
        return [row.caption or "" for row in self.rows]

    def make_batch(self, step: int) -> CaptionedBatch:  # type: ignore[override]  # with captions
        """Windows of the step's rows, varied by draws from (seed, place)."""
        rows, made = [], []
        for place in self.places(step):
            draw = np.random.default_rng((self.seed, 3, place))
            rows.append(self.rows[row_of_place(place, len(self.rows), self.seed)])
            made.append(self._varied(rows[-1], draw))
        return self._batch(made, rows)

    def val_dataloader(self) -> DataLoader[Any]:
        """The first windows of ``valid`` rows, as they are; each batch has rows from all over the manifest."""
        count = min(self.valid_batches, -(-len(self.valid_rows) // self.batch_size))
        groups = [self.valid_rows[number::count][: self.batch_size] for number in range(count)]
        batches = [self._batch([self._crop(row, 0.0)[0] for row in group], group) for group in groups]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset

    def _batch(self, windows: list[Tensor], rows: list[Row]) -> CaptionedBatch:
        texts = [row.caption or "" for row in rows]
        labels = [row.label or text for row, text in zip(rows, texts, strict=True)]
        return CaptionedBatch(torch.stack(windows), texts, labels if self.kinds == "label" else texts)

    def _varied(self, row: Row, draw: np.random.Generator) -> Tensor:
        """A window of a recording at another speed and in noise, [L]."""
        length = round(self.seconds * self.sample_rate)
        # A hundred speeds in all: a resampler is made for each.
        low, high = (math.log(speed) for speed in self.speed)
        speed = round(math.exp(draw.uniform(low, high)), 2)
        start = draw.uniform(0, max(0.0, row.duration - self.seconds * speed))
        heard = self._recordings.piece(row, round(start * self.sample_rate), math.ceil(length * speed) + 1)
        [samples] = change_speed(Sound(heard, self.sample_rate), speed).samples[:, :length]
        before = int(draw.integers(0, length - len(samples) + 1))
        window = torch.nn.functional.pad(samples, (before, length - len(samples) - before))
        level = window.abs().amax().clamp_min(1e-3) * 10 ** (draw.uniform(*self.noise_db) / 20)
        return window + level * torch.from_numpy(draw.standard_normal(length, dtype=np.float32))
