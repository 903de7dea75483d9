"""A checkpoint is a folder, ``config.json`` and ``model.safetensors``: write it, read it, name it by a hash.

``config.json`` is the model's frozen dataclass as plain JSON under the class's bare name. It holds no import paths, so
published weights survive refactorings, and reading one never runs code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from audiolm_kit import eight_bits, stored_once

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
JSON_TYPES: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that takes its name when the block succeeds, and vanishes when it fails.

    The block makes a file or a folder of it. A folder that stands under the final name is replaced whole.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    draft = workspace / target.name
    try:
        yield draft
        _move(draft, target, aside=workspace / "replaced")
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _move(draft: Path, target: Path, aside: Path) -> None:
    if not (draft.is_dir() and target.is_dir()):
        draft.replace(target)
        return
    target.rename(aside)  # no folder can be replaced by another in one step
    try:
        draft.rename(target)
    except OSError:
        aside.rename(target)
        raise


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as readable JSON, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: nothing stands there.
        ValueError: the file is cut off, or is no JSON object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): if it was cut off, copy it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, wanted a JSON object: is it another program's file?")
    return value


def save(model: nn.Module, folder: str | Path) -> None:
    """Write ``model`` (its ``config`` dataclass and its weights) as a checkpoint folder, whole or not at all.

    Its ``config.json`` has the model's fingerprint, so that ``load`` notices when anything in it was changed.
    """
    with replacing(folder) as draft:
        write_into(model, draft)
        about = {**read_json(draft / CONFIG), "fingerprint": fingerprint(load(type(model), draft))}
        (draft / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_into(model: nn.Module, folder: Path) -> None:
    """Write a model's two files into a folder that is still being built."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "kind": type(model).__name__, "config": _plain_config(model)}
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)


def save_bundle(
    folder: str | Path,
    kind: str,
    parts: Mapping[str, nn.Module],
    files: Mapping[str, bytes],
    about: Mapping[str, Any] = {},
    folders: Mapping[str, Path] = {},
) -> None:
    """Write several models and files as one checkpoint folder, whole or not at all; an earlier one is replaced.

    Its ``config.json`` names the fingerprint of each, so that a part from elsewhere is noticed (``check_bundle``).

    Args:
        about: further keys of ``config.json``, plain values; ``read_kind`` returns them.
        folders: what is copied whole, links followed; it may lie in the very checkpoint that is replaced.

    Raises:
        FileNotFoundError: one of the folders is not there any more.
        ValueError: the folder holds something else.
    """
    assert len({*parts, *files, *folders, CONFIG}) == len(parts) + len(files) + len(folders) + 1
    folder = Path(folder)
    refuse_foreign(folder)
    with replacing(folder) as draft:
        for name, model in parts.items():
            write_into(model, draft / name)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        for name, source in folders.items():
            if not source.is_dir():
                raise FileNotFoundError(f"{source} was moved or deleted while in use: put it back, or load it anew")
            shutil.copytree(source, draft / name)
        # Of the parts as they will be read: weights in half precision come back in single.
        fingerprints = bundle_fingerprints(
            {name: load(type(part), draft / name) for name, part in parts.items()},
            files,
            {name: draft / name for name in folders},
        )
        own = {"format": FORMAT, "kind": kind, "fingerprints": fingerprints}
        assert not own.keys() & about.keys()
        (draft / CONFIG).write_text(json.dumps({**own, **about}, indent=2) + "\n", encoding="utf-8")


def bundle_fingerprints(
    parts: Mapping[str, nn.Module], files: Mapping[str, bytes], folders: Mapping[str, Path] = {}
) -> dict[str, str]:
    """16 hex digits for each part, file and folder."""
    return {
        **{name: fingerprint(model) for name, model in parts.items()},
        **{name: hashlib.sha256(content).hexdigest()[:16] for name, content in files.items()},
        **{name: folder_fingerprint(folder) for name, folder in folders.items()},
    }


