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
from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig

CONVNEXT = CodecConfig(
    sample_rate=1600,
    convnext=ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=8, fft_size=32, frames_per_code=2),
    quantizer=QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4),
)
SEANET = replace(CONVNEXT, body="seanet", seanet=SEANetConfig(ratios=(4, 2, 2), filters=2, dim=4, lstm=1))
SPLIT = replace(CONVNEXT, channels=2, split_channels=True)
BOTH = pytest.mark.parametrize("config", [CONVNEXT, SEANET], ids=["convnext", "seanet"])


def make_codec(config: CodecConfig) -> NeuralCodec:
    torch.manual_seed(0)
    return NeuralCodec(config)


def started(config: CodecConfig) -> NeuralCodec:
    """A codec in evaluation mode whose codebooks have seen some latents."""
    codec = make_codec(config)
    with torch.no_grad():
        codec(noise(4, config.channels, 640))
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


@pytest.mark.parametrize("config", [CONVNEXT, SEANET, SPLIT], ids=["convnext", "seanet", "split"])
def test_a_codec_comes_back_from_its_checkpoint(config: CodecConfig, tmp_path: Path) -> None:
    codec, audio = started(config), noise(1, config.channels, 100)
    checkpoint.save(codec, tmp_path / "codec")
    again = checkpoint.load(NeuralCodec, tmp_path / "codec")
    assert again.config == config and checkpoint.fingerprint(again) == checkpoint.fingerprint(codec)
    assert torch.equal(again.encode(audio), codec.encode(audio))
    assert torch.equal(again.decode(again.encode(audio)), codec.decode(codec.encode(audio)))


# --- stereo, channel by channel -----------------------------------------------

BOTH_SPLIT = pytest.mark.parametrize(
    "config", [SPLIT, replace(SEANET, channels=2, split_channels=True)], ids=["convnext", "seanet"]
)


@BOTH_SPLIT
def test_split_channels_are_coded_each_as_mono_and_take_turns(config: CodecConfig) -> None:
    stereo, audio = started(config), noise(3, 2, 170)
    mono = NeuralCodec(replace(config, channels=1, split_channels=False)).eval()
    mono.load_state_dict(stereo.state_dict())
    codes = stereo.encode(audio)
    assert stereo.num_codebooks == 4 and codes.shape == (3, 4, 11)
    assert torch.equal(codes[:, 0::2], mono.encode(audio[:, :1]))
    assert torch.equal(codes[:, 1::2], mono.encode(audio[:, 1:]))
    made = stereo.decode(codes)
    assert made.shape == (3, 2, 176)
    torch.testing.assert_close(made[:, :1], mono.decode(codes[:, 0::2]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made[:, 1:], mono.decode(codes[:, 1::2]), atol=1e-5, rtol=1e-4)


@BOTH_SPLIT
def test_swapping_the_channels_swaps_their_turns(config: CodecConfig) -> None:
    codec, audio = started(config), noise(2, 2, 160)
    codes = codec.encode(audio)
    assert torch.equal(codec.encode(audio.flip(1)), codes[:, [1, 0, 3, 2]])
    assert not torch.equal(codes[:, 0], codes[:, 1])


@BOTH_SPLIT
def test_a_reconstruction_of_split_channels_is_the_decoded_codes(config: CodecConfig) -> None:
    codec, audio = started(config), noise(3, 2, 165)
    with torch.no_grad():
        made = codec(audio)
        first = codec(audio, torch.tensor([2, 4, 2]))
    assert made.audio.shape == (3, 2, 165) and made.commitment.shape == ()
    assert torch.equal(made.codes, codec.encode(audio))
    torch.testing.assert_close(made.audio, codec.decode(made.codes)[..., :165], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.audio[:1], codec.decode(made.codes[:1, :2])[..., :165], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.audio[1], made.audio[1], atol=1e-5, rtol=1e-4)


def test_in_training_half_a_level_is_rounded_up() -> None:
    codec, audio = started(SPLIT), noise(4, 2, 160)
    with torch.no_grad():
        odd, even = codec(audio, torch.tensor([1, 2, 3, 4])), codec(audio, torch.tensor([2, 2, 4, 4]))
    assert torch.equal(odd.audio, even.audio) and float(odd.commitment) == float(even.commitment)


def test_encoding_and_decoding_take_whole_levels() -> None:
    codec, audio = started(SPLIT), noise(2, 2, 160)
    codes = codec.encode(audio)
    assert torch.equal(codec.encode(audio, num_codebooks=2), codes[:, :2])
    assert not torch.allclose(codec.decode(codes[:, :2]), codec.decode(codes))
    message = "by turns: give an even number"
    with pytest.raises(ValueError, match=f"3 codebooks of a codec that codes left and right {message}"):
        codec.decode(codes[:, :3])
    with pytest.raises(ValueError, match=f"1 codebooks of a codec that codes left and right {message}"):
        codec.encode(audio, num_codebooks=1)
    with pytest.raises(ValueError, match="num_codebooks is 5, this codec has 1 to 4"):
        codec.encode(audio, num_codebooks=5)


@BOTH_SPLIT
@pytest.mark.parametrize("quantize", [True, False])
def test_gradient_reaches_every_weight_from_split_channels(config: CodecConfig, quantize: bool) -> None:
    codec = make_codec(config)
    made = codec(noise(2, 2, 320), torch.tensor([3, 4]) if quantize else None, quantize)
    assert made.codes.shape == (2, 4, 20)
    (made.audio.square().mean() + made.commitment).backward()
    for name, weight in codec.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()) and bool(weight.grad.any()), name


