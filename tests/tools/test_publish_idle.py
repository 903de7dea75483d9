"""A codec without its idle blocks makes the same codes and the same sound; one whose blocks work stays as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from publish_idle import without_idle_blocks
from torch import Tensor

from audiolm_kit.codec.convnext import ConvNeXtDecoder
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.codec.streaming import StreamingEncoder

SIZES: dict[str, Any] = {"dim": 8, "width": 16, "encoder_layers": 2, "decoder_layers": 3, "hop": 40, "fft_size": 160}


def a_sound(seconds: float = 0.5) -> Tensor:
    time = torch.arange(round(8000 * seconds)) / 8000
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    return (0.3 * torch.sin(2 * torch.pi * 500 * time * (1 + time)) + 0.05 * noise)[None, None]


def a_begun_codec(**body: Any) -> NeuralCodec:
    """As `fit` leaves it with max_steps 0."""
    torch.manual_seed(0)
    given = {"noise": True, "linear": True, "refine": 2, **body}
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=8000, convnext=ConvNeXtConfig(**SIZES, **given), quantizer=quantizer))
    if codec.config.convnext.linear:
        codec.begin(a_sound(2.0))
    return codec.eval()


def numbers(codec: Any) -> int:
    return sum(weight.numel() for weight in codec.parameters())


def body_of(codec: Any) -> ConvNeXtConfig:
    assert isinstance(codec, NeuralCodec)
    return codec.config.convnext


def test_a_begun_codec_loses_its_encoder_bit_for_bit() -> None:
    codec = a_begun_codec()
    made = without_idle_blocks(codec)
    assert (body_of(made).encoder_layers, body_of(made).decoder_layers, body_of(made).width) == (0, 3, 16)
    codes = codec.encode(a_sound())
    assert torch.equal(made.encode(a_sound()), codes)
    assert torch.equal(made.decode(codes), codec.decode(codes))
    assert numbers(made) < numbers(codec)


def test_without_its_phases_it_keeps_its_codes_and_nearly_all_of_its_sound() -> None:
    codec = a_begun_codec()
    made = without_idle_blocks(codec, phases=True)
    assert (body_of(made).encoder_layers, body_of(made).decoder_layers, body_of(made).width) == (0, 0, 1)
    codes = codec.encode(a_sound(2.0))
    assert torch.equal(made.encode(a_sound(2.0)), codes)
    first, second = (spectrum(each.decode(codes)) for each in (codec, made))
    drawn = redrawn(codec)
    assert (second - first).norm() < 0.7 * (spectrum(drawn.decode(codes)) - first).norm()
    assert second.norm() == pytest.approx(float(first.norm()), rel=0.05)


def spectrum(audio: Tensor) -> Tensor:
    return torch.stft(audio[0, 0], 160, 40, window=torch.hann_window(160), return_complex=True).abs()


def redrawn(codec: NeuralCodec) -> NeuralCodec:
    """The same with other noise."""
    made = NeuralCodec(codec.config)
    made.load_state_dict(codec.state_dict())
    assert isinstance(made.decoder, ConvNeXtDecoder)
    made.decoder.head.table = made.decoder.head.table.roll(777, 1)
    return made.eval()


@pytest.mark.parametrize("body", [{"refine": 0}, {"noise": False}, {"postfilter": 2}])
def test_phases_that_are_heard_stay(body: dict[str, Any]) -> None:
    made = without_idle_blocks(a_begun_codec(**body), phases=True)
    assert body_of(made).decoder_layers == 3 and body_of(made).encoder_layers == 0


def test_behind_a_postfilter_weights_that_nothing_is_read_of_are_zeros_bit_for_bit() -> None:
    codec = a_begun_codec(postfilter=2)
    postfilter = codec.decoder.head.postfilter  # type: ignore[union-attr]
    with torch.no_grad():
        for weight in postfilter.parameters():  # type: ignore[operator]
            weight.add_(0.1)
    made = without_idle_blocks(codec)
    codes = codec.encode(a_sound())
    assert torch.equal(made.encode(a_sound()), codes)
    assert torch.equal(made.decode(codes), codec.decode(codes))
    assert isinstance(made, NeuralCodec)
    for name in ("encoder.enter", "decoder.head.project"):
        assert not made.get_parameter(f"{name}.weight").any() and codec.get_parameter(f"{name}.weight").any()


def test_a_decoder_of_which_nothing_comes_goes_bit_for_bit() -> None:
    codec = a_begun_codec()
    assert isinstance(codec.decoder, ConvNeXtDecoder)
    torch.nn.init.zeros_(codec.decoder.head.project.weight)
    made, codes = without_idle_blocks(codec), codec.encode(a_sound())
    assert body_of(made).width == 1 and torch.equal(made.decode(codes), codec.decode(codes))


def test_blocks_that_add_nothing_go_one_by_one() -> None:
    codec = a_begun_codec(linear=False)
    with torch.no_grad():
        for name in ("decoder.blocks.1.scale", "encoder.blocks.0.scale"):
            codec.get_parameter(name).zero_()
    made, codes = without_idle_blocks(codec), codec.encode(a_sound())
    assert (body_of(made).encoder_layers, body_of(made).decoder_layers) == (1, 2)
    assert torch.equal(made.encode(a_sound()), codes) and torch.equal(made.decode(codes), codec.decode(codes))


def test_a_codec_whose_blocks_all_work_stays_itself() -> None:
    codec = a_begun_codec(linear=False)
    assert without_idle_blocks(codec, phases=True) is codec
    trained = a_begun_codec()
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(0.01)
    assert without_idle_blocks(trained, phases=True) is trained


def test_another_body_stays_itself() -> None:
    body = SEANetConfig(ratios=(2, 2), filters=2, dim=4, lstm=0)
    codec = NeuralCodec(CodecConfig(body="seanet", seanet=body, quantizer=QuantizerConfig(2, 8, 4)))
    assert without_idle_blocks(codec, phases=True) is codec


def test_it_streams_as_it_encodes() -> None:
    made = without_idle_blocks(a_begun_codec(), phases=True)
    assert isinstance(made, NeuralCodec)
    encoder, sound = StreamingEncoder(made), a_sound()
    pieces = [encoder.push(sound[..., start : start + 700]) for start in range(0, sound.shape[-1], 700)]
    assert torch.equal(torch.cat([*pieces, encoder.finish()], -1), made.encode(sound))


def test_the_config_says_the_rest_as_it_was() -> None:
    codec = a_begun_codec()
    made = without_idle_blocks(codec, phases=True)
    sizes = {"encoder_layers": 2, "decoder_layers": 3, "width": 16}
    assert isinstance(made, NeuralCodec)
    assert dataclasses.replace(made.config, convnext=dataclasses.replace(body_of(made), **sizes)) == codec.config
