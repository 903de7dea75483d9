"""Pickles are read as data: settings come out plain, and nothing that a file asks for is run."""

from __future__ import annotations

import os
import pickle
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from audiolm_kit.official.pickles import read_pickle


class Evil:
    """Pickled, it is a call of whatever it is given."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture
def omegaconf() -> Iterator[dict[str, type]]:
    """Classes that pickle as OmegaConf's do, in modules of those names while the test writes its file."""
    names = {"dictconfig": "DictConfig", "listconfig": "ListConfig", "base": "ContainerMetadata", "nodes": "AnyNode"}
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "omegaconf"}
    made: dict[str, type] = {}
    sys.modules["omegaconf"] = ModuleType("omegaconf")
    for module, name in names.items():
        full = f"omegaconf.{module}"
        made[name] = type(name, (), {"__module__": full})
        sys.modules[full] = ModuleType(full)
        setattr(sys.modules[full], name, made[name])
    yield made
    forget(before)


def forget(before: dict[str, ModuleType]) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "omegaconf"]:
        del sys.modules[name]
    sys.modules.update(before)


def config(classes: dict[str, type], value: Any) -> Any:
    """A value as OmegaConf holds it: containers of nodes, each with what it says of its types."""
    name, content = "AnyNode", value
    if isinstance(value, dict):
        name, content = "DictConfig", {key: config(classes, each) for key, each in value.items()}
    if isinstance(value, list):
        name, content = "ListConfig", [config(classes, each) for each in value]
    made = classes[name]()
    metadata = classes["ContainerMetadata"]()
    kind = None if name == "AnyNode" else type(value)
    vars(metadata).update(ref_type=Any, object_type=kind, resolver_cache=defaultdict(dict))
    made.__dict__["_val" if name == "AnyNode" else "_content"] = content
    made.__dict__.update(_metadata=metadata, _parent=None)
    return made


SETTINGS = {"transformer_lm": {"dim": 8, "past_context": None, "bias": False}, "delays": [0, 1], "path": "${a.b}"}


def test_tensors_and_settings_come_out_plain(tmp_path: Path, omegaconf: dict[str, type]) -> None:
    state = OrderedDict(weight=torch.arange(3.0))
    torch.save({"xp.cfg": config(omegaconf, SETTINGS), "best_state": {"model": state}}, tmp_path / "a.th")
    forget({})  # as on a machine without OmegaConf
    read = read_pickle(tmp_path / "a.th")
    assert read["xp.cfg"] == SETTINGS
    assert torch.equal(read["best_state"]["model"]["weight"], state["weight"])
    assert not any(name.split(".")[0] == "omegaconf" for name in sys.modules)


def test_paths_and_default_dicts_are_data_too(tmp_path: Path) -> None:
    torch.save({"path": Path("/a/b"), "kind": dict}, tmp_path / "a.th")
    assert read_pickle(tmp_path / "a.th")["path"] == "/a/b"


def test_the_old_format_without_an_archive_is_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "a.th", _use_new_zipfile_serialization=False)
    assert torch.equal(read_pickle(tmp_path / "a.th")["weight"], torch.arange(3.0))


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.mkdir, ("MARK",), "mkdir"),
        (eval, ("__import__('os').mkdir('MARK')",), "eval"),
        (getattr, (1, "a"), "getattr"),
    ],
)
def test_a_malicious_pickle_is_refused_by_name_and_nothing_of_it_runs(
    tmp_path: Path, function: Callable[..., Any], arguments: tuple[Any, ...], name: str, archive: bool
) -> None:
    mark = tmp_path / "mark"
    filled = [each.replace("MARK", str(mark)) if isinstance(each, str) else each for each in arguments]
    evil = {"best_state": {}, "xp.cfg": Evil(function, *filled)}
    torch.save(evil, tmp_path / "a.bin", _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=rf"a\.bin is refused, nothing of it was run: .*{name}.*--unsafe-pickle"):
        read_pickle(tmp_path / "a.bin")
    assert not mark.exists()


def test_a_stand_in_cannot_be_made_to_do_anything(tmp_path: Path, omegaconf: dict[str, type]) -> None:
    """What is called through a class's name is its stand-in, and torch knows it for the time of the reading alone."""
    mark = tmp_path / "mark"
    torch.save({"xp.cfg": Evil(omegaconf["DictConfig"], str(mark))}, tmp_path / "a.bin")
    forget({})
    before = torch.serialization.get_safe_globals()
    assert read_pickle(tmp_path / "a.bin") == {"xp.cfg": None}
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_unsafe_opens_the_rest(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"made": Evil(os.mkdir, str(mark)), "weight": torch.ones(1)}, tmp_path / "a.bin")
    assert read_pickle(tmp_path / "a.bin", unsafe=True)["weight"] == 1
    assert mark.is_dir()


def test_unsafe_names_a_package_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x80\x02cno_such_package\nThing\n.")
    with pytest.raises(ValueError, match="a.bin needs the package no_such_package, which is not installed"):
        read_pickle(tmp_path / "a.bin", unsafe=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("unsafe", [False, True])
def test_a_cut_off_file_is_told(tmp_path: Path, share: float, unsafe: bool) -> None:
    path = tmp_path / "a.bin"
    torch.save({"weight": torch.randn(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="a.bin .*damaged"):
        read_pickle(path, unsafe)


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    torch.save({"weight": torch.zeros(1000)}, path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1  # among the weights
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="a.bin is cut off or damaged"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95", pickle.dumps({"a": 1}, protocol=4)])
def test_what_is_no_file_of_torch_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match="a.bin .*damaged"):
        read_pickle(tmp_path / "a.bin")


def test_other_content_and_a_missing_file_are_told(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "a.bin")
    with pytest.raises(ValueError, match="holds a list, wanted a dictionary of weights"):
        read_pickle(tmp_path / "a.bin")
    with pytest.raises(FileNotFoundError, match="there is no file at .*b.bin"):
        read_pickle(tmp_path / "b.bin")
