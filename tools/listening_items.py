"""The sounds of a listening page: from a folder or a list, completed from their sidecars, grouped by what is alike."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
PROMPT = "prompt"
"""The role of what is given: heard beside the others, never judged."""
ROLES = ("real", "reconstruction", "generated", PROMPT, "continuation")
"""The order of the columns; other roles follow in the order of the alphabet."""


@dataclass(frozen=True)
class Item:
    """One sound of the page and what is written under it."""

    path: Path
    text: str = ""
    role: str = "sound"
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Seed, sampling and whatever else belongs in the small print, in this order."""
    prompt: Path | None = None
    """The sound that this one continues, where its sidecar names one that is there."""


def read_items(source: Path) -> list[Item]:
    """The items of a JSON list or of a folder of sounds."""
    source = source.resolve()
    if source.is_dir():
        sounds = sorted((path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES), key=natural)
        items = [read_item({"path": str(path)}, source, role=role_by_folder(path, source)) for path in sounds]
    elif source.is_file():
        entries = read_json(source)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "path" in entry for entry in entries):
            raise ValueError(f'{source}: want a list of {{"path", "text", "role", "name"}}, each with a path')
        items = [read_item(entry, source.parent) for entry in entries]
    else:
        raise FileNotFoundError(f"{source}: neither a folder of sounds nor a JSON list of items")
    if not items:
        raise ValueError(f"{source}: no sounds in it; want {' '.join(SUFFIXES)} files")
    return items


def natural(path: Path) -> list[str | int]:
    """A key that sorts 2.wav before 10.wav."""
    pieces = re.split(r"([0-9]+)", str(path))  # text and numbers by turns
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]


def role_by_folder(path: Path, source: Path) -> str:
    """The sub-folder a sound lies in, however deep; directly in the folder there is none."""
    parts = path.relative_to(source).parts
    return parts[0] if len(parts) > 1 else "sound"


def read_item(entry: dict[str, Any], folder: Path, role: str = "sound") -> Item:
    """An item from its entry, completed from the sidecar beside the sound."""
    path = folder / entry["path"]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound; paths are relative to the list")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: not every browser plays that; want {' '.join(SUFFIXES)} files")
    sidecar = path.with_suffix(".json")
    known = read_json(sidecar) if sidecar.is_file() else {}
    known = {**(known if isinstance(known, dict) else {}), **entry}
    sampling = known.get("sampling")
    facts = {"seed": known.get("seed"), **(sampling if isinstance(sampling, dict) else {})}
    return Item(
        path=path,
        text=str(known.get("text") or known.get("caption") or ""),
        role=str(known.get("role") or role),
        name=str(known.get("name") or path.stem),
        facts={key: value for key, value in facts.items() if value is not None},
        prompt=prompt_of(known.get("prompt"), path.parent),
    )


def prompt_of(named: Any, folder: Path) -> Path | None:
    """The recording that a sidecar names, from where the tool runs or beside the sound; None where it is gone."""
    if not isinstance(named, str) or Path(named).suffix.lower() not in SUFFIXES:
        return None
    return next((path.resolve() for path in (Path(named), folder / named) if path.is_file()), None)


def read_json(path: Path) -> Any:
    """A JSON file's content, or one line that says which file is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); mend or remove it") from None


def by_text(items: list[Item]) -> list[tuple[str, list[Item]]]:
    """What belongs together: the same text or, where there is none, the same name in several roles, or the same prompt.

    Groups come in order of appearance, items of a group in order of their roles. The heading is the text, the name, or
    the prompt's; sounds that have none of these in common with another stand together under no heading.
    """
    roles: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if not item.text:
            roles[item.name].add(item.role)
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault(belonging(item, len(roles[item.name]) > 1), []).append(item)
    headings = (Path(what).stem if kind == PROMPT else what for kind, what in groups)
    found = zip(headings, groups.values(), strict=True)
    return [(heading, sorted(with_prompt(group), key=role_rank)) for heading, group in found]


def belonging(item: Item, shared: bool) -> tuple[str, str]:
    """Of which kind is what a sound has in common with others, and what it is; ``shared``: several roles its name."""
    if item.text:
        return "text", item.text
    if shared:
        return "name", item.name
    return (PROMPT, str(item.prompt)) if item.prompt else ("", "")


def with_prompt(group: list[Item]) -> list[Item]:
    """A group, and the prompts that its sidecars name where it has none of its own."""
    if any(item.role == PROMPT for item in group):
        return group
    prompts = dict.fromkeys(item.prompt for item in group if item.prompt)
    return group + [Item(path, group[0].text, PROMPT, path.stem) for path in prompts]


def role_rank(item: Item) -> tuple[int, str]:
    """Where a role's column stands."""
    return (ROLES.index(item.role) if item.role in ROLES else len(ROLES), item.role)
