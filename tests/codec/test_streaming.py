"""Streaming equals decoding the whole: for every body, however the codes are cut, in the memory of a second."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_codecs import CONVNEXT, convnext, seanet
from torch import Tensor, nn

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.passage import Window
from audiolm_kit.codec.streaming import StreamingDecoder, decode
from audiolm_kit.official.encodec import from_encodec, import_encodec

CONFIGS = {
    "convnext": CONVNEXT,
    "convnext odd overlap": convnext(hop=5, fft_size=21, frames_per_code=1),
    "convnext wide overlap": convnext(hop=4, fft_size=30, frames_per_code=3),
    "convnext without overlap": convnext(fft_size=8),
    "convnext stereo": dataclasses.replace(CONVNEXT, channels=2),
    "convnext with noise": convnext(noise=True),
    "convnext stereo with noise": dataclasses.replace(convnext(noise=True), channels=2),
    "convnext with a linear way": convnext(linear=True),
    "convnext stereo with noise and a linear way": dataclasses.replace(convnext(noise=True, linear=True), channels=2),
    "convnext refined": convnext(refine=2),
    "convnext stereo, noisy, linear and refined": dataclasses.replace(
        convnext(noise=True, linear=True, refine=1), channels=2
    ),
    "convnext whose linear way speaks of noise": dataclasses.replace(
        convnext(noise=True, linear=True, linear_noise=True, refine=1), channels=2
    ),
    "convnext with a postfilter": convnext(noise=True, linear=True, postfilter=3, refine=1),
    "convnext stereo with a postfilter, not refined": dataclasses.replace(
        convnext(noise=True, linear=True, postfilter=2), channels=2
    ),
    "convnext at its peak": dataclasses.replace(CONVNEXT, peak=0.9),
    "convnext split": dataclasses.replace(CONVNEXT, channels=2, split_channels=True),
    "causal": seanet(),
    "causal with zeros": seanet(pad_mode="constant"),
    "causal without lstm": seanet(lstm=0),
    "causal deep": seanet(lstm=1, residual_layers=3, shortcut="identity"),
    "causal cut on both sides": seanet(trim_right_ratio=0.5),
    "causal cut on the left": seanet(trim_right_ratio=0.0, lstm=0, pad_mode="constant"),
    "causal of a short hop": seanet(ratios=(2,)),
    "causal split": dataclasses.replace(seanet(), channels=2, split_channels=True),
    "both ways": seanet(causal=False),
    "both ways with zeros": seanet(causal=False, pad_mode="constant"),
    "both ways without lstm": seanet(causal=False, lstm=0),
    "both ways deep": seanet(causal=False, residual_layers=2, kernel=5, last_kernel=3),
    "both ways of a short hop": seanet(causal=False, ratios=(1, 3)),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)
WHOLE_ONLY = seanet(causal=False, norm="time_group_norm")


def codec(config: CodecConfig) -> NeuralCodec:
    """With random weights throughout, also where the usual start is zero."""
    torch.manual_seed(0)
    model = NeuralCodec(config).eval()
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.add_(0.3 * weight.std(correction=0).clamp_min(0.1) * torch.randn_like(weight))
    return model


def random_codes(model: NeuralCodec, num_frames: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return torch.randint(0, model.codebook_size, (batch, model.num_codebooks, num_frames), generator=generator)


def streamed(model: NeuralCodec, codes: Tensor, frames: int) -> Tensor:
    """The audio of codes that come so many frames at a time."""
    decoder = StreamingDecoder(model)
    pieces = [decoder.push(piece) for piece in codes.split(frames, -1)]
    return torch.cat([*pieces, decoder.finish()], -1)


# --- laws ---------------------------------------------------------------------


@EVERY
def test_streaming_equals_decoding_the_whole(name: str) -> None:
    model = codec(CONFIGS[name])
    for num_frames in (1, 2, 5, 7, 8, 11, 40):
        codes = random_codes(model, num_frames)
        whole = model.decode(codes)
        torch.testing.assert_close(decode(model, codes), whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


@EVERY
def test_the_same_bits_however_the_codes_are_cut(name: str) -> None:
    model = codec(CONFIGS[name])
    codes = random_codes(model, 30)
    at_once = decode(model, codes)
    assert all(torch.equal(streamed(model, codes, frames), at_once) for frames in (1, 7))


@EVERY
def test_a_frames_sound_depends_on_its_context_and_on_nothing_else(name: str) -> None:
    model = codec(CONFIGS[name]).double()  # the outermost frames weigh little
    left, right = model.decoder.context
    remembers = model.config.body == "seanet" and model.config.seanet.lstm
    codes, at = random_codes(model, 40, batch=1), 20

    def heard(place: int) -> bool:
        """Whether the frame's sound changes with the codes of another frame."""
        changed, frame = codes.clone(), slice(at * model.hop, (at + 1) * model.hop)
        changed[..., place] = (changed[..., place] + 5) % model.codebook_size
        return not torch.equal(model.decode(changed)[..., frame], model.decode(codes)[..., frame])

    assert not heard(at + right + 1) and (remembers or not heard(at - left - 1))
    # Windows that begin with a zero or end within a hop reach a little less far than the context says.
    assert "overlap" in name or (heard(at + right) and heard(at - left))


