"""The README keeps its word: its library use runs, the way it shows is whole; test_docs.py holds it as any page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from pages import ROOT, page

from audiolm_kit.audio import read
from audiolm_kit.codec.convnext import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import train
from audiolm_kit.transformer import TransformerConfig

README = page("README.md").text
PAGE = 100
"""Lines; more is no longer one page."""


def save_a_model(folder: Path) -> None:
    """A random model, as small as models get, in the place of the demo's."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=160, fft_size=320, frames_per_code=4)
    quantizer = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=16000, convnext=body, quantizer=quantizer))
    vocabulary = train(["a high bell rings", "heavy rain falls"], folder.parent / "text.model", size=30)
    text = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=8, heads=1, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=4, codebook_size=16, transformer=transformer, text=text))
    AudioGen(codec, lm, TextConditioner(text, vocabulary)).save(folder)


def test_the_readme_is_one_page_that_names_its_two_commands_first() -> None:
    assert len(README.splitlines()) <= PAGE
    given = re.findall(r"^ {4}(make [a-z]+)", README, re.MULTILINE)
    assert given == ["make demo", "make test"]
    assert README.index("make demo") < README.index("## ")


@pytest.mark.filterwarnings("ignore:.*is clipped.*")  # an untrained codec knows no bounds
def test_the_library_use_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_a_model(tmp_path / "build" / "hello" / "lm")
    monkeypatch.chdir(tmp_path)
    [code] = page("README.md").blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"build", "bell.wav", "longer.flac", "coarse.wav"}
    assert read("bell.wav").samples.shape == (1, 32000)
    assert read("longer.flac").samples.shape == (1, 48000)
    assert read("coarse.wav").samples.shape == (1, 32000)
    takes = names["takes"]
    assert isinstance(takes, list) and len(takes) == 3


def test_the_way_from_recordings_to_sound_is_shown_whole() -> None:
    verbs = [command[0] for command in page("README.md").kit()]
    assert verbs == ["manifest", "fit", "tokenize", "fit", "generate", "continue"]
    assert "doctor" in [command[0] for command in page("README.md").spans()]


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\s*(?:`|#|,|$)", README, re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


def test_every_recipe_has_its_row() -> None:
    [rows] = re.findall(r"<!-- recipes -->\n(.*?)<!-- /recipes -->", README, re.DOTALL)
    recipes = {path.parent.name for path in ROOT.glob("recipes/*/Makefile")}
    assert set(re.findall(r"^\| \[(\w+)\]\(recipes/", rows, re.MULTILINE)) == recipes
