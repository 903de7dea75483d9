"""The doctor opens checkpoints of every kind, and names what is wrong with those that do not open."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch

from audiolm_kit import checkpoint
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.doctor.checkpoints import check_checkpoint, examine
from audiolm_kit.evaluation.contrastive import ContrastiveScorer
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import StreamLM


def test_a_missing_checkpoint_is_a_fault_in_one_line(tmp_path: Path) -> None:
    finding, patient = examine(tmp_path / "none")
    assert not finding.well and "\n" not in finding.told and patient is None


def test_whole_checkpoints_are_tried(audiogen_folder: Path) -> None:
    told = {part: check_checkpoint(audiogen_folder / part) for part in ("", "codec", "lm")}
    assert all(finding.well for finding in told.values()), told
    assert told[""].told.endswith("generates") and "2 codebooks of 16 at 100 Hz" in told["codec"].told


def test_what_was_opened_is_handed_on(audiogen_folder: Path) -> None:
    _, patient = examine(audiogen_folder)
    assert patient is not None and patient.codec is not None and patient.models["lm"].conditioner is not None
    assert patient.make is not None and patient.make(0.2).samples.shape == (1, 1600)


def test_a_model_of_class_labels_is_tried_with_one_of_them(audiogen_folder: Path, tmp_path: Path) -> None:
    whole = AudioGen.load(audiogen_folder)
    config = dataclasses.replace(whole.lm.config, text=TextConfig(kind="labels", dim=8, labels=("dog", "rain")))
    AudioGen(whole.codec, StreamLM(config), TextConditioner(config.text)).save(tmp_path / "labels")
    assert check_checkpoint(tmp_path / "labels").told.endswith("generates")


def test_a_scorer_is_opened_alone_and_with_the_model_that_brings_it(
    audiogen_folder: Path, scorer_folder: Path, tmp_path: Path
) -> None:
    scorer, whole = ContrastiveScorer.load(scorer_folder), AudioGen.load(audiogen_folder)
    AudioGen(whole.codec, whole.lm, whole.conditioner, scorer).save(tmp_path / "bringing")
    alone, brought = (check_checkpoint(each) for each in (scorer_folder, tmp_path / "bringing"))
    assert alone.well and f"0.4 s at 8000 Hz, fingerprint {scorer.fingerprint}, opens" in alone.told
    assert brought.well and ", a scorer " in brought.told and brought.told.endswith("generates")


def test_a_cut_off_checkpoint_is_a_fault(audiogen_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(audiogen_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    finding = check_checkpoint(tmp_path / "cut")
    assert not finding.well and "not a whole safetensors file" in finding.told


def test_parts_that_were_not_trained_together_are_a_fault(audiogen_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(audiogen_folder, tmp_path / "mixed")
    config = tmp_path / "mixed" / "lm" / "config.json"
    config.write_text(config.read_text().replace('"codebook_size": 16', '"codebook_size": 17'))
    assert not check_checkpoint(tmp_path / "mixed").well
    (tmp_path / "mixed" / "config.json").write_text('{"format": 1, "kind": "Teapot"}')
    assert "holds a Teapot, wanted one of AudioGen" in check_checkpoint(tmp_path / "mixed").told


def test_a_codec_of_weights_that_are_no_numbers_is_damaged(audiogen_folder: Path, tmp_path: Path) -> None:
    codec = AudioGen.load(audiogen_folder).codec
    for weight in codec.decoder.parameters():
        torch.nn.init.constant_(weight, torch.nan)
    checkpoint.save(codec, tmp_path / "codec")
    assert "decodes to NaN: its weights are damaged" in check_checkpoint(tmp_path / "codec").told


def test_another_programs_checkpoint_is_sent_to_import(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "musicgen"}')
    assert check_checkpoint(tmp_path).cure == f"if another program wrote it: audiolm-kit import {tmp_path} NEW_FOLDER"
    (tmp_path / "config.json").rename(tmp_path / "state_dict.bin")
    assert "audiolm-kit import" in check_checkpoint(tmp_path).cure
