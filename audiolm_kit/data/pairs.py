"""Pairs: rows of learned codes, each beside the row of the same recording that stands in front, in other shards."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from audiolm_kit.data.shards import MIXED_WITH, Shards, TokenRow, open_shards

LEFT_OUT = 0.01
"""The largest share of rows that one of two folders may lack."""

Folders = str | list[str]


class Recording(NamedTuple):
    """What a row is of, whichever tokenizer made it."""

    path: str
    start: float
    variant: int

    def __str__(self) -> str:
        return f"{self.path} from {self.start:g} s, variant {self.variant}"


class Pairs:
    """Rows of learned codes, each with the row of the same recording that its prefix is taken from.

    Args:
        front: where the prefixes come from; None: there are none. The learned shards themselves will do.
        places: which row of the learned shards goes with which in front, ``[rows, 2]``; None: each with its namesake.
    """

    def __init__(self, learned: Shards, front: Shards | None = None, places: np.ndarray | None = None) -> None:
        self.learned, self.front = learned, front
        self.places = np.arange(len(learned)).repeat(2).reshape(-1, 2) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[TokenRow, TokenRow | None]:
        own, other = map(int, self.places[index])
        row = self.learned[own]
        if self.front is None or self.front is self.learned:
            return row, None if self.front is None else row
        front = self.front[other]
        assert (row.path, row.start, row.variant) == (front.path, front.start, front.variant)
        return row, front

    @property
    def texts(self) -> list[str]:
        """The caption of every row."""
        texts = self.learned.texts
        return [texts[place] for place in self.places[:, 0]]


def joined(folders: Folders, prefix_folders: Folders, like: Pairs | None = None) -> Pairs:
    """The rows of two ``tokenize`` runs over one manifest, put together by path, start and variant.

    Rows that one side alone has are left out with a warning, as long as they are few (``LEFT_OUT``).

    Args:
        like: both sides must come from the tokenizers of these.

    Raises:
        ValueError: both are of one tokenizer, or the two runs differ in manifest or options.
    """
    learned = open_shards(folders, None if like is None else like.learned.format.fingerprint)
    front = open_shards(prefix_folders, None if like is None or like.front is None else like.front.format.fingerprint)
    if learned.format.fingerprint == front.format.fingerprint:
        raise ValueError(
            f"{prefix_folders} and {folders} hold codes of one tokenizer, {front.format.fingerprint}: "
            "give the shards of the semantic tokenizer as prefix_shards, those of the codec as shards"
        )
    ours, theirs = _rows_by_recording(folders), _rows_by_recording(prefix_folders)
    _check_missing(ours.keys() - theirs.keys(), len(ours), folders, prefix_folders)
    _check_missing(theirs.keys() - ours.keys(), len(theirs), prefix_folders, folders)
    both = [recording for recording in ours if recording in theirs]
    for recording in both:
        one, other = ours[recording].mixed_with, theirs[recording].mixed_with
        if one != other:
            raise ValueError(
                f"{recording} is mixed with {one or 'nothing'} in {folders}, with {other or 'nothing'} in "
                f"{prefix_folders}: tokenize both with the same options and seed"
            )
    pairs = Pairs(learned, front, np.array([(ours[each].place, theirs[each].place) for each in both]))
    _check_lengths(pairs, both)
    return pairs


class _Row(NamedTuple):
    place: int
    mixed_with: str


def _rows_by_recording(folders: Folders) -> dict[Recording, _Row]:
    """Where ``open_shards`` has the row of each recording; no codes are read."""
    listed = [folders] if isinstance(folders, str) else folders
    found: dict[Recording, _Row] = {}
    place = 0
    for path in (path for folder in listed for path in sorted(Path(folder).glob("part-*.parquet"))):
        file = pq.ParquetFile(path)
        names = [name for name in (*Recording._fields, MIXED_WITH) if name in file.schema_arrow.names]
        for row in file.read(columns=names).to_pylist():
            recording = Recording(*(row[name] for name in Recording._fields))
            if recording in found:
                raise ValueError(f"{recording}, stands twice in {folders}: give folders of different recordings")
            found[recording] = _Row(place, row.get(MIXED_WITH) or "")
            place += 1
    return found


def _check_missing(missing: set[Recording], total: int, folders: Folders, others: Folders) -> None:
    if not missing:
        return
    found = f"{len(missing)} of the {total} rows of {folders} are not in {others} (the first: {min(missing)})"
    if len(missing) > LEFT_OUT * total:
        raise ValueError(f"{found}: tokenize both with the same manifest and options")
    warnings.warn(f"{found}; they are left out", stacklevel=4)


def _check_lengths(pairs: Pairs, recordings: Sequence[Recording]) -> None:
    """Rows of one name may be variations of different draws, or padded to different lengths: then times disagree."""
    assert pairs.front is not None
    own, other = pairs.learned.format.frame_rate, pairs.front.format.frame_rate
    seconds = pairs.learned.num_frames[pairs.places[:, 0]] / own
    beside = pairs.front.num_frames[pairs.places[:, 1]] / other
    # Each ends on a whole frame, and a variation is shifted by a part of one. Changed speeds are rounded to a hertz.
    wrong = ((seconds - beside).abs() > 2 / min(own, other) + 1e-3 * seconds).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"{recordings[first]}, lasts {seconds[first]:.2f} s in one folder and {beside[first]:.2f} s in the other "
            f"({len(wrong)} such rows): tokenize both with the same options and seed"
        )
