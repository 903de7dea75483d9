"""The hub: a folder wins, the cache serves when offline, and whatever the client cannot do is said in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub import errors

from audiolm_kit import hub
from audiolm_kit.inference.audiogen import AudioGen

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Cached = Callable[[str, Path], Path]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    """Put a folder into a hub cache of its own, laid out as the hub's client does, as a model of this name."""
    home = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))

    def put(name: str, folder: Path) -> Path:
        model = home / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(COMMIT)
        return Path(shutil.copytree(folder, model / "snapshots" / COMMIT))

    return put


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)


def refused(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_model_of_the_hub_is_taken_from_its_cache_when_offline(cached: Cached, trained: Path, here: Path) -> None:
    snapshot = cached("owner/bells", trained)
    assert hub.local("owner/bells") == hub.local("owner/bells", ["*.json"]) == hub.checkpoint("owner/bells") == snapshot
    model, same = AudioGen.load("owner/bells"), AudioGen.load(trained)
    assert model.fingerprints == same.fingerprints


def test_a_folder_of_the_name_wins(cached: Cached, trained: Path, here: Path) -> None:
    cached("owner/bells", trained)
    (here / "owner" / "bells").mkdir(parents=True)
    assert hub.local("owner/bells") == Path("owner/bells") and not hub.is_name("owner/bells")


@pytest.mark.parametrize(
    "name",
    ["bells", "./owner/bells", "/owner/bells", "build/mine/lm", "owner/", "../a/b", "a\\b/c"],
)
def test_what_is_no_name_of_the_hub_is_a_folder_that_is_not_there(name: str, here: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint folder at .*: give a folder that is there, or a name"):
        hub.local(name)


def test_offline_and_not_cached_is_one_line(cached: Cached, here: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        hub.local("owner/nowhere")
    told = str(caught.value)
    assert told.startswith("no checkpoint folder at owner/nowhere, nor such a model of the hub: its cache lacks it")
    assert "HF_HUB_OFFLINE is set; fetch it once online" in told and "\n" not in told


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            errors.RepositoryNotFoundError("404", response=refused(404)),
            FileNotFoundError,
            "knows no a/b, or",
        ),
        (errors.GatedRepoError("403", response=refused(403)), PermissionError, "agree at https://hf.co/a/b and log in"),
        (
            errors.HfHubHTTPError("401", response=refused(401)),
            PermissionError,
            r"this user \(status 401\); log",
        ),
        (errors.HfHubHTTPError("503", response=refused(503)), FileNotFoundError, r"fails \(status 503\); try again"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_its_cure(
    error: Exception, kind: type[Exception], told: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    with pytest.raises(kind, match=told) as caught:
        hub.local("a/b")
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_told_with_the_reason(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors.LocalEntryNotFoundError("Got: ConnectError: no route\nAn error happened")
    error.__cause__ = type("ConnectError", (Exception,), {})("no route")
    failing(monkeypatch, error)
    with pytest.raises(FileNotFoundError, match=r"it cannot be reached \(ConnectError\); fetch it once online"):
        hub.local("a/b")


def test_a_name_that_the_hub_does_not_allow_is_told(here: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint folder at a/b--c.*-- ") as caught:
        hub.local("a/b--c")
    assert "\n" not in str(caught.value)


def test_a_fault_of_ours_is_not_told_as_one_of_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyError("ours"))
    with pytest.raises(KeyError):
        hub.local("a/b")


def test_a_foreign_model_of_the_hub_is_to_be_imported(cached: Cached, tmp_path: Path, here: Path) -> None:
    (tmp_path / "musicgen").mkdir()
    (tmp_path / "musicgen" / "config.json").write_text('{"model_type": "musicgen"}')
    cached("owner/music", tmp_path / "musicgen")
    with pytest.raises(ValueError, match="audiolm-kit import owner/music FOLDER makes one of it"):
        AudioGen.load("owner/music")


# --- uploading


class Recorder:
    """Stands in for HfApi and notes what it is asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, name: str, **options: Any) -> str:
        if self.error is not None:
            raise self.error
        self.asked.append(("create", {"name": name, **options}))
        return f"https://hf.co/{name}"

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(("upload", options))


def test_an_upload_makes_the_model_and_leaves_out_what_is_hidden(trained: Path) -> None:
    api = Recorder()
    assert hub.upload(trained, "owner/bells", private=True, api=api) == "https://hf.co/owner/bells"
    (first, made), (second, put) = api.asked
    assert (first, made) == ("create", {"name": "owner/bells", "private": True, "exist_ok": True})
    assert second == "upload" and put["repo_id"] == "owner/bells" and put["folder_path"] == str(trained)
    names = [".git/config", "codec/.cache/x", "last.ckpt", "config.json", "lm/model.safetensors", "README.md"]
    kept = list(huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=put["ignore_patterns"]))
    assert kept == names[3:]


def test_the_real_api_takes_what_an_upload_gives(trained: Path) -> None:
    from inspect import signature

    api = Recorder()
    hub.upload(trained, "owner/bells", api=api)
    for given, function in zip(api.asked, ("create_repo", "upload_folder"), strict=True):
        options = {("repo_id" if name == "name" else name): value for name, value in given[1].items()}
        signature(getattr(huggingface_hub.HfApi, function)).bind(None, **options)


@pytest.mark.parametrize("name", ["bells", "a/b/c", "", "/a/b"])
def test_an_upload_wants_a_name_of_the_hub(name: str, trained: Path) -> None:
    with pytest.raises(ValueError, match="wanted owner/model"):
        hub.upload(trained, name, api=Recorder())


def test_an_upload_that_is_refused_or_offline_is_one_line(trained: Path) -> None:
    error = errors.HfHubHTTPError("403", response=refused(403))
    with pytest.raises(PermissionError, match=r"a/b cannot be uploaded: the hub refuses this user \(status 403\)"):
        hub.upload(trained, "a/b", api=Recorder(error))
    with pytest.raises(FileNotFoundError, match="a/b cannot be uploaded: HF_HUB_OFFLINE is set; try again online"):
        hub.upload(trained, "a/b")
