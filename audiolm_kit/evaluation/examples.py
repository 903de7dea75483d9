"""Sounds that are to be judged, each with what it is judged by: its reference, its caption, its words, its prompt."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from audiolm_kit import audio
from audiolm_kit.audio import Sound

SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .w64 .caf".split())
INDEX = "index.json"
"""Of a folder of sounds: a list of {"path", "text", ...}, or an object that has it as its "sounds"."""


class Clip(NamedTuple):
    """A sound file, or a part of it."""

    path: Path
    start: float = 0.0
    seconds: float | None = None

    def read(self) -> Sound:
        """The sound, [C, L]."""
        return audio.read(self.path, self.start, self.seconds)


@dataclass(frozen=True)
class Example:
    """One sound."""

    name: str
    """Its path below its folder, without the suffix: what it has in common with its reference."""
    clip: Clip
    reference: Clip | None = None
    text: str = ""
    """What is to be heard."""
    transcript: str = ""
    """What is to be said."""
    prompt: Clip | None = None
    """The recording that it continues, and begins with."""


def read_examples(source: str | Path) -> list[Example]:
    """The sounds of a folder, or of a JSON list, in the order of the list or of their names.

    What is not said in ``index.json`` is read from the note beside a sound (``out.json`` beside ``out.wav``), as
    `audiolm-kit generate` writes it.

    Raises:
        FileNotFoundError: There is no such folder, or a sound of the list is missing.
        ValueError: It holds no sounds, or its list is none.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"no folder {source}: give a folder of sounds, a list of them, or a manifest")
    listed = source / INDEX if source.is_dir() else source
    if listed.is_file():
        folder, entries = listed.parent, _entries(listed)
    else:
        folder = source
        found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
        entries = [{"path": str(path.relative_to(source))} for path in sorted(shown, key=natural)]
    if not entries:
        raise ValueError(f"{source} holds no sounds: want {' '.join(sorted(SUFFIXES))} files")
    return named([_example(entry, folder) for entry in entries])


def named(examples: Sequence[Example]) -> list[Example]:
    """The same with names that all differ: where two sounds differ in their suffix alone, it is part of the name."""
    often = Counter(example.name for example in examples)
    made = [
        replace(example, name=f"{example.name}{example.clip.path.suffix}") if often[example.name] > 1 else example
        for example in examples
    ]
    seen: Counter[str] = Counter()
    for place, example in enumerate(made):
        seen[example.name] += 1
        if seen[example.name] > 1:  # one file several times: parts of it, or several captions
            made[place] = replace(example, name=f"{example.name}#{seen[example.name]}")
    return made


def with_references(examples: Sequence[Example], references: Sequence[Example]) -> list[Example]:
    """Each sound with the reference of its name, and the words of that where it has none of its own.

    The whole name counts first, then its last part, where only one reference has that. Others have none.
    """
    whole = {each.name: each for each in references}
    often = Counter(_last(each.name) for each in references)
    ends = {_last(each.name): each for each in references if often[_last(each.name)] == 1}
    own = Counter(_last(example.name) for example in examples)
    made = []
    for example in examples:
        last = _last(example.name)
        found = whole.get(example.name) or (ends.get(last) if own[last] == 1 else None)
        if found is None:
            made.append(example)
            continue
        text, transcript = example.text or found.text, example.transcript or found.transcript
        made.append(replace(example, reference=found.clip, text=text, transcript=transcript))
    return made


def natural(path: Path) -> list[str | int]:
    """A key that sorts 2.wav before 10.wav."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", path.as_posix())]


def _entries(listed: Path) -> list[Mapping[str, Any]]:
    """What a list of sounds says."""
    try:
        content = json.loads(listed.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{listed} is not JSON ({error}): mend or remove it") from None
    entries = content.get("sounds") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(each, dict) and "path" in each for each in entries):
        raise ValueError(f'{listed} lists no sounds: want [{{"path": ..., "text": ...}}, ...], or that as "sounds"')
    return entries


def _example(entry: Mapping[str, Any], folder: Path) -> Example:
    """A sound by what a list says of it, and the note beside it."""
    path = folder / str(entry["path"])
    if not path.is_file():
        raise FileNotFoundError(f"no sound file {path}: paths are relative to the list")
    note = path.with_suffix(".json")
    told: dict[str, Any] = {}
    if note.is_file():
        try:
            told = json.loads(note.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{note} is not JSON ({error}): mend or remove it") from None
    known = {**(told if isinstance(told, dict) else {}), **entry}
    name = Path(entry["path"]).with_suffix("").as_posix()
    text = known.get("text") or known.get("caption") or ""
    return Example(
        name=name,
        clip=Clip(path),
        text=", ".join(map(str, text)) if isinstance(text, list) else str(text),
        transcript=str(known.get("transcript") or ""),
        reference=_clip(known.get("reference"), folder),
        prompt=_clip(known.get("prompt"), folder),
    )


def _clip(name: Any, folder: Path) -> Clip | None:
    """A recording that a note names, from where the command was given or beside the sounds; None where it is gone."""
    if not isinstance(name, str) or not name:
        return None
    return next((Clip(path) for path in (Path(name), folder / name) if path.is_file()), None)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
