"""Manifests: JSON lines that name a dataset's sounds, and the lint that keeps bad files out of them."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from audiolm_kit import audio
from audiolm_kit.audio import Survey
from audiolm_kit.captions import from_tags
from audiolm_kit.data.layouts import read_layout, read_manifest_file
from audiolm_kit.data.listing import TAGS, Entry

SILENCE = 1e-3  # a sound whose peak stays below this (-60 dBFS) says nothing
MAX_CLIPPED = 0.01  # share of samples at full scale
_TEXTS = ("caption", "transcript", "label", "speaker", "split")
_CHUNK = 1024  # sounds under way at once


@dataclass(frozen=True)
class Row:
    """One sound of a dataset: a file, or ``duration`` seconds of it from ``start``."""

    path: str
    """Absolute in memory, relative to the manifest on disk."""
    duration: float
    """Seconds; 0 where it has not been measured yet."""
    caption: str | None = None
    """One; a sound with several captions has a row for each. Made of the tags where there is none."""
    transcript: str | None = None
    label: str | None = None
    speaker: str | None = None
    split: str | None = None
    """Usually train, valid or test."""
    start: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict, hash=False)
    """Whatever else the manifest says, kept as it is."""


class Rejected(NamedTuple):
    """A sound that is left out, and why."""

    path: str
    reason: str


class LintReport(NamedTuple):
    """What may be trained on, with measured durations, and what may not."""

    kept: list[Row]
    rejected: list[Rejected]


def read_manifest(path: str | Path, split: str | None = None) -> list[Row]:
    """The rows of a manifest (of one split), paths absolute; the sound files themselves are not touched."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no manifest {path}: make one with audiolm-kit manifest FOLDER -o {path}")
    rows = []
    for entry in read_manifest_file(path):
        row = _row(entry)
        if row.duration <= 0:
            raise ValueError(f"{entry.origin} has no duration: audiolm-kit manifest {path} -o NEW.jsonl measures it")
        if split is None or row.split == split:
            rows.append(row)
    return rows


def training_rows(path: str | Path) -> tuple[list[Row], list[Row]]:
    """The rows to train on, of split ``train`` or of none, and those of ``valid``, which training never sees."""
    rows = read_manifest(path)
    train = [row for row in rows if row.split in (None, "train")]
    if not train:
        raise ValueError(f"{path} has no rows to train on: it needs rows with split 'train' or without a split")
    return train, [row for row in rows if row.split == "valid"]


def write_manifest(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines (gzipped when the name ends in .gz), all or nothing, paths relative to the manifest."""
    folder = Path(path).absolute().parent
    _write_lines(path, (_columns(row, folder) for row in rows))


def lint(
    rows: Iterable[Row],
    min_seconds: float = 0.05,
    max_clipped: float = MAX_CLIPPED,
    progress: Callable[[int, int], None] | None = None,
) -> LintReport:
    """Decode every sound once and sort out the ones not fit to train on; order is kept, of duplicates the first.

    Rows that share a file and differ in words (several captions for one sound) are no duplicates.

    Args:
        progress: Called with the number of sounds that are done and of all.
    """
    rows, kept, rejected = list(rows), [], []
    owners: dict[str, str] = {}  # digest -> the first file that holds the sound
    said: set[tuple[str | None, ...]] = set()
    for done, (row, found) in enumerate(zip(rows, _surveyed(rows), strict=True), 1):
        reason = found if isinstance(found, str) else _fault(found, min_seconds, max_clipped)
        if not reason and isinstance(found, Survey):
            words = (found.digest, row.caption, row.transcript, row.label)
            owner = owners.setdefault(found.digest, row.path)
            if owner != row.path or words in said:
                reason = f"duplicate: the same sound as {owner}"
            said.add(words)
            row = replace(row, duration=round(found.duration, 6))
        if reason:
            rejected.append(Rejected(row.path, reason))
        else:
            kept.append(row)
        if progress:
            progress(done, len(rows))
    return LintReport(kept, rejected)


def build_manifest(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    layout: str = "auto",
    min_seconds: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
    without: Sequence[str] = (),
) -> LintReport:
    """Make a manifest of folders of sounds, or of other manifests, and beside it OUTPUT.rejected.jsonl if need be.

    Args:
        source: A folder in one of the known layouts, or a manifest (.jsonl, .jsonl.gz), ours or audiocraft's; of
            several, one after the other, a sound that two of them hold is kept once.
        output: The manifest to write.
        layout: A name in ``layouts.LAYOUTS``, or auto.
        min_seconds: Shorter sounds are left out.
        progress: As in ``lint``; without it a progress bar is shown where there is a terminal.
        without: Words; what has one of them in its caption, label or tags is left out (AudioGen was trained without
            ``speech``). Whole words count, in any case; several may make one phrase.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    entries = [entry for each in sources for entry in _some_entries(Path(each), layout)]
    rows, skipped = _sort_out(entries, without)
    kept, rejected = lint(rows, min_seconds, progress=progress) if progress else _lint_with_bar(rows, min_seconds)
    report = LintReport(kept, skipped + rejected)
    complaints = _rejected_path(Path(output))
    if report.rejected:
        folder = complaints.absolute().parent
        _write_lines(
            complaints, ({"path": _relative(row.path, folder), "reason": row.reason} for row in report.rejected)
        )
    else:
        complaints.unlink(missing_ok=True)
    if not kept:
        named = ", ".join(map(str, sources))
        raise ValueError(f"none of the {len(entries)} sounds in {named} can be used: the reasons are in {complaints}")
    write_manifest(output, kept)
    return report


def _sort_out(entries: list[Entry], without: Sequence[str]) -> tuple[list[Row], list[Rejected]]:
    """The rows of a layout's entries, and those that are left out before their sounds are looked at."""
    avoided = [(word, _words(word)) for word in without]
    if not all(words for _, words in avoided):
        raise ValueError(f"without is {list(without)!r}: give words to leave out, such as speech")
    rows, skipped = [], [Rejected(str(entry.path), entry.skip) for entry in entries if entry.skip]
    for row in (_row(entry) for entry in entries if not entry.skip):
        about = _about(row) if avoided else ""
        said = next((word for word, words in avoided if words in about), None)
        if said is None:
            rows.append(row)
        else:
            skipped.append(Rejected(row.path, f"its words hold {said!r}, which is to be left out"))
    return rows, skipped


def _lint_with_bar(rows: list[Row], min_seconds: float) -> LintReport:
    from tqdm import tqdm

    with tqdm(total=len(rows), desc="sounds", unit="", disable=None, leave=False) as bar:
        return lint(rows, min_seconds, progress=lambda done, of: bar.update())


def _some_entries(source: Path, layout: str) -> list[Entry]:
    entries = list(_entries(source, layout))
    if not entries:
        raise ValueError(f"no sounds in {source}: give a folder that holds {audio.READABLE} files, or a manifest")
    return entries


def _entries(source: Path, layout: str) -> Iterator[Entry]:
    if source.is_dir():
        return read_layout(source, layout)
    if not source.exists():
        raise FileNotFoundError(f"no folder or manifest {source}")
    if not source.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"cannot list the sounds of {source}: give a folder, or a manifest (.jsonl, .jsonl.gz)")
    return read_manifest_file(source)