@pytest.mark.parametrize("split", [True, False])
def test_a_peak_leaves_the_balance_between_the_channels(split: bool) -> None:
    codec = make_codec(replace(CONVNEXT, channels=2, split_channels=split, peak=0.5))
    audio = noise(2, 2, 320) * torch.tensor([1.0, 0.25])[:, None]
    scaled = codec.scaled(audio)
    torch.testing.assert_close(scaled[:, 1] * audio[:, 0], scaled[:, 0] * audio[:, 1])
    torch.testing.assert_close(scaled.abs().amax((1, 2)), torch.full((2,), 0.5))


# --- streams of the AudioGen paper --------------------------------------------

STREAMS = {1: (32, 2048, (4, 4, 2)), 2: (64, 1024, (4, 4, 4)), 4: (128, 512, (8, 4, 4))}


@pytest.mark.parametrize("body", ["seanet", "convnext"])
def test_more_streams_at_longer_strides_keep_the_rate_of_codes(body: str) -> None:
    """Kreuk et al. 2022: 1, 2 and 4 streams at strides 32, 64 and 128 of 16 kHz."""
    rates = {}
    for streams, (stride, size, ratios) in STREAMS.items():
        config = CodecConfig(
            body=body,  # type: ignore[arg-type]
            seanet=SEANetConfig(ratios=ratios, filters=2, dim=4, lstm=0),
            convnext=ConvNeXtConfig(4, 8, 1, 1, hop=stride, fft_size=4 * stride, frames_per_code=1),
            quantizer=QuantizerConfig(num_codebooks=streams, codebook_size=size, dim=4),
        )
        codec = make_codec(config).eval()
        codes = codec.encode(noise(1, 1, 3200))
        assert codec.hop == stride and codes.shape == (1, streams, 3200 / stride)
        assert codec.decode(codes).shape == (1, 1, 3200)
        rates[streams] = codec.frame_rate
        assert codec.frame_rate * codec.num_codebooks == 500
    assert rates == {1: 500, 2: 250, 4: 125}


# --- configs ------------------------------------------------------------------


def test_codecs_of_before_keep_their_fingerprints() -> None:
    codec = make_codec(SEANET)
    with torch.no_grad():
        for number, (_, tensor) in enumerate(sorted(codec.state_dict().items())):
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + number)
    assert checkpoint.fingerprint(codec) == "a037e52d798d98ff"
    assert checkpoint.fingerprint(NeuralCodec(SPLIT)) != checkpoint.fingerprint(NeuralCodec(CONVNEXT))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, "channels is 3, wanted 1"),
        ({"split_channels": True}, "but channels is 1: give 2"),
        ({"peak": 1.5}, "peak is 1.5, wanted 0"),
        ({"quantizer": QuantizerConfig(dim=5)}, "quantizer.dim is 5, wanted convnext.dim, 4"),
    ],
)
def test_a_config_that_cannot_work_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONVNEXT, **change)


def test_a_linear_way_begins_as_the_principal_components_of_log_magnitudes() -> None:
    torch.manual_seed(0)
    config = replace(CONVNEXT, convnext=replace(CONVNEXT.convnext, linear=True))
    codec = NeuralCodec(config).eval()
    audio = noise(6, 1, 3200) * torch.linspace(0.01, 1, 3200)
    codec.begin(audio)
    assert isinstance(codec.encoder, ConvNeXtEncoder) and isinstance(codec.decoder, ConvNeXtDecoder)
    vectors = codec.encoder.log_magnitudes(audio).flatten(0, 1)
    mean = vectors.mean(0)
    _, _, directions = torch.linalg.svd(vectors - mean, full_matrices=False)
    kept = directions[: config.convnext.dim]
    latents = codec.encoder(audio)
    made = codec.decoder.linear(latents.transpose(1, 2)).flatten(0, 1)
    torch.testing.assert_close(made, (vectors - mean) @ kept.T @ kept + mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents.square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_the_codebooks_of_a_linear_way_begin_as_k_means_of_all_that_is_given() -> None:
    """Each book lowers what is left of the very frames, and no step of training takes their place."""
    torch.manual_seed(0)
    config = replace(CONVNEXT, convnext=replace(CONVNEXT.convnext, linear=True))
    codec, audio = NeuralCodec(config), noise(6, 1, 3200)
    random = [book.embed.clone() for book in codec.quantizer.books]
    codec.begin(audio)
    latents = codec.eval().encoder(audio)
    latents = latents.detach()
    left = [float(latents.square().mean())]
    for count in range(1, codec.num_codebooks + 1):
        left.append(float((latents - codec.quantizer.decode(codec.quantizer.encode(latents, count))).square().mean()))
    assert left == sorted(left, reverse=True)
    assert left[1] < 0.7 * left[0]
    begun = [book.embed.clone() for book in codec.quantizer.books]
    assert not any(torch.equal(*pair) for pair in zip(random, begun, strict=True))
    codec.train()(audio)
    for before, book in zip(begun, codec.quantizer.books, strict=True):
        assert float((book.embed - before).norm() / before.norm()) < 0.2


def test_what_has_no_linear_way_cannot_begin_it() -> None:
    with pytest.raises(ValueError, match="set convnext.linear"):
        make_codec(CONVNEXT).begin(noise(1, 1, 3200))
    with pytest.raises(ValueError, match="body seanet has no linear way"):
        make_codec(SEANET).begin(noise(1, 1, 3200))


def test_too_little_audio_does_not_begin_a_linear_way() -> None:
    config = replace(CONVNEXT, convnext=replace(CONVNEXT.convnext, linear=True))
    with pytest.raises(ValueError, match="give more audio"):
        make_codec(config).begin(noise(1, 1, make_codec(config).hop))
