"""Provenance: what is known of a checkpoint's making goes with it, without a path of the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from audiolm_kit import __version__, checkpoint, provenance
from audiolm_kit.inference.audiogen import AudioGen


def test_what_is_written_comes_back_beside_version_and_commit(tmp_path: Path) -> None:
    assert provenance.read(tmp_path) == {}
    provenance.write(tmp_path, {"steps": 3})
    found = provenance.read(tmp_path)
    assert (found["steps"], found["version"], found["format"]) == (3, __version__, provenance.FORMAT)
    assert found["commit"] == provenance.commit()


def test_it_changes_no_checkpoint(trained: Path) -> None:
    before = AudioGen.load(trained).fingerprints
    provenance.write(trained, {"steps": 3})
    assert AudioGen.load(trained).fingerprints == before
    assert checkpoint.read_kind(trained, "AudioGen")["fingerprints"] == before


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / provenance.FILE).write_text('{"steps": ')
    with pytest.raises(ValueError, match="training.json is not readable as JSON"):
        provenance.read(tmp_path)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("/home/somebody/sounds.jsonl", "sounds.jsonl"),
        ("~/sounds", "sounds"),
        ("../../private/sounds", "sounds"),
        ("C:\\sounds\\a", "a"),
        (Path("/data/x"), "x"),
        ("build/tokens", "build/tokens"),
        ("facebook/musicgen-small", "facebook/musicgen-small"),
        (["/a/b", {"c": ("/d/e", 3, None)}], ["b", {"c": ["e", 3, None]}]),
        (0.5, 0.5),
    ],
)
def test_paths_lose_all_but_their_names(value: object, named: object) -> None:
    assert provenance.named(value) == named


def git(folder: Path, *given: str) -> str:
    user = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *user, *given], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_packages_own_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert provenance.commit(package) == ""
    git(tmp_path, "init")
    (tmp_path / "mine.txt").write_text("somebody's own work, with the package inside an environment")
    git(tmp_path, "add", "mine.txt")
    git(tmp_path, "commit", "-m", "mine")
    assert provenance.commit(package) == ""
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "package")
    assert provenance.commit(package) == git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(package) == ""
