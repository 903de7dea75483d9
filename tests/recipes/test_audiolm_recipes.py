"""What holds for all recipes of AudioLM: stages fit tokenizers, baselines are fair, pages parse, chains end."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from reading import HEADINGS, RECIPES, ROOT, commands, content, headings, load, make, parse, planned, readme

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.lm.model import LMConfig, StreamLM


class Recipe(NamedTuple):
    """What differs from recipe to recipe."""

    sample_rate: int
    semantic_rate: float
    """Frames of semantic codes a second."""
    results: set[str]
    wanted_rows: tuple[str, ...]
    """Of the tables that the chain leads to."""
    small: dict[str, str]
    """Options of the chain in small that are its own."""


NAMES = {
    "audiolm_digits": Recipe(
        8000,
        25,
        {"steps", "structure", "tradeoff", "voices"},
        ("steps of coarse and fine for each step of acoustic",),
        {"STRINGS_OPTIONS": "--train 12 --valid 24", "COUNT": "3", "LAYER": "3"},
    ),
    "audiolm_speech": Recipe(16000, 25, {"voices"}, ("AudioLM less acoustic codes alone",), {}),
    "piano": Recipe(16000, 12.5, {"continuations"}, ("pitch classes: AudioLM", "onsets: AudioLM"), {}),
}
each_recipe = pytest.mark.parametrize("name", NAMES)


# --- models


@each_recipe
def test_the_stages_are_for_their_tokenizers_and_for_each_other(name: str) -> None:
    codec, semantic, acoustic = (content(name, file)[0] for file in ("codec", "semantic", "acoustic"))
    quantizer, convnext = codec["codec"]["quantizer"], codec["codec"]["convnext"]
    codes = [quantizer["num_codebooks"], quantizer["codebook_size"]]
    for file in ("acoustic", "only"):
        assert [content(name, file)[0]["lm"][key] for key in ("num_codebooks", "codebook_size")] == codes
    said = semantic["lm"]["codebook_size"]
    times = 50 / NAMES[name].semantic_rate
    assert acoustic["lm"]["prefix"] == {
        "num_codebooks": 1,
        "codebook_size": said,
        "frames_per_code": times,
        "beside": True,
        "in_front": False,
        "ahead": round(8 / max(1, times / 2)),
    }
    assert not content(name, "semantic")[1]["deduplicate"] and not content(name, "acoustic")[1]["deduplicate"]
    rate, masked = NAMES[name].sample_rate, content(name, "masked")[0]["masked"]
    assert codec["codec"]["sample_rate"] == masked["sample_rate"] == rate
    assert rate / masked["hop"] == NAMES[name].semantic_rate
    assert rate / (convnext["hop"] * convnext["frames_per_code"]) == 50
    makefile = (RECIPES / name / "Makefile").read_text(encoding="utf-8")
    assert f"CODES ?= {said}\n" in makefile
    assert re.search(rf"^TARGETS .*--codebook_size {masked['codebook_size']}$", makefile, re.MULTILINE)


@each_recipe
def test_codecs_are_begun_and_not_trained(name: str) -> None:
    model, _, steps = content(name, "codec")
    convnext = model["codec"]["convnext"]
    assert steps == 0 and model["quantize_from"] == 0
    assert convnext["linear"] and convnext["noise"] and convnext["refine"] >= 2


def weights(name: str, stage: str) -> int:
    """How many numbers a stage learns."""
    with torch.device("meta"):
        lm = StreamLM(checkpoint.from_plain(LMConfig, content(name, stage)[0]["lm"], "lm"))
    return sum(weight.numel() for weight in lm.parameters())


@each_recipe
def test_the_baseline_has_the_weights_of_both_stages_and_sees_no_fewer_codes(name: str) -> None:
    assert weights(name, "only") == pytest.approx(weights(name, "semantic") + weights(name, "acoustic"), rel=0.08)
    seen = {}
    for stage in ("acoustic", "only"):
        _, data, steps = content(name, stage)
        seen[stage] = steps * data["batch_size"] * (data.get("frames") or 50 * data["seconds"])
    assert seen["only"] >= seen["acoustic"]


# --- pages and commands


@each_recipe
def test_the_readme_has_the_five_headings_and_its_commands_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert headings(readme(name)) == HEADINGS
    found = commands(readme(name))
    assert len(found) >= 2
    for command in found:
        parse(command, capsys)


@each_recipe
def test_make_trains_all_seeds_and_keeps_their_stages(name: str) -> None:
    plan = planned(name, "models")
    fits = re.findall(r" fit -c (\w+)\.yaml", plan)
    flat = ["coarse", "fine"] if name == "audiolm_digits" else []
    once = dict.fromkeys(("codec", *learned(name)), 1)
    seeds = dict.fromkeys(("semantic", "acoustic", "only", *flat), 3)
    assert {file: fits.count(file) for file in fits} == once | seeds
    assert plan.count(" assemble ") == (6 if flat else 3)
    assert not re.search(r"^rm [^-]", plan, re.MULTILINE)  # nothing that make takes for intermediate


@each_recipe
def test_the_chain_is_one_seed_of_all_that_audiolm_needs(name: str) -> None:
    fits = re.findall(r" fit -c (\w+)\.yaml", planned(name, "chain"))
    assert sorted(fits) == sorted(["acoustic", "codec", *learned(name), "semantic"])


def learned(name: str) -> list[str]:
    """The masked model, where semantic codes are of its frames unless something else is said."""
    return ["masked"] if name == "audiolm_speech" else []


@each_recipe
def test_other_voices_are_lent_to_what_acoustic_stages_learn_from_alone(name: str) -> None:
    plan = planned(name, "chain", "OTHER_VOICES=--other_voices 4")
    assert re.findall(r"-o (\S+) .*--other_voices 4", plan) == ["/nowhere/out/tokens/lent/train"]
    assert re.findall(r"--data.prefix_shards (\S+)", plan) == ["/nowhere/out/tokens/lent/train"]
    assert re.findall(r"--data.valid_prefix_shards (\S+)", plan) == ["/nowhere/out/tokens/semantic/valid"]
    assert "/lent" not in planned(name, "chain", "OTHER_VOICES=")


def test_the_codes_of_digits_and_piano_may_be_of_a_masked_model_as_well() -> None:
    assert "--features chroma --frame_rate 12.5" in planned("piano", "chain")
    assert "/masked --layer 4" in planned("piano", "chain", "FEATURES=masked")
    plan = planned("audiolm_digits", "chain", "FEATURES=masked")
    assert " fit -c masked.yaml" in plan and "/masked --layer 3" in plan and "--standardised" not in plan
    assert (
        "--features mfcc --sample_rate 8000 --frame_rate 25 --dynamic_range_db 43 --standardised --context 2"
        in planned("audiolm_digits", "chain")
    )


# --- the whole way

JUDGES = """
import numpy as np
import soundfile


