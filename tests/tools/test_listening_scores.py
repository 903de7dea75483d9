"""The figures of listening tests: known tables, exact intervals beside scipy's, laws of the bootstrap, bad files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import listening_scores as tool
import pytest

from audiolm_kit.evaluation.measures import Bootstrap

AB = ("page", "mode", "listener", "seed", "trial", "item", "left", "right", "take", "choice", "seconds", "time")
MOS = ("page", "mode", "listener", "seed", "trial", "item", "arm", "take", "score", "seconds", "time")
BOOTSTRAP = Bootstrap(200, 0)


def saved(path: Path, rows: list[dict[str, Any]], listener: str = "anna") -> Path:
    """A file as pages save it; what a row does not say is the same in all."""
    columns = AB if "choice" in rows[0] else MOS
    about = {"page": "p", "mode": "ab" if columns is AB else "mos", "listener": listener, "seed": 1, "take": 1}
    with open(path, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, columns)
        writer.writeheader()
        for trial, row in enumerate(rows, 1):
            told = {
                **about,
                "trial": trial,
                "item": f"item {trial}",
                "seconds": 4.5,
                "time": "2026-11-22T10:00:00.000Z",
            }
            writer.writerow({**told, **row})
    return path


def votes(*choices: str) -> list[dict[str, Any]]:
    """Sides by turns: b and a, a and b, ..."""
    return [
        {"left": "ba"[place % 2], "right": "ab"[place % 2], "choice": choice} for place, choice in enumerate(choices)
    ]


def test_a_choice_counts_for_the_arm_on_that_side(tmp_path: Path) -> None:
    # b|a left -> b; a|b left -> a; b|a right -> a; a|b right -> b; b|a same
    file = saved(tmp_path / "x.csv", votes("left", "left", "right", "right", "same"))
    [found] = tool.preferences(tool.read_answers([file]), BOOTSTRAP)
    assert (found["arms"], found["first"], found["same"], found["second"]) == (["a", "b"], 2, 1, 2)
    assert found["preference"] == found["decided"] == 0.5 and found["p"] == 1.0
    assert (found["answers"], found["listeners"], found["items"]) == (5, 1, 5)


def test_turning_all_sides_around_changes_no_preference(tmp_path: Path) -> None:
    rows = votes("left", "left", "right", "same", "left", "left")
    other = {"left": "right", "right": "left", "same": "same"}
    turned = [{"left": row["right"], "right": row["left"], "choice": other[row["choice"]]} for row in rows]
    found = [
        tool.preferences(tool.read_answers([saved(tmp_path / name, each)]), BOOTSTRAP)
        for name, each in (("a.csv", rows), ("b.csv", turned))
    ]
    assert found[0] == found[1]


def test_mean_scores_come_best_first_with_their_counts(tmp_path: Path) -> None:
    rows = [
        {"arm": arm, "score": score} for arm, score in (("low", 1), ("low", 2), ("high", 5), ("high", 4), ("high", 4))
    ]
    found = tool.scores(tool.read_answers([saved(tmp_path / "x.csv", rows)]), BOOTSTRAP)
    assert [(row["arm"], round(row["mos"], 3), row["counts"]) for row in found] == [
        ("high", 4.333, [0, 0, 0, 2, 1]),
        ("low", 1.5, [1, 1, 0, 0, 0]),
    ]
    assert all(1 <= row["bootstrap"][0] <= row["mos"] <= row["bootstrap"][1] <= 5 for row in found)


def test_exact_interval_and_sign_test_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for wins, total in ((0, 5), (5, 5), (1, 7), (13, 20), (60, 100), (801, 1500)):
        ours = tool.exact_interval(wins, total)
        judged = stats.binomtest(wins, total)
        assert ours == pytest.approx(tuple(judged.proportion_ci(0.95, "exact")), abs=1e-9)
        assert tool.sign_test(wins, total - wins) == pytest.approx(judged.pvalue, abs=1e-12)
    assert tool.sign_test(0, 0) == 1.0 and all(map(math.isnan, tool.exact_interval(0, 0)))


def test_listeners_who_differ_widen_the_interval(tmp_path: Path) -> None:
    """Ten answers of each of two listeners: the same mean, once every listener is divided, once they disagree."""

    def width(first: list[int], second: list[int]) -> float:
        folder = tmp_path / f"{first}"
        folder.mkdir()
        for name, values in (("anna", first), ("ben", second)):
            saved(folder / f"{name}.csv", [{"arm": "x", "score": value} for value in values], name)
        [found] = tool.scores(tool.read_answers([folder]), Bootstrap(1000, 0))
        assert found["mos"] == 3 and found["listeners"] == 2
        return found["bootstrap"][1] - found["bootstrap"][0]

    alike = width([2, 4] * 5, [4, 2] * 5)
    assert width([2] * 10, [4] * 10) > 1.3 * alike


def test_one_answer_has_no_interval(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.csv", [{"arm": "x", "score": 3}])
    [found] = tool.scores(tool.read_answers([file]), BOOTSTRAP)
    assert found["mos"] == 3 and all(map(math.isnan, found["bootstrap"]))


def test_an_answer_that_was_saved_twice_counts_once_the_later_one(tmp_path: Path) -> None:
    row = {"arm": "x", "score": 2, "time": "2026-11-22T10:00:00.000Z"}
    saved(tmp_path / "b.csv", [row])
    saved(tmp_path / "a.csv", [{**row, "score": 5, "time": "2026-11-22T10:05:00.000Z"}])
    [answer] = tool.read_answers([tmp_path])
    assert answer.value == 5


def test_habits_show_haste_and_one_sided_answers(tmp_path: Path) -> None:
    saved(tmp_path / "a.csv", [{**row, "seconds": 0.5} for row in votes(*["left"] * 10)], "hasty")
    saved(tmp_path / "b.csv", votes(*["left", "right"] * 5), "calm")
    found = {row["listener"]: row for row in tool.habits(tool.read_answers([tmp_path]))}
    assert found["hasty"]["left"] == found["hasty"]["sides"] == 10 and found["hasty"]["p"] < 0.01
    assert found["hasty"]["seconds"] == 0.5 and found["calm"]["left"] == 5 and found["calm"]["p"] == 1.0


def test_tables_are_printed_and_figures_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "ab.csv", votes("same"))
    saved(tmp_path / "mos.csv", [{"arm": "a|b", "score": 4}])
    tool.main([str(tmp_path), "-o", str(tmp_path / "out.json"), "--draws", "50"])
    said = capsys.readouterr().out
    assert "| a – b | 1 | 0 | 1 | 0 | 50% | – | – | – | 1 |" in said and "| a\\|b | 1 | 1 | 1 | 4.00 | – |" in said
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["preferences"][0]["decided"] is None and written["scores"][0]["mos"] == 4
    lines = [line for line in said.splitlines() if line]
    assert all(line.count(" |") + line.count("-|") >= 6 for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "no column 'mode'"),
        ("", "no column 'mode'"),
        (",".join(MOS) + "\n", "no answers in it"),
        (",".join(MOS) + "\np,xy,anna,1,1,i,x,1,3,2,t\n", "line 2: mode is 'xy', want ab or mos"),
        (",".join(MOS) + "\np,mos,anna,1,1,i,x,1,6,2,t\n", "line 2: score is '6', want 1 to 5"),
        (",".join(MOS) + "\np,mos,anna,1,1,i,x,1,,2,t\n", "line 2: score is missing"),
        (",".join(MOS) + "\np,mos,anna,1,1,i,x,1,3,soon,t\n", "line 2: seconds is 'soon'"),
        (",".join(AB) + "\np,ab,anna,1,1,i,x,y,1,up,2,t\n", "line 2: choice is 'up', want left, right, same"),
    ],
)
def test_bad_files_end_with_one_line(tmp_path: Path, capsys, content: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(tmp_path / "x.csv")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and said in error


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", (",".join(MOS) + '\np,mos,"anna').encode()])
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.csv: no CSV file that a listening page has saved"):
        tool.read_answers([tmp_path])


def test_ends_of_lines_within_an_item_stay(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.csv", [{"arm": "x", "score": 3, "item": "two\r\nlines"}])
    assert tool.read_answers([file])[0].item == "two\r\nlines"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.csv files"):
        tool.read_answers([tmp_path])
