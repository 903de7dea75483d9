"""A recipe's README says what its results say, no more and no less."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "results_table.py"
ROW = {"what": "digit heard", "value": 0.9125, "percent": True, "interval": [0.88, 0.94], "count": 250}


def load_tool() -> ModuleType:
    """The tool as a module: tools/ is a folder of scripts, no package."""
    spec = importlib.util.spec_from_file_location("results_table", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["results_table"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()
MARKED = sorted(file for file in ROOT.glob("recipes/*/README.md") if tool.BEGIN in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("readme", MARKED, ids=lambda file: file.parent.name)
def test_a_readme_agrees_with_the_results_beside_it(readme: Path) -> None:
    _, inside, _ = tool.between(readme.read_text(encoding="utf-8"))
    assert inside == tool.render(sorted(readme.parent.glob("results/*.json"))), (
        f"make -C {readme.parent.relative_to(ROOT)} table"
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text(f"# A recipe\n\n{tool.BEGIN}\nold\n{tool.END}\n\nMore.\n")
    return tmp_path


def written(recipe: Path, name: str = "main", **content: Any) -> Path:
    file = recipe / "results" / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


def rewritten(recipe: Path, *files: Path) -> str:
    tool.main([str(recipe / "README.md"), *map(str, files)])
    return (recipe / "README.md").read_text()


def test_without_results_nothing_is_claimed(recipe: Path) -> None:
    assert rewritten(recipe) == f"# A recipe\n\n{tool.BEGIN}\n{tool.NOTHING}\n{tool.END}\n\nMore.\n"


def test_a_row_says_value_interval_count_and_rule(recipe: Path) -> None:
    rule = {"wanted": "at least 95 % of the real", "reached": 0.9412, "passed": False}
    text = rewritten(recipe, written(recipe, table=[ROW | {"rule": rule}]))
    wanted = "| digit heard | 91.2 % | 88.0 % to 94.0 % | 250 | at least 95 % of the real | 94.1 % | **not met** |"
    assert wanted in text.splitlines()


def test_a_similarity_is_no_percentage_and_a_missing_value_is_said(recipe: Path) -> None:
    rows = [{"what": "voice", "value": 0.8712}, {"what": "silence only", "value": None, "count": 0}]
    lines = rewritten(recipe, written(recipe, table=rows)).splitlines()
    assert "| voice | 0.871 |  |  |  |  |  |" in lines and "| silence only | none |  | 0 |  |  |  |" in lines


def test_the_line_above_a_table_says_how_it_came_about(recipe: Path) -> None:
    about = {
        "command": "make -C recipes/a",
        "commit": "abc123",
        "date": "2026-01-02",
        "hardware": {"cpu": "A processor", "cores": 2},
        "hours": 1.5,
        "seconds": {"codec": 3600, "lm": 30},
        "killed": {"lm": 1},
    }
    text = rewritten(recipe, written(recipe, about=about, table=[ROW]))
    facts = "commit `abc123`, 2 cores of A processor, 1.50 hours (codec 60 min, lm 30 s), "
    facts += "killed tries not counted: lm 1, 2026-01-02"
    assert f"`results/main.json`: {facts}\n\n    make -C recipes/a\n\n{tool.HEAD}" in text


def test_rewriting_twice_changes_nothing_and_keeps_the_rest(recipe: Path) -> None:
    files = [written(recipe, name, table=[ROW]) for name in ("b", "a")]
    once = rewritten(recipe, *files)
    assert once == rewritten(recipe, *files)
    assert once.startswith("# A recipe\n\n") and once.endswith("\n\nMore.\n") and "old" not in once
    assert once.index("a.json") < once.index("b.json")


@pytest.mark.parametrize("content", ['{"rows": []}', "[]", "{", '{"table": [{"value": 1}]}'])
def test_other_json_is_refused_in_one_line_and_the_readme_stays(
    recipe: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file, before = recipe / "results" / "main.json", (recipe / "README.md").read_text()
    file.write_text(content)
    with pytest.raises(SystemExit) as stop:
        rewritten(recipe, file)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "main.json" in message and message.count("\n") == 1
    assert (recipe / "README.md").read_text() == before


def test_a_readme_without_markers_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe / "README.md").write_text("# A recipe\n")
    with pytest.raises(SystemExit):
        rewritten(recipe)
    assert tool.BEGIN in capsys.readouterr().err
