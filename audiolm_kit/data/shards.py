"""Token shards: Parquet rows of codes, text and times, with the codec's fingerprint in each file's metadata.

K codebooks, T frames. Codes are [K, T] int64 in memory; on disk one flat 16-bit list per row, codebook after codebook.
A folder holds ``part-00000.parquet``, ``part-00001.parquet``, ...; every part knows how many there are.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from audiolm_kit.checkpoint import replacing

VERSION = 1
METADATA = b"audiolm_kit"
LARGEST_CODEBOOK = 2**16
SCHEMA = pa.schema(
    [
        ("codes", pa.list_(pa.uint16())),
        ("num_frames", pa.int32()),
        ("text", pa.string()),
        ("path", pa.string()),
        ("variant", pa.int32()),
        ("start", pa.float64()),
        ("seconds", pa.float64()),
        ("speaker", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
    ]
)
MIXED_WITH = "mixed_with"  # a column of those parts alone that hold mixtures


@dataclass(frozen=True)
class TokenFormat:
    """What must agree between shards, the codec that made them and a model that learns them."""

    fingerprint: str
    """Hash of the codec's weights and config."""
    num_codebooks: int
    codebook_size: int
    frame_rate: float
    sample_rate: int

    def __post_init__(self) -> None:
        if self.codebook_size > LARGEST_CODEBOOK:
            raise ValueError(
                f"codebook_size {self.codebook_size} does not fit 16 bits: use a codec of at most {LARGEST_CODEBOOK}"
            )


class TokenRow(NamedTuple):
    """One clip as codes, and what is known about it."""

    codes: Tensor  # [K, T] int64
    text: str = ""
    path: str = ""
    variant: int = 0
    start: float = 0.0
    seconds: float = 0.0
    speaker: str = ""
    label: str = ""
    split: str = ""
    mixed_with: str = ""  # the path of the second clip, where the row is a mixture of two


class Skipped(NamedTuple):
    """A clip that could not be turned into codes, and why."""

    path: str
    reason: str


class Part(NamedTuple):
    """Where a file stands among its siblings, and what it had to leave out."""

    number: int
    total: int
    skipped: tuple[Skipped, ...] = ()


def part_path(folder: str | Path, number: int) -> Path:
    """The file of part ``number``."""
    return Path(folder) / f"part-{number:05d}.parquet"


def write_part(folder: str | Path, part: Part, rows: Sequence[TokenRow], token_format: TokenFormat) -> Path:
    """Write one part, whole or not at all.

    Raises:
        ValueError: a row's codes are not [K, T] in [0, codebook_size).
    """
    mixed = any(row.mixed_with for row in rows)
    schema = SCHEMA.append(pa.field(MIXED_WITH, pa.string())) if mixed else SCHEMA
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for row in rows:
        _check_codes(row, token_format)
        columns["codes"].append(row.codes.reshape(-1).numpy().astype(np.uint16))
        columns["num_frames"].append(row.codes.shape[1])
        for name in columns.keys() - {"codes", "num_frames"}:
            columns[name].append(getattr(row, name))
    about = {"version": VERSION, **asdict(token_format), "part": part.number, "parts": part.total}
    about["skipped"] = [list(each) for each in part.skipped]
    table = pa.table(columns, schema=schema.with_metadata({METADATA: json.dumps(about)}))
    path = part_path(folder, part.number)
    with replacing(path) as draft:
        pq.write_table(table, draft, compression="zstd")
    return path


def write_shards(
    folder: str | Path, rows: Iterable[TokenRow], token_format: TokenFormat, rows_per_shard: int = 1024
) -> list[Path]:
    """Write rows that are at hand as the parts of a folder; ``tokenize`` does the same from recordings, resumably."""
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard is {rows_per_shard}, wanted at least 1")
    remaining = iter(rows)
    groups: list[list[TokenRow]] = list(iter(lambda: list(islice(remaining, rows_per_shard)), []))
    return [write_part(folder, Part(number, len(groups)), group, token_format) for number, group in enumerate(groups)]


def read_part(path: str | Path) -> tuple[TokenFormat, Part, int]:
    """The metadata of one part and its number of rows, from the file's footer alone.

    Raises:
        ValueError: the file is cut off, is not ours, or lacks a column.
    """
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a whole Parquet file ({reason}): delete it and run `tokenize` again") from None
    schema = footer.schema.to_arrow_schema()
    stored = (schema.metadata or {}).get(METADATA)
    if stored is None:
        raise ValueError(f"{path} does not say which codec made it, so it is no token shard: make one with `tokenize`")
    missing = [name for name in SCHEMA.names if name not in schema.names]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: write it again with `tokenize`")
    about = json.loads(stored)
    if about["version"] != VERSION:
        raise ValueError(
            f"{path} has shard version {about['version']}, this version reads {VERSION}: write it again with `tokenize`"
        )
    token_format = TokenFormat(**{name: about[name] for name in TokenFormat.__dataclass_fields__})
    part = Part(about["part"], about["parts"], tuple(Skipped(*each) for each in about["skipped"]))
    return token_format, part, footer.num_rows


