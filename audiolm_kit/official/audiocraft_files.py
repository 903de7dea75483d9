"""One file of audiocraft: weights (``best_state``) and the settings that they were trained with (``xp.cfg``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from audiolm_kit import __version__
from audiolm_kit.checkpoint import replacing
from audiolm_kit.official.pickles import read_pickle

SETTINGS = "xp.cfg"
DEPTH = 16
"""How far references to references are followed."""


class Package(NamedTuple):
    """What a file holds."""

    settings: dict[str, Any]
    """Plain dicts, lists and values; ``${a.b}`` replaced by the value at a.b."""
    state: dict[str, Tensor]
    pretrained: str = ""
    """The name of what holds the rest, where the file only points to it; then there is nothing else."""


def read_package(path: Path, unsafe: bool = False) -> Package:
    """A file that audiocraft exported, or the checkpoint of one of its trainings: its best weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as ``read_pickle``; or it is no file of audiocraft's, or has no best weights.
    """
    content = read_pickle(path, unsafe)
    if isinstance(name := content.get("pretrained"), str) and name:
        return Package({}, {}, name)
    if SETTINGS not in content:
        found = ", ".join(sorted(str(name) for name in content)[:3]) or "nothing"
        raise ValueError(f"{path} holds no {SETTINGS} but {found}: give a file that audiocraft has written")
    try:
        return Package(_settings(content[SETTINGS]), _best(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_package(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write what audiocraft's loaders open, whole or not at all; its own safe loader opens it too."""
    content = {
        "best_state": dict(state),
        SETTINGS: yaml.safe_dump(dict(settings), sort_keys=False),
        "version": f"audiolm_kit {__version__}",
        "exported": True,
    }
    with replacing(path) as draft:
        torch.save(content, draft)


def _best(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The best weights: gathered from many ranks, of a training, or by themselves in what was exported."""
    for name in ("fsdp_best_state", "best_state"):
        state = content.get(name)
        if isinstance(state, Mapping) and state:
            inner = state.get("model")
            return _tensors(inner if isinstance(inner, Mapping) else state, name)
    raise ValueError("it holds no best weights (best_state): export the training with audiocraft.utils.export")


def _tensors(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    if odd := [str(each) for each, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{name} holds more than weights, {odd[0]} among it: is it another program's?")
    return dict(state)


class _PlainLoader(yaml.SafeLoader):
    """Reads scalars, lists and dicts; no object, and no alias, with which a small file could become a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds aliases")
        return super().compose_node(parent, index)


def _settings(found: object) -> dict[str, Any]:
    """``xp.cfg`` as plain dicts and lists, from the text of an exported file or from what a training has kept."""
    if isinstance(found, str):
        try:
            found = yaml.load(found, _PlainLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            cause = next(iter(str(error).splitlines()), "")
            raise ValueError(f"{SETTINGS} is not readable as plain YAML ({cause})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{SETTINGS} is a {type(found).__name__}, wanted settings by name")
    return {name: _followed(found, each) for name, each in found.items()}


def _followed(settings: Mapping[str, Any], value: Any, depth: int = 0) -> Any:
    """A value without references; one that leads nowhere stays, for whoever needs the value to complain."""
    if isinstance(value, Mapping):
        return {name: _followed(settings, each, depth) for name, each in value.items()}
    if isinstance(value, list):
        return [_followed(settings, each, depth) for each in value]
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference is None or depth == DEPTH:
        return value
    found: Any = settings
    for part in reference[1].split("."):
        if not isinstance(found, Mapping) or part not in found:
            return value
        found = found[part]
    return _followed(settings, found, depth + 1)