def _surveyed(rows: list[Row]) -> Iterator[Survey | str]:
    """For each row, in order, what its sound measures or why it cannot be measured; on threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding runs outside the interpreter's lock
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            parts = {(row.path, row.start, row.duration): row for row in chunk}  # of several captions: read once
            found = dict(zip(parts, pool.map(_survey, parts.values()), strict=True))
            yield from (found[row.path, row.start, row.duration] for row in chunk)


def _survey(row: Row) -> Survey | str:
    try:
        row.path.encode()
        if not os.path.exists(row.path):
            return "missing: there is no such file"
        if os.path.getsize(row.path) == 0:
            return "empty: 0 bytes"
        return audio.survey(row.path, row.start, row.duration or None)
    except UnicodeEncodeError:
        return "unreadable: its name is not UTF-8"
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        return f"unreadable: {' '.join(str(error).replace(row.path, 'it').split())}"


def _fault(found: Survey, min_seconds: float, max_clipped: float) -> str:
    """The first thing wrong with a sound, or nothing."""
    faults = (
        (found.num_promised == 0, "empty: it has no samples"),
        (
            found.num_samples < found.num_promised,
            f"cut off: {found.num_samples} of {found.num_promised} samples decode",
        ),
        (not found.finite, "NaN: it has samples that are not finite numbers"),
        (found.duration < min_seconds, f"too short: {found.duration:.3f} s, at least {min_seconds} s are wanted"),
        (found.peak < SILENCE, f"silent: its peak is {found.peak:.1e}, at least {SILENCE:.0e} is wanted"),
        (found.clipped > max_clipped, f"clipped: {found.clipped:.1%} of its samples are at full scale"),
    )
    return next((reason for wrong, reason in faults if wrong), "")


def _row(entry: Entry) -> Row:
    """Sort a layout's columns into a row; numbers become texts where texts are wanted."""
    known = {name: value for name, value in entry.columns.items() if value is not None}
    number = partial(_number, known, entry.origin)
    texts = {name: _as_text(known.pop(name), name, entry.origin) for name in _TEXTS if name in known}
    sentence = "" if texts.get("caption", "").strip() else from_tags(_tags(known))
    if re.search(r"[^\W\d_]", sentence):  # numbers of classes are no words
        texts["caption"] = sentence
    return Row(str(entry.path), number("duration"), start=number("start"), extra=known, **texts)


def _tags(columns: dict[str, Any]) -> list[str]:
    """The tags of a row: a list of texts, or a text that divides them; other things under these names are no tags."""
    for value in (columns[name] for name in TAGS if columns.get(name)):
        if isinstance(value, str):
            return re.split(r"[,;|]", value)
        if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
            return value
    return []


def _about(row: Row) -> str:
    """The words of all that tells what is heard, each text by itself."""
    return "|".join(map(_words, (row.caption or "", row.label or "", *_tags(row.extra))))


def _words(text: str) -> str:
    """`` a dog barks ``: lower case, one blank on both sides of each word."""
    words = re.findall(r"[^\W_]+", text.lower())
    return f" {' '.join(words)} " if words else ""


def _number(known: dict[str, Any], origin: str, name: str) -> float:
    value = known.pop(name, 0.0)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or isinstance(value, bool):
        raise ValueError(f"{origin} has {name} {value!r}: a number of seconds is wanted")
    return seconds


def _as_text(value: Any, name: str, origin: str) -> str:
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"{origin} has {name} {value!r:.40}: a text is wanted")


def _columns(row: Row, folder: Path) -> dict[str, Any]:
    """A row as it stands in the file: what is not known is left out."""
    columns: dict[str, Any] = {"path": _relative(row.path, folder), "duration": row.duration}
    columns |= {name: getattr(row, name) for name in _TEXTS if getattr(row, name) is not None}
    return columns | ({"start": row.start} if row.start else {}) | row.extra


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _rejected_path(output: Path) -> Path:
    name = output.name.removesuffix(".gz").removesuffix(".jsonl")
    return output.with_name(f"{name}.rejected.jsonl")


def _write_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode(errors="backslashreplace")  # names that are not UTF-8 stand among the rejected only
    audio.write_bytes(path, gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)
