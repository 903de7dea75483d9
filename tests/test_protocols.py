"""The contract: what every Codec promises, whatever its body.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.foreign import ForeignCodec, ForeignConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.protocols import AudioTokenizer, Codec

QUANTIZER = QuantizerConfig(num_codebooks=3, codebook_size=16, dim=4)
CONVNEXT = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=8, fft_size=32, frames_per_code=2)
MONO = CodecConfig(sample_rate=1600, convnext=CONVNEXT, quantizer=QUANTIZER)
CONFIGS = {
    "convnext": MONO,
    "convnext stereo": dataclasses.replace(MONO, channels=2),
    "convnext at its peak": dataclasses.replace(MONO, peak=0.9),
    "convnext without overlap": dataclasses.replace(
        MONO, convnext=dataclasses.replace(CONVNEXT, fft_size=16, frames_per_code=1)
    ),
    "seanet": dataclasses.replace(MONO, body="seanet", seanet=SEANetConfig(ratios=(4, 2, 2), filters=2, dim=4, lstm=1)),
}

DAC = {
    **{"sampling_rate": 1600, "n_codebooks": 3, "codebook_size": 16, "codebook_dim": 4},
    **{"encoder_hidden_size": 4, "decoder_hidden_size": 16},
}
MIMI = {
    **{"sampling_rate": 1600, "num_quantizers": 4, "codebook_size": 16, "codebook_dim": 4},
    **{"vector_quantization_hidden_dimension": 4, "hidden_size": 8, "num_filters": 2, "upsampling_ratios": [4, 2]},
    **{"upsample_groups": 8, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "sliding_window": 8},
}
FOREIGN = {
    "dac": ForeignConfig("dac", json.dumps(DAC | {"downsampling_ratios": [4, 4]})),
    "dac with an odd ratio": ForeignConfig("dac", json.dumps(DAC | {"downsampling_ratios": [2, 5]})),
    "mimi": ForeignConfig("mimi", json.dumps(MIMI), num_codebooks=3),
    "mimi with two semantic codebooks": ForeignConfig("mimi", json.dumps(MIMI | {"num_semantic_quantizers": 2}), 3),
}


@pytest.fixture(params=[*CONFIGS, *FOREIGN])
def codec(request: pytest.FixtureRequest) -> AnyCodec:
    """One of each, with codebooks that have seen its latents, so that it uses many codes."""
    torch.manual_seed(0)
    if request.param in FOREIGN:
        return foreign(FOREIGN[request.param])
    model = NeuralCodec(CONFIGS[request.param])
    with torch.no_grad():
        model(sounds(model, 4, 40 * model.hop))
    return model.eval()


def foreign(config: ForeignConfig) -> ForeignCodec:
    """One with random weights; a Mimi begins with codebooks of zeros."""
    codec = ForeignCodec(config)
    audio = sounds(codec, 4, 40 * codec.hop)
    for weight in codec.parameters():
        weight.add_(torch.randn(weight.shape), alpha=0.1 if weight.dim() == 1 else 0.2)
    for book in [each for each in codec.modules() if hasattr(each, "embed_sum")]:
        fill(book, codec, audio)
    return codec


def fill(book: Any, codec: ForeignCodec, audio: Tensor) -> None:
    """Make the entries of one codebook of what it is asked to quantise."""
    asked: list[Tensor] = []
    book.quantize = lambda given: asked.append(given) or type(book).quantize(book, given)
    codec.encode(audio)
    del book.quantize
    if asked:  # those that are not used stay as they are
        book.embed_sum.copy_(asked[0][torch.randperm(len(asked[0]))[: len(book.embed_sum)]])
    book._embed = None


def sounds(codec: Codec, batch: int, length: int, seed: int = 1) -> Tensor:
    """Noise whose colour and level change, [B, C, L]."""
    noise = torch.randn(batch, codec.channels, length, generator=torch.Generator().manual_seed(seed))
    return (noise.cumsum(-1) * 0.1).sin() * torch.linspace(0.1, 0.9, length)


def test_it_says_what_it_is(codec: AnyCodec) -> None:
    assert isinstance(codec, AudioTokenizer) and isinstance(codec, Codec)
    assert (codec.sample_rate, codec.num_codebooks, codec.codebook_size) == (1600, 3, 16)
    assert codec.frame_rate == codec.sample_rate / codec.hop


@pytest.mark.parametrize("extra", [1, 5, -1, 0])
def test_a_frame_for_every_begun_hop(codec: AnyCodec, extra: int) -> None:
    length = 3 * codec.hop + extra
    codes = codec.encode(sounds(codec, 2, length))
    assert codes.shape == (2, 3, -(-length // codec.hop))
    assert codes.dtype == torch.int64


def test_a_single_sample_is_a_frame(codec: AnyCodec) -> None:
    assert codec.encode(sounds(codec, 1, 1)).shape == (1, 3, 1)


def test_codes_lie_in_range_and_differ(codec: AnyCodec) -> None:
    codes = codec.encode(sounds(codec, 2, 30 * codec.hop))
    assert int(codes.min()) >= 0 and int(codes.max()) < codec.codebook_size
    assert all(stream.unique().numel() > 3 for stream in codes.unbind(1))


@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_a_hop_of_sound_for_every_frame(codec: AnyCodec, num_frames: int) -> None:
    codes = torch.randint(0, 16, (2, 3, num_frames), generator=torch.Generator().manual_seed(0))
    audio = codec.decode(codes)
    assert audio.shape == (2, codec.channels, num_frames * codec.hop)
    assert audio.dtype == torch.float32 and bool(audio.isfinite().all())


def test_a_batch_is_its_items_one_by_one(codec: AnyCodec) -> None:
    audio = sounds(codec, 3, 12 * codec.hop + 3)
    codes = codec.encode(audio)
    assert torch.equal(codes, torch.cat([codec.encode(item[None]) for item in audio]))
    one_by_one = torch.cat([codec.decode(item[None]) for item in codes])
    torch.testing.assert_close(codec.decode(codes), one_by_one, atol=1e-5, rtol=1e-4)


def test_fewer_codebooks_decode_and_are_the_first_ones(codec: AnyCodec) -> None:
    audio = sounds(codec, 2, 8 * codec.hop)
    codes = codec.encode(audio)
    made = [codec.decode(codes[:, :count]) for count in (1, 2, 3)]
    assert {tuple(each.shape) for each in made} == {(2, codec.channels, 8 * codec.hop)}
    assert not torch.allclose(made[0], made[1]) and not torch.allclose(made[1], made[2])
    assert torch.equal(codec.encode(audio, num_codebooks=2), codes[:, :2])


def test_encoding_and_decoding_change_nothing_and_need_no_gradient(codec: AnyCodec) -> None:
    codec.train()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    audio = codec.decode(codec.encode(sounds(codec, 1, 5 * codec.hop)))
    assert not audio.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())


@pytest.mark.parametrize("shape", [(100,), (1, 100), (1, 3, 100), (1, 1, 1, 100)])
def test_audio_of_another_shape_is_refused(codec: AnyCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"wanted \[B, {codec.channels}, L\]"):
        codec.encode(torch.zeros(shape))


def test_audio_without_samples_is_refused(codec: AnyCodec) -> None:
    for shape in ((1, codec.channels, 0), (0, codec.channels, 100)):
        with pytest.raises(ValueError, match="has no samples"):
            codec.encode(torch.zeros(shape))


@pytest.mark.parametrize("num_codebooks", [0, 4, -1])
def test_codebooks_that_are_not_there_are_refused(codec: AnyCodec, num_codebooks: int) -> None:
    with pytest.raises(ValueError, match=f"num_codebooks is {num_codebooks}, this codec has 1 to 3"):
        codec.encode(sounds(codec, 1, 50), num_codebooks)


@pytest.mark.parametrize("shape", [(3, 5), (1, 4, 5), (1, 0, 5), (1, 3, 0), (0, 3, 5)])
def test_codes_of_another_shape_are_refused(codec: AnyCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"codes are of shape .* wanted \[B, 1 to 3, at least 1\]"):
        codec.decode(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("value", [-1, 16])
def test_codes_out_of_range_are_refused(codec: AnyCodec, value: int) -> None:
    codes = torch.zeros(1, 3, 5, dtype=torch.int64)
    codes[0, 1, 2] = value
    with pytest.raises(ValueError, match="wanted 0 to 15"):
        codec.decode(codes)
