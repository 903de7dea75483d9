"""recipes/audiolm_speech: who is asked, how voices are compared, models of one size; commands parse."""

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
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "audiolm_speech"
JUDGES = """
import numpy as np
import soundfile
def load16(path):
    return soundfile.read(path)[0]
def speaker(audio):
    vector = np.abs(np.fft.rfft(audio))[:64]
    return vector / np.linalg.norm(vector)
"""
README = (RECIPE / "README.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    """A script of the recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"audiolm_speech_{name}", RECIPE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


experiment, hear, results = load("experiment"), load("hear"), load("results")


def options(name: str) -> dict[str, Any]:
    """What a YAML file gives to its model and its data."""
    content = yaml.safe_load((RECIPE / f"{name}.yaml").read_text(encoding="utf-8"))
    return dict(content["model"]["init_args"]) | {"data": content["data"]["init_args"]}


def acoustic_steps(name: str = "acoustic") -> int:
    return int(yaml.safe_load((RECIPE / f"{name}.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"])


# --- models


def test_the_stages_are_for_their_tokenizers_and_the_prompt_fits_their_windows() -> None:
    quantizer, semantic, acoustic = options("codec")["codec"]["quantizer"], options("semantic"), options("acoustic")
    codes = [quantizer["num_codebooks"], quantizer["codebook_size"]]
    for name in ("acoustic", "only"):
        assert [options(name)["lm"][key] for key in ("num_codebooks", "codebook_size")] == codes
    assert acoustic["lm"]["prefix"] == {"num_codebooks": 1, "codebook_size": semantic["lm"]["codebook_size"]}
    assert experiment.PROMPT < experiment.SECONDS <= min(each["data"]["seconds"] for each in (semantic, acoustic))
    masked, convnext = options("masked")["masked"], options("codec")["codec"]["convnext"]
    assert masked["sample_rate"] / masked["hop"] == 25
    assert options("codec")["codec"]["sample_rate"] / (convnext["hop"] * convnext["frames_per_code"]) == 50


def test_the_baseline_has_the_weights_of_both_stages_and_sees_as_many_windows() -> None:
    def weights(name: str) -> int:
        with torch.device("meta"):
            lm = StreamLM(checkpoint.from_plain(LMConfig, options(name)["lm"], "lm"))
        return sum(weight.numel() for weight in lm.parameters())

    both, alone = weights("semantic") + weights("acoustic"), weights("only")
    assert alone == pytest.approx(both, rel=0.05)
    acoustic, only = options("acoustic")["data"], options("only")["data"]
    assert only["frames"] == 50 * acoustic["seconds"] and only["batch_size"] == acoustic["batch_size"]
    assert acoustic_steps() == acoustic_steps("only")


# --- who is asked


def test_prompts_are_of_speakers_in_turn_and_long_enough() -> None:
    rows = [Row(f"/{who}-{take}.flac", 5.0 + take, speaker=who) for who in "ba" for take in (0, 1, 2)]
    found = experiment.asked([*rows, Row("/nobody.flac", 9.0)], 3)
    assert [(row.label, row.path, row.duration) for row in found] == [
        ("a", "/a-1.flac", 6.0),
        ("b", "/b-1.flac", 6.0),
        ("a", "/a-2.flac", 6.0),
    ]
    with pytest.raises(ValueError, match="1 speakers have held-out recordings of 6 s: at least 2 are wanted"):
        experiment.asked(rows[:3], 3)


def test_a_model_without_text_is_not_given_any() -> None:
    class Told:
        def continue_(self, *given: Any) -> list[Any]:
            return list(given)

    prompts = [Sound(torch.zeros(1, 8), 8)]
    assert experiment.Wordless(Told()).continue_(prompts, 6.0, ["a.flac"], Sampling(), [3]) == [
        prompts,
        6.0,
        None,
        Sampling(),
        [3],
    ]


# --- how voices are compared


def test_likeness_is_of_the_own_prompt_or_in_the_mean_of_others() -> None:
    voices = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    speakers = ["a", "a", "b", "c"]
    assert results.own(voices, voices).tolist() == pytest.approx([1, 1, 1, 1])
    assert results.others(voices, voices, speakers, same=True).tolist() == [1, 1]  # b and c have no other recording
    other = results.others(voices, voices, speakers, same=False)
    assert other.tolist() == pytest.approx([0.3, 0.3, 0.8 / 3, (0.6 + 0.6 + 0.8) / 3])


def write_arm(folder: Path, before: np.ndarray, behind: np.ndarray, speakers: list[str]) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "voices.npy", np.stack([before, behind], 1))
    sounds = [{"path": f"{number}.flac", "labels": [who]} for number, who in enumerate(speakers)]
    (folder / "voices.json").write_text(json.dumps({"asked": {}, "sounds": sounds}))


@pytest.mark.parametrize("kept", [True, False])
def test_the_rule_is_met_by_models_that_keep_the_voice_alone(tmp_path: Path, kept: bool) -> None:
    draw, speakers = np.random.default_rng(0), ["a", "b", "c"] * 6
    voices = np.eye(8)[[0, 1, 2] * 6] + 0.05 * draw.normal(size=(18, 8))
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    for name in ("real", "reconstruction"):
        write_arm(tmp_path / "recordings" / name, voices, voices, speakers)
    for seed in range(3):
        write_arm(tmp_path / "voices" / f"audiolm-{seed}", voices, voices if kept else -voices, speakers)
        write_arm(tmp_path / "voices" / f"only-{seed}", voices, -voices, speakers)
    rows = results.voices(ModuleType("judges"), tmp_path)
    [ruled] = [row for row in rows if "rule" in row]
    assert ruled["rule"]["passed"] is kept and ruled["count"] == 54
    by_name = {row["what"].partition(": ")[2]: row["value"] for row in rows}
    assert by_name["real recording, as it goes on (ceiling)"] == pytest.approx(1)
    assert by_name["recordings of the other speakers (floor)"] < 0.1
    assert (by_name["AudioLM less acoustic codes alone"] > 0.9) is kept


def test_arms_of_other_prompts_are_refused(tmp_path: Path) -> None:
    write_arm(tmp_path / "audiolm-0", np.eye(2), np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="have other prompts than the recordings: write both anew"):
        results.arms(tmp_path, "audiolm", ["a", "c"])
    with pytest.raises(ValueError, match="has no arm only-SEED: write and judge the sounds first"):
        results.arms(tmp_path, "only", ["a", "b"])


def test_an_arm_is_heard_once_on_both_sides_of_the_prompts_end(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"settings": {}, "sounds": [{"path": "a.flac", "labels": ["a"]}]}))
    judges, calls = ModuleType("judges"), []
    sound = np.concatenate([np.zeros(3 * 16000), np.full(16000, 0.5)])

    def speaker(audio: np.ndarray) -> np.ndarray:
        calls.append(len(audio))
        return np.array([float(np.sqrt(np.mean(audio**2))), 0.0])

    judges.__dict__.update(load16=lambda path: sound, speaker=speaker)
    hear.hear_arm(judges, tmp_path)
    hear.hear_arm(judges, tmp_path)
    assert calls == [16000]  # silence has no voice
    assert np.load(tmp_path / "voices.npy").tolist() == [[[0, 0], pytest.approx([0.05, 0])]]


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
    assert {name: fits.count(name) for name in fits} == {
        "codec": 1,
        "masked": 1,
        "semantic": 3,
        "acoustic": 3,
        "only": 3,
    }
    assert done.stdout.count(" assemble ") == 3
    assert not re.search(r"^rm [^-]", done.stdout, re.MULTILINE)  # nothing that make takes for intermediate


