"""Pickles of published weights, read without running anything that stands in them."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch


class _Inert:
    """Takes the place of a class that a file names: it keeps what the file says of it, and does nothing."""

    def __new__(cls, *arguments: object) -> _Inert:
        return super().__new__(cls)  # all that we read stands in the state

    def __init__(self, *arguments: object) -> None:
        """Take any arguments, as the class might."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            vars(self).update({name: value for name, value in state.items() if isinstance(name, str)})


def _settings(*arguments: object) -> dict[Any, Any]:
    return {}


def _joined(*parts: object) -> str:
    return "/".join(str(part).rstrip("/") for part in parts)


# All that audiocraft's checkpoints are known to hold beside tensors: OmegaConf's settings and what these say of their
# types. Nothing of these packages is imported, be it installed or not.
STAND_INS = {
    **dict.fromkeys(
        (
            *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
            *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
            *(f"omegaconf.nodes.{kind}Node" for kind in "Any Boolean Bytes Enum Float Integer Path String".split()),
            *(f"typing.{name}" for name in "Any Dict List Optional Tuple Union".split()),
            *(f"builtins.{name}" for name in "bool bytes dict float int list str tuple".split()),
        ),
        _Inert,
    ),
    "collections.defaultdict": _settings,
    **dict.fromkeys((f"pathlib.{kind}Path" for kind in "Posix PurePosix PureWindows Windows".split()), _joined),
}
# What reading a file can end in that was cut off or damaged.
BROKEN = (
    *(RuntimeError, EOFError, OSError, ImportError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, RecursionError),
)


def read_pickle(path: str | Path, unsafe: bool = False) -> dict[str, Any]:
    """The dictionary in a file of ``torch.save``, on the CPU: tensors and plain values, settings as dicts and lists.

    Nothing in the file is run: torch's ``weights_only`` reads it, and where it names classes of OmegaConf, stand-ins
    take what they hold. OmegaConf need not be installed.

    Args:
        unsafe: also read what is refused otherwise, by running what the file says: for files of people you trust.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names another class or function; it is cut off or damaged; or it holds no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file at {path}: give one that holds weights")
    try:
        _check_sums(path)
        value = _plain(_read(path, unsafe))
    except BROKEN as error:
        raise ValueError(f"{path} is cut off or damaged ({_first_line(error)}): copy it again") from None
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, wanted a dictionary of weights: is it another file?")
    return value


class _Refused(Exception):
    """The file asks for more than data."""


def _check_sums(path: Path) -> None:
    """Refuse an archive that changed since it was written: torch does not look at its check sums."""
    if not zipfile.is_zipfile(path):
        return  # torch's old format, which has none
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the check sum of {name} is another")


def _read(path: Path, unsafe: bool) -> Any:
    named: Any = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(named):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not unsafe:
            raise _Refused(_refusal(path, str(error))) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise _Refused(f"{path} needs the package {error.name}, which is not installed: install it") from None


def _refusal(path: Path, message: str) -> str:
    """What to say of a file that holds more than data, or that is no pickle at all."""
    found = re.search(r"GLOBAL (\S+) (?:was not|whose)|unrecognized function (.+?)[.\n]", message)
    if found is None:
        cause = re.search(r"WeightsUnpickler error: ([^\n]+)", message)
        why = f"cannot be read as data alone ({cause[1] if cause else _first_line(message)})"
        return f"{path} {why}: it is damaged, or open it with --unsafe-pickle if you trust its source"
    name = found[1] or found[2]
    return (
        f"{path} is refused, nothing of it was run: it asks for {name}, which is no plain data; get it as safetensors, "
        "or, only if you trust its source, open it with --unsafe-pickle"
    )


def _plain(value: Any) -> Any:
    """OmegaConf's containers and nodes, or their stand-ins, as the dicts, lists and values that they hold."""
    if isinstance(value, _Inert) or type(value).__module__.split(".")[0] == "omegaconf":
        held = vars(value)
        return _plain(held["_content"] if "_content" in held else held.get("_val"))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(each) for each in value)
    return value


def _first_line(error: object) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
