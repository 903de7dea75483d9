"""Text states on disk, one array for each caption: many processes write, any reads, a killed one leaves nothing broken.

A cache is a folder of packs, safetensors files that appear whole and never change: hundreds of captions each, so that
100 000 captions are some hundred files. Nothing is locked, and no database stands on a network disk; two processes that
compute one caption at once both write it, and the earlier pack counts.

Shapes: N context tokens of one caption, E width of the text states, R captions of a pack, M tokens of all of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from audiolm_kit.checkpoint import read_json, replacing, write_json

PACK = ".safetensors"
PACK_CAPTIONS = 512
"""Written at once when a cache is filled."""
ABANDONED = 24 * 3600.0
"""Seconds after which a half-written pack has no writer any more."""
SETTLED = 2.0
"""Seconds after which a file's times tell it from what it was: the coarsest clock of a file system ticks in two."""


class _Place(NamedTuple):
    """Where a caption's states stand."""

    path: Path
    offset: int  # bytes
    length: int  # tokens


class TextCache:
    """The states ``[N, E]`` of captions by one text model, in float32, exactly as they were put."""

    def __init__(self, folder: str | Path, width: int) -> None:
        """Open or begin the folder of one text model whose states are ``width`` wide."""
        self.folder, self.width = Path(folder), width
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f".*{PACK}.*"):  # what a killed process was writing, not what one writes now
            with suppress(FileNotFoundError):  # another process has finished with it since it was listed
                if time.time() - leftover.stat().st_mtime > ABANDONED:
                    shutil.rmtree(leftover, ignore_errors=True)
        self._places: dict[bytes, _Place] = {}
        self._packs: set[str] = set()

    def missing(self, captions: Iterable[str]) -> list[str]:
        """Those that are not there yet, each once, in order; packs that others have written meanwhile count."""
        wanted = {caption: _key(caption) for caption in captions}
        if any(key not in self._places for key in wanted.values()):
            self._look()
        return [caption for caption, key in wanted.items() if key not in self._places]

    def get(self, caption: str) -> Tensor:
        """The states ``[N, E]`` of a caption that is there; the same bits each time."""
        if self.missing([caption]):
            raise KeyError(caption)
        place = self._places[_key(caption)]
        count = place.length * self.width
        states = np.fromfile(place.path, "<f4", count, offset=place.offset)
        if len(states) < count:
            raise ValueError(f"{place.path} was cut off while in use: delete it, what it held is made again")
        return torch.from_numpy(states).view(place.length, self.width)

    def put(self, states: Mapping[str, Tensor]) -> None:
        """Write the states of some captions as one pack."""
        if not states:
            return
        keys = np.frombuffer(b"".join(map(_key, states)), np.uint8).copy()
        pack = {
            "states": torch.cat([each.float().cpu() for each in states.values()]).contiguous(),  # [M, E]
            "lengths": torch.tensor([len(each) for each in states.values()]),  # [R]
            "keys": torch.from_numpy(keys).view(len(states), -1),  # [R, 32]
        }
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{PACK}"  # the earliest comes first, for every reader
        with replacing(self.folder / name) as draft:
            save_file(pack, draft)
        self._look()

    def __len__(self) -> int:
        """Captions that are there."""
        self._look()
        return len(self._places)

    def _look(self) -> None:
        """Learn what stands in packs that were not there before; what is known keeps its place."""
        found = {path.name: path for path in self.folder.glob(f"*{PACK}") if not path.name.startswith(".")}
        for name in sorted(found.keys() - self._packs):
            for key, place in _contents(found[name], self.width).items():
                self._places.setdefault(key, place)
            self._packs.add(name)


class Source(NamedTuple):
    """Where a text model is loaded from."""

    name: str
    """As it was asked for."""
    folder: Path | None
    """The files behind the name; None where they are not on this disk yet."""
    programs: str = ""
    """What reads them, and its version."""


