"""recipes/piano: pieces and windows, what notes say of music, models of one size; commands parse."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from audiolm_kit import audio, checkpoint, cli
from audiolm_kit.arguments import parser_of
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "piano"
JUDGES = """
import numpy as np
def notes(path):
    return np.array([[1.0, 2.0, 60], [5.0, 6.0, 64], [7.0, 9.0, 67]])
"""
README = (RECIPE / "README.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    """A script of the recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"piano_{name}", RECIPE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(RECIPE))
import music  # noqa: E402  results.py takes it from its own folder too

experiment, hear, pieces, results = load("experiment"), load("hear"), load("pieces"), load("results")
sys.path.remove(str(RECIPE))


def options(name: str) -> dict[str, Any]:
    """What a YAML file gives to its model and its data."""
    content = yaml.safe_load((RECIPE / f"{name}.yaml").read_text(encoding="utf-8"))
    return dict(content["model"]["init_args"]) | {"data": content["data"]["init_args"]}


# --- models


def test_the_stages_are_for_their_tokenizers_and_the_prompt_fits_their_windows() -> None:
    quantizer, semantic, acoustic = options("codec")["codec"]["quantizer"], options("semantic"), options("acoustic")
    codes = [quantizer["num_codebooks"], quantizer["codebook_size"]]
    for name in ("acoustic", "only"):
        assert [options(name)["lm"][key] for key in ("num_codebooks", "codebook_size")] == codes
    assert acoustic["lm"]["prefix"] == {"num_codebooks": 1, "codebook_size": semantic["lm"]["codebook_size"]}
    assert experiment.PROMPT < experiment.SECONDS <= min(each["data"]["seconds"] for each in (semantic, acoustic))
    assert (experiment.PROMPT, experiment.SECONDS) == (results.PROMPT, results.SECONDS)
    masked, convnext = options("masked")["masked"], options("codec")["codec"]["convnext"]
    assert masked["sample_rate"] / masked["hop"] == 25
    assert options("codec")["codec"]["sample_rate"] / (convnext["hop"] * convnext["frames_per_code"]) == 50


def test_the_baseline_has_the_weights_of_both_stages_and_sees_as_many_windows() -> None:
    def weights(name: str) -> int:
        with torch.device("meta"):
            lm = StreamLM(checkpoint.from_plain(LMConfig, options(name)["lm"], "lm"))
        return sum(weight.numel() for weight in lm.parameters())

    assert weights("only") == pytest.approx(weights("semantic") + weights("acoustic"), rel=0.08)
    acoustic, only = options("acoustic")["data"], options("only")["data"]
    assert only["frames"] == 50 * acoustic["seconds"] and only["batch_size"] == acoustic["batch_size"]


# --- pieces and windows


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


def test_windows_lie_side_by_side_and_pieces_take_turns() -> None:
    rows = [Row("/a.flac", 30.0, extra={"piece": "a"}), Row("/b.flac", 19.9), Row("/b.flac", 10.0, start=19.9)]
    found = [(row.label, row.start, row.duration) for row in experiment.asked(rows, 4)]
    assert found == [("a", 0, 10), ("b", 0, 10), ("a", 10, 10), ("b", 19.9, 10)]
    with pytest.raises(ValueError, match="1 pieces have held-out recordings of 10 s: at least 2 are wanted"):
        experiment.asked(rows[:1], 4)


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
        {"labels": ["ab"[number % 2]], "notes": [[second, second + 0.5 + 0.01 * number, pitch] for second in range(10)]}
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


def test_arms_of_other_prompts_are_refused(tmp_path: Path) -> None:
    write_arm(tmp_path / "audiolm-0", [60, 62])
    with pytest.raises(ValueError, match="have other prompts than the recordings: write both anew"):
        results.arms(tmp_path, "audiolm", ["a", "c"])
    with pytest.raises(ValueError, match="has no arm only-SEED: write and judge the sounds first"):
        results.arms(tmp_path, "only", ["a", "b"])


def test_an_arm_is_heard_once_and_its_notes_stand_in_order(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"settings": {}, "sounds": [{"path": "a.flac", "labels": ["a"]}]}))
    judges, calls = ModuleType("judges"), []

    def notes(path: Path) -> np.ndarray:
        calls.append(path.name)
        return np.array([[2.00049, 3, 62], [1, 2, 60]])

    judges.__dict__.update(notes=notes)
    hear.hear_arm(judges, tmp_path)
    hear.hear_arm(judges, tmp_path)
    assert calls == ["a.flac"]
    assert json.loads((tmp_path / "notes.json").read_text())["sounds"][0]["notes"] == [[1, 2, 60], [2, 3, 62]]


