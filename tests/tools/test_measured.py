"""Means, intervals and the record that stand in a table of results."""

from __future__ import annotations

import json
from pathlib import Path

import measured
import numpy as np
import pytest


def test_an_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    coin = np.array([0.0, 1.0] * 50)
    few, many = measured.score(coin), measured.score(np.tile(coin, 16))
    assert few["value"] == many["value"] == 0.5
    assert few["interval"][0] < 0.5 < few["interval"][1]
    assert many["interval"][1] - many["interval"][0] < 0.3 * (few["interval"][1] - few["interval"][0])
    assert many["count"] == 1600


def test_no_values_give_no_score() -> None:
    assert measured.score([]) == {"value": None, "interval": None, "count": 0}


def test_models_that_differ_widen_the_interval() -> None:
    alike = measured.score_of_models([np.array([0.0, 1.0] * 100)] * 3)
    apart = measured.score_of_models([np.zeros(200), np.array([0.0, 1.0] * 100), np.ones(200)])
    assert alike["value"] == apart["value"] == 0.5
    assert apart["interval"][1] - apart["interval"][0] > 4 * (alike["interval"][1] - alike["interval"][0])
    assert apart["by_model"] == [0.0, 0.5, 1.0] and apart["count"] == 600


def test_the_interval_of_models_is_that_of_their_sounds_where_there_is_one_model() -> None:
    values = np.random.default_rng(0).random(300)
    one, plain = measured.score_of_models([values]), measured.score(values)
    assert one["value"] == plain["value"]
    assert one["interval"] == pytest.approx(plain["interval"], abs=0.005)


def test_diversity_is_the_mean_distance_of_a_groups_pairs() -> None:
    same = np.tile([[1.0, 0.0]], (4, 1))
    assert measured.diversity(same, ["a"] * 4) == pytest.approx(0)
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert measured.diversity(corners, ["a"] * 3) == pytest.approx((3 + 4 + 5) / 3)
    assert measured.diversity(corners - 128, ["a"] * 3) == pytest.approx(4)


def test_diversity_looks_inside_groups_alone() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert measured.diversity(vectors, ["a", "a", "b", "b"]) == pytest.approx(0)
    assert measured.diversity(vectors, ["a", "b", "a", "b"]) == pytest.approx(2**0.5)


def test_stage_times_add_up_tries_and_count_the_killed(tmp_path: Path) -> None:
    (tmp_path / "codec").write_text("begun\n100\nbegun\nbegun\n20\n")
    assert measured.stage_times(tmp_path) == {"seconds": {"codec": 120}, "killed": {"codec": 1}, "hours": 0.03}
    assert measured.stage_times(None)["hours"] is None


def test_only_the_stages_that_figures_rest_on_count(tmp_path: Path) -> None:
    for stage in ("codec", "lm-guided-0", "lm-guided-1", "lm-flatten-0"):
        (tmp_path / stage).write_text("begun\n360\n")
    found = measured.stage_times(tmp_path, ["codec", "lm-guided-*"])
    assert sorted(found["seconds"]) == ["codec", "lm-guided-0", "lm-guided-1"] and found["hours"] == 0.3


def test_a_folder_without_judges_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"judges\.py: give a folder with a judges\.py"):
        measured.open_judges(tmp_path)


def test_results_are_written_whole(tmp_path: Path) -> None:
    measured.write_json(tmp_path / "new" / "a.json", {"value": "é"})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"value": "é"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