def folder_fingerprint(folder: Path) -> str:
    """16 hex digits that change with the name or the content of any file; hidden ones, which systems leave, aside."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        content = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        digest.update(json.dumps([path.relative_to(folder).as_posix(), content.hexdigest()]).encode())
    return digest.hexdigest()[:16]


def check_bundle(folder: str | Path, kind: str, found: Mapping[str, str]) -> None:
    """Compare what was read with what a bundle's ``config.json`` says it was made of.

    Raises:
        ValueError: a part or a file is another one.
    """
    for name, expected in read_kind(folder, kind).get("fingerprints", {}).items():
        if found.get(name) != expected:
            raise ValueError(
                f"{Path(folder) / name} is not what the checkpoint was made of (fingerprint {found.get(name)}, "
                f"wanted {expected}): copy the whole folder again"
            )


def refuse_foreign(folder: Path) -> None:
    """A checkpoint replaces its folder: refuse one that holds something else."""
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not free and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} exists and is no checkpoint: give a new folder, or an earlier checkpoint's")


def load(kind: type[M], folder: str | Path) -> M:
    """Rebuild ``kind(config)`` from a checkpoint folder, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing.
        ValueError: another kind of model, another format, a cut-off file, weights that do not fit the config, or a
            model that was changed since it was saved.
    """
    folder = Path(folder)
    stored = read_kind(folder, kind.__name__)
    hints = typing.get_type_hints(kind.__init__)
    model = kind(_dataclass_from_plain(hints["config"], stored.get("config"), f"{folder / CONFIG}: config"))
    state = read_weights(folder / WEIGHTS)
    check_weights(model.state_dict(), state, folder / WEIGHTS)
    model.load_state_dict(state)
    if (saved := stored.get("fingerprint")) and saved != (found := fingerprint(model)):
        raise ValueError(
            f"{folder} was changed since it was saved (fingerprint {found}, wanted {saved}): copy it again"
        )
    return model.eval()


def read_kind(folder: str | Path, kind: str) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint folder that must hold a ``kind``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint folder at {folder}: give the folder that holds {CONFIG}")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG}, so it is no checkpoint: give a folder that `fit` exported"
        )
    stored = read_json(folder / CONFIG)
    if stored.get("kind") != kind:
        found = stored.get("kind", "foreign checkpoint")
        raise ValueError(f"{folder} holds a {found}, wanted {article(kind)}: give the folder of {article(kind)}")
    if (found := stored.get("format")) != FORMAT:
        raise ValueError(f"{folder} has format {found}, this version reads {FORMAT}: upgrade audiolm_kit")
    return stored


def kind_of(folder: str | Path) -> str:
    """What a checkpoint folder says that it holds; empty where it does not say, for whoever opens it to complain."""
    path = Path(folder) / CONFIG
    kind = read_json(path).get("kind", "") if path.is_file() else ""
    return kind if isinstance(kind, str) else ""


def article(name: str) -> str:
    """A class's name as a sentence has it."""
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def fingerprint(model: nn.Module) -> str:
    """16 hex digits that change with any weight or config value: which codec made these codes?"""
    digest = hashlib.sha256()
    config = {"kind": type(model).__name__, "config": chosen(typing.cast(Any, model.config))}
    digest.update(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_weights(path: Path) -> dict[str, Tensor]:
    """What a safetensors file holds; what lies there in 8 bits (``eight_bits``) is float32 again.

    So is what lies there once for several names (``stored_once``).

    Raises:
        FileNotFoundError: nothing stands there.
        ValueError: the file is cut off, or is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the whole checkpoint folder")
    try:
        with safe_open(path, "pt") as file:
            stored = stored_once.again({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): copy the checkpoint again") from None
    try:
        return eight_bits.restored(stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_weights(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not, name for name and shape for shape, those of a model.

    Args:
        wanted: Of the model; they may be on the meta device.
        path: Where they were found.

    Raises:
        ValueError: some are missing, unknown or wrongly shaped; it names them.
    """
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape)
    for title, names in (("lacks", missing), ("has unknown", extra), ("has wrongly shaped", wrong)):
        if names:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(
                f"{path} {title} tensors ({len(names)}): {shown}; weights and {CONFIG} must be of one model"
            )


def _plain_config(model: nn.Module) -> dict[str, Any]:
    return dataclasses.asdict(typing.cast(Any, model.config))


def chosen(config: Any) -> dict[str, Any]:
    """The fields of a (nested) dataclass that differ from their defaults.

    A field that a later version adds, at a default that changes nothing, leaves the fingerprints of older models alone.
    """
    kept = {}
    for field in dataclasses.fields(config):
        if not field.compare:  # where something lies, not what it is
            continue
        value = getattr(config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            kept[field.name] = chosen(value) if dataclasses.is_dataclass(value) else value
    return kept


def from_plain(hint: Any, value: Any, where: str) -> Any:
    """Rebuild a (nested) dataclass, tuple or plain value of type ``hint`` from JSON.

    Raises:
        ValueError: an unknown field, a value of another type, or one that the dataclass itself refuses; ``where``
            names the place.
    """
    if dataclasses.is_dataclass(hint):
        return _dataclass_from_plain(typing.cast("type[Any]", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and type(None) in args:
        inner = [arg for arg in args if arg is not type(None)]
        return value if value is None or len(inner) > 1 else from_plain(inner[0], value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(from_plain(args[0], each, where) for each in value)
    fits = value in args if origin is typing.Literal else type(value) in JSON_TYPES.get(hint, (type(value),))
    if origin is tuple or not fits:
        raise ValueError(f"{where} is {value!r}, wanted {_name(hint)}: another version or program wrote it")
    return value


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _dataclass_from_plain(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}, wanted the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - {field.name for field in dataclasses.fields(typing.cast(Any, kind))})
    if unknown:
        raise ValueError(f"{where} has unknown fields {unknown}: a newer version wrote it; upgrade audiolm_kit")
    try:
        return kind(**{name: from_plain(hints[name], each, f"{where}.{name}") for name, each in value.items()})
    except TypeError as error:
        raise ValueError(f"{where} does not fit {kind.__name__}: {error}") from None
