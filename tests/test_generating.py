"""docs/generating.md keeps its word: its library use runs as it stands, its commands are orders that can be filled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pages import page

from audiolm_kit import audio, cli
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.commands import sound
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import train
from audiolm_kit.transformer import TransformerConfig

PAGE = page("docs/generating.md")


def a_model() -> AudioGen:
    """Random and as small as models get, with the demo's codebooks and frames of 20 ms."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=160, fft_size=320, frames_per_code=4)
    quantizer = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=16000, convnext=body, quantizer=quantizer))
    vocabulary = train(["a high bell rings", "heavy rain falls", "a siren wails"], Path("text.model"), size=30)
    text = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=8, heads=1, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=4, codebook_size=16, transformer=transformer, text=text))
    return AudioGen(codec, lm, TextConditioner(text, vocabulary))


@pytest.mark.filterwarnings("ignore:.*is clipped.*")
def test_the_library_use_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_model().save("build/hello/lm")
    names: dict[str, object] = {}
    for code in PAGE.blocks("python"):
        exec(compile(code, "generating.md", "exec"), names)
    assert audio.read("bell.wav").samples.shape == (1, 32000)
    rain, model, again, choice = (names[name] for name in ("rain", "model", "again", "choice"))
    assert isinstance(model, AudioGen)
    streamed = [sound.samples for sound in model.stream("heavy rain falls", seconds=3, seed=1)]
    assert torch.equal(torch.cat(streamed, dim=1), rain.samples)  # type: ignore[attr-defined]
    torch.testing.assert_close(again.samples, choice.sound.samples, atol=1e-3, rtol=0)  # type: ignore[attr-defined]
    assert names["scene"].samples.shape == (1, 4 * 16000)  # type: ignore[attr-defined]
    assert names["first"].samples.shape == (1, 8000)  # type: ignore[attr-defined]


class Reached(Exception):
    """Nothing was wrong with an order before its model was opened."""


@pytest.mark.parametrize("command", [each for each in PAGE.kit() if each[0] != "fit"], ids=" ".join)
def test_every_command_is_an_order_that_can_be_filled(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(checkpoint: str, device: str, *computing: object) -> None:
        raise Reached(checkpoint)

    monkeypatch.chdir(tmp_path)
    audio.write("bell.wav", audio.Sound(torch.zeros(1, 16000), 16000))
    monkeypatch.setattr(sound, "opened", opened)
    with pytest.raises(Reached, match="build/((hello|mine)/lm|streams/lm/delay4-0)|spoken-digits"):
        cli.main(command)


def test_every_way_is_shown() -> None:
    shown = {word[2:] for command in PAGE.kit() for word in command if word.startswith("--")}
    assert {"negative", "window", "overlap", "text", "stream", "endless", "candidates", "scorer"} <= shown
    assert {"guidance_scale", "guidance_schedule", "guidance_last", "guidance_interval"} <= shown
