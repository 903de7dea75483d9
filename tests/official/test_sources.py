"""Sources: every layout is seen from its files, and whatever cannot be read is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from audiolm_kit.official.sources import Source, find_source


def put(folder: Path, **files: Any) -> Path:
    """Files by their names, with __ for a full stop; JSON of what is no text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize("kind", ["musicgen", "encodec", "dac", "mimi"])
def test_a_model_of_transformers_is_known_by_its_type(tmp_path: Path, kind: str) -> None:
    folder = put(tmp_path / "model", config__json={"model_type": kind}, model__safetensors="")
    assert find_source(folder) == find_source(str(folder)) == Source(folder, kind, str(folder))  # type: ignore[arg-type]


def test_ours_and_audiocrafts_are_known_by_their_files(tmp_path: Path) -> None:
    assert find_source(put(tmp_path / "ours", config__json={"kind": "AudioGen"})).layout == "ours"
    for number, name in enumerate(("state_dict__bin", "compression_state_dict__bin", "checkpoint__th")):
        folder = put(tmp_path / str(number), **{name: ""})
        assert find_source(folder) == (folder, "audiocraft", str(folder))
        file = folder / name.replace("__", ".")
        assert find_source(file) == (file, "audiocraft", str(file))


def test_a_folder_in_two_layouts_is_that_of_transformers(tmp_path: Path) -> None:
    folder = put(tmp_path / "both", config__json={"model_type": "musicgen"}, state_dict__bin="")
    assert find_source(folder).layout == "musicgen"


def test_encodecs_own_file_is_taken_by_itself_or_in_its_folder(tmp_path: Path) -> None:
    file = put(tmp_path / "encodec", **{"encodec_24khz-d7cc33bc__th": ""}) / "encodec_24khz-d7cc33bc.th"
    assert find_source(file) == find_source(file.parent) == (file, "encodec_file", str(file))
    put(file.parent, **{"encodec_48khz-7e698e3e__th": ""})
    with pytest.raises(ValueError, match="holds 2 .th files .*: give one of them"):
        find_source(file.parent)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config__json": {"model_type": "musicgen_melody"}}, "MusicGen melody cannot be imported"),
        ({"config__json": {"model_type": "bert"}}, "says that it is a bert, which cannot be read: give MusicGen"),
        ({"config__json": {}}, "says neither kind nor model_type"),
        ({"config__json": '{"model_type": "mus'}, "is not readable as JSON"),
        ({"last__ckpt": ""}, "is the folder of a training run: give the folder that its recipe's `export` names"),
        ({"README__md": ""}, r"holds neither config.json nor state_dict.bin: give a folder of MusicGen"),
    ],
)
def test_what_cannot_be_read_is_told_by_name(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    folder = put(tmp_path / "model", **files)
    with pytest.raises(ValueError, match=told) as caught:
        find_source(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_folder_is_known_by_its_inner_checkpoints(tmp_path: Path) -> None:
    put(tmp_path / "run" / "checkpoints", last__ckpt="")
    with pytest.raises(ValueError, match="is the folder of a training run"):
        find_source(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("last.ckpt", "is the state of a training run: give the folder that its recipe's `export` names"),
        ("model.safetensors", "is a file: give the folder that holds it"),
        ("weights.pth", "is a file: give the folder that holds it"),
    ],
)
def test_other_files_are_told(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=told):
        find_source(tmp_path / name)


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint folder at"):
        find_source(tmp_path / "nowhere")


# --- on the hub


class Hub:
    """A hub of one model: fetches those of its files that are asked for, and notes what was."""

    def __init__(self, folder: Path, *names: str, **about: Any) -> None:
        self.folder, self.names, self.about = folder, names, about
        self.asked: list[list[str] | None] = []

    def __call__(self, name: str, allow_patterns: list[str] | None = None) -> str:
        self.asked.append(allow_patterns)
        self.folder.mkdir(exist_ok=True)
        names = list(huggingface_hub.utils.filter_repo_objects(self.names, allow_patterns=allow_patterns))
        for each in names:
            (self.folder / each).write_text(json.dumps(self.about) if each == "config.json" else "")
        return str(self.folder)

    @property
    def fetched(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def on_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Hub:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


BOTH = ("config.json", "tokenizer.json", "spiece.model", "pytorch_model.bin", "state_dict.bin", "README.md")


def test_of_the_hub_only_what_is_needed_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (*BOTH, "model.safetensors", "compression_state_dict.bin")
    hub = on_hub(monkeypatch, Hub(tmp_path / "a", *files, model_type="musicgen"))
    assert find_source("owner/music") == (tmp_path / "a", "musicgen", "owner/music")
    assert hub.fetched == {"config.json", "tokenizer.json", "spiece.model", "model.safetensors"}


def test_pickles_are_fetched_where_there_is_nothing_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = on_hub(monkeypatch, Hub(tmp_path / "a", *BOTH, model_type="musicgen"))
    assert find_source("owner/music").layout == "musicgen"
    assert "pytorch_model.bin" in hub.fetched and "state_dict.bin" not in hub.fetched


def test_audiocrafts_files_are_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = on_hub(monkeypatch, Hub(tmp_path / "a", "state_dict.bin", "compression_state_dict.bin", "README.md"))
    assert find_source("facebook/audiogen-medium").layout == "audiocraft"
    assert hub.fetched == {"state_dict.bin", "compression_state_dict.bin"}


def test_ours_are_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = on_hub(monkeypatch, Hub(tmp_path / "a", "config.json", "text.model", "x.safetensors", kind="AudioGen"))
    assert find_source("owner/ours").layout == "ours"
    assert hub.asked[-1] is None and hub.fetched == {"config.json", "text.model", "x.safetensors"}


def test_what_is_refused_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = on_hub(monkeypatch, Hub(tmp_path / "a", *BOTH, model_type="musicgen_melody"))
    with pytest.raises(ValueError, match="owner/melody: MusicGen melody cannot be imported"):
        find_source("owner/melody")
    assert "pytorch_model.bin" not in hub.fetched
    hub.asked.clear()
    named = {"musicgen-melody-large": "melody", "musicgen-stereo-melody": "melody", "musicgen-style": "style"}
    for name, told in (named | {"magnet-small-10secs": "MAGNeT", "jasco-chords-drums-400M": "JASCO"}).items():
        with pytest.raises(ValueError, match=told):
            find_source(f"facebook/{name}")
    assert hub.asked == []