class TextModel(Protocol):
    """What computes text states."""

    def fingerprint(self) -> str:
        """Digits that change with whatever its states depend on."""
        ...

    def each(self, texts: Iterable[str], device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
        """Captions with their states ``[N, E]``, in any order, no caption's depending on another's length."""
        ...


class CachedStates:
    """A frozen text model behind its states on disk: loaded only for captions that are not there yet.

    The states of a caption are computed once and are the same bits ever after, whatever batch they come in.
    """

    def __init__(self, cache: Path, width: int, source: Source, load: Callable[[str], TextModel]) -> None:
        """Find the states of a model ``width`` wide in a folder that may hold those of others.

        Which they are, its fingerprint says. It stands in the cache, too, under the ``stamp`` of the model's files; the
        model is loaded for it only when there is no such word.
        """
        self._source, self._load = source, load
        self._model: TextModel | None = None
        mark = stamp(source)
        path = cache / "models" / f"{mark}.json"
        if mark and path.is_file():
            known = read_json(path)
            if known.get("width") != width:
                raise ValueError(
                    f"text dim is {width}, but {source.name} is {known.get('width')} wide: set text dim to that"
                )
            self.fingerprint = str(known.get("fingerprint"))
        else:
            self._model = load(source.name)
            self.fingerprint = self._model.fingerprint()
            if mark and mark == stamp(source):  # nothing changed while it was read
                write_json(path, {"fingerprint": self.fingerprint, "width": width, "name": source.name})
        self._cache = TextCache(cache / self.fingerprint, width)

    def rows(self, texts: list[str], device: torch.device | str = "cpu", keep: bool = True) -> list[Tensor]:
        """The states ``[N, E]`` of each caption, on the CPU; those of a blank one are none.

        Args:
            keep: whether what had to be computed goes into the cache.
        """
        fresh = dict(self._compute(self._missing(texts), device))
        if keep:
            self._cache.put(fresh)
            fresh = {}  # another process may have been first: what all will read counts
        blank = torch.zeros(0, self._cache.width)
        return [fresh[text] if text in fresh else self._cache.get(text) if text.strip() else blank for text in texts]

    def fill(self, texts: Iterable[str], device: torch.device | str = "cpu") -> int:
        """Compute what is missing, some hundred captions at a time, then let go of the model; the number of them."""
        missing = self._missing(texts)
        computed = self._compute(missing, device)
        with tqdm(total=len(missing), desc="text states", unit="", disable=None, leave=False) as bar:
            while pack := dict(islice(computed, PACK_CAPTIONS)):
                self._cache.put(pack)
                bar.update(len(pack))
        self._model = None
        return len(missing)

    def _missing(self, texts: Iterable[str]) -> list[str]:
        return self._cache.missing(text for text in texts if text.strip())

    def _compute(self, missing: list[str], device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
        return iter(self._loaded().each(missing, device)) if missing else iter(())

    def _loaded(self) -> TextModel:
        if self._model is None:
            model = self._load(str(self._source.folder or self._source.name))
            if model.fingerprint() != self.fingerprint:
                raise ValueError(f"{self._source.name} has changed while its text states were in use: start again")
            self._model = model
        return self._model


def stamp(source: Source) -> str:
    """Digits that change with any file right in a model's folder (names, sizes, times, inodes), without reading one.

    Empty without a folder, and while it is fresh: a file that changes twice within the grain of the disk's clock would
    look as if it had changed once.
    """
    files = sorted(path for path in source.folder.iterdir() if path.is_file()) if source.folder else []
    states = [(path.name, path.stat()) for path in files]
    newest = max((max(state.st_mtime, state.st_ctime) for _, state in states), default=0.0)
    if not states or time.time() - newest < SETTLED:
        return ""
    seen = [[name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino] for name, state in states]
    return hashlib.sha256(json.dumps([str(source.folder), source.programs, seen]).encode()).hexdigest()[:32]


def _key(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()


def _contents(path: Path, width: int) -> dict[bytes, _Place]:
    """What a pack holds, after a look at its size."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            begin = file.tell()
            at = {name: begin + header[name]["data_offsets"][0] for name in ("states", "lengths", "keys")}
            found, (rows, _) = header["states"]["shape"][1], header["keys"]["shape"]
            whole = begin + max(header[name]["data_offsets"][1] for name in at) == path.stat().st_size
        if not whole:
            raise ValueError("it is cut off")
        lengths = np.fromfile(path, "<i8", rows, offset=at["lengths"])
        keys = np.fromfile(path, np.uint8, rows * 32, offset=at["keys"]).reshape(rows, 32)
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        told = "it is cut off" if isinstance(error, (json.JSONDecodeError, OverflowError, MemoryError)) else error
        raise ValueError(f"{path} is no pack of text states ({told}): delete it, what it held is made again") from None
    if found != width:
        raise ValueError(f"{path} holds states {found} wide, wanted {width}: give another cache folder")
    offsets = at["states"] + 4 * width * (np.cumsum(lengths) - lengths)
    return {
        key.tobytes(): _Place(path, offset, length)
        for key, offset, length in zip(keys, offsets.tolist(), lengths.tolist(), strict=True)
    }