def load16(path):
    audio, rate = soundfile.read(path)
    return np.repeat(audio, 16000 // rate)


def digit(samples):
    return ("one", "two", "seven")[int(1e6 * np.abs(samples).mean()) % 3]


def yamnet(samples):
    return np.zeros((1, 3)), np.zeros((1, 2))


def speaker(samples):
    found = np.abs(np.fft.rfft(samples, 512))[:64]
    return found / np.linalg.norm(found)


def notes(path):
    return np.array([[1.0, 2.0, 60], [5.0, 6.0, 64], [7.0, 9.0, 67]])
"""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spoken_tones(folder: Path) -> list[Row]:
    """Ten tones of each of two speakers, and once more in the other split."""
    clock, rows = torch.arange(1600) / 8000, []
    for speaker, (split, level) in itertools.product(range(2), (("train", 0.3), ("valid", 0.2))):
        for number, word in enumerate(DIGITS):
            path = folder / f"{split}_{number}_{speaker}.wav"
            wave = level * torch.sin(2 * torch.pi * (200 + 100 * number + 30 * speaker) * clock)
            audio.write(path, Sound(wave[None], 8000))
            rows.append(Row(str(path), 0.2, None, word, word, f"s{speaker}", split))
    return rows


def long_tones(folder: Path) -> list[Row]:
    """Tones of 21 seconds of four speakers, or of pieces; half of them held out."""
    clock, rows = torch.arange(21 * 16000) / 16000, []
    for number, name in enumerate("abcd"):
        wave = 0.4 * torch.sin(2 * torch.pi * 150 * (number + 1) * clock) + 0.1 * torch.sin(40 * clock**2)
        audio.write(folder / f"{name}.wav", Sound(wave[None], 16000))
        split = "train" if number < 2 else "valid"
        rows.append(Row(str(folder / f"{name}.wav"), 21.0, split=split, speaker=name, extra={"piece": name}))
    return rows


TONES: dict[int, Callable[[Path], list[Row]]] = {8000: spoken_tones, 16000: long_tones}


def transformer(what: str) -> str:
    """The options of a narrow one."""
    return f"--model.{what}.dim 16 --model.{what}.heads 2 --model.{what}.layers 1"


CODEC = "--model.codec.convnext.dim 4 --model.codec.convnext.width 8 --model.codec.convnext.encoder_layers 1"
CODEC += " --model.codec.convnext.decoder_layers 1 --model.codec.quantizer.dim 4 --model.discriminator.filters 2"
CODEC += " --model.codec.quantizer.beam 1"
FEW = "--trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.accelerator cpu --data.batch_size 2"
SMALL = {
    "CODEC_OPTIONS": f"--trainer.accelerator cpu {CODEC} --data.seconds 0.3",
    "MASKED_OPTIONS": f"{FEW} {transformer('masked')} --model.masked.layers 3",
    "TOKENS_OPTIONS": "",
    "LAYER": "1",
    "CODES": "10",
    "LM_OPTIONS": f"{FEW} {transformer('lm.transformer')}",
    "COUNT": "2",
    "SEEDS": "0",
}


@pytest.mark.slow
@each_recipe
def test_make_goes_from_recordings_to_results(name: str, tmp_path: Path) -> None:
    recipe, tree = NAMES[name], tmp_path / "tree"
    for folder in (f"recipes/{name}", "tools"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for shared in RECIPES.glob("*.mk"):
        shutil.copy(shared, tree / "recipes")
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "judges.py").write_text(JUDGES)
    (tmp_path / "tones").mkdir()
    write_manifest(tmp_path / "tones" / "manifest.jsonl", TONES[recipe.sample_rate](tmp_path / "tones"))
    options: dict[str, Any] = SMALL | recipe.small | {"DATA": tmp_path / "tones", "OUT": tmp_path / "out"}
    options |= {"BIN": Path(sys.executable).parent, "JUDGES": tmp_path / "judges", "JUDGES_PYTHON": sys.executable}
    given = ["all", *(f"{key}={value}" for key, value in options.items())]
    done = make(tree / "recipes" / name, *given)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    made = {path.stem for path in (tree / "recipes" / name / "results").glob("*.json")}
    table = (tree / "recipes" / name / "README.md").read_text()
    assert made == recipe.results and "Not yet measured" not in table
    assert all(row in table for row in recipe.wanted_rows)
    again = make(tree / "recipes" / name, *given)
    assert again.returncode == 0 and "==" not in again.stdout, again.stdout[-2000:]


@each_recipe
def test_the_prompt_fits_the_windows(name: str) -> None:
    seconds = [content(name, stage)[1]["seconds"] for stage in ("semantic", "acoustic")]
    module = load(name, "experiment")
    if name == "audiolm_digits":  # two digits of at most a second, and what is made behind them
        assert module.FOLLOWED < module.VOICED <= min(seconds)
        return
    experiment = module.VOICES if name == "audiolm_speech" else module.CONTINUATIONS
    assert experiment.prompt < min(seconds)  # else the acoustic stage would not read all of it
    assert experiment.seconds <= seconds[0]  # what is said is said in one go; acoustic codes may take several windows
