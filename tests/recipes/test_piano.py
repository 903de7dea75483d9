"""recipes/piano: pieces of recordings, what notes say of music, and when the rules are met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from reading import RECIPES, load

from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

RECIPE = RECIPES / "piano"
experiment, music, pieces, results = (load("piano", name) for name in ("experiment", "music", "pieces", "results"))


def test_what_is_judged_is_what_was_made() -> None:
    assert (results.PROMPT, results.SECONDS) == (experiment.CONTINUATIONS.prompt, experiment.CONTINUATIONS.seconds)


# --- pieces


def test_pieces_are_equal_parts_of_all_of_a_recording() -> None:
    row = Row("/a.flac", 100.0, start=5.0, extra={"piece": "a"})
    found = pieces.pieces_of(row, 30.0)
    assert [(each.start, each.duration) for each in found] == [(5, 25), (30, 25), (55, 25), (80, 25)]
    assert all(each.extra == {"piece": "a"} for each in found)
    assert pieces.pieces_of(row, 100.0) == [row] == pieces.pieces_of(row, 1000.0)
    thirds = pieces.pieces_of(Row("/b.flac", 10.0), 4.0)
    assert sum(each.duration for each in thirds) == pytest.approx(10) and len(thirds) == 3


def test_the_pieces_that_are_drawn_keep_their_order_and_are_always_the_same() -> None:
    rows = [Row(f"/{number}.flac", 1.0) for number in range(50)]
    found = pieces.some(rows, 7)
    assert len(found) == 7 and found == sorted(found, key=rows.index) == pieces.some(rows, 7)
    assert pieces.some(rows, 50) == rows


def test_the_script_writes_pieces_and_refuses_no_length(tmp_path: Path) -> None:
    write_manifest(tmp_path / "in.jsonl", [Row(str(tmp_path / "a.wav"), 65.0, split="valid")])
    command = [sys.executable, RECIPE / "pieces.py", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"]
    subprocess.run([*map(str, command), "--seconds", "30"], check=True, capture_output=True)
    assert len(read_manifest(tmp_path / "out.jsonl", "valid")) == 3
    done = subprocess.run([*map(str, command), "--seconds", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "seconds is 0.0: give a positive number" in done.stderr


# --- what notes say


def test_chroma_counts_what_sounds_between_the_times() -> None:
    notes = np.array([[0.0, 5.0, 60], [4.5, 5.5, 72], [5.0, 7.0, 67], [11.0, 12.0, 61]])
    found = music.chroma(notes, 4.0, 10.0)
    assert found[[0, 7]].tolist() == pytest.approx([2 / 4, 2 / 4]) and found.sum() == pytest.approx(1)
    assert not music.chroma(notes, 20.0, 30.0).any()
    assert not music.chroma(np.zeros((0, 3)), 0.0, 1.0).any()


def test_rhythm_counts_chords_once_between_onsets() -> None:
    notes = np.array([[1.0, 2.0, 60], [1.02, 2.0, 64], [2.0, 3.0, 60], [4.0, 5.0, 60]])
    rate, gap, at_once = music.rhythm(notes, 0.0, 5.0)
    assert (rate, gap, at_once) == pytest.approx((4 / 5, (1 + 2) / 2, 3.98 / 5))
    assert music.rhythm(np.zeros((0, 3)), 4.0, 10.0).tolist() == [0, 6, 0]


def test_distances_are_those_of_equals_and_of_nothing() -> None:
    c, g, none = np.eye(12)[0], np.eye(12)[7], np.zeros(12)
    assert music.chroma_distance(c, c) == 0 and music.chroma_distance(c, g) == 1
    assert music.chroma_distance((c + g) / 2, g) == 0.5
    assert music.chroma_distance(c, none) == 1 and music.chroma_distance(none, none) == 0
    assert music.rhythm_distance(np.array([1.0, 2, 3]), np.array([2.0, 2, 1]), np.array([1.0, 1, 2])) == 2 / 3


def write_arm(folder: Path, pitches: list[int]) -> None:
    """Sounds of one note a second, each on its own pitch; two pieces in turn."""
    folder.mkdir(parents=True)
    sounds = [
        {"labels": ["ab"[number % 2]], "notes": [[second, second + 0.5 + 0.01 * number, pitch] for second in range(20)]}
        for number, pitch in enumerate(pitches)
    ]
    (folder / "notes.json").write_text(json.dumps({"asked": {}, "sounds": sounds}))


@pytest.mark.parametrize("near", [True, False])
def test_the_rule_is_met_by_continuations_that_are_nearer_alone(tmp_path: Path, near: bool) -> None:
    real = [60, 62] * 5
    for name in ("real", "reconstruction"):
        write_arm(tmp_path / "recordings" / name, real)
    for seed in range(3):
        write_arm(tmp_path / "continuations" / f"audiolm-{seed}", real if near else [61] * 10)
        write_arm(tmp_path / "continuations" / f"free-{seed}", [60] * 10)
        write_arm(tmp_path / "continuations" / f"only-{seed}", [60] * 10)
    rows = results.continuations(ModuleType("judges"), tmp_path)
    rules = {row["what"]: row["rule"]["passed"] for row in rows if "rule" in row}
    assert [name.partition(":")[0] for name in rules] == ["pitch classes", "onsets"]
    assert list(rules.values()) == [near, False]  # the onsets are the same in both
    by_name = {row["what"]: row["value"] for row in rows}
    assert by_name["pitch classes: its codec reconstruction (ceiling)"] == 0
    assert by_name["pitch classes: real continuations in other pieces (floor)"] == 1
    assert by_name["pitch classes: acoustic codes alone"] == 0.5
    assert by_name["notes a second: real continuations"] == 1
