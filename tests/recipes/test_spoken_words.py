"""The recipe's own scripts and rules: windows in which a word is said, digits and words apart, and one row for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import guidance_table
import numpy as np
import pytest
import sound_arms
import torch
import yaml
from reading import RECIPES, ROOT, content, load, make, planned

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

windows = load("spoken_words", "windows")
experiment = load("spoken_words", "experiment")
results = load("spoken_words", "results")


def recording(tmp_path: Path, said: slice, seconds: float = 1.0) -> Row:
    """A loud part in near silence, at 1 kHz."""
    generator = torch.Generator().manual_seed(0)
    samples = 1e-3 * torch.randn(1, round(seconds * 1000), generator=generator)
    samples[:, said] = 0.3
    audio.write(tmp_path / "a.wav", Sound(samples, 1000))
    return Row(str(tmp_path / "a.wav"), seconds, caption="a person says the word yes", label="yes", split="train")


@pytest.mark.parametrize(
    ("said", "start"),
    [
        (slice(120, 500), 0.07),  # a little before the word
        (slice(0, 400), 0.0),
        (slice(500, 950), 0.2),  # no later than the recording allows
    ],
)
def test_a_window_begins_a_little_before_its_word(tmp_path: Path, said: slice, start: float) -> None:
    window = windows.window_of(recording(tmp_path, said), 0.8)
    assert (window.start, window.duration) == (pytest.approx(start), 0.8)
    assert window.caption == "a person says the word yes"


def test_of_what_is_loud_for_longer_a_window_holds_the_loudest_part(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 2000), seconds=2.0)
    samples = torch.full((1, 2000), 0.05)
    samples[:, 900:1200] = 0.5
    audio.write(row.path, Sound(samples, 1000))
    assert 0.7 <= windows.window_of(row, 0.5).start <= 0.9
    assert windows.window_of(Row(row.path, 1.0, start=1.0), 0.5).start == pytest.approx(1.0)


def test_a_word_that_was_cut_out_stays_as_it_is(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(100, 300), seconds=0.4)
    assert windows.window_of(row, 0.8) == row


def test_silence_has_a_window_too(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 0))
    audio.write(row.path, Sound(torch.zeros(1, 1000), 1000))
    assert windows.window_of(row, 0.8).duration == 0.8


def test_the_script_writes_a_manifest_of_all_recordings(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(120, 500))
    write_manifest(tmp_path / "in.jsonl", [row, Row(row.path, 0.5, label="no")])
    command = [sys.executable, RECIPES / "spoken_words/windows.py", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert "2 recordings, 1 of them cut to 0.8 s" in done.stdout
    assert [row.duration for row in read_manifest(tmp_path / "out.jsonl")] == [0.8, 0.5]
    done = subprocess.run([*map(str, command), "--seconds", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "give a positive number" in done.stderr


def test_digits_of_both_corpora_are_digits_and_all_else_is_words() -> None:
    rows = [Row("a.wav", 0.5, caption=f"says {label}", label=label) for label in ("seven", "stop", "zero")]
    assert [row.label for row in experiment.of_kind(rows, "digits")] == ["seven", "zero"]
    assert [row.label for row in experiment.of_kind(rows, "words")] == ["stop"]
    with pytest.raises(ValueError, match="no held-out recording is of words"):
        experiment.of_kind(rows[:1], "words")


def test_the_models_sounds_are_as_long_as_the_windows_they_learned() -> None:
    _, data, _ = content("spoken_words", "lm")
    codec, _, _ = content("spoken_words", "codec")
    network = codec["codec"]["convnext"]
    frame = network["hop"] * network["frames_per_code"] / codec["codec"]["sample_rate"]
    assert data["frames"] * frame == pytest.approx(experiment.SECONDS)
    plan = planned("spoken_words", "models")
    assert f"--seconds {experiment.SECONDS:g}" in plan and f"--pad {experiment.SECONDS:g}" in plan


def test_takes_are_those_that_the_table_and_the_published_model_ask_for() -> None:
    assert tuple(guidance_table.BEST) == sound_arms.SEVERAL
    names = {sound_arms.chosen("spoken-0", 0.8, 0, takes).name for takes in sound_arms.SEVERAL}
    assert names == {f"spoken-0-scale-{name}" for name in guidance_table.BEST.values()}
    about = yaml.safe_load((ROOT / "tools/published/spoken-digits.yaml").read_text(encoding="utf-8"))
    assert about["example"]["candidates"] == guidance_table.ASKED
    assert about["example"]["seconds"] == experiment.SECONDS


def test_corpora_are_found_by_their_names_or_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("fsdd", "speech_commands_v0.02", "music"):
        (tmp_path / name).mkdir()
    plan = planned("spoken_words", f"DATA={tmp_path}", "models")
    assert f'manifest "{tmp_path}/fsdd" "{tmp_path}/speech_commands_v0.02" -o' in plan
    assert f'manifest "{tmp_path}/music" -o' in planned("spoken_words", f"DATA={tmp_path}/music", "models")
    done = make("spoken_words", "models", f"OUT={tmp_path}/out")
    assert done.returncode != 0 and "DATA is missing" in done.stderr


def test_a_judges_environment_gets_what_hears_the_words() -> None:
    heard = [f"/nowhere/out/sounds/{kind}.heard" for kind in ("digits", "words")]
    plan = planned("spoken_words", "JUDGES=/nowhere/judges", *heard)
    assert "pocketsphinx==" in plan
    assert "--judge digit /nowhere/out/sounds/digits/*/" in plan and "--judge word /nowhere/out/sounds/words/*/" in plan
    assert "pocketsphinx" not in planned("spoken_words", "JUDGES=/nowhere/judges", "JUDGES_PYTHON=python", *heard)
    assert "pocketsphinx" not in planned("streams", "JUDGES=/nowhere/judges", "/nowhere/out/sounds/guidance.heard")


def test_the_table_has_ceilings_floor_and_the_published_model_of_both(tmp_path: Path) -> None:
    labels = ["a", "b"] * 20

    def arm(folder: Path, right: float) -> None:
        folder.mkdir(parents=True)
        heard = [label if place < right * len(labels) else "-" for place, label in enumerate(labels)]
        sounds = [{"labels": [label], "heard": word} for label, word in zip(labels, heard, strict=True)]
        (folder / "verdicts.json").write_text(json.dumps({"sounds": sounds}))
        np.save(folder / "vectors.npy", np.random.default_rng(len(heard)).random((len(heard), 4)))

    for kind in ("digits", "words"):
        for name, right in (("real", 0.9), ("reconstruction", 0.8)):
            arm(tmp_path / kind / name, right)
        for seed in range(2):
            arm(tmp_path / kind / f"spoken-{seed}-scale-{guidance_table.SINGLE}", 0.5)
            arm(tmp_path / kind / f"spoken-{seed}-scale-{guidance_table.BEST[4]}", 0.6)
            arm(tmp_path / kind / f"spoken-{seed}-scale-{guidance_table.BEST[8]}", 0.7)
    rows = results.words(SimpleNamespace(kad=lambda a, b: 1.5), tmp_path)
    for what in ("digit", "word"):
        own = {row["what"]: row for row in rows if row["what"].startswith((f"{what} ", f"{what}s:"))}
        scores = [row["value"] for name, row in own.items() if "shuffled" not in name and "heard" in name]
        assert scores == pytest.approx([0.9, 0.8, 0.5, 0.6, 0.7, 0.7])
        [floor] = [row["value"] for name, row in own.items() if "floor" in name]
        assert floor < 0.6
        assert sum("ceiling" in name for name in own) == 2
        [published] = [row for name, row in own.items() if "published" in name]
        assert ("rule" in published) == (what == "digit")
    assert not [row for row in rows if row["what"].startswith("digit") and row.get("rule", {}).get("passed")]
