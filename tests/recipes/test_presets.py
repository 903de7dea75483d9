"""What holds for the recipes of published sizes: estimates hold, commands parse, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from preset_sizes import read
from reading import HEADINGS, RECIPES, ROOT, commands, headings, kept_by_a_layer, load, make, parse, readme

SIZES = {name: load(name, "sizes") for name in ("audiogen", "audiolm_paper")}
KEPT: dict[str, dict[str, Any]] = {"audiogen": {"cross_attention": True}, "audiolm_paper": {"dropout": 0.1}}
KNOWN = {"audiogen": "base large streams2 streams4 delay flatten medium", "audiolm_paper": "flattened streams piano"}
PAGES = {"audiogen": readme("audiogen") + (ROOT / "docs" / "many_gpus.md").read_text(encoding="utf-8")}
PAGES |= {"audiolm_paper": readme("audiolm_paper")}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*")
each_recipe = pytest.mark.parametrize("name", SIZES)


PRESETS = {"audiogen": SIZES["audiogen"].PRESETS, "audiolm_paper": SIZES["audiolm_paper"].STAGES}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        pytest.param(name, files, id=f"{name}/{'+'.join(files)}")
        for name, presets in PRESETS.items()
        for files in [*presets.values(), *SIZES[name].CODECS.values()]
    ],
)
def test_a_file_exports_and_keeps_its_run_under_its_own_name(name: str, files: tuple[str, ...]) -> None:
    content = read(RECIPES / name, files)
    assert Path(content["model"]["init_args"]["export"]).name == files[-1]
    assert Path(content["trainer"]["default_root_dir"]).name == f"{files[-1]}.run"


@each_recipe
def test_a_layer_keeps_as_many_bytes_as_the_estimate_has(name: str) -> None:
    assert kept_by_a_layer(**KEPT[name]) == pytest.approx(SIZES[name].KEPT, rel=0.05)


@each_recipe
def test_the_readme_has_the_five_headings_and_says_what_was_not_done(name: str) -> None:
    assert headings(readme(name)) == HEADINGS
    assert "None of these presets has been trained here" in readme(name)


@pytest.mark.parametrize(
    ("name", "command"),
    [pytest.param(name, words, id=" ".join(words)) for name, page in PAGES.items() for words in commands(page)],
)
def test_every_command_parses(
    name: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECIPES / name)
    parse(command, capsys)


@pytest.mark.parametrize(
    ("name", "link"), [(name, link) for name in SIZES for link in re.findall(r"\]\(([^)]+)\)", readme(name))]
)
def test_every_link_leads_somewhere(name: str, link: str) -> None:
    assert (RECIPES / name / link).is_file()


@each_recipe
def test_make_names_the_presets_it_knows(name: str) -> None:
    done = make(name, "PRESET=huge")
    assert done.returncode != 0 and f"wanted one of: {KNOWN[name]}" in done.stderr
