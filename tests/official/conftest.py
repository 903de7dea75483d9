"""Tests of published layouts find what they share (audiocraft_folders.py, musicgen_folders.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from audiolm_kit.conditioning import TextConfig
from audiolm_kit.official.musicgen import write_musicgen
from audiolm_kit.official.parts import Parts

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A MusicGen of random weights; its T5 lies in a folder of its own, as where a checkpoint names one of the hub."""
    from musicgen_folders import SMALL_T5, a_codec, a_model, save_tokenizer
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    save_tokenizer(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(**SMALL_T5)).save_pretrained(folder)
    return Parts(a_codec(), a_model(text=TextConfig(kind="t5", dim=12, name=str(folder))), None)


@pytest.fixture(scope="module")
def written(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that MusicGen."""
    folder = tmp_path_factory.mktemp("written") / "musicgen"
    write_musicgen(parts, folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    copy = tmp_path / "musicgen"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy
