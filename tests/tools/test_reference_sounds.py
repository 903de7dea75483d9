"""The reference sounds: held-out recordings, what a codec leaves of them, and prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference_sounds as tool
import torch

from audiolm_kit import checkpoint
from audiolm_kit.audio import Sound, read, write
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.data.manifest import Row, write_manifest


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    """A tiny codec's checkpoint folder, 8 kHz, 80 samples a frame."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=40, fft_size=80, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=8, dim=4)
    checkpoint.save(NeuralCodec(CodecConfig(sample_rate=8000, convnext=body, quantizer=quantizer)), tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two valid and one training recording of each of two labels, 16 kHz, a quarter of a second and a bit."""
    generator, rows = torch.Generator().manual_seed(0), []
    for number, (label, split) in enumerate(
        [(label, split) for split in ("valid", "valid", "train") for label in "ba"]
    ):
        path = tmp_path / "in" / f"{number}_{label}.wav"
        write(path, Sound(0.1 * torch.randn(1, 4010, generator=generator), 16000))
        rows.append(Row(str(path), 4010 / 16000, caption=f"caption {number}", label=label, split=split))
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "manifest.jsonl"


def run(codec: Path, manifest: Path, *options: str) -> Path:
    output = codec.parent / "out"
    tool.main([str(codec), str(manifest), "-o", str(output), *options])
    return output


def test_one_held_out_recording_of_each_label_is_set_out_in_order(codec: Path, manifest: Path) -> None:
    folder = run(codec, manifest)
    assert (folder / "texts.txt").read_text() == "caption 1\ncaption 0\n"
    for role in ("real", "reconstruction"):
        assert sorted(path.name for path in (folder / role).glob("*.wav")) == ["1.wav", "2.wav"]
    assert json.loads((folder / "real/1.json").read_text()) == {"text": "caption 1", "label": "a", "name": "1_a"}


def test_more_recordings_of_a_label_follow_each_other(codec: Path, manifest: Path) -> None:
    folder = run(codec, manifest, "--per-label", "2")
    assert (folder / "texts.txt").read_text().split("\n")[:-1] == [f"caption {number}" for number in (1, 3, 0, 2)]


def test_reconstruction_is_the_codec_s_and_as_long_as_the_recording(codec: Path, manifest: Path) -> None:
    folder = run(codec, manifest)
    real, made = read(folder / "real/1.wav"), read(folder / "reconstruction/1.wav")
    assert real.sample_rate == made.sample_rate == 8000 and real.samples.shape == made.samples.shape == (1, 2005)
    model = checkpoint.load(NeuralCodec, codec)
    expected = model.decode(model.encode(real.samples[None]))[0, :, :2005].clamp(-1, 1)
    assert not torch.allclose(real.samples, made.samples, atol=1e-2)
    # The recording was rounded to 16 bits on the way: a code or two at a border may differ, the whole does not.
    assert torch.nn.functional.cosine_similarity(made.samples, expected).item() > 0.9


def test_prompts_are_the_beginnings_of_the_first_recordings(codec: Path, manifest: Path) -> None:
    folder = run(codec, manifest, "--prompts", "1", "--prompt-seconds", "0.1")
    assert [path.name for path in (folder / "prompt").glob("*.wav")] == ["1.wav"]
    prompt, real = read(folder / "prompt/1.wav").samples, read(folder / "real/1.wav").samples
    assert torch.equal(prompt, real[:, :800])


@pytest.mark.parametrize("options", [("--split", "test"), ("--per-label", "0"), ("--prompt-seconds", "nan")])
def test_bad_options_end_with_one_line(codec: Path, manifest: Path, capsys, options: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(codec, manifest, *options)
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1
