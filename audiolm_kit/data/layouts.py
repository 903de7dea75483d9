"""Folder layouts of public datasets: each reader turns a folder into entries, one per sound or caption of it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from audiolm_kit.data import tables
from audiolm_kit.data.listing import (
    FOREIGN_SUFFIXES,
    SOUND_SUFFIXES,
    SPLITS,
    TAGS,
    Entry,
    csv_rows,
    first_line,
    json_lines,
    read_text,
    sound_files,
    unnamed,
    with_suffix,
)

MANIFEST_NAMES = ("manifest.jsonl", "manifest.jsonl.gz", "data.jsonl", "data.jsonl.gz")
DIGITS = "zero one two three four five six seven eight nine".split()
SYNONYMS = {
    "transcript": ("transcription", "normalized_text", "text", "sentence"),
    "caption": ("description",),
    "label": ("category", "class"),
    "speaker": ("speaker_id", "client_id"),
}


class Layout(NamedTuple):
    """How to recognise a dataset's folder and how to read it."""

    recognise: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Entry]]


def detect(folder: str | Path) -> str:
    """The name of the first layout that recognises the folder; ``plain`` recognises any."""
    return next(name for name, layout in LAYOUTS.items() if layout.recognise(Path(folder)))


def read_layout(folder: str | Path, layout: str = "auto") -> Iterator[Entry]:
    """The entries of a folder, in a fixed order; ``auto`` detects the layout."""
    folder = Path(folder).absolute()
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: choose auto or one of {', '.join(LAYOUTS)}")
    name = detect(folder) if layout == "auto" else layout
    if not LAYOUTS[name].recognise(folder):
        raise ValueError(f"{folder} is not laid out as {name}: use auto, or one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name].read(folder)


def read_manifest_file(file: str | Path) -> Iterator[Entry]:
    """Entries of a manifest, ours or audiocraft's; a caption may stand in a .json or .txt beside the sound."""
    file = Path(file).absolute()
    rows = list(json_lines(file))
    root = _root(file, [str(columns.get("path")) for _, columns in rows[:16]])
    for number, columns in rows:
        path = columns.pop("path", None)
        if not isinstance(path, str) or not path:
            raise ValueError(f"{file} line {number} has no column 'path': each row names a sound file")
        sound = Path(os.path.normpath(root / path))
        yield Entry(sound, columns if "caption" in columns else _beside(sound) | columns, f"{file} line {number}")


def _read_plain(folder: Path) -> Iterator[Entry]:
    """The label is the folder a sound lies in, the split a top folder named train, valid, test or the like."""
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file():
            told = "has no column 'file_name', so it is not read: name the sound file of each row in it"
            warnings.warn(f"{folder / name} {told}", stacklevel=2)
    for path in sound_files(folder):
        places = list(path.relative_to(folder).parts[:-1])
        split = SPLITS.get(places[0].lower()) if places else None
        label = places[-1] if places[bool(split) :] else None
        yield Entry(path, {"label": label, "split": split} | _beside(path), str(path))


def _manifests(folder: Path) -> list[Path]:
    return [folder / name for name in MANIFEST_NAMES if (folder / name).is_file()]


def _metadata_files(folder: Path) -> list[Path]:
    files = chain(folder.glob("metadata.*"), folder.glob("*/metadata.*"))
    tables = (file for file in files if file.suffix in (".csv", ".jsonl"))
    return sorted(file for file in tables if "file_name" in re.split(r"[^\w]+", first_line(file)))


def _read_audiofolder(folder: Path) -> Iterator[Entry]:
    """Hugging Face's audiofolder: metadata.csv or metadata.jsonl with ``file_name``, in the folder or one per split."""
    named: set[Path] = set()
    for file in _metadata_files(folder):
        split = SPLITS.get(file.parent.name.lower()) if file.parent != folder else None
        for number, columns in json_lines(file) if file.suffix == ".jsonl" else csv_rows(file):
            name = columns.pop("file_name", None)
            if not isinstance(name, str) or not name:
                raise ValueError(f"{file} line {number} has no column 'file_name': each row names a sound file")
            path = Path(os.path.normpath(file.parent / name))
            named.add(path)
            yield Entry(path, {"split": split} | _beside(path) | _our_words(columns), f"{file} line {number}")
    yield from unnamed(folder, named, "metadata")


def _read_ljspeech(folder: Path) -> Iterator[Entry]:
    """Rows ``id|text|text with numbers spelled out``, sounds in wavs/."""
    file, named = folder / "metadata.csv", set()
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        name, *texts = (part.strip() for part in line.split("|"))
        if not name or not any(texts):
            raise ValueError(f"{file} line {number} is not id|text: give each sound its text or remove the line")
        path = with_suffix(folder / "wavs", name.removesuffix(".wav"))
        named.add(path)
        transcript = next(text for text in reversed(texts) if text)
        columns = {"caption": f"a person reads aloud: {transcript}", "transcript": transcript}
        yield Entry(path, columns, f"{file} line {number}")
    yield from unnamed(folder / "wavs", named, "metadata.csv")


def _read_librispeech(folder: Path) -> Iterator[Entry]:
    """SPEAKER/CHAPTER/*.trans.txt, below a subset (dev-clean, ...) or not; SPEAKERS.TXT is optional."""
    people, named = _librispeech_people(folder), set()
    for file in sorted(_transcripts(folder)):
        speaker = file.parent.parent.name
        subset = file.parent.parent.parent.name
        fixed = {"speaker": speaker, "split": SPLITS.get(subset.split("-")[0])} | people.get(speaker, {})
        reader = {"female": "a woman", "male": "a man"}.get(fixed.get("gender") or "", "a person")
        for number, line in enumerate(read_text(file).split("\n"), 1):
            name, _, transcript = line.strip().partition(" ")
            if not name:
                continue
            path = with_suffix(file.parent, name)
            named.add(path)
            transcript = transcript.strip().lower()  # the corpus shouts: its capitals carry nothing
            texts = {"caption": f"{reader} reads aloud: {transcript}", "transcript": transcript}
            yield Entry(path, texts | fixed, f"{file} line {number}")
    yield from unnamed(folder, named, "a .trans.txt")


def _transcripts(folder: Path) -> Iterator[Path]:
    return chain.from_iterable(folder.glob("*/" * depth + "*.trans.txt") for depth in (2, 3))


def _librispeech_people(folder: Path) -> dict[str, dict[str, str]]:
    """Speaker -> gender, from lines ``14 | F | train-clean-360 | 25.03 | NAME``; {} where there is no such file."""
    places = (place / "SPEAKERS.TXT" for place in (folder, folder.parent))
    file = next((place for place in places if place.is_file()), None)
    lines = read_text(file).split("\n") if file else []
    rows = [[part.strip() for part in line.split("|")] for line in lines if "|" in line and not line.startswith(";")]
    return {row[0]: {"gender": "female" if row[1].upper() == "F" else "male"} for row in rows}


def _read_esc50(folder: Path) -> Iterator[Entry]:
    """ESC-50 (Piczak 2015): fold 5 is ``valid``, as clips of one Freesound recording share a fold."""
    file, named = folder / "meta" / "esc50.csv", set()
    for number, columns in csv_rows(file, {"filename", "fold", "category"}):
        path, label = folder / "audio" / columns["filename"], columns["category"]
        named.add(path)
        known = {
            "caption": label.replace("_", " "),
            "label": label,
            "split": "valid" if columns["fold"] == "5" else "train",
        }
        known |= {"fold": columns["fold"], "source_id": f"freesound:{columns.get('src_file', '')}"}
        yield Entry(path, known, f"{file} line {number}")
    yield from unnamed(folder / "audio", named, "meta/esc50.csv")


def _is_speech_commands(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _COMMAND_LISTS)


def _read_speech_commands(folder: Path) -> Iterator[Entry]:
    """Speech Commands (Warden 2018): WORD/SPEAKER_nohash_TAKE.wav; the two lists say what is not for training."""
    splits: dict[str, str] = {}
    for name, split in _COMMAND_LISTS.items():
        if (folder / name).is_file():
            splits |= dict.fromkeys(read_text(folder / name).split(), split)
    named = {path.relative_to(folder).as_posix(): path for path in sound_files(folder)}
    for name in sorted(named.keys() | splits.keys()):
        path, word = folder / name, Path(name).parent.name
        skip = "background noise, not a word" if word == "_background_noise_" else ""
        columns = {"caption": f"a person says the word {word}", "transcript": word, "label": word}
        columns |= {"speaker": path.stem.split("_nohash_")[0], "split": splits.get(name, "train")}
        yield Entry(path, columns, str(path), skip)


_COMMAND_LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
_DIGIT_NAME = re.compile(r"([0-9])_([^_]+)_([0-9]+)")


def _is_digits(folder: Path) -> bool:
    names = [path.stem for path in _digit_files(folder)]
    return 0 < len(names) < 2 * sum(_DIGIT_NAME.fullmatch(name) is not None for name in names)


def _read_digits(folder: Path) -> Iterator[Entry]:
    """Free Spoken Digit: DIGIT_SPEAKER_TAKE.wav; takes 0-4 are held out, as the corpus itself says."""
    for path in _digit_files(folder):
        match = _DIGIT_NAME.fullmatch(path.stem)
        if match is None:
            yield Entry(path, {}, str(path), "not named DIGIT_SPEAKER_TAKE")
            continue
        word, speaker, take = DIGITS[int(match[1])], match[2], int(match[3])
        columns = {"caption": f"{speaker} says the digit {word}", "transcript": word, "label": word, "speaker": speaker}
        yield Entry(path, columns | {"split": "valid" if take < 5 else "train"}, str(path))


def _digit_files(folder: Path) -> list[Path]:
    place = folder / "recordings" if (folder / "recordings").is_dir() else folder
    files = (path for path in place.iterdir() if path.suffix.lower() in SOUND_SUFFIXES | FOREIGN_SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def _root(file: Path, paths: list[str]) -> Path:
    """Where a manifest's relative paths begin: its own folder; else, with a warning, the one above or the current one.

    A set's part of a collection's manifest counts from above, audiocraft's from where its training was started.
    """
    for place in (file.parent, file.parent.parent, Path.cwd()):
        if any((place / path).exists() for path in paths):
            if place != file.parent:
                warnings.warn(f"the paths in {file} are not relative to it: they are read from {place}", stacklevel=2)
            return place
    return file.parent


def _our_words(columns: dict[str, Any]) -> dict[str, Any]:
    """Other datasets' column names -> ours, where ours is not there; empty cells are unknown."""
    columns = {name: value for name, value in columns.items() if value not in (None, "")}
    for ours, theirs in SYNONYMS.items():
        given = next((name for name in theirs if name in columns), None)
        if ours not in columns and given:
            columns[ours] = columns.pop(given)
    split = columns.get("split")
    return columns | ({"split": SPLITS.get(split.lower(), split)} if isinstance(split, str) else {})


def _beside(sound: Path) -> dict[str, Any]:
    """What a .txt, or a .json as audiocraft's, of the sound's name says: a caption (description), tags; or nothing."""
    text, file = sound.with_suffix(".txt"), sound.with_suffix(".json")
    if text.is_file():
        caption = " ".join(read_text(text).split())
        return {"caption": caption} if caption else {}
    if not file.is_file():
        return {}
    try:
        about = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}): repair or remove it") from error
    said = {name: about[name] for name in ("description", *TAGS) if about.get(name)} if isinstance(about, dict) else {}
    return {"caption": said.pop("description")} | said if "description" in said else said


