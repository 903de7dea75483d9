"""NeuralCodec as a network to be trained: lengths, gradients, warm-up, quantizer dropout, levels, configs.

What it promises as a Codec is in tests/test_protocols.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.convnext import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig

CONVNEXT = CodecConfig(
    sample_rate=1600,
    convnext=ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=8, fft_size=32, frames_per_code=2),
    quantizer=QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4),
)
SEANET = replace(CONVNEXT, body="seanet", seanet=SEANetConfig(ratios=(4, 2, 2), filters=2, dim=4, lstm=1))
BOTH = pytest.mark.parametrize("config", [CONVNEXT, SEANET], ids=["convnext", "seanet"])


def make_codec(config: CodecConfig) -> NeuralCodec:
    torch.manual_seed(0)
    return NeuralCodec(config)


def started(config: CodecConfig) -> NeuralCodec:
    """A codec in evaluation mode whose codebooks have seen some latents."""
    codec = make_codec(config)
    with torch.no_grad():
        codec(noise(4, 1, 640))
    return codec.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3


@BOTH
@pytest.mark.parametrize("length", [1, 15, 16, 17, 160])
def test_a_reconstruction_is_as_long_as_the_sound(config: CodecConfig, length: int) -> None:
    made = make_codec(config)(noise(2, 1, length))
    assert made.audio.shape == (2, 1, length)
    assert made.codes.shape == (2, 2, -(-length // 16))
    assert made.commitment.shape == ()


@BOTH
def test_a_reconstruction_in_evaluation_is_the_decoded_codes(config: CodecConfig) -> None:
    codec, audio = started(config), noise(2, 1, 160)
    with torch.no_grad():
        made = codec(audio)
    assert torch.equal(made.codes, codec.encode(audio))
    torch.testing.assert_close(made.audio, codec.decode(made.codes), atol=1e-5, rtol=1e-4)


@BOTH
def test_an_items_codebooks_are_the_first_ones(config: CodecConfig) -> None:
    codec, audio = started(config), noise(2, 1, 160)
    with torch.no_grad():
        made = codec(audio, torch.tensor([1, 2]))
    torch.testing.assert_close(made.audio[:1], codec.decode(made.codes[:1, :1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.audio[1:], codec.decode(made.codes[1:]), atol=1e-5, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("quantize", [True, False])
def test_gradient_reaches_every_weight(config: CodecConfig, quantize: bool) -> None:
    codec = make_codec(config)
    made = codec(noise(2, 1, 320), quantize=quantize)
    (made.audio.square().mean() + made.commitment).backward()
    for name, weight in codec.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()) and bool(weight.grad.any()), name


def test_without_quantising_the_codebooks_stay_untouched() -> None:
    codec, audio = make_codec(CONVNEXT), noise(2, 1, 160)
    before = {name: value.clone() for name, value in codec.quantizer.state_dict().items()}
    made = codec(audio, quantize=False)
    assert not made.codes.any() and made.codes.shape == (2, 2, 10) and float(made.commitment) == 0
    assert all(torch.equal(value, before[name]) for name, value in codec.quantizer.state_dict().items())
    assert not torch.allclose(made.audio, codec(audio).audio)


def test_a_codec_with_a_peak_hears_no_levels() -> None:
    codec, audio = started(replace(CONVNEXT, peak=0.5)), noise(2, 1, 320)
    codes = codec.encode(audio)
    assert torch.equal(codec.encode(audio * 0.125), codes)
    assert torch.equal(codec.encode(audio * torch.tensor([4.0, 0.5])[:, None, None]), codes)
    torch.testing.assert_close(codec.scaled(audio).abs().amax((1, 2)), torch.full((2,), 0.5))
    plain = NeuralCodec(CONVNEXT)
    assert torch.equal(plain.scaled(audio), audio)


def test_a_peak_lifts_silence_by_no_more_than_60_db() -> None:
    codec = make_codec(replace(CONVNEXT, peak=1.0))
    assert not codec.scaled(torch.zeros(1, 1, 50)).any()
    assert float(codec.scaled(torch.full((1, 1, 50), 1e-6)).max()) == pytest.approx(1e-3)


@BOTH
def test_a_codec_comes_back_from_its_checkpoint(config: CodecConfig, tmp_path: Path) -> None:
    codec, audio = started(config), noise(1, 1, 100)
    checkpoint.save(codec, tmp_path / "codec")
    again = checkpoint.load(NeuralCodec, tmp_path / "codec")
    assert again.config == config and checkpoint.fingerprint(again) == checkpoint.fingerprint(codec)
    assert torch.equal(again.encode(audio), codec.encode(audio))
    assert torch.equal(again.decode(again.encode(audio)), codec.decode(codec.encode(audio)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, "channels is 3, wanted 1"),
        ({"peak": 1.5}, "peak is 1.5, wanted 0"),
        ({"quantizer": QuantizerConfig(dim=5)}, "quantizer.dim is 5, wanted convnext.dim, 4"),
    ],
)
def test_a_config_that_cannot_work_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONVNEXT, **change)
