"""The documentation's site: every page has its place and can be reached, tables are made, and nothing is left out."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import docs_site
import pytest
import yaml

import audiolm_kit
from audiolm_kit import cli

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "tools" / "mkdocs.yml").read_text(encoding="utf-8"))
NAMED = re.compile(r"^::: (\S+)$", re.MULTILINE)
REFERENCE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))


def leaves(entry: Any) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    inside = entry.values() if isinstance(entry, dict) else entry
    return [page for each in inside for page in leaves(each)]


def test_every_page_stands_in_the_navigation_once() -> None:
    pages = {source for source in docs_site.sources() if source.endswith(".md")}
    assert sorted(leaves(SETTINGS["nav"])) == sorted(pages)


def test_every_source_has_a_place_of_its_own() -> None:
    places = docs_site.sources()
    assert all((ROOT / source).is_file() for source in places)
    assert len(set(places.values())) == len(places)
    assert places["docs/index.md"] == "index.html"
    assert places["docs/papers/audiogen.md"] == "papers/audiogen.html"
    assert places["recipes/hello/README.md"] == "recipes/hello/index.html"
    assert all(name in places.values() for name in SETTINGS["extra_css"])


def test_nothing_is_fetched_from_elsewhere() -> None:
    assert SETTINGS["theme"]["font"] is False
    assert "extra_javascript" not in SETTINGS


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_home_page_shows_the_recipes_of_the_readme() -> None:
    bare = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    shown = docs_site.filled(bare, "docs/index.md")
    recipes = {path.parent.name for path in ROOT.glob("recipes/*/Makefile")}
    assert set(re.findall(r"^\| \[(\w+)\]\(\.\./recipes/\1/README\.md\)", shown, re.MULTILINE)) == recipes
    assert "<!-- recipes -->" not in shown and "../README.md" not in shown


def test_each_verb_is_shown_with_all_that_it_takes() -> None:
    bare = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    shown = docs_site.filled(bare, "docs/reference/commands.md")
    assert re.findall(r"^## (\w+)$", shown, re.MULTILINE) == list(cli.VERBS)
    generate = shown.partition("## generate\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in generate.splitlines() if line.startswith("| `")]
    told = {cells[0].strip("| `"): [cell.strip() for cell in cells[1:3]] for cells in rows}
    assert told["CHECKPOINT"] == ["a word", "*required*"]
    assert told["TEXTS"] == ["a word", ""]
    assert told["-o, --output"] == ["a word", ""]
    assert told["--guidance_scale"] == ["a number or numbers with commas", "`3.0`"]
    assert told["--endless"] == ["nothing, or true, false", "`false`"]
    assert told["--quantize"] == ["`int8` or `int4`", ""]
    assert all(len(line.replace("\\|", "").split("|")) == 6 for line in generate.splitlines() if line.startswith("|"))


def test_what_was_measured_is_what_the_recipe_says() -> None:
    text = "<!-- measured streams/guidance -->\nSee the recipe.\n<!-- /measured -->\nMore.\n"
    shown = docs_site.filled(text, "docs/papers/audiogen.md")
    readme = (ROOT / "recipes" / "streams" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in shown.splitlines() if line.startswith("| ") and "95 % interval" not in line]
    assert rows and all(row in readme and "met" in row for row in rows)
    assert "See the recipe." not in shown and shown.endswith("More.\n")


def test_rows_are_chosen_by_parts_of_their_names() -> None:
    text = "<!-- measured streams/streams: heard: real, heard: reconstructions -->\nSee.\n<!-- /measured -->\n"
    shown = docs_site.filled(text, "docs/papers/codecs.md")
    assert shown.count("| digit heard: reconstructions") == 3 and shown.count("| digit heard: real") == 1
    assert "guidance" not in shown and "flatten" not in shown
    with pytest.raises(ValueError, match="streams/streams, which has no row of nowhere"):
        docs_site.measured("streams/streams", "nowhere")


@pytest.mark.parametrize("source", [source for source in docs_site.sources() if source.endswith(".md")])
def test_every_page_can_be_filled_and_shows_no_mark_of_ours(source: str) -> None:
    shown = docs_site.filled((ROOT / source).read_text(encoding="utf-8"), source)
    assert not re.search(r"^<!-- /?(measured|verbs|recipes)\b", shown, re.MULTILINE)


def test_what_was_not_measured_is_said() -> None:
    text = "<!-- measured hello/nothing -->\nSee.\n<!-- /measured -->\n"
    assert "hello/nothing](../../recipes/hello/README.md#run) is not yet measured" in docs_site.filled(
        text, "docs/a.md"
    )
    with pytest.raises(ValueError, match="there is no recipe nowhere"):
        docs_site.measured("nowhere/main")


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="a page has no <!-- recipes -->"):
        docs_site.filled("# Home\n", "docs/index.md")


def test_what_belongs_to_an_item_of_a_list_stays_in_it() -> None:
    text = "1. One:\n\n   | a |\n   |---|\n\n   So it is,\n   says two.\n2. Two\n   lines.\n3. Three\n"
    read = "1. One:\n\n    | a |\n    |---|\n\n    So it is,\n    says two.\n\n2. Two\n   lines.\n3. Three\n"
    assert docs_site.indented(text) == read
    code = "- a\n\n```\n\n   figure\n- no item\n```\n\nText,\n  and more.\n"
    assert docs_site.indented(code) == code


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", NAMED.findall(REFERENCE))
def test_what_the_reference_names_is_there(named: str) -> None:
    home, _, name = named.rpartition(".")
    found = getattr(import_module(home), name, None) or import_module(named)
    assert (found.__doc__ or "").strip(), f"{named} says nothing of itself"


def test_the_reference_has_all_public_names_and_all_that_recipes_name() -> None:
    shown = set(NAMED.findall(REFERENCE))
    homes = audiolm_kit._HOMES.items()
    public = {f"audiolm_kit.{home}.{name}" for name, home in homes if home != "audio"}  # that module is shown whole
    named = {
        name
        for path in ROOT.glob("recipes/*/*.yaml")
        for name in re.findall(r"class_path: (audiolm_kit[\w.]+)", path.read_text(encoding="utf-8"))
    }
    assert sorted((public | named) - shown) == []


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="no mkdocs: make docs installs it")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "-f", "tools/mkdocs.yml", "--strict", "--quiet"]
    command += ["-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {place for place in docs_site.sources().values() if place.endswith(".html")} <= built
    scripts = re.findall(
        r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', (tmp_path / "index.html").read_text()
    )
    assert scripts == []
