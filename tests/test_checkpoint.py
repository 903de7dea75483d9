"""Checkpoints come back exactly, are known by their fingerprint, and say in one line why they cannot be read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm_kit import checkpoint
from audiolm_kit.checkpoint import fingerprint, load, replacing, save, write_json


@dataclass(frozen=True)
class InnerConfig:
    scales: tuple[int, ...] = (1, 2)
    rate: float = 0.5


@dataclass(frozen=True)
class TinyConfig:
    width: int = 3
    kind: Literal["flat", "deep"] = "flat"
    bias: bool = True
    name: str = "tiny"
    offset: float | None = None
    inner: InnerConfig = field(default_factory=InnerConfig)
    other: InnerConfig | None = None

    def __post_init__(self) -> None:
        if self.width > 9:
            raise ValueError(f"width is {self.width}, wanted at most 9")


class Tiny(nn.Module):
    steps: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.width, 2, bias=config.bias)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


class Stranger(Tiny):
    pass


EVERY_FIELD = TinyConfig(4, "deep", False, "Größe", 0.25, InnerConfig((3, 2, 1), 1.0), InnerConfig(()))


def tiny(config: TinyConfig = EVERY_FIELD) -> Tiny:
    torch.manual_seed(0)
    model = Tiny(config)
    model.steps.fill_(7)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tiny(), tmp_path / "tiny")
    return tmp_path / "tiny"


def message_of(folder: Path, error: type[Exception] = ValueError) -> str:
    """What loading says, in one line."""
    with pytest.raises(error) as caught:
        load(Tiny, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_field(folder: Path, **changes: Any) -> None:
    rewrite_config(folder, config={**json.loads((folder / "config.json").read_text())["config"], **changes})


# --- the way there and back


@pytest.mark.parametrize("config", [TinyConfig(), EVERY_FIELD])
def test_weights_and_config_come_back_exactly(config: TinyConfig, tmp_path: Path) -> None:
    model = tiny(config)
    save(model, tmp_path / "a" / "tiny")
    again = load(Tiny, tmp_path / "a" / "tiny")
    assert again.config == config and hash(again.config) == hash(config)  # a list in the tuple's place has no hash
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value) and again.state_dict()[name].dtype == value.dtype
    assert not again.training


def test_a_folder_holds_two_files_and_no_import_path(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    about = json.loads((folder / "config.json").read_text())
    assert about.keys() == {"format", "kind", "config", "fingerprint"} and about["kind"] == "Tiny"


def test_a_field_added_later_takes_its_default(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())["config"]
    rewrite_config(folder, config={name: value for name, value in stored.items() if name != "name"}, fingerprint="")
    assert load(Tiny, folder).config == replace(EVERY_FIELD, name="tiny")


# --- fingerprints


def test_the_fingerprint_survives_saving_and_loading(folder: Path) -> None:
    assert fingerprint(load(Tiny, folder)) == fingerprint(tiny())
    assert len(fingerprint(tiny())) == 16 and int(fingerprint(tiny()), 16) >= 0


def test_the_fingerprint_changes_with_one_weight_or_one_config_value() -> None:
    nudged, counted = tiny(), tiny()
    with torch.no_grad():
        weight = nudged.layer.weight[1, 2]
        nudged.layer.weight[1, 2] = torch.nextafter(weight, weight + 1)
    counted.steps.add_(1)
    renamed = tiny(replace(EVERY_FIELD, name="other"))
    nested = tiny(replace(EVERY_FIELD, inner=InnerConfig((3, 2, 0), 1.0)))
    torch.manual_seed(0)
    stranger = Stranger(EVERY_FIELD)
    stranger.steps.fill_(7)
    assert len({fingerprint(model) for model in (tiny(), nudged, counted, renamed, nested, stranger)}) == 6


def test_the_fingerprint_tells_apart_tensors_of_the_same_bytes() -> None:
    one, other = tiny(TinyConfig(bias=False)), tiny(TinyConfig(bias=False))
    other.layer.weight = nn.Parameter(one.layer.weight.detach().reshape(3, 2))
    assert fingerprint(one) != fingerprint(other)


def test_where_something_lies_is_no_part_of_the_fingerprint() -> None:
    @dataclass(frozen=True)
    class Placed(TinyConfig):
        folder: str = field(default="", compare=False)

    assert fingerprint(tiny(Placed(folder="here"))) == fingerprint(tiny(Placed(folder="there")))


def test_a_field_added_later_leaves_fingerprints_alone_at_its_default() -> None:
    @dataclass(frozen=True)
    class Later(TinyConfig):
        added: int = 0

    given = {name: getattr(EVERY_FIELD, name) for name in EVERY_FIELD.__dataclass_fields__}
    assert fingerprint(tiny(Later(**given))) == fingerprint(tiny())
    assert fingerprint(tiny(Later(**given, added=1))) != fingerprint(tiny())
    chosen_by_name = replace(TinyConfig(), inner=InnerConfig(), width=3)
    assert fingerprint(tiny(chosen_by_name)) == fingerprint(tiny(TinyConfig()))


# --- refusals


def test_a_missing_folder_or_file_is_named(folder: Path) -> None:
    assert "no checkpoint folder at" in message_of(folder / "nowhere", FileNotFoundError)
    assert "no checkpoint folder at" in message_of(folder / "config.json", FileNotFoundError)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in message_of(folder, FileNotFoundError)
    (folder / "config.json").unlink()
    assert "holds no config.json" in message_of(folder, FileNotFoundError)


def test_a_foreign_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds a Tiny, wanted a Stranger"):
        load(Stranger, folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert "holds a foreign checkpoint, wanted a Tiny" in message_of(folder)


def test_another_format_is_refused(folder: Path) -> None:
    rewrite_config(folder, format=2)
    assert "has format 2, this version reads 1: upgrade" in message_of(folder)


def test_a_cut_off_config_is_refused(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    for cut in (text[: len(text) // 2], "", "[1, 2]", "\x00\x01"):
        (folder / "config.json").write_text(cut)
        assert "config.json" in message_of(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe{")
    assert "not readable as JSON" in message_of(folder)


def test_cut_off_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for cut in (data[:-1], data[:20], b"", b"not safetensors at all"):
        path.write_bytes(cut)
        assert "is not a whole safetensors file" in message_of(folder)


def test_a_change_since_saving_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the header's length and the tensors' shapes stay as they are
    path.write_bytes(data)
    assert "was changed since it was saved (fingerprint" in message_of(folder)
    rewrite_config(folder, fingerprint="")  # as an earlier version wrote it
    load(Tiny, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer.weight": None}, r"lacks tensors \(1\): layer.weight;"),
        ({"layer.extra": torch.zeros(1)}, r"has unknown tensors \(1\): layer.extra;"),
        ({"layer.weight": torch.zeros(2, 5)}, r"has wrongly shaped tensors \(1\): layer.weight;"),
        ({f"x{i}": torch.zeros(1) for i in range(6)}, r"has unknown tensors \(6\): x0, x1, x2, x3, \.\.\.;"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(folder: Path, change: dict[str, Tensor | None], message: str) -> None:
    state = {**load_file(folder / "model.safetensors"), **change}
    save_file({name: value for name, value in state.items() if value is not None}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load(Tiny, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 3, "depth": 1}, r"config has unknown fields \['depth', 'height'\]"),
        ({"inner": {"scales": [1], "speed": 2}}, r"config.inner has unknown fields \['speed'\]"),
        ({"inner": 3}, "config.inner is 3, wanted the fields of InnerConfig"),
        ({"inner": {"scales": 3}}, "config.inner.scales is 3, wanted tuple"),
        ({"inner": {"scales": [1, "x"]}}, "config.inner.scales is 'x', wanted int"),
        ({"width": "wide"}, "config.width is 'wide', wanted int"),
        ({"width": True}, "config.width is True, wanted int"),
        ({"width": None}, "config.width is None, wanted int"),
        ({"kind": "steep"}, "config.kind is 'steep', wanted Literal"),
        ({"offset": "far"}, "config.offset is 'far', wanted float"),
        ({"width": 10}, "width is 10, wanted at most 9"),
    ],
)
def test_config_values_that_do_not_fit_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    rewrite_field(folder, **change)
    with pytest.raises(ValueError, match=message) as caught:
        load(Tiny, folder)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_config_is_refused(folder: Path) -> None:
    rewrite_config(folder, config=None)
    assert "config is None, wanted the fields of TinyConfig" in message_of(folder)
    (folder / "config.json").write_text('{"format": 1, "kind": "Tiny"}')
    assert "config is None, wanted the fields of TinyConfig" in message_of(folder)


# --- whole or not at all


def test_a_block_that_fails_leaves_everything_as_it_was(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(load(Tiny, folder))
    for target in (folder, tmp_path / "new", tmp_path / "deep" / "new.json"):
        with pytest.raises(RuntimeError, match="disk"), replacing(target) as draft:
            draft.mkdir()
            (draft / "half").write_text("written")
            raise RuntimeError("disk")
    assert fingerprint(load(Tiny, folder)) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "deep", "model.safetensors", "tiny"]


def test_a_block_that_writes_nothing_destroys_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(folder):
        pass
    assert load(Tiny, folder).config == EVERY_FIELD
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_is_replaced_whole(folder: Path, tmp_path: Path) -> None:
    (folder / "stale").write_text("of the old one")
    save(tiny(TinyConfig()), folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert load(Tiny, folder).config == TinyConfig()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_that_cannot_be_replaced_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".tiny.") and path.name == "tiny":
            raise PermissionError("in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        save(tiny(TinyConfig()), folder)
    assert load(Tiny, folder).config == EVERY_FIELD


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    write_json(tmp_path / "a.json", {"new": "ü"})
    assert checkpoint.read_json(tmp_path / "a.json") == {"new": "ü"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert checkpoint.read_json(tmp_path / "a.json") == {"new": "ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# --- bundles


def test_a_bundle_keeps_what_is_said_about_it(tmp_path: Path) -> None:
    checkpoint.save_bundle(tmp_path / "plain", "Pair", {"one": tiny()}, {"note": b"x"})
    checkpoint.save_bundle(tmp_path / "told", "Pair", {"one": tiny()}, {"note": b"x"}, {"stage": {"range": (0, 4)}})
    plain, told = (checkpoint.read_kind(tmp_path / name, "Pair") for name in ("plain", "told"))
    assert plain.keys() == {"format", "kind", "fingerprints"}
    assert told == {**plain, "stage": {"range": [0, 4]}}
    with pytest.raises(AssertionError):  # what every bundle says is not for others to say
        checkpoint.save_bundle(tmp_path / "false", "Pair", {"one": tiny()}, {}, {"fingerprints": {}})
    assert not (tmp_path / "false").exists()


def test_a_bundle_copies_folders_and_knows_them_by_their_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "b").write_bytes(b"x" * (1 << 20) + b"y")
    (source / "a").write_text("a")
    checkpoint.save_bundle(tmp_path / "bundle", "Pair", {"one": tiny()}, {}, folders={"text": source})
    copy = tmp_path / "bundle" / "text"
    assert (copy / "deep" / "b").read_bytes() == (source / "deep" / "b").read_bytes()
    named = checkpoint.read_kind(tmp_path / "bundle", "Pair")["fingerprints"]
    assert named == checkpoint.bundle_fingerprints({"one": tiny()}, {}, {"text": copy})
    (copy / ".DS_Store").write_text("of the system")
    checkpoint.check_bundle(
        tmp_path / "bundle", "Pair", checkpoint.bundle_fingerprints({"one": tiny()}, {}, {"text": copy})
    )
    found = [checkpoint.folder_fingerprint(copy)]
    (copy / "deep" / "b").write_bytes(b"x" * (1 << 20) + b"z")
    found.append(checkpoint.folder_fingerprint(copy))
    (copy / "a").rename(copy / "c")
    found.append(checkpoint.folder_fingerprint(copy))
    assert len(set(found)) == 3
    with pytest.raises(ValueError, match="text is not what the checkpoint was made of"):
        checkpoint.check_bundle(tmp_path / "bundle", "Pair", {"one": named["one"], "text": found[1]})


def test_a_bundle_is_not_written_without_its_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone was moved or deleted while in use: put it back"):
        checkpoint.save_bundle(tmp_path / "bundle", "Pair", {"one": tiny()}, {}, folders={"text": tmp_path / "gone"})
    with pytest.raises(AssertionError):  # two things of one name
        checkpoint.save_bundle(tmp_path / "bundle", "Pair", {"one": tiny()}, {}, folders={"one": tmp_path})
    assert not (tmp_path / "bundle").exists()
