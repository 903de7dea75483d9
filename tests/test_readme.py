"""The README keeps its word: its library use runs, the way it shows is whole; test_docs.py holds it as any page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, page

from audiolm_kit.audio import read

README = page("README.md").text
PAGE = 100
"""Lines; more is no longer one page."""


def test_the_readme_is_one_page_that_names_its_two_commands_first() -> None:
    assert len(README.splitlines()) <= PAGE
    given = re.findall(r"^ {4}(make [a-z]+)", README, re.MULTILINE)
    assert given == ["make demo", "make test"]
    assert README.index("make demo") < README.index("## ")


def test_the_library_use_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = page("README.md").blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"seven.wav", "longer.flac", "coarse.wav"}
    assert [read(path).samples.shape for path in ("seven.wav", "longer.flac", "coarse.wav")] == [(1, 12800)] * 3
    takes = names["takes"]
    assert isinstance(takes, list) and len(takes) == 3


def test_the_way_from_recordings_to_sound_is_shown_whole() -> None:
    verbs = [command[0] for command in page("README.md").kit()]
    assert verbs == ["manifest", "fit", "tokenize", "fit", "generate", "continue"]
    assert "doctor" in [command[0] for command in page("README.md").spans()]


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\s*(?:`|#|,|$)", README, re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


def test_every_recipe_has_its_row() -> None:
    [rows] = re.findall(r"<!-- recipes -->\n(.*?)<!-- /recipes -->", README, re.DOTALL)
    recipes = {path.parent.name for path in ROOT.glob("recipes/*/Makefile")}
    assert set(re.findall(r"^\| \[(\w+)\]\(recipes/", rows, re.MULTILINE)) == recipes