# --- the whole way


def write_recordings(folder: Path) -> Path:
    """Tones of 7 seconds, half of them held out; the manifest."""
    clock, rows = torch.arange(7 * 16000) / 16000, []
    for number, name in enumerate("abcd"):
        wave = 0.4 * torch.sin(2 * torch.pi * 150 * (number + 1) * clock) + 0.1 * torch.sin(40 * clock**2)
        audio.write(folder / f"{name}.wav", audio.Sound(wave[None], 16000))
        split = "train" if number < 2 else "valid"
        rows.append(Row(str(folder / f"{name}.wav"), 7.0, split=split, speaker=name))
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
    goals = [str(out / "sounds" / f"{name}.heard") for name in ("voices", "recordings")]
    command = ["make", "-C", str(RECIPE), *goals, *(f"{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([*command, "-q"], env=dict(os.environ))
    assert again.returncode == 0  # nothing is left to do
    counted = [sys.executable, RECIPE / "results.py", "voices", "--judges", judges, "--sounds", out / "sounds"]
    subprocess.run([*map(str, counted), "-o", str(tmp_path / "results.json")], check=True, capture_output=True)
    rows = json.loads((tmp_path / "results.json").read_text())["table"]
    assert sum("rule" in row for row in rows) == 1
    index = json.loads((out / "sounds/voices/audiolm-0/index.json").read_text())["sounds"]
    assert [sound["labels"] for sound in index] == [["c"], ["d"]]
    whole = audio.read(out / "sounds/voices/audiolm-0/0000.flac")
    assert whole.samples.shape[1] == round(experiment.SECONDS * 16000)
