"""recipes/finetune: the split holds out whole recordings, the README's sizes are counted, all stages run by make."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from audiolm_kit import audio, checkpoint
from audiolm_kit.arguments import parser_of
from audiolm_kit.cli import VERBS
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.sampling import Sampling

RECIPE = Path(__file__).parents[2] / "recipes" / "finetune"
README = (RECIPE / "README.md").read_text(encoding="utf-8")
CAPTIONS = ("a bell rings", "rain falls", "a bell", "rain")


def load(name: str) -> ModuleType:
    """A script of the recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"finetune_{name}", RECIPE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


split = load("split")


# --- what is held out


def rows_of(count: int, **given: Any) -> list[Row]:
    """Two rows of each recording."""
    return [Row(f"/sounds/{n}.wav", 1.0, start=start, **given) for n in range(count) for start in (0.0, 1.0)]


def test_whole_recordings_are_held_out_and_always_the_same() -> None:
    rows = split.held_out(rows_of(20), 0.1)
    valid = {row.path for row in rows if row.split == "valid"}
    assert len(valid) == 2 and {row.path for row in rows if row.split == "train"}.isdisjoint(valid)
    elsewhere = [replace(row, path=f"/elsewhere{row.path}") for row in reversed(rows_of(20))]
    again = {row.path for row in split.held_out(elsewhere, 0.1) if row.split == "valid"}
    assert again == {f"/elsewhere{path}" for path in valid}


def test_a_manifest_with_its_own_split_is_kept() -> None:
    rows = [*rows_of(3), Row("/sounds/v.wav", 1.0, split="valid"), Row("/sounds/t.wav", 1.0, split="test")]
    assert [row.split for row in split.held_out(rows, 0.5)] == ["train"] * 6 + ["valid", "test"]


def test_nothing_is_held_out_of_what_is_tested_on_and_something_must_be_left() -> None:
    rows = [Row("/sounds/t.wav", 1.0, split="test"), *rows_of(2)]
    assert [row.split for row in split.held_out(rows, 0.1)].count("test") == 1
    with pytest.raises(ValueError, match="1 of 1 recordings are to be held out"):
        split.held_out(rows_of(1), 0.1)


def test_the_script_writes_a_manifest_or_says_in_one_line_why_not(tmp_path: Path) -> None:
    write_manifest(tmp_path / "in.jsonl", rows_of(4))
    split.main([str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--share", "0.5"])
    assert [row.split for row in read_manifest(tmp_path / "out.jsonl")].count("valid") == 4
    with pytest.raises(SystemExit) as stop:
        split.main([str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--share", "1"])
    assert stop.value.code == 2


# --- what is claimed


def test_the_readme_has_the_five_headings_and_says_what_was_not_done() -> None:
    assert re.findall(r"^## (\w+)", README, re.MULTILINE) == ["What", "Data", "Run", "Results", "Listen"]
    assert "neither the time nor the memory" in " ".join(README.split())


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (RECIPE / link).is_file()


def test_the_command_to_make_more_parses() -> None:
    [command] = re.findall(r"^    audiolm-kit generate (.*)$", README, re.MULTILINE)
    parser_of(VERBS["generate"].run, "audiolm-kit generate", Sampling).parse_args(shlex.split(command))


# --- the whole way


def make(*given: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(RECIPE), f"BIN={Path(sys.executable).parent}", *given]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


def write_sounds(folder: Path) -> Path:
    """Four tones with captions, of which none is marked as held out; their manifest."""
    clock = torch.arange(8000) / 16000
    rows = []
    for number, caption in enumerate(CAPTIONS):
        wave = 0.5 * torch.sin(2 * torch.pi * 200 * (number + 1) * clock)
        audio.write(folder / f"{number}.wav", audio.Sound(wave[None], 16000))
        rows.append(Row(str(folder / f"{number}.wav"), 0.5, caption=caption))
    write_manifest(folder / "sounds.jsonl", rows)
    return folder / "sounds.jsonl"


def given_for(base: Path, folder: Path) -> list[str]:
    trainer = "--trainer.accelerator cpu --trainer.precision 32-true --trainer.max_steps 2"
    trainer += " --trainer.val_check_interval 2 --data.batch_size 2 --data.frames 10"
    options = {"BASE": base, "DATA": write_sounds(folder), "OUT": folder / "out", "LM_OPTIONS": trainer}
    options |= {"SECONDS": "0.3", "TOKENS_OPTIONS": "", "REFERENCES_OPTIONS": "--per-label 2"}
    return [f"{name}={value}" for name, value in options.items()]


@pytest.mark.slow
def test_make_goes_from_a_base_of_ours_and_recordings_to_sounds_before_and_after(trained: Path, tmp_path: Path) -> None:
    given = given_for(trained, tmp_path)
    done = make(*given, "SPLIT_OPTIONS=--share 0.5")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert (out / "page" / "lora" / "index.html").is_file() and not (out / "base").exists()
    heard = {role: len(list((out / "listen" / role).glob("*.wav"))) for role in ("real", "base", "lora")}
    assert heard == {"real": 2, "base": 2, "lora": 2}
    base, tuned = (AudioGen.load(folder).fingerprints for folder in (trained, out / "lora"))
    assert base["codec"] == tuned["codec"] and base["lm"] != tuned["lm"]
    assert checkpoint.read_kind(out / "lora.adapters", "LoRA")["base"] == base["lm"]
    assert make(*given, "SPLIT_OPTIONS=--share 0.5", "-q", "model", "listen").returncode == 0  # nothing is left to do
    other = make(f"OUT={out}", "BASE=elsewhere")
    assert other.returncode != 0 and "give another OUT for elsewhere" in other.stderr


@pytest.mark.slow
def test_a_base_of_others_is_imported_and_the_fine_tuned_model_opens_there(tmp_path: Path) -> None:
    from transformers import MusicgenForConditionalGeneration

    write_musicgen(tmp_path / "theirs")
    done = make(*given_for(tmp_path / "theirs", tmp_path), "PRESET=full", "SPLIT_OPTIONS=--share 0.5", "export")
    assert done.returncode == 0, done.stderr
    before, after = (
        MusicgenForConditionalGeneration.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "theirs", tmp_path / "out" / "full.transformers")
    )
    assert before.keys() == after.keys()
    moved = {name for name, weight in before.items() if not torch.allclose(after[name], weight, atol=1e-7)}
    assert moved and all(name.startswith(("decoder.", "enc_to_dec_proj.")) for name in moved)


def write_musicgen(folder: Path) -> None:
    """A MusicGen of random weights as transformers saves it, with a tokenizer that knows the captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        PreTrainedTokenizerFast,
        T5Config,
    )

    words = ["<pad>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = MusicgenConfig(
        text_encoder=T5Config(
            vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=3, pad_token_id=0
        ).to_dict(),
        audio_encoder=EncodecConfig(
            target_bandwidths=[1.6],
            sampling_rate=1600,
            num_filters=2,
            hidden_size=8,
            codebook_size=16,
            codebook_dim=8,
            upsampling_ratios=[2, 2, 2, 2],
            use_causal_conv=False,
            use_conv_shortcut=False,
            norm_type="weight_norm",
        ).to_dict(),
        decoder=MusicgenDecoderConfig(
            vocab_size=16,
            max_position_embeddings=64,
            num_hidden_layers=1,
            ffn_dim=64,
            num_attention_heads=2,
            hidden_size=16,
            num_codebooks=4,
            pad_token_id=16,
            bos_token_id=16,
        ).to_dict(),
    )
    MusicgenForConditionalGeneration(config).save_pretrained(folder)