class Shards:
    """The rows of one or more shard folders of one codec, memory-mapped; pickles for loader workers."""

    def __init__(self, token_format: TokenFormat, rows: Any) -> None:
        self.format = token_format
        self._rows = rows  # a datasets.Dataset that yields tables

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TokenRow:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        table = self._rows[index]
        named = {name: table[name][0].as_py() for name in table.column_names if name not in ("codes", "num_frames")}
        stored = {name: value for name, value in named.items() if value is not None}  # a column that its part lacks
        codes = table["codes"][0].values.to_numpy(zero_copy_only=False).astype(np.int64)
        return TokenRow(torch.from_numpy(codes.reshape(self.format.num_codebooks, -1)), **stored)

    def __iter__(self) -> Iterator[TokenRow]:
        return (self[index] for index in range(len(self)))

    @property
    def num_frames(self) -> Tensor:
        """The length of every row in frames, [rows] int64, without reading any codes."""
        return self._column("num_frames", lambda values: torch.tensor(values, dtype=torch.int64))

    @property
    def texts(self) -> list[str]:
        """The text of every row, without reading any codes."""
        return self._column("text", list)

    @property
    def num_recordings(self) -> int:
        """How many files the rows are of: variants, and all that one was mixed with, count once."""
        return len(set(self._column("path", list)))

    def _column(self, name: str, convert: Callable[[list[Any]], Any]) -> Any:
        return convert(self._rows.with_format(None).select_columns([name])[:][name])


def open_shards(folders: str | Path | Sequence[str | Path], fingerprint: str | None = None) -> Shards:
    """Open all parts of one or more folders, read through Hugging Face ``datasets`` without any network.

    Args:
        folders: what ``tokenize`` or ``write_shards`` wrote; several must come from one codec.
        fingerprint: the codec the rows must come from; None accepts any, yet only one.

    Raises:
        FileNotFoundError: a folder is missing, holds no parts, or lacks some.
        ValueError: another codec's codes, two codecs' codes, a cut-off or foreign file, or no rows at all.
    """
    listed = [folders] if isinstance(folders, (str, Path)) else list(folders)
    formats: dict[Path, TokenFormat] = {}
    filled = []
    for path in [path for folder in listed for path in _whole_folder(Path(folder))]:
        formats[path], _, num_rows = read_part(path)
        if num_rows:
            filled.append(path)
    token_format = _one_format(formats, fingerprint)
    if not filled:
        raise ValueError(
            f"the shards in {', '.join(map(str, listed))} hold no rows: see skipped.jsonl beside them for the reasons"
        )
    return Shards(token_format, _read(filled))


def _whole_folder(folder: Path) -> list[Path]:
    """The parts of a folder, in order, none missing."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no shard folder at {folder}: write one with `tokenize`")
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no part-*.parquet: write shards into it with `tokenize`")
    total = read_part(paths[0])[1].total
    wanted = [part_path(folder, number) for number in range(total)]
    if paths != wanted:
        raise FileNotFoundError(
            f"{folder} holds {len(paths)} of {total} shards: run the same `tokenize` again, it goes on where it was"
        )
    return paths


def _one_format(formats: dict[Path, TokenFormat], fingerprint: str | None) -> TokenFormat:
    first_path, first = next(iter(formats.items()))
    for path, each in formats.items():
        if fingerprint is not None and each.fingerprint != fingerprint:
            raise ValueError(
                f"{path} holds codes of codec {each.fingerprint}, wanted those of codec {fingerprint}: "
                "tokenize with this codec, or give the other"
            )
        if each != first:
            raise ValueError(
                f"{first_path} and {path} come from two codecs ({first.fingerprint}, {each.fingerprint}): "
                "tokenize all with one"
            )
    return first


def _read(paths: list[Path]) -> Any:
    import datasets  # a second to import: only those who open shards pay for it

    with _quiet(datasets), _cache_folder(paths[0].parent) as cache:
        try:
            rows = datasets.concatenate_datasets(
                [
                    datasets.Dataset.from_parquet([str(path) for path in alike], cache_dir=str(cache), columns=names)
                    for names, alike in groupby(paths, _columns)
                ]
            )
        except (datasets.exceptions.DatasetGenerationError, pa.ArrowException) as error:
            cause = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(
                f"a shard in {paths[0].parent} cannot be read ({cause}): delete it and run `tokenize` again"
            ) from None
    return rows.with_format("arrow")  # numpy rows take twice as long


def _columns(path: Path) -> list[str]:
    """The columns of a part that we know of."""
    mixed = [MIXED_WITH] if MIXED_WITH in pq.read_schema(path).names else []
    return SCHEMA.names + mixed


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars of ``datasets`` while opening; its setting is put back."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _cache_folder(folder: Path) -> Iterator[Path]:
    """Where ``datasets`` keeps its memory-mapped copy: hidden beside the shards, or temporary if that is read-only."""
    beside = folder / ".cache"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            pass
    except OSError:
        temporary = tempfile.mkdtemp(prefix="audiolm_kit-shards-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        yield Path(temporary)
        return
    yield beside


def _check_codes(row: TokenRow, token_format: TokenFormat) -> None:
    codes = row.codes
    if codes.ndim != 2 or codes.shape[0] != token_format.num_codebooks or codes.shape[1] == 0:
        raise ValueError(
            f"codes of {row.path or 'a row'} have shape {tuple(codes.shape)}, "
            f"wanted [{token_format.num_codebooks}, T] with T at least 1"
        )
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= token_format.codebook_size:
        raise ValueError(
            f"codes of {row.path or 'a row'} reach from {low} to {high}, wanted 0 to {token_format.codebook_size - 1}"
        )
