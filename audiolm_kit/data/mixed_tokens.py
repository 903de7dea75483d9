"""Codes made on the fly: crops of recordings, some of them mixtures of two, encoded on the device that trains.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from audiolm_kit import audio as sounds
from audiolm_kit.audio import Sound
from audiolm_kit.data.augment import VariationRanges, draw_variation, vary
from audiolm_kit.data.manifest import Row, training_rows
from audiolm_kit.data.mixing import Mix, Mixing, Partners, draw_mix, is_mixed, is_silent, mix, mixed_row
from audiolm_kit.data.modules import Numbered, Recordings, TokenBatch, TokenSource
from audiolm_kit.data.shards import TokenFormat
from audiolm_kit.data.walk import row_of_place
from audiolm_kit.protocols import Codec

_CROP = 3  # behind (seed, row, number), as in mixing.py


class Waveforms(NamedTuple):
    """Sounds on their way to the codec."""

    bits: Tensor
    """[B, C, L] int32: float32 samples by their bits. Where training is in true half precision, Lightning rounds every
    float of a batch before the codec would see it."""
    frames: list[int]
    """How many frames of each item are to be encoded; what lies behind is 0."""
    texts: list[str]


class MixedTokenData(TokenSource):
    """Windows of a manifest's recordings as codes of the model's codec, each item perhaps mixed with another.

    No shards are needed, and no two epochs are alike; the price is the codec's work in each step. ``tokenize --mixes``
    pays it once. Each item depends on seed, row and epoch alone. A recording that cannot be read is named in a warning
    and the next one takes its place.

    Args:
        manifest: JSON lines with ``path``, ``duration``, ``caption`` and ``split``; rows of ``train`` or without a
            split are learned, those of ``valid`` are validated on, from their start and as they are.
        seconds: the length of a window; longer recordings give one from a random place, shorter ones are masked at
            their end.
        mixing: who is mixed with whom, how often and how loud.
        vary: whether place, loudness and speed of each recording vary mildly too, as in the variants of ``tokenize``.
        pad: recordings get trailing silence up to this many seconds before they are encoded, so that a model learns
            to end.
        cache_megabytes: recordings are kept decoded in memory while they all fit into this.
    """

    def __init__(
        self,
        manifest: str,
        seconds: float,
        mixing: Mixing = Mixing(),  # noqa: B008  frozen
        vary: bool = False,
        pad: float = 0.0,
        batch_size: int = 16,
        cache_megabytes: int = 1024,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"seconds is {seconds}, wanted above 0")
        if not 0 <= pad <= seconds:
            raise ValueError(f"pad is {pad}, wanted 0 to seconds, {seconds}: silence behind the window is never seen")
        self.manifest, self.seconds, self.mixing, self.vary, self.pad = manifest, seconds, mixing, vary, pad
        self.cache_megabytes = cache_megabytes
        self.rows: list[Row] = []
        self.valid_rows: list[Row] = []
        self._partners: Partners | None = None
        self._codec: Codec | None = None
        self._format: TokenFormat | None = None
        self._recordings: Recordings | None = None
        self._unreadable: set[Row] = set()

    # --- what is learned ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read the manifest and split it."""
        self.rows, self.valid_rows = training_rows(self.manifest)
        self._partners = Partners(self.rows, self.mixing.distinct) if self.mixing.probability else None

    def attach(self, codec: Codec, fingerprint: str) -> None:
        """Take the codec that encodes; it is neither trained nor saved with the run."""
        if not self.rows:
            self.setup("fit")
        self._format = TokenFormat(
            fingerprint, codec.num_codebooks, codec.codebook_size, codec.frame_rate, codec.sample_rate
        )
        if isinstance(codec, nn.Module):
            codec.eval()
        self._codec = codec
        rows = self.rows + self.valid_rows
        self._recordings = Recordings(rows, codec.sample_rate, codec.channels, self.cache_megabytes)

    @property
    def format(self) -> TokenFormat:
        """What codec the codes are of."""
        if self._format is None:
            raise ValueError(
                "MixedTokenData has no codec yet: LMTask hands it over in its setup, elsewhere call "
                "attach(codec, fingerprint)"
            )
        return self._format

    @property
    def texts(self) -> list[str]:
        """The captions of all training rows and, where items are mixed, those of one mixture of each."""
        if not self.rows:
            self.setup("fit")
        own, partners = [row.caption or "" for row in self.rows], self._partners
        if partners is None:
            return own
        drawn = (draw_mix(self.seed, index, 1, partners, self.mixing) for index in range(len(own)))
        return own + [self._mixed_text(index, each) for index, each in enumerate(drawn)]

    def _mixed_text(self, index: int, drawn: Mix) -> str:
        return mixed_row(self.rows[index], self.rows[drawn.partner], self.mixing.joiner).caption or ""

    # --- batches ------------------------------------------------------------------------------------------------------

    def make_batch(self, step: int) -> Waveforms:
        """The sounds of a step; ``on_after_batch_transfer`` makes a ``TokenBatch`` of them."""
        return self._collate([self._item(place) for place in self.places(step)])

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Every ``valid`` row from its start, unmixed, always in the same batches; none without such rows."""
        if not self.valid_rows:
            return []
        batches = Numbered(self._valid_batch, -(-len(self.valid_rows) // self.batch_size))
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers)

    def _valid_batch(self, number: int) -> Waveforms:
        first = number * self.batch_size
        items = []
        for index in range(first, min(first + self.batch_size, len(self.valid_rows))):
            found, sound = self._readable(self.valid_rows, index, lambda at: self._piece(self.valid_rows[at], 0))
            items.append((sound, self.valid_rows[found].caption or ""))
        return self._collate(items)

    def _item(self, place: int) -> tuple[Sound, str]:
        """The sound and the caption at one place of the walk over the rows."""
        index = row_of_place(place, len(self.rows), self.seed)
        number = place // len(self.rows) + 1  # 0 would be the unvaried recording
        index, first = self._readable(self.rows, index, lambda at: self._crop(at, number))
        text = self.rows[index].caption or ""
        if self._partners is None or not is_mixed(self.seed, index, number, self.mixing.probability):
            return first, text
        drawn = draw_mix(self.seed, index, number, self._partners, self.mixing)
        partner, second = self._readable(self.rows, drawn.partner, lambda at: self._crop(at, drawn.variants[1]))
        if partner != drawn.partner or is_silent(first.samples) or is_silent(second.samples):
            return first, text  # the caption of both would tell of what is not heard
        return mix(first, second, drawn, self.mixing), self._mixed_text(index, drawn)

    def _crop(self, index: int, number: int) -> Sound:
        """A window of a recording, at most as long as asked for; its start and variation are of (seed, row, number)."""
        row, rate = self.rows[index], self.format.sample_rate
        random = np.random.default_rng((self.seed, index, number, _CROP))
        start = random.uniform(0.0, max(0.0, row.duration - self.seconds))
        sound = self._piece(row, round(start * rate), VariationRanges().speed[1] if self.vary else 1.0)
        if self.vary:
            sound = vary(sound, draw_variation(self.seed, index, number, rate, self._hop))
        return Sound(sound.samples[:, : self._frames * self._hop], rate)

    def _piece(self, row: Row, first: int, longer: float = 1.0) -> Sound:
        assert self._recordings is not None
        samples = self._recordings.piece(row, first, math.ceil(self._frames * self._hop * longer))
        return Sound(sounds.checked(samples, row.path), self.format.sample_rate)

    def _readable(self, rows: list[Row], index: int, read: Callable[[int], Sound]) -> tuple[int, Sound]:
        """The first row from ``index`` on that can be read, and its sound."""
        for at in chain(range(index, len(rows)), range(index)):
            if rows[at] in self._unreadable:
                continue
            try:
                return at, read(at)
            except (OSError, ValueError) as error:
                self._unreadable.add(rows[at])
                warnings.warn(f"{rows[at].path} is left out: {error}", stacklevel=2)
        raise ValueError(f"no recording of {self.manifest} can be read: see `audiolm-kit manifest` for the reasons")

    def _collate(self, items: list[tuple[Sound, str]]) -> Waveforms:
        """Silence behind the end of each sound."""
        length, least = self._frames * self._hop, round(self.pad * self.format.sample_rate)
        audio = torch.stack(
            [nn.functional.pad(sound.samples, (0, length - sound.samples.shape[1])) for sound, _ in items]
        )
        frames = [math.ceil(max(sound.samples.shape[1], least) / self._hop) for sound, _ in items]
        return Waveforms(audio.view(torch.int32), [min(each, self._frames) for each in frames], [t for _, t in items])

    @property
    def _hop(self) -> int:
        return round(self.format.sample_rate / self.format.frame_rate)

    @property
    def _frames(self) -> int:
        """The length of a window in frames: whole ones, so that none is cut in its middle."""
        return max(1, round(self.seconds * self.format.frame_rate))

    # --- on the device ------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Waveforms, dataloader_idx: int) -> TokenBatch:
        """Encode a batch where it lies; items of equally many frames together, as ``tokenize`` does."""
        token_format, codec = self.format, self._codec
        audio = batch.bits.view(torch.float32)
        if isinstance(codec, nn.Module):
            codec.to(audio.device)
        assert codec is not None
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for place, frames in enumerate(batch.frames):
            by_length[frames].append(place)
        codes = torch.zeros(len(audio), token_format.num_codebooks, self._frames, dtype=torch.long, device=audio.device)
        lengths = torch.zeros(len(audio), dtype=torch.long, device=audio.device)
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            for frames, places in by_length.items():
                made = codec.encode(audio[places, :, : frames * self._hop])
                codes[places, :, : made.shape[-1]] = made
                lengths[places] = made.shape[-1]  # a codec that cuts sounds into segments may make fewer than `frames`
        return TokenBatch(codes, torch.arange(self._frames, device=audio.device) < lengths[:, None], batch.texts)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the codec behind: loader workers only read sounds."""
        return {**super().__getstate__(), "_codec": None}
