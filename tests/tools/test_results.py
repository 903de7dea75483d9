"""A page says what its files say, no more and no less."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import results
from bench_cases import Row

ROOT = Path(__file__).parents[2]
ROW = {"what": "digit heard", "value": 0.9125, "percent": True, "interval": [0.88, 0.94], "count": 250}
BEGIN, END = "<!-- results -->", "<!-- /results -->"


@pytest.mark.parametrize("page", results.all_pages(), ids=results.told)
def test_a_page_agrees_with_its_files(page: Path) -> None:
    rebuilt = results.rebuild(page)
    assert not rebuilt.differing and not rebuilt.staying, "python tools/results.py"


def test_every_recipe_with_results_is_among_the_pages() -> None:
    pages = results.all_pages()
    assert {file.parents[1] / "README.md" for file in ROOT.glob("recipes/*/results/*.json")} <= set(pages)
    assert ROOT / "docs" / "performance.md" in pages


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in a tree of its own, with the only page of it."""
    folder = tmp_path / "recipes" / "a"
    (folder / "results").mkdir(parents=True)
    (folder / "README.md").write_text(f"# A recipe\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "all_pages", lambda own=results.all_pages: own(tmp_path))
    monkeypatch.setattr(sys, "argv", ["results.py"])
    return folder


def written(recipe: Path, name: str = "main", **content: Any) -> Path:
    file = recipe / "results" / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


def rewritten(recipe: Path) -> str:
    results.main([str(recipe / "README.md")])
    return (recipe / "README.md").read_text()


def refused(*arguments: str, code: int = 2) -> None:
    with pytest.raises(SystemExit) as stop:
        results.main([*arguments])
    assert stop.value.code == code


# --- tables -----------------------------------------------------------------------------------------------------------


def test_without_results_nothing_is_claimed(recipe: Path) -> None:
    assert rewritten(recipe) == f"# A recipe\n\n{BEGIN}\n{results.NOTHING}\n{END}\n\nMore.\n"


def test_a_row_says_value_interval_count_and_rule(recipe: Path) -> None:
    rule = {"wanted": "at least 95 % of the real", "reached": 0.9412, "passed": False}
    written(recipe, table=[ROW | {"rule": rule}])
    wanted = "| digit heard | 91.2 % | 88.0 % to 94.0 % | 250 | at least 95 % of the real | 94.1 % | **not met** |"
    assert wanted in rewritten(recipe).splitlines()


def test_a_rule_of_so_many_times_is_reached_by_a_factor(recipe: Path) -> None:
    rule = {"wanted": "at least 3.3 times as fast as 1 stream", "reached": 5.5703, "passed": True}
    written(recipe, table=[{"what": "seconds", "value": 7.784, "rule": rule}])
    assert f"| seconds | 7.784 |  |  | {rule['wanted']} | x5.57 | met |" in rewritten(recipe).splitlines()


def test_what_a_rule_reached_is_a_share_unless_it_is_the_value_itself(recipe: Path) -> None:
    rule = {"wanted": "at least 0.691", "reached": 0.7854, "passed": True}
    share = {"wanted": "interval above 0 (reached: sounds for which)", "reached": 1.0, "passed": True}
    written(recipe, table=[{"what": "a", "value": 0.78541, "rule": rule}, {"what": "b", "value": 3.886, "rule": share}])
    lines = rewritten(recipe).splitlines()
    assert f"| a | 0.785 |  |  | {rule['wanted']} | 0.785 | met |" in lines
    assert f"| b | 3.886 |  |  | {share['wanted']} | 100.0 % | met |" in lines


def test_a_similarity_is_no_percentage_and_a_missing_value_is_said(recipe: Path) -> None:
    written(recipe, table=[{"what": "voice", "value": 0.8712}, {"what": "silence only", "value": None, "count": 0}])
    lines = rewritten(recipe).splitlines()
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
    written(recipe, about=about, table=[ROW])
    facts = "commit `abc123`, 2 cores of A processor, 1.50 hours (codec 60 min, lm 30 s), "
    facts += "killed tries not counted: lm 1, 2026-01-02"
    assert f"`results/main.json`: {facts}\n\n    make -C recipes/a\n\n{results.HEAD}" in rewritten(recipe)


def test_rewriting_twice_changes_nothing_and_keeps_the_rest(recipe: Path) -> None:
    for name in ("b", "a"):
        written(recipe, name, table=[ROW])
    once = rewritten(recipe)
    assert once == rewritten(recipe)
    assert once.startswith("# A recipe\n\n") and once.endswith("\n\nMore.\n") and "old" not in once
    assert once.index("a.json") < once.index("b.json")


def test_sizes_are_those_that_the_script_beside_the_page_counts(recipe: Path) -> None:
    (recipe / "README.md").write_text("<!-- sizes -->\nold\n<!-- /sizes -->\n")
    (recipe / "sizes.py").write_text("def table() -> str:\n    return f'| {2 * 3:,} |'\n")
    assert rewritten(recipe) == "<!-- sizes -->\n| 6 |\n<!-- /sizes -->\n"


def test_benchmarks_are_those_beside_the_page_that_measured_the_section(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind: dict[str, Any] = {"section": "limits", "kind": "reads", "task": "reads", "unit": "GB/s", "work": 2e9}
    rows = [asdict(Row(by="m", option="sum", times=[1.0, 0.5, 2.0], **kind))]
    about = {"device": "cpu", "hardware": {"cpu": "P", "cores": 2, "capability": "AVX2"}, "versions": {"torch": "2"}}
    about |= {"threads": 2, "date": "2026-01-02", "seconds": 60}
    stored = {"about": about, "limits": {"reads": 1.0}, "rows": rows}
    (recipe / "bench.json").write_text(json.dumps(stored))
    page = recipe / "README.md"
    page.write_text("<!-- bench limits -->\n<!-- /bench limits -->\n<!-- bench codec -->\n<!-- /bench codec -->\n")
    text = rewritten(recipe)
    assert "`bench.json`: 2 cores of P (AVX2), 2 threads; torch 2; 2026-01-02, 1 minutes" in text
    assert "| reads | m | sum | 2 GB/s | 1 to 4 |" in text
    assert f"<!-- bench codec -->\n{results.NOTHING}\n<!-- /bench codec -->" in text
    page.write_text("<!-- bench singing -->\n<!-- /bench singing -->\n")
    refused(str(page))
    assert "bench singing is no section: give one of decode" in capsys.readouterr().err


# --- single figures ---------------------------------------------------------------------------------------------------

COMMENTED = (
    "heard: {}<!-- a/main: digit -->, 0<!-- reached of a/main: steps of\n1 --> times, {}<!-- hours of a/main -->"
)


@pytest.fixture
def front(recipe: Path) -> Path:
    """A page that shows single figures of the recipe, as the front page does."""
    rows = [ROW, {"what": "steps of 1 stream", "value": 4321.5, "rule": {"reached": 5.57, "passed": True}}]
    written(recipe, about={"hours": 1.34}, table=rows)
    page = recipe.parents[1] / "README.md"
    page.write_text(COMMENTED.format("0.0 %", "2.5"))
    return page


def test_a_figure_is_read_anew_and_keeps_its_decimals(recipe: Path, front: Path) -> None:
    results.main([])
    assert front.read_text() == COMMENTED.format("91.2 %", "1.3").replace("0<!-- reached", "6<!-- reached")
    front.write_text("-0.12<!-- a/main: digit -->, 1 %<!-- a/main: digit -->, 1.0<!-- a/main: steps -->")
    results.main([])
    assert front.read_text() == "0.91<!-- a/main: digit -->, 91 %<!-- a/main: digit -->, 4,321.5<!-- a/main: steps -->"


def test_a_name_that_others_begin_with_is_told_by_its_end(recipe: Path, front: Path) -> None:
    rows = [{"what": f"heard{more}", "value": value} for more, value in (("", 3.0), (" less others", 1.0))]
    written(recipe, about={}, table=rows)
    front.write_text("0.0<!-- a/main: heard --> 0.0<!-- a/main: heard less -->")
    results.main([])
    assert front.read_text() == "3.0<!-- a/main: heard --> 1.0<!-- a/main: heard less -->"


def test_a_dash_between_figures_is_no_sign(front: Path) -> None:
    front.write_text("from 3-5<!-- a/main: steps of -->")
    results.main([])
    assert front.read_text() == "from 3-4,322<!-- a/main: steps of -->"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 %<!-- a/main: heard by nobody -->", "names 0 rows: give a part of the name of one alone"),
        ("1 %<!-- a/main: e -->", "names 2 rows"),
        ("1 %<!-- a/main -->", "names 0 rows"),
        ("some <!-- a/main: digit -->", "no figure stands right before <!-- a/main: digit -->"),
    ],
)
def test_a_comment_that_names_no_figure_is_refused(
    front: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    front.write_text(text)
    refused(str(front))
    told = capsys.readouterr().err
    assert message in told and "README.md" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 %<!-- reached of a/main: digit -->", "names what has no value in"),
        ("1 %<!-- b/main: digit -->", "names what is not measured, there is no"),
    ],
)
def test_a_figure_that_is_not_measured_stays_as_it_is_unless_it_is_checked(
    front: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    front.write_text(f"{text} 9 %<!-- a/main: digit -->")
    results.main([str(front)])
    assert front.read_text() == f"{text} 91 %<!-- a/main: digit -->"
    told = capsys.readouterr().out
    assert f"keeps 1 %: {text.removeprefix('1 %')} {reason}" in told and "README.md" in told
    refused("--check", str(front))
    told = capsys.readouterr().err
    assert reason in told and told.count("\n") == 1


# --- what differs -----------------------------------------------------------------------------------------------------


def test_check_names_each_page_and_file_that_differ_and_writes_nothing(
    recipe: Path, front: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(recipe, "other", table=[ROW])
    results.main([])
    capsys.readouterr()
    results.main(["--check"])
    assert capsys.readouterr().out == ""
    written(recipe, about={"hours": 1.34}, table=[ROW | {"value": 0.5}, {"what": "steps of 1", "value": 1}])
    before = [page.read_text() for page in (front, recipe / "README.md")]
    front.write_text(front.read_text().replace("<!-- reached of a/main: steps of\n1 -->", ""))
    before[0] = front.read_text()
    refused("--check", code=1)
    assert capsys.readouterr().out.splitlines() == [
        "README.md has 91.2 % where recipes/a/results/main.json says 50.0 %: <!-- a/main: digit -->",
        "recipes/a/README.md is not what recipes/a/results/main.json says",
    ]
    assert [page.read_text() for page in (front, recipe / "README.md")] == before


def test_a_row_that_no_file_has_differs_too(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(recipe, table=[ROW, ROW])
    page = recipe / "README.md"
    row = rewritten(recipe).splitlines()[-5]
    assert row.startswith("| digit heard")
    for wrong in (f"{row}\n{row}\n{END}", f"{row}\n\nBy hand.\n{END}"):
        page.write_text(rewritten(recipe).replace(f"{row}\n{END}", wrong))
        refused("--check", code=1)
    (recipe / "results" / "main.json").unlink()
    capsys.readouterr()
    refused("--check", code=1)
    assert "recipes/a/README.md has more between <!-- results --> and <!-- /results -->" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["spoken_digits", "streams"])
def test_a_changed_value_of_a_recipe_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "recipes" / name
    shutil.copytree(ROOT / "recipes" / name / "results", folder / "results")
    shutil.copy(ROOT / "recipes" / name / "README.md", folder)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert not results.rebuild(folder / "README.md").differing
    file = sorted(folder.glob("results/*.json"))[-1]
    content = json.loads(file.read_text())
    content["table"][2]["value"] += 0.001
    file.write_text(json.dumps(content))
    wanted = f"recipes/{name}/README.md is not what recipes/{name}/results/{file.name} says"
    assert results.rebuild(folder / "README.md").differing == [wanted]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ['{"rows": []}', "[]", "{", '{"table": [{"value": 1}]}'])
def test_other_json_is_refused_in_one_line_and_the_page_stays(
    recipe: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (recipe / "results" / "main.json").write_text(content)
    before = (recipe / "README.md").read_text()
    refused(str(recipe / "README.md"))
    message = capsys.readouterr().err
    assert "main.json" in message and message.count("\n") == 1
    assert (recipe / "README.md").read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "# A recipe\n",
        f"{BEGIN}\n",
        f"{END}\n{BEGIN}\n",
        f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n",
        "<!-- sizes -->\n<!-- /results -->\n",
    ],
)
def test_a_page_without_its_marks_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (recipe / "README.md").write_text(text)
    refused(str(recipe / "README.md"))
    assert "want one line <!-- " in capsys.readouterr().err


def test_results_that_no_page_shows_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(recipe, table=[ROW])
    (recipe / "README.md").write_text("# A recipe\n")
    refused()
    assert "for recipes/a/results/main.json" in capsys.readouterr().err


def test_all_pages_are_made_before_the_first_is_written(recipe: Path, front: Path) -> None:
    (recipe / "README.md").write_text(f"{BEGIN}\n")
    before = front.read_text()
    refused()
    assert front.read_text() == before


def test_sizes_without_a_script_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe / "README.md").write_text("<!-- sizes -->\n<!-- /sizes -->\n")
    refused(str(recipe / "README.md"))
    assert "a table of sizes wants recipes/a/sizes.py" in capsys.readouterr().err