# --- the page


def test_the_readme_has_the_five_headings_and_its_commands_parse() -> None:
    assert re.findall(r"^## (\w+)", README, re.MULTILINE) == ["What", "Data", "Run", "Results", "Listen"]
    lines = [line for line in README.splitlines() if line.startswith("    .venv/bin/audiolm-kit")]
    assert len(lines) == 2
    for line in lines:
        _, verb, *given = shlex.split(line)
        parser_of(cli.VERBS[verb].run, f"audiolm-kit {verb}", Sampling).parse_args(given)


def test_make_trains_all_seeds_and_keeps_their_stages() -> None:
    command = ["make", "-n", "-C", str(RECIPE), "models", "DATA=/nowhere/data", "OUT=/nowhere/out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fits = re.findall(r" fit -c (\w+)\.yaml", done.stdout)
    counted = {name: fits.count(name) for name in fits}
    assert counted == {"codec": 1, "masked": 1, "semantic": 3, "acoustic": 3, "only": 3}
    assert done.stdout.count(" assemble ") == 3 and done.stdout.count("pieces.py") == 1
    assert not re.search(r"^rm [^-]", done.stdout, re.MULTILINE)  # nothing that make takes for intermediate


# --- the whole way


def write_recordings(folder: Path) -> Path:
    """Tones of 12 seconds, half of them held out; the manifest."""
    clock, rows = torch.arange(12 * 16000) / 16000, []
    for number, name in enumerate("abcd"):
        wave = 0.4 * torch.sin(2 * torch.pi * 150 * (number + 1) * clock) + 0.1 * torch.sin(40 * clock**2)
        audio.write(folder / f"{name}.wav", audio.Sound(wave[None], 16000))
        split = "train" if number < 2 else "valid"
        rows.append(Row(str(folder / f"{name}.wav"), 12.0, split=split, extra={"piece": name}))
    write_manifest(folder / "sounds.jsonl", rows)
    return folder / "sounds.jsonl"


def small(what: str) -> str:
    """The options of a narrow transformer."""
    return f"--model.{what}.dim 16 --model.{what}.heads 2 --model.{what}.layers 1"


@pytest.mark.slow
def test_make_goes_from_recordings_to_results(tmp_path: Path) -> None:
    out, judges = tmp_path / "out", tmp_path / "judges"
    judges.mkdir()
    (judges / "judges.py").write_text(JUDGES)
    trainer = "--trainer.accelerator cpu --trainer.max_steps 2 --trainer.val_check_interval 2 --data.batch_size 2"
    codec = "--model.codec.convnext.dim 4 --model.codec.convnext.width 8 --model.codec.convnext.encoder_layers 1"
    codec += " --model.codec.convnext.decoder_layers 1 --model.codec.quantizer.dim 4 --model.discriminator.filters 2"
    given = {
        "DATA": write_recordings(tmp_path),
        "OUT": out,
        "BIN": Path(sys.executable).parent,
        "JUDGES": judges,
        "JUDGES_PYTHON": sys.executable,
        "CODEC_OPTIONS": f"{trainer} {codec} --model.quantize_from 1 --data.seconds 0.3",
        "MASKED_OPTIONS": f"{trainer} {small('masked')} --data.seconds 2",
        "LM_OPTIONS": f"{trainer} {small('lm.transformer')}",
        "LAYER": 1,
        "CODES": 10,
        "TOKENS_OPTIONS": "",
        "SEEDS": 0,
        "COUNT": 2,
    }
    goals = [str(out / "sounds" / f"{name}.heard") for name in ("continuations", "recordings")]
    command = ["make", "-C", str(RECIPE), *goals, *(f"{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([*command, "-q"], env=dict(os.environ))
    assert again.returncode == 0  # nothing is left to do
    counted = [sys.executable, RECIPE / "results.py", "continuations", "--judges", judges, "--sounds", out / "sounds"]
    subprocess.run([*map(str, counted), "-o", str(tmp_path / "results.json")], check=True, capture_output=True)
    rows = json.loads((tmp_path / "results.json").read_text())["table"]
    assert sum("rule" in row for row in rows) == 2
    index = json.loads((out / "sounds/continuations/audiolm-0/index.json").read_text())["sounds"]
    assert [sound["labels"] for sound in index] == [["c"], ["d"]]
    whole = audio.read(out / "sounds/continuations/audiolm-0/0000.flac")
    assert whole.samples.shape[1] == round(experiment.SECONDS * 16000)