@pytest.mark.parametrize("name", ["convnext", "causal", "both ways", "convnext split"])
def test_audio_comes_as_soon_as_its_context_is_known(name: str) -> None:
    model = codec(CONFIGS[name])
    decoder, codes = StreamingDecoder(model), random_codes(model, 40)
    assert decoder.look_ahead == model.decoder.context[1]
    lengths = [decoder.push(codes[..., [frame]]).shape[-1] for frame in range(40)]
    first = next(frame for frame, length in enumerate(lengths) if length)
    mirrored = 6 if name == "causal" else 0  # a mirrored first convolution shows six frames to the first one
    assert first == max(decoder.look_ahead, mirrored)
    out = [sum(lengths[: frame + 1]) for frame in range(40)]
    known = [max(0, frame + 1 - decoder.look_ahead) * model.hop for frame in range(40)]
    assert all(length < most + model.hop for length, most in zip(out, known, strict=True))
    assert out[-1] >= known[-1] - 10 * model.hop


def test_causal_bodies_look_less_far_ahead() -> None:
    causal, both_ways, light = (CONFIGS[name] for name in ("causal", "both ways", "convnext"))
    assert codec(causal).decoder.context[1] == 0
    assert codec(both_ways).decoder.context[1] > 0 and codec(light).decoder.context[1] > 0


def test_codes_that_come_1_5_times_as_fast_as_they_are_heard_keep_a_listener_supplied() -> None:
    model = codec(CONFIGS["causal with zeros"])
    decoder, codes, heard_from, ready = StreamingDecoder(model), random_codes(model, 200), 0, 0
    for frame in range(200):
        ready += decoder.push(codes[..., [frame]]).shape[-1] // model.hop
        heard_from = heard_from or (frame + 1 if ready else 0)
        if heard_from:
            assert ready >= (frame + 1 - heard_from) / 1.5


# --- lengths, batches, kinds --------------------------------------------------


@EVERY
def test_no_frames_give_no_sound(name: str) -> None:
    model = codec(CONFIGS[name])
    codes = random_codes(model, 0)
    assert decode(model, codes).shape == (2, model.channels, 0)
    decoder = StreamingDecoder(model)
    assert decoder.push(codes).shape == (2, model.channels, 0)
    assert decoder.push(random_codes(model, 3)).shape[:2] == (2, model.channels)
    assert decoder.push(codes).shape == (2, model.channels, 0)


def test_a_stream_without_any_push_is_empty() -> None:
    assert StreamingDecoder(codec(CONVNEXT)).finish().shape == (0, 1, 0)


@pytest.mark.parametrize("name", ["convnext", "causal", "convnext split"])
def test_fewer_codebooks_stream_too(name: str) -> None:
    model = codec(CONFIGS[name])
    codes = random_codes(model, 30)[:, :2]
    torch.testing.assert_close(streamed(model, codes, 4), model.decode(codes), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["convnext", "causal", "both ways"])
def test_bfloat16_streams_too(name: str) -> None:
    model = codec(CONFIGS[name]).bfloat16()
    codes, whole = random_codes(model, 30), model.decode(random_codes(model, 30))
    made = streamed(model, codes, 4)
    assert made.dtype == whole.dtype and torch.equal(made, decode(model, codes))
    torch.testing.assert_close(made, whole, atol=0.05 * float(whole.abs().max()), rtol=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["convnext", "causal", "both ways"])
def test_the_same_bits_on_a_gpu(name: str) -> None:
    model = codec(CONFIGS[name]).cuda()
    codes = random_codes(model, 60).cuda()
    at_once = decode(model, codes)
    assert at_once.is_cuda and torch.equal(streamed(model, codes, 1), at_once)
    torch.testing.assert_close(at_once, model.decode(codes), atol=1e-2, rtol=1e-2)  # convolutions may run in TF32