# The order is the order of detection: what is said in a file comes before what names suggest.
LAYOUTS: dict[str, Layout] = {
    "manifest": Layout(
        lambda folder: bool(_manifests(folder)), lambda folder: read_manifest_file(_manifests(folder)[0])
    ),
    "audiofolder": Layout(lambda folder: bool(_metadata_files(folder)), _read_audiofolder),
    "ljspeech": Layout(lambda folder: "|" in first_line(folder / "metadata.csv"), _read_ljspeech),
    "esc50": Layout(lambda folder: (folder / "meta/esc50.csv").is_file(), _read_esc50),
    "audiocaps": Layout(tables.is_audiocaps, tables.read_audiocaps),
    "audioset": Layout(tables.is_audioset, tables.read_audioset),
    "clotho": Layout(tables.is_clotho, tables.read_clotho),
    "fsd50k": Layout(tables.is_fsd50k, tables.read_fsd50k),
    "vggsound": Layout(tables.is_vggsound, tables.read_vggsound),
    "maestro": Layout(tables.is_maestro, tables.read_maestro),
    "speech_commands": Layout(_is_speech_commands, _read_speech_commands),
    "digits": Layout(_is_digits, _read_digits),
    "librispeech": Layout(lambda folder: any(_transcripts(folder)), _read_librispeech),
    "plain": Layout(lambda folder: True, _read_plain),
}
