"""Where a checkpoint comes from: ``training.json`` in its folder, of the run that made it or of what was imported.

It is for readers, model cards first among them: nothing that loads a checkpoint looks at it, and no fingerprint counts
it. It holds names and numbers, never a path of the machine, a time of day or a user.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from audiolm_kit import __version__
from audiolm_kit.checkpoint import read_json, write_json

FILE = "training.json"
FORMAT = 1


def write(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Put what is known into a checkpoint folder, beside the version, and the commit, of this package."""
    write_json(Path(folder) / FILE, {"format": FORMAT, "version": __version__, "commit": commit(), **facts})


def read(folder: str | Path) -> dict[str, Any]:
    """What a checkpoint folder says of its making; empty where it says nothing.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder) / FILE
    return read_json(path) if path.is_file() else {}


def commit(package: Path = Path(__file__).parent) -> str:
    """The commit that a clone of this package is at; empty where it was installed otherwise."""
    git = ["git", "-C", str(package)]
    try:
        ours = subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=False)
        if ours.returncode:  # it may lie in an environment within somebody else's clone
            return ""
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return head.stdout.strip() if head.returncode == 0 else ""


def named(value: Any) -> Any:
    """Plain data with the last part alone of each path that leads from the machine's root or out of the folder."""
    if isinstance(value, Mapping):
        return {str(key): named(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [named(each) for each in value]
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str) and (value.startswith(("/", "~", "../", "..\\")) or PureWindowsPath(value).drive):
        return PureWindowsPath(value).name  # which knows both kinds of slashes
    return value
