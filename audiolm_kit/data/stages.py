"""StageData: windows of the codes that a stage of AudioLM learns, and of those of the same time that stand in front.

B batch, K codebooks, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from audiolm_kit.data.modules import Numbered, TokenBatch, TokenSource
from audiolm_kit.data.pairs import Folders, Pairs, joined
from audiolm_kit.data.shards import TokenFormat, TokenRow, open_shards
from audiolm_kit.data.walk import row_of_place
from audiolm_kit.repeats import deduplicate
from audiolm_kit.stages import Stage, StageName

TWO_TOKENIZERS = ("coarse", "acoustic")
COUNTED_ROWS = 2000
"""How many rows are read, spread over all, to count codes per second."""

# --- windows of equal time --------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """Windows of the same time in codes of different frame rates.

    They start at a frame of the slowest codes, and are whole frames of these long; faster codes start at the nearest of
    theirs. Where one rate is a multiple of the other, all cover exactly the same time, else they differ by at most half
    a frame of the faster at each end.
    """

    rate: float
    """Frames a second of the slowest codes."""
    frames: int
    """The length of a window, in those."""

    @classmethod
    def of(cls, seconds: float, rates: Sequence[float]) -> Grid:
        """Windows of at least these seconds."""
        rate = min(rates)
        return cls(rate, max(1, math.ceil(round(seconds * rate, 6))))

    def length(self, rate: float) -> int:
        """The length of a window in frames of this rate."""
        return round(self.frames * rate / self.rate)

    def cut(self, codes: Tensor, rate: float, start: int) -> Tensor:
        """``[K, T]`` -> the window that begins at frame ``start`` of the slowest; shorter where the row ends."""
        first = round(start * rate / self.rate)
        return codes[:, first : first + self.length(rate)]


class _Piece(NamedTuple):
    """One item of a batch, not padded yet."""

    codes: Tensor  # [K, T]
    prefix: Tensor | None  # [K, T]
    text: str


class StageData(TokenSource):
    """Windows for one stage of AudioLM (arXiv:2209.03143, section III-C), or for coarse and fine in one model.

    Semantic learns semantic codes. Coarse and acoustic learn a codec's, given the semantic ones of the same time; fine
    learns the later codebooks of a codec, given its first ones. A window is cut in time (``Grid``), then repeats are
    taken out of semantic codes. What stands in front is padded on its left, with the code behind its last one (its
    ``codebook_size``), to the longest of its batch.

    Semantic and acoustic shards are two ``tokenize`` runs over one manifest with the same options. Their variants of a
    recording have the same speed and level, and lie apart by less than a frame of the slower.

    Args:
        stage: which one.
        shards: folders of the codes to learn: those of the semantic tokenizer for semantic, else of the codec.
        seconds: the length of a window; longer rows give one from a random place, shorter rows come whole.
        codebooks: the first that is learned and the one after the last; None: all, for fine all behind those in front.
        prefix_shards: folders of the semantic codes, for coarse and acoustic.
        prefix_codebooks: those in front, of the semantic codes (0, 0: all) or, for fine, of ``shards``.
        deduplicate: whether repeats are taken out of semantic codes.
        valid_shards: folders that are never trained on; each of their rows is taken once, from its start.
        valid_prefix_shards: their semantic codes, for coarse and acoustic.
    """

    def __init__(
        self,
        stage: StageName,
        shards: str | list[str],
        seconds: float,
        batch_size: int = 16,
        codebooks: tuple[int, int] | None = None,
        prefix_shards: str | list[str] = "",
        prefix_codebooks: tuple[int, int] = (0, 0),
        deduplicate: bool = True,
        valid_shards: str | list[str] | None = None,
        valid_prefix_shards: str | list[str] | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.stage_name, self.seconds, self.deduplicate = stage, seconds, deduplicate
        self.shards, self.prefix_shards = shards, prefix_shards
        self.valid_shards, self.valid_prefix_shards = valid_shards, valid_prefix_shards
        self.codebooks, self.prefix_codebooks = codebooks, tuple(prefix_codebooks)
        self._check()
        self.rows: Pairs | None = None
        self.valid_rows: Pairs | None = None
        self._stage: Stage | None = None

    def _check(self) -> None:
        """What can be told before any shard is opened."""
        name = self.stage_name
        if name not in get_args(StageName):
            raise ValueError(f"stage is {name!r}, wanted one of {', '.join(get_args(StageName))}")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds is {self.seconds}, wanted above 0")
        given = {"prefix_shards": self.prefix_shards, "valid_prefix_shards": self.valid_prefix_shards}
        wanted = name in TWO_TOKENIZERS
        for key, folders in given.items():
            if folders and not wanted:
                raise ValueError(f"stage {name} has no semantic codes in front: leave {key} out")
            if wanted and not folders and (key == "prefix_shards" or self.valid_shards):
                raise ValueError(f"stage {name} stands on semantic codes: set {key} to their shards")
        if self.valid_prefix_shards and not self.valid_shards:
            raise ValueError("valid_prefix_shards stand in front of valid_shards: set these too")

    # --- what is learned ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Open the shards, join those of two tokenizers, and work out which codes are learned."""
        self.rows = self._open(self.shards, self.prefix_shards)
        if self.valid_shards:
            self.valid_rows = self._open(self.valid_shards, self.valid_prefix_shards or "", self.rows)
        self._stage = self._described(self.rows)

    def _open(self, folders: Folders, prefix_folders: Folders, like: Pairs | None = None) -> Pairs:
        if self.stage_name in TWO_TOKENIZERS:
            return joined(folders, prefix_folders, like)
        learned = open_shards(folders, None if like is None else like.learned.format.fingerprint)
        return Pairs(learned, learned if self.stage_name == "fine" else None)

    def _described(self, rows: Pairs) -> Stage:
        held = rows.learned.format.num_codebooks
        in_front = 0 if rows.front is None else rows.front.format.num_codebooks
        prefix = (self.prefix_codebooks[0], self.prefix_codebooks[1])
        if prefix == (0, 0) and self.stage_name in TWO_TOKENIZERS:
            prefix = (0, in_front)
        codebooks = self.codebooks or (prefix[1] if self.stage_name == "fine" else 0, held)
        stage = Stage(self.stage_name, codebooks, self.seconds, prefix, self.deduplicate)
        for key, end, most in (
            ("codebooks", stage.codebooks[1], held),
            ("prefix_codebooks", stage.prefix_codebooks[1], in_front),
        ):
            if end > most:
                raise ValueError(f"{key} of stage {stage.name} end at {end}, and the shards hold {most}: end there")
        if stage.name == "fine" and stage.codebooks[0] < stage.prefix_codebooks[1]:
            raise ValueError(
                f"stage fine learns codebooks {list(stage.codebooks)} behind {list(stage.prefix_codebooks)}: "
                "begin codebooks where prefix_codebooks end"
            )
        rate = _codes_per_second(rows, stage)
        return Stage(stage.name, stage.codebooks, stage.seconds, stage.prefix_codebooks, stage.deduplicated, rate)

    @property
    def stage(self) -> Stage:
        """What is learned, and what stands in front."""
        self._opened()
        assert self._stage is not None
        return self._stage

    @property
    def format(self) -> TokenFormat:
        """Of the tokenizer whose codes are learned, with all its codebooks."""
        return self._opened().learned.format

    @property
    def prefix_format(self) -> TokenFormat | None:
        """Of the tokenizer whose codes stand in front, with all its codebooks; None where none do."""
        front = self._opened().front
        return None if front is None else front.format

    @property
    def texts(self) -> list[str]:
        """The captions of all training rows."""
        return self._opened().texts

    def _opened(self) -> Pairs:
        if self.rows is None:
            self.setup("fit")
        assert self.rows is not None
        return self.rows

    # --- batches ------------------------------------------------------------------------------------------------------

    def make_batch(self, step: int) -> TokenBatch:
        """Windows of the step's rows, each from its own place, drawn from (seed, place)."""
        rows, grid = self._opened(), self._grid
        pieces = []
        for place in self.places(step):
            row, front = rows[row_of_place(place, len(rows), self.seed)]
            slowest = row if front is None or rows.learned.format.frame_rate == grid.rate else front
            draw = np.random.default_rng((self.seed, 2, place))
            start = int(draw.integers(0, max(0, slowest.codes.shape[1] - grid.frames) + 1))
            pieces.append(self._piece(row, front, start))
        return self._collate(pieces)

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
        return self._collate([self._piece(*self.valid_rows[index], 0) for index in range(first, last)])

    @property
    def _grid(self) -> Grid:
        formats = [self.format] + ([self.prefix_format] if self.prefix_format else [])
        return Grid.of(self.seconds, [each.frame_rate for each in formats])

    def _piece(self, row: TokenRow, front: TokenRow | None, start: int) -> _Piece:
        """The window from ``start``, its codebooks chosen, repeats taken out of semantic codes."""
        stage, grid = self.stage, self._grid
        codes = grid.cut(row.codes, self.format.frame_rate, start)[slice(*stage.codebooks)]
        if stage.source == "semantic" and stage.deduplicated:
            codes = deduplicate(codes).codes
        if front is None or self.prefix_format is None:
            return _Piece(codes, None, row.text)
        prefix = grid.cut(front.codes, self.prefix_format.frame_rate, start)[slice(*stage.prefix_codebooks)]
        if stage.prefix == "semantic" and stage.deduplicated:
            prefix = deduplicate(prefix).codes
        return _Piece(codes, prefix, row.text)

    def _collate(self, pieces: list[_Piece]) -> TokenBatch:
        """Learned codes are padded behind, those in front before them, so that the two meet."""
        num_frames = self._grid.length(self.format.frame_rate)
        codes = torch.stack([pad(each.codes, (0, num_frames - each.codes.shape[1])) for each in pieces])
        lengths = torch.tensor([each.codes.shape[1] for each in pieces])
        mask = torch.arange(num_frames) < lengths[:, None]
        prefixes = [each.prefix for each in pieces if each.prefix is not None]
        prefix = None
        if prefixes and self.prefix_format is not None:
            longest, special = max(each.shape[1] for each in prefixes), self.prefix_format.codebook_size
            prefix = torch.stack([pad(each, (longest - each.shape[1], 0), value=special) for each in prefixes])
        return TokenBatch(codes, mask, [each.text for each in pieces], prefix)


def _codes_per_second(rows: Pairs, stage: Stage) -> float:
    """How many semantic codes of a stage stand for a second, in the mean over time; 0 where it has none."""
    if "semantic" not in (stage.source, stage.prefix):
        return 0.0
    own = stage.source == "semantic"
    shards, codebooks = (rows.learned, stage.codebooks) if own else (rows.front, stage.prefix_codebooks)
    assert shards is not None
    if not stage.deduplicated:
        return shards.format.frame_rate
    places = rows.places[:: -(-len(rows) // COUNTED_ROWS), 0 if own else 1]
    codes = [shards[int(place)].codes[slice(*codebooks)] for place in places]
    runs = sum(deduplicate(each).codes.shape[1] for each in codes)
    return shards.format.frame_rate * runs / sum(each.shape[1] for each in codes)
