"""Datasets whose captions, tags or titles stand in CSV tables: AudioCaps, AudioSet, Clotho, FSD50K, VGGSound, MAESTRO.

Copies differ in where the tables lie and in how the sounds are called, so tables are known by their columns and sounds
are looked for by name, anywhere below the folder. A sound with several captions makes an entry for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from audiolm_kit.data.listing import SPLITS, Entry, csv_cells, csv_rows, first_line, read_text, sound_files

# Where tables lie below a dataset's folder.
PLACES = (".", "annotations", "captions", "csv", "dataset", "ground_truth", "FSD50K.ground_truth", "labels", "metadata")
# Words in a table's name -> its split; Clotho's development set is for training.
TABLE_SPLITS = SPLITS | {"development": "train", "eval": "test", "evaluation": "test"}
# Of the folders that a sound may lie in, those of its split come first.
SPLIT_FOLDERS = {"train": ("train", "dev"), "valid": ("val",), "test": ("test", "eval")}
CLIP_SECONDS = 10  # of AudioSet and of what was taken from it


class _Sounds:
    """The sounds below a folder by their names without suffix, and which of them were found."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.named = folder, set[Path]()
        self._paths: dict[str, list[Path]] = {}
        for path in sound_files(folder):
            self._paths.setdefault(path.stem, []).append(path)

    def find(self, names: Iterable[str], split: str | None) -> Path:
        """The sound with the first of these names that is there; else where the last would lie, to be missed."""
        name = ""
        for name in names:
            if paths := self._paths.get(name):
                path = paths[0] if len(paths) == 1 else min(paths, key=lambda path: not self._is_of(path, split))
                self.named.add(path)
                return path
        return self.folder / f"{name}.wav"

    def unnamed(self, table: str) -> Iterator[Entry]:
        """Entries of the sounds that no row has named."""
        for path in sorted(path for paths in self._paths.values() for path in paths):
            if path not in self.named:
                yield Entry(path, {}, str(path), f"not named in {table}")

    def _is_of(self, path: Path, split: str | None) -> bool:
        words = re.split(r"[^a-z]+", path.parent.relative_to(self.folder).as_posix().lower())
        return any(word.startswith(SPLIT_FOLDERS.get(split or "", ("?",))) for word in words)


def is_audiocaps(folder: Path) -> bool:
    return bool(_tables(folder, "youtube_id", "start_time", "caption"))


def read_audiocaps(folder: Path) -> Iterator[Entry]:
    """AudioCaps (Kim et al. 2019): train.csv, val.csv, test.csv; sounds called by the clip's or a caption's number."""
    rows = list(_rows(folder, "youtube_id", "start_time", "caption"))
    numbers: dict[tuple[str, str], list[str]] = {}  # clip -> the numbers of all its captions
    for _, _, columns in rows:
        of_clip = numbers.setdefault((columns["youtube_id"], columns["start_time"]), [])
        of_clip += [columns["audiocap_id"]] if columns.get("audiocap_id") else []
    sounds = _Sounds(folder)
    for split, origin, columns in rows:
        clip = columns["youtube_id"], columns["start_time"]
        # One file for all captions of a clip, though some copies hold one for each: a sound is listed once.
        path = sounds.find(numbers[clip] + _youtube_names(*clip), split)
        known = {"caption": columns["caption"], "split": split, "source_id": f"youtube:{clip[0]}"}
        yield Entry(path, known | {"start_time": clip[1]}, origin)
    copies = {number for of_clip in numbers.values() for number in of_clip}
    yield from (entry for entry in sounds.unnamed("the tables of AudioCaps") if entry.path.stem not in copies)


def is_audioset(folder: Path) -> bool:
    return bool(_segment_tables(folder))


