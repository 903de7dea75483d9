"""Whose checkpoint a folder, a file or a model of the hub is: its layout, seen from the files themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from audiolm_kit import hub
from audiolm_kit.checkpoint import CONFIG, read_json

Layout = Literal["ours", "musicgen", "audiocraft", "encodec_file", "encodec", "dac", "mimi"]
LM_FILE, CODEC_FILE, TRAINED = "state_dict.bin", "compression_state_dict.bin", "checkpoint.th"  # of audiocraft
WANTED = (
    "MusicGen, EnCodec, DAC or Mimi of transformers, AudioGen or MusicGen of audiocraft, encodec_*.th, or one of ours"
)
NO_PREFIX = (
    "it stands on a melody or a sound in front of its codes, which our models do not; take one that reads text alone"
)
REFUSED = {
    "musicgen_melody": f"MusicGen melody cannot be imported: {NO_PREFIX}",
    "style": f"MusicGen style cannot be imported: {NO_PREFIX}",
    "magnet": "MAGNeT fills masked codes in rather than going on from them: it cannot be imported",
    "jasco": "JASCO makes latents and no codes: it cannot be imported",
}
"""By the ``model_type`` of transformers, or by what their authors' names on the hub begin with."""
NAMED = (
    (r"facebook/musicgen-(stereo-)?melody.*", "musicgen_melody"),
    (r"facebook/musicgen-style.*", "style"),
    (r"facebook/(audio-)?magnet-.*", "magnet"),
    (r"facebook/jasco-.*", "jasco"),
)
"""Models of the hub that need not be fetched to be refused."""
SMALL = ["*.json", "*.txt", "*.model"]
WEIGHTS: dict[str, list[list[str]]] = {  # what to fetch, by turns, until some of it is there
    "transformers": [["*.safetensors"], ["pytorch_model*.bin"]],
    "audiocraft": [[LM_FILE, CODEC_FILE, "*.th"]],
}


class Source(NamedTuple):
    """A checkpoint in some layout."""

    path: Path
    """A folder; of ``encodec_file`` a file, as it may be of audiocraft."""
    layout: Layout
    name: str
    """As it was given."""


def find_source(source: str | Path) -> Source:
    """What a folder, a file or a name on the hub holds; of the hub, only the files of its layout are fetched.

    A folder in both transformers' and audiocraft's layout, as MusicGen's are on the hub, is taken as transformers'.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it holds something that cannot be read, which the message names.
    """
    name = str(source)
    if Path(source).is_file():
        return _of_file(Path(source))
    if hub.is_name(source):
        for pattern, kind in NAMED:
            if re.fullmatch(pattern, name):
                raise ValueError(f"{name}: {REFUSED[kind]}")
        folder = _fetched(name)
    else:
        folder = hub.local(source)
    return _of_folder(folder, name)


def _fetched(name: str) -> Path:
    """A model of the hub: what is small first, for it says which of the rest is needed."""
    folder = hub.local(name, SMALL)
    about = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if "kind" in about:
        return hub.local(name)
    if about:
        _of_config(about, name)
    for patterns in WEIGHTS["transformers" if about else "audiocraft"]:
        folder = hub.local(name, [*SMALL, *patterns])
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            break
    return folder


def _of_folder(folder: Path, name: str) -> Source:
    if (folder / CONFIG).is_file():
        return Source(folder, _of_config(read_json(folder / CONFIG), name), name)
    if any((folder / file).is_file() for file in (LM_FILE, CODEC_FILE, TRAINED)):
        return Source(folder, "audiocraft", name)
    files = sorted(folder.glob("*.th"))
    if len(files) == 1:
        return _of_file(files[0])
    if files:
        raise ValueError(f"{name} holds {len(files)} .th files ({files[0].name}, ...): give one of them")
    if next(folder.rglob("*.ckpt"), None) is not None:
        raise ValueError(f"{name} is the folder of a training run: give the folder that its recipe's `export` names")
    raise ValueError(f"{name} holds neither {CONFIG} nor {LM_FILE}: give a folder of {WANTED}")


def _of_config(about: dict[str, Any], name: str) -> Layout:
    """The layout that a ``config.json`` is of."""
    if "kind" in about:
        return "ours"
    kind = about.get("model_type")
    if kind in REFUSED:
        raise ValueError(f"{name}: {REFUSED[kind]}")
    if kind in ("musicgen", "encodec", "dac", "mimi"):
        return cast(Layout, kind)
    told = f"says that it is a {kind}" if kind else "says neither kind nor model_type"
    raise ValueError(f"the {CONFIG} of {name} {told}, which cannot be read: give {WANTED}")


def _of_file(path: Path) -> Source:
    if path.suffix == ".ckpt":
        raise ValueError(
            f"{path} is the state of a training run: give the folder that its recipe's `export` names (audiolm-kit fit "
            "with the same recipe goes on from it and exports at its end)"
        )
    if path.name in (LM_FILE, CODEC_FILE, TRAINED):
        return Source(path, "audiocraft", str(path))
    if path.suffix == ".th":
        return Source(path, "encodec_file", str(path))
    raise ValueError(f"{path} is a file: give the folder that holds it, or an encodec_*.th")
