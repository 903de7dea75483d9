"""Models that come with the package, by name: which there are, where each lies, and what to ask of it.

Each is a checkpoint folder beside this file, with its model card (``README.md``), where it comes from
(``training.json``) and ``example.json``. ``tools/publish.py`` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Nothing that is slow to import: the help of the command line lists these names.

FOLDER = Path(__file__).parent
CONFIG = "config.json"
"""Whose folder is a checkpoint (``checkpoint.CONFIG``)."""
EXAMPLE = "example.json"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Example:
    """What a model is asked in its card and by ``make demo``, and how long its sounds are unless something is said."""

    texts: tuple[str, ...] = ()
    """What an AudioGen is to say."""
    prompts: tuple[str, ...] = ()
    """Recordings to continue, files in the model's own folder."""
    seconds: float = 5.0
    """Of each sound; a prompt's are among them."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Sampling`` that differ from its defaults; of an AudioLM its stages, and their temperatures."""
    candidates: int = 1
    """Takes of each text, of which an AudioGen's own scorer chooses one."""

    @property
    def chosen(self) -> dict[str, Any]:
        """Options of ``AudioGen.generate``; none for a single take."""
        return {"candidates": self.candidates} if self.candidates > 1 else {}


def models() -> dict[str, str]:
    """The name of each model and its kind, AudioGen or AudioLM, in the order of the alphabet."""
    folders = sorted(path.parent for path in FOLDER.glob(f"*/{CONFIG}") if NAME.fullmatch(path.parent.name))
    return {folder.name: str(_read(folder / CONFIG).get("kind", "")) for folder in folders}


def found(name: str | Path) -> Path | None:
    """The folder of the model of this name; None where there is none, or where a file or folder here has the name."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or Path(name).exists():
        return None
    folder = FOLDER / name
    return folder if (folder / CONFIG).is_file() else None


def offer() -> str:
    """The names as the end of a sentence that says what else could be given; empty where there are none."""
    names = ", ".join(models())
    return f", or a model that comes with the package ({names})" if names else ""


def example(folder: Path) -> Example:
    """What to ask of a model in its folder; the defaults where that says nothing.

    Raises:
        ValueError: the file is damaged, or says something else.
    """
    path = folder / EXAMPLE
    told = _read(path) if path.is_file() else {}
    try:
        known: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in told.items()}
        return Example(**known)
    except TypeError:
        raise ValueError(f"{path} has other fields than {', '.join(Example.__dataclass_fields__)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): install the package again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, wanted a JSON object: install the package again")
    return value