def test_streaming_changes_nothing_and_needs_no_gradient() -> None:
    model = codec(CONFIGS["causal"]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not decode(model, random_codes(model, 20)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_streams_of_one_codec_do_not_mix() -> None:
    model = codec(CONFIGS["causal"])
    one, other = random_codes(model, 20), random_codes(model, 21)[..., :20]
    decoders, made = [StreamingDecoder(model), StreamingDecoder(model)], [[], []]  # type: ignore[var-annotated]
    for frame in range(20):
        for decoder, codes, out in zip(decoders, (one, other), made, strict=True):
            out.append(decoder.push(codes[..., [frame]]))
    for decoder, codes, out in zip(decoders, (one, other), made, strict=True):
        assert torch.equal(torch.cat([*out, decoder.finish()], -1), decode(model, codes))


@pytest.mark.parametrize(("name", "seconds"), [("convnext", 600), ("causal", 100), ("both ways", 100)])
def test_ten_minutes_stream_in_the_memory_of_a_second(name: str, seconds: int) -> None:
    model = codec(CONFIGS[name])
    decoder, held, length = StreamingDecoder(model), [], 0
    for piece in random_codes(model, 10 * seconds, batch=1).split(40, -1):
        length += decoder.push(piece).shape[-1]
        held.append(decoder.held)
    assert length + decoder.finish().shape[-1] == seconds * model.sample_rate
    assert max(held[5:]) == max(held[5:15]) <= 4 * model.sample_rate


def test_a_long_push_is_not_kept() -> None:
    decoder = StreamingDecoder(codec(CONVNEXT))
    decoder.push(random_codes(decoder.codec, 500))
    kept = [decoder._waiting, *(part.frames for part in decoder._parts if isinstance(part, Window))]
    assert all(each is not None and each.untyped_storage().nbytes() < 3_000 for each in kept)


# --- official weights ---------------------------------------------------------


def test_encodecs_network_streams_frame_by_frame() -> None:
    theirs = import_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
    model = from_encodec(theirs).eval()
    assert model.decoder.context == (8, 0)
    model.quantizer.books = nn.ModuleList(list(model.quantizer.books)[:8])
    for index, book in enumerate(model.quantizer.books):
        book.embed.copy_(torch.randn(book.embed.shape, generator=torch.Generator().manual_seed(index)))
    codes = torch.randint(0, 1024, (1, 8, 40), generator=torch.Generator().manual_seed(0))
    whole, at_once = model.decode(codes), decode(model, codes)
    torch.testing.assert_close(at_once, whole, atol=1e-4, rtol=0)
    assert float(whole.abs().max()) > 0.01 and torch.equal(streamed(model, codes, 3), at_once)


# --- refusals -----------------------------------------------------------------


def test_a_codec_that_averages_over_time_decodes_whole_and_refuses_to_stream() -> None:
    model = codec(WHOLE_ONLY)
    codes = random_codes(model, 20)
    assert not model.can_stream and torch.equal(decode(model, codes), model.decode(codes))
    with pytest.raises(ValueError, match="time_group_norm averages over the whole sound .*: decode all codes at once"):
        StreamingDecoder(model)
    assert all(codec(config).can_stream for config in CONFIGS.values())


def test_a_finished_stream_takes_nothing_more() -> None:
    decoder = StreamingDecoder(codec(CONVNEXT))
    decoder.push(random_codes(decoder.codec, 3))
    decoder.finish()
    with pytest.raises(ValueError, match="is finished: make another one"):
        decoder.push(random_codes(decoder.codec, 3))
    with pytest.raises(ValueError, match="is finished: make another one"):
        decoder.finish()


@pytest.mark.parametrize("shape", [(3, 3, 1), (2, 2, 1), (3, 3, 0)])
def test_another_batch_or_number_of_codebooks_is_refused(shape: tuple[int, ...]) -> None:
    model = codec(CONVNEXT)
    decoder, codes = StreamingDecoder(model), random_codes(model, 20)
    first = decoder.push(codes[..., :10])
    with pytest.raises(ValueError, match=r"wanted \[2, 3, 'n'\] as those before"):
        decoder.push(torch.zeros(shape, dtype=torch.long))
    rest = [decoder.push(codes[..., 10:]), decoder.finish()]
    assert torch.equal(torch.cat([first, *rest], -1), decode(model, codes))  # a refusal leaves the stream as it was


@pytest.mark.parametrize("shape", [(3, 5), (1, 4, 5), (1, 0, 5), (0, 3, 5)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"codes are of shape .* wanted \[B, 1 to 3, at least 1\]"):
        StreamingDecoder(codec(CONVNEXT)).push(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("value", [-1, 16])
def test_codes_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="wanted 0 to 15"):
        StreamingDecoder(codec(CONVNEXT)).push(torch.full((1, 3, 2), value))


def test_half_a_level_of_split_channels_is_refused() -> None:
    model = codec(CONFIGS["convnext split"])
    with pytest.raises(ValueError, match="by turns: give an even number"):
        StreamingDecoder(model).push(random_codes(model, 4)[:, :3])