def read_audioset(folder: Path) -> Iterator[Entry]:
    """AudioSet (Gemmeke et al. 2017): ``*_segments.csv`` with ``# YTID, start_seconds, end_seconds, positive_labels``.

    The labels are named by class_labels_indices.csv or ontology.json beside them, and become tags.
    """
    names, sounds = _audioset_names(folder), _Sounds(folder)
    for file in _segment_tables(folder):
        split = _split_of(file)
        for number, cells in csv_cells(file):
            if len(cells) < 4:
                raise ValueError(f"{file} line {number} is not YTID, start, end, labels: repair or remove the line")
            labels = [label.strip() for label in ",".join(cells[3:]).replace('"', "").split(",")]
            unknown = next((label for label in labels if label not in names), None)
            if unknown:
                wanted = "put class_labels_indices.csv or ontology.json into the folder"
                raise ValueError(f"{file} line {number} has label {unknown!r}, which is not named: {wanted}")
            known = {"tags": [names[label] for label in labels], "split": split, "source_id": f"youtube:{cells[0]}"}
            path = sounds.find(_youtube_names(cells[0], cells[1], cells[2]), split)
            yield Entry(path, known | {"start_time": cells[1]}, f"{file} line {number}")
    yield from sounds.unnamed("the tables of AudioSet")


def is_clotho(folder: Path) -> bool:
    return bool(_tables(folder, "file_name", "caption_1"))


def read_clotho(folder: Path) -> Iterator[Entry]:
    """Clotho (Drossos et al. 2020): clotho_captions_*.csv with five captions for each sound."""
    sounds = _Sounds(folder)
    for split, origin, columns in _rows(folder, "file_name", "caption_1"):
        path = sounds.find([Path(columns["file_name"]).stem], split)
        captions = [(columns[name] or "").strip() for name in columns if re.fullmatch(r"caption_\d+", name)]
        yield from (Entry(path, {"caption": caption, "split": split}, origin) for caption in captions if caption)
    yield from sounds.unnamed("the tables of Clotho")


def is_fsd50k(folder: Path) -> bool:
    return bool(_tables(folder, "fname", "labels", "mids"))


def read_fsd50k(folder: Path) -> Iterator[Entry]:
    """FSD50K (Fonseca et al. 2020): dev.csv, which has a column split, and eval.csv; the labels become tags."""
    sounds = _Sounds(folder)
    for of_table, origin, columns in _rows(folder, "fname", "labels", "mids"):
        split = "test" if of_table == "test" else SPLITS.get(columns.get("split") or "", "train")
        # dev.csv's two splits lie in one folder, beside that of eval.csv
        path = sounds.find([columns["fname"]], "test" if split == "test" else "train")
        known: dict[str, Any] = {"tags": [label.replace("_", " ") for label in columns["labels"].split(",")]}
        yield Entry(path, known | {"split": split, "source_id": f"freesound:{columns['fname']}"}, origin)
    yield from sounds.unnamed("the tables of FSD50K")


def is_vggsound(folder: Path) -> bool:
    return _vggsound_table(folder) is not None


def read_vggsound(folder: Path) -> Iterator[Entry]:
    """VGGSound (Chen et al. 2020): vggsound.csv of ``YTID,start,label,split``, without a line of names."""
    sounds, file = _Sounds(folder), _vggsound_table(folder)
    assert file is not None
    for number, cells in csv_cells(file):
        if number == 1 and len(cells) > 1 and not _is_number(cells[1]):
            continue  # some copies name the columns
        if len(cells) < 4 or not _is_number(cells[1]):
            raise ValueError(f"{file} line {number} is not YTID,start,label,split: repair or remove the line")
        split = SPLITS.get(cells[3].lower(), cells[3])
        known = {"caption": cells[2], "label": cells[2], "split": split, "source_id": f"youtube:{cells[0]}"}
        path = sounds.find(_youtube_names(cells[0], cells[1]), split)
        yield Entry(path, known | {"start_time": cells[1]}, f"{file} line {number}")
    yield from sounds.unnamed("vggsound.csv")


def is_maestro(folder: Path) -> bool:
    return bool(_tables(folder, "audio_filename", "canonical_composer", "canonical_title", "split"))


