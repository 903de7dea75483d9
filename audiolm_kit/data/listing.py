"""What a dataset's folder lists: its sound files, the rows of its text files, and the entries they make."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOUND_SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .w64 .caf".split())
# Listed as well, so that a file we cannot read is reported and not overlooked.
FOREIGN_SUFFIXES = frozenset(".m4a .aac .mp4 .wma .webm .amr .ape .wv .sph".split())
TAGS = ("tags", "labels", "keywords")  # columns of lists of tags; of the first, a row without a caption has one
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("valid", "validation", "val", "dev"), "valid")


class Entry(NamedTuple):
    """A sound that a layout names; the file need not exist or be readable."""

    path: Path
    columns: dict[str, Any]  # caption, transcript, label, speaker, split, start, duration and whatever else is known
    origin: str  # where it is named, for errors: "metadata.csv line 3"
    skip: str = ""  # why the layout leaves it out


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSON-lines file, gzipped or not; blank lines are skipped."""
    for number, line in enumerate(read_text(file).split("\n"), 1):  # splitlines would also cut at U+2028
        if not line.strip():
            continue
        try:
            columns = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{file} line {number} is not JSON ({error}): repair or remove the line") from error
        if not isinstance(columns, dict):
            raise ValueError(f'{file} line {number} is not a JSON object: a row looks like {{"path": "a.wav"}}')
        yield number, columns


def sound_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder whose suffix says sound, sorted; hidden names are passed over, links followed once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_warn, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        names = [] if real in seen else sorted(name for name in names if not name.startswith("."))
        seen.add(real)
        for name in names:
            if os.path.splitext(name)[1].lower() in SOUND_SUFFIXES | FOREIGN_SUFFIXES:
                yield Path(place, name)


def _warn(error: OSError) -> None:
    warnings.warn(f"cannot look into {error.filename} ({error.strerror}): its sounds are not listed", stacklevel=2)


def with_suffix(folder: Path, name: str) -> Path:
    """The sound of that name, whatever its format; WAV, to be reported missing, when there is none."""
    paths = (folder / f"{name}{suffix}" for suffix in (".wav", ".flac", ".ogg", ".mp3"))
    return next((path for path in paths if path.is_file()), folder / f"{name}.wav")


def unnamed(folder: Path, named: Iterable[Path], table: str) -> Iterator[Entry]:
    """Entries of the sounds below a folder that its table does not name: left out, and said so."""
    for path in sound_files(folder):
        if path not in named:
            yield Entry(path, {}, str(path), f"not named in {table}")


def csv_rows(file: Path, wanted: Iterable[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a CSV file whose first line names its columns, the wanted ones among them."""
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        missing = sorted(set(wanted) - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"{file} has no column {', '.join(missing)}: its first line must name the columns")
        for columns in reader:
            columns.pop(None, None)  # cells beyond the header
            yield reader.line_num, columns
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num} is not CSV ({error}): repair the quotes") from error


def csv_cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a CSV file without names; comments (#) and blank lines are skipped."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if cells and not cells[0].startswith("#"):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num} is not CSV ({error}): repair the quotes") from error


def read_text(file: Path) -> str:
    """A text file, gzipped or not."""
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{file} is a broken gzip file ({error}): fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start}): convert it") from error


def first_line(file: Path) -> str:
    """Without the blanks around it; nothing of a file that is not there."""
    if not file.is_file():
        return ""
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        return lines.readline().strip()
