"""Segments: cut, counted, faded together; a codec of segments keeps lengths and loudness, and says what it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import LEVEL, CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.codec.segments import Segments, cut_into
from audiolm_kit.codec.streaming import StreamingDecoder, decode
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig

META = Segments(48000, 47520, 320)
CUTS = [META, *(Segments(*each) for each in ((100, 90, 8), (100, 100, 8), (64, 32, 16), (64, 20, 16), (100, 37, 7)))]
SEANET = CodecConfig(
    sample_rate=1600,
    channels=2,
    body="seanet",
    seanet=SEANetConfig(ratios=(4, 2), filters=4, dim=8, lstm=1, causal=False, norm="time_group_norm"),
    quantizer=QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8),
    normalize=True,
    segment=0.125,
    overlap=0.1,
)
CONVNEXT = CodecConfig(
    sample_rate=1600,
    convnext=ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=8, fft_size=32, frames_per_code=2),
    quantizer=QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4),
)
BOTH = pytest.mark.parametrize(
    "config", [SEANET, replace(CONVNEXT, segment=0.1, overlap=0.25)], ids=["seanet", "convnext"]
)


def a_codec(config: CodecConfig) -> NeuralCodec:
    """A codec in evaluation mode whose codebooks have seen some latents."""
    torch.manual_seed(0)
    codec = NeuralCodec(config)
    with torch.no_grad():
        codec(noise(4, config.channels, 640))
    return codec.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3


# --- counting -----------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_segments_cover_a_sound_and_their_frames_tell_how_it_was_cut(cut: Segments) -> None:
    lengths = range(1, 700) if cut is not META else range(1, 200_000, 97)
    for num_samples in lengths:
        bounds, frames = cut.bounds(num_samples), cut.frames(num_samples)
        assert bounds[0][0] == 0 and max(end for _, end in bounds) == num_samples
        assert all(0 < end - begin <= cut.length for begin, end in bounds)
        assert cut.sizes(sum(frames)) == frames


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_any_number_of_frames_can_be_decoded_and_brings_a_hop_each(cut: Segments) -> None:
    whole = -(-cut.length // cut.frame)
    for num_frames in range(1, 120 if cut is not META else 700):
        sizes = cut.sizes(num_frames)
        assert sum(sizes) == num_frames and 1 <= min(sizes) <= max(sizes) <= whole
        assert max(place * cut.stride + size * cut.frame for place, size in enumerate(sizes)) >= num_frames * cut.hop


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_sound_has_at_most_a_frame_for_every_begun_hop(cut: Segments) -> None:
    for num_samples in range(1, 700) if cut is not META else range(1, 200_000, 97):
        assert sum(cut.frames(num_samples)) <= -(-num_samples // cut.hop)


def test_metas_second_has_two_frames_more() -> None:
    """The 10 ms that a second segment repeats are coded although the sound ends with them."""
    assert META.hop == 316
    found = {length: META.frames(length) for length in (47520, 47521, 48000, 95520)}
    assert found == {47520: [149], 47521: [149, 1], 48000: [150, 2], 95520: [150, 150, 2]}


# --- joining ------------------------------------------------------------------


def test_equal_segments_join_without_a_seam_and_others_fade() -> None:
    cut = Segments(8, 6, 2)
    audio = noise(2, 1, 20)
    pieces = [audio[..., begin:end] for begin, end in cut.bounds(20)]
    torch.testing.assert_close(cut.joined(pieces), audio)
    made = cut.joined([torch.zeros(1, 1, 8), torch.ones(1, 1, 8)])[0, 0]
    assert made.shape == (14,) and not made[:6].any() and bool((made[8:] == 1).all())
    assert 0 < float(made[6]) < float(made[7]) < 1


# --- a codec of segments ------------------------------------------------------


@BOTH
def test_each_segment_is_coded_for_itself(config: CodecConfig) -> None:
    codec, audio, cut = a_codec(config), noise(2, config.channels, 500), config.segments
    assert cut is not None
    alone = NeuralCodec(replace(config, segment=0.0, overlap=0.0)).eval()
    alone.load_state_dict(codec.state_dict())
    parts = [alone.encode_scaled(audio[..., begin:end]) for begin, end in cut.bounds(500)]
    codes, scales = codec.encode_scaled(audio)
    assert torch.equal(codes, torch.cat([part.codes for part in parts], -1))
    assert torch.equal(scales, torch.cat([part.scales for part in parts], -1)) and scales.shape == (2, len(parts))
    assert torch.equal(codec.encode(audio), codes) and torch.equal(codec.encode(audio, 1), codes[:, :1])
    pieces = [alone.decode(*part) for part in parts]
    torch.testing.assert_close(codec.decode(codes, scales), cut.joined(pieces))


@BOTH
@pytest.mark.parametrize("num_frames", [1, 9, 25, 26, 60])
def test_lengths_are_bounded_by_the_hop(config: CodecConfig, num_frames: int) -> None:
    codec = a_codec(config)
    assert codec.hop < config.frame and codec.frame_rate == codec.sample_rate / codec.hop
    assert codec.encode(noise(1, config.channels, num_frames * codec.hop)).shape[-1] <= num_frames
    assert codec.decode(torch.zeros(1, 2, num_frames, dtype=torch.long)).shape[-1] >= num_frames * codec.hop


def test_segments_without_overlap_have_whole_hops() -> None:
    codec = a_codec(replace(CONVNEXT, segment=0.1))
    assert codec.hop == 16
    for length in (1, 160, 161, 500):
        codes = codec.encode(noise(1, 1, length))
        assert codes.shape[-1] == -(-length // 16) and codec.decode(codes).shape[-1] == 16 * codes.shape[-1]


@pytest.mark.parametrize("seconds", [0.01, 0.125, 0.13, 0.5])
def test_generated_and_continued_sounds_have_the_asked_length(seconds: float) -> None:
    codec = a_codec(SEANET)
    torch.manual_seed(1)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=TransformerConfig(dim=8, heads=2, layers=1)))
    model = AudioGen(codec, lm, None)
    length = round(seconds * 1600)
    [made] = model.generate([""], seconds)
    assert made.samples.shape == (2, length)
    for given in {codec.hop, length // 2, length - 1} if length > 2 * codec.hop else set():
        prompt = Sound(noise(2, given), 1600)
        [longer] = model.continue_([prompt], seconds)
        assert longer.samples.shape == (2, length)


@BOTH
def test_a_codec_of_segments_decodes_whole_and_refuses_to_stream(config: CodecConfig) -> None:
    codec = a_codec(config)
    codes = codec.encode(noise(1, config.channels, 500))
    assert not codec.can_stream and torch.equal(decode(codec, codes), codec.decode(codes))
    with pytest.raises(ValueError, match="a codec of segments .* cannot decode piece by piece: decode all codes"):
        StreamingDecoder(codec)


# --- loudness -----------------------------------------------------------------


def test_codes_carry_no_level_and_scales_bring_it_back() -> None:
    codec, audio = a_codec(SEANET), noise(2, 2, 500)
    codes, scales = codec.encode_scaled(audio)
    quiet = codec.encode_scaled(audio * 0.125)
    assert torch.equal(quiet.codes, codes)
    torch.testing.assert_close(quiet.scales, scales * 0.125)
    torch.testing.assert_close(codec.decode(*quiet), codec.decode(codes, scales) * 0.125)
    even = torch.full_like(scales, LEVEL)
    assert torch.equal(codec.decode(codes), codec.decode(codes, even))


def test_a_codec_that_leaves_levels_alone_has_scales_of_one() -> None:
    codec = a_codec(CONVNEXT)
    codes, scales = codec.encode_scaled(noise(3, 1, 100))
    assert torch.equal(scales, torch.ones(3, 1)) and torch.equal(codec.decode(codes, scales), codec.decode(codes))


def test_silence_is_coded_and_stays_silent() -> None:
    codec = a_codec(SEANET)
    codes, scales = codec.encode_scaled(torch.zeros(1, 2, 300))
    assert float(scales.max()) < 1e-6 and float(codec.decode(codes, scales).abs().max()) < 1e-5


def test_a_normalised_stream_is_as_loud_as_the_whole() -> None:
    codec = a_codec(replace(CONVNEXT, normalize=True))
    codes = codec.encode(noise(1, 1, 640))
    decoder = StreamingDecoder(codec)
    streamed = torch.cat([decoder.push(codes), decoder.finish()], -1)
    assert codec.can_stream
    torch.testing.assert_close(streamed, codec.decode(codes), atol=1e-5, rtol=1e-4)


def test_in_training_a_sound_comes_back_at_its_own_level() -> None:
    codec, audio = a_codec(replace(SEANET, segment=0.0, overlap=0.0)), noise(2, 2, 160)
    with torch.no_grad():
        made = codec(audio)
    codes, scales = codec.encode_scaled(audio)
    assert torch.equal(made.codes, codes)
    torch.testing.assert_close(made.audio, codec.decode(codes, scales), atol=1e-5, rtol=1e-4)


# --- refusals -----------------------------------------------------------------


def test_scales_of_another_shape_are_refused() -> None:
    codec = a_codec(SEANET)
    codes, scales = codec.encode_scaled(noise(1, 2, 500))
    with pytest.raises(ValueError, match=r"scales are of shape \[1, 2\], wanted \[1, 3\]"):
        codec.decode(codes, scales[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment": -1.0, "overlap": 0.0}, "segment is -1.0 s and overlap 0.0: give 0 and 0"),
        ({"overlap": 1.0}, "overlap 1.0: give 0 and 0, or a length"),
        ({"segment": 0.0}, "segment is 0.0 s and overlap 0.1: give 0 and 0"),
        ({"overlap": 0.95}, "make segments longer, or overlap less"),
        ({"segment": 1e-4}, "make segments longer, or overlap less"),
        ({"peak": 0.5}, "normalize is set and so is peak, 0.5"),
    ],
)
def test_segments_that_cannot_be_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SEANET, **change)


def test_no_segment_is_no_cut() -> None:
    assert cut_into(0.0, 0.0, 48000, 320) is None and cut_into(1.0, 0.01, 48000, 320) == META
