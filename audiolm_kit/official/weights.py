"""The weights of a folder of transformers: safetensors or a pickle, whole or in shards."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.official.pickles import read_pickle

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Under which names weights lie in a folder of transformers, the safe one first; cut up, each has an index."""
OLD_NAMES = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
"""How torch called the two weights of a weight norm, and calls them now."""


def read_state(folder: Path, unsafe: bool = False) -> dict[str, Tensor]:
    """All weights of a folder of transformers under today's names, whole or sharded, safetensors before pickles.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: a file is cut off, is not what its name says, or lies outside the folder.
    """
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        files = [name] if (folder / name).is_file() else _shards(index) if index.is_file() else []
        state: dict[str, Tensor] = {}
        for file in files:
            path = folder / file
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing, and {index.name} names it: copy the whole folder")
            state |= checkpoint.read_weights(path) if path.suffix == ".safetensors" else read_pickle(path, unsafe)
        if odd := sorted(each for each, value in state.items() if not isinstance(value, Tensor)):
            raise ValueError(f"{folder / name} holds more than weights, {odd[0]} among it: is it another program's?")
        if files:
            return {_today(each): value for each, value in state.items()}
    raise FileNotFoundError(f"{folder} holds no {' or '.join(WEIGHTS)}: copy the whole folder")


def _today(name: str) -> str:
    for old, new in OLD_NAMES:
        name = re.sub(old, new, name)
    return name


def _shards(index: Path) -> list[str]:
    """The files that an index names, each once."""
    places = checkpoint.read_json(index).get("weight_map")
    files = list(dict.fromkeys(places.values())) if isinstance(places, dict) else []
    if not files or any(not isinstance(file, str) or Path(file).name != file for file in files):
        raise ValueError(f"{index} does not say which files beside it hold the weights: copy it again")
    return files