def read_maestro(folder: Path) -> Iterator[Entry]:
    """MAESTRO (Hawthorne et al. 2019): maestro-v3.0.0.csv or another version's, recordings in a folder for each year.

    Its splits hold no piece in common. The MIDI file beside a recording is kept as column midi.
    """
    sounds = _Sounds(folder)
    for _, origin, columns in _rows(folder, "audio_filename", "canonical_composer", "canonical_title", "split"):
        composer, title, split = (columns[name] for name in ("canonical_composer", "canonical_title", "split"))
        known = {"caption": f"solo piano, a piece by {composer}", "label": "piano", "split": SPLITS.get(split, split)}
        more = {"composer": composer, "piece": title, "year": columns.get("year"), "midi": columns.get("midi_filename")}
        known |= {name: value for name, value in more.items() if value}
        yield Entry(sounds.find([Path(columns["audio_filename"]).stem], split), known, origin)
    yield from sounds.unnamed("the table of MAESTRO")


# --- tables and names -------------------------------------------------------------------------------------------------


def _csv_files(folder: Path) -> list[Path]:
    return [file for place in PLACES for file in sorted((folder / place).glob("*.csv"))]


def _tables(folder: Path, *columns: str) -> list[Path]:
    """The CSV files whose first line names all these columns."""
    return [file for file in _csv_files(folder) if set(columns) <= set(re.split(r"[^\w]+", first_line(file)))]


def _rows(folder: Path, *columns: str) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """The split, the origin and the cells of every row of those tables, none of the wanted cells empty."""
    for file in _tables(folder, *columns):
        for number, cells in csv_rows(file):
            empty = next((name for name in columns if not (cells[name] or "").strip()), None)
            if empty:
                raise ValueError(f"{file} line {number} has no {empty}: repair or remove the line")
            yield _split_of(file), f"{file} line {number}", cells | {name: cells[name].strip() for name in columns}


def _segment_tables(folder: Path) -> list[Path]:
    return [file for file in _csv_files(folder) if "segments" in file.stem and first_line(file).startswith("#")]


def _vggsound_table(folder: Path) -> Path | None:
    return next((file for file in _csv_files(folder) if file.name == "vggsound.csv"), None)


def _split_of(file: Path) -> str | None:
    """By the words of a table's name: clotho_captions_development, val, balanced_train_segments."""
    return next((TABLE_SPLITS[word] for word in re.split(r"[^a-z]+", file.stem.lower()) if word in TABLE_SPLITS), None)


def _audioset_names(folder: Path) -> dict[str, str]:
    """Machine name (/m/0bt9lr) -> display name, of all that names them."""
    names: dict[str, str] = {}
    for place in (*PLACES, "ontology"):
        ontology, table = folder / place / "ontology.json", folder / place / "class_labels_indices.csv"
        if ontology.is_file():
            try:
                names |= {each["id"]: each["name"] for each in json.loads(read_text(ontology))}
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{ontology} is not AudioSet's ontology ({error!r}): fetch it again") from None
        if table.is_file():
            names |= {row["mid"]: row["display_name"] for _, row in csv_rows(table, ("mid", "display_name"))}
    return names


def _youtube_names(clip: str, start: str, end: str = "") -> list[str]:
    """What copies call a clip: its id, with or without Y in front and times behind (s, ms, six digits); bare last."""
    if not _is_number(start):
        return [f"Y{clip}", clip]
    begin = float(start)
    finish = float(end) if _is_number(end) else begin + CLIP_SECONDS
    forms = ("{:g}", "{:.1f}", "{:.3f}", "{:06.0f}")
    times = [form.format(begin) for form in forms] + [f"{begin * 1000:.0f}"]
    times += [f"{form.format(begin)}_{form.format(finish)}" for form in forms]
    times += [f"{begin * 1000:.0f}_{finish * 1000:.0f}"]
    return [f"{mark}{clip}_{time}" for mark in ("", "Y") for time in dict.fromkeys(times)] + [f"Y{clip}", clip]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d*)?", text.strip()) is not None
