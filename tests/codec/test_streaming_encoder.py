"""Streamed encoding equals encoding the whole: for every body, however the audio is cut, in the memory of a piece."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_codecs import CONVNEXT, convnext, seanet
from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.streaming import StreamingEncoder

CONFIGS = {
    "convnext": CONVNEXT,
    "convnext odd overlap": convnext(hop=5, fft_size=21, frames_per_code=1),
    "convnext wide overlap": convnext(hop=4, fft_size=30, frames_per_code=3),
    "convnext without overlap": convnext(fft_size=8),
    "convnext stereo with a linear way": dataclasses.replace(convnext(linear=True), channels=2),
    "convnext of a beam": dataclasses.replace(CONVNEXT, quantizer=dataclasses.replace(CONVNEXT.quantizer, beam=4)),
    "convnext split": dataclasses.replace(CONVNEXT, channels=2, split_channels=True),
    "causal": seanet(),
    "causal with zeros": seanet(pad_mode="constant"),
    "causal deep": seanet(lstm=1, residual_layers=3, shortcut="identity"),
    "causal split": dataclasses.replace(seanet(), channels=2, split_channels=True),
    "both ways": seanet(causal=False),
    "both ways of odd ratios": seanet(causal=False, ratios=(1, 3), lstm=0, pad_mode="constant"),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)


def codec(config: CodecConfig) -> NeuralCodec:
    """With codebooks that lie among its latents."""
    torch.manual_seed(0)
    model = NeuralCodec(config)
    with torch.no_grad():
        model(noise(model, 200, batch=4))
    return model.eval()


def noise(model: NeuralCodec, num_frames: int, more: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return 0.3 * torch.randn(batch, model.channels, num_frames * model.hop + more, generator=generator)


def streamed(model: NeuralCodec, audio: Tensor, samples: int, **options: Any) -> Tensor:
    """The codes of audio that comes so many samples at a time."""
    encoder = StreamingEncoder(model, **options)
    pieces = [encoder.push(piece) for piece in audio.split(samples, -1)]
    return torch.cat([*pieces, encoder.finish()], -1)


# --- laws ---------------------------------------------------------------------


@EVERY
def test_streaming_equals_encoding_the_whole(name: str) -> None:
    model = codec(CONFIGS[name])
    for frames, more in ((0, 1), (1, 0), (2, 3), (7, 0), (8, 1), (40, 2)):
        audio = noise(model, frames, more)
        whole = model.encode(audio)
        assert all(torch.equal(streamed(model, audio, samples), whole) for samples in (1 + model.hop // 2, 1000))
    assert whole[:, 0].unique().numel() > 4  # or equal codes say nothing


@pytest.mark.parametrize("name", ["convnext", "causal", "both ways", "causal split"])
def test_any_cut_and_any_piece_give_the_same_codes(name: str) -> None:
    model = codec(CONFIGS[name])
    audio = noise(model, 30, 5)
    whole = model.encode(audio)
    assert torch.equal(streamed(model, audio, 1), whole)
    for seconds in (0.3, 1.0, 10.0):
        assert torch.equal(streamed(model, audio, 37, seconds=seconds), whole)


@pytest.mark.parametrize("name", ["causal", "both ways", "both ways of odd ratios"])
def test_latents_in_double_precision_are_those_of_the_whole(name: str) -> None:
    model = codec(CONFIGS[name]).double()
    audio = noise(model, 40, 3).double()
    made: list[Tensor] = []
    codes = model.codes
    model.codes = lambda latents, count: made.append(latents) or codes(latents, count)  # type: ignore[assignment, func-returns-value]
    streamed(model, audio, 11)
    torch.testing.assert_close(torch.cat(made, -1), model.encoder.layers(audio), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["convnext", "convnext wide overlap", "causal with zeros", "both ways of odd ratios"])
def test_codes_come_as_soon_as_what_they_depend_on_is_known(name: str) -> None:
    model = codec(CONFIGS[name])
    encoder, audio = StreamingEncoder(model, seconds=0), noise(model, 60, batch=1)
    counts = [encoder.push(piece).shape[-1] for piece in audio.split(model.hop, -1)]
    out = [sum(counts[: place + 1]) for place in range(60)]
    assert out == [max(0, place + 1 - -(-encoder.look_ahead // model.hop)) for place in range(60)]
    at = 30 * model.hop
    changed = audio.clone()  # just beyond what the first 30 codes may depend on
    changed[..., at + encoder.look_ahead :] += 1
    before, after = ((model.encoder(model.body_input(each))) for each in (audio, changed))
    torch.testing.assert_close(before[..., :30], after[..., :30], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(before[..., 30:33], after[..., 30:33])


def test_a_causal_network_looks_nowhere_ahead() -> None:
    assert StreamingEncoder(codec(CONFIGS["causal"])).look_ahead == 0
    assert StreamingEncoder(codec(CONFIGS["both ways"])).look_ahead > 0


def test_a_mirrored_beginning_delays_the_first_code_alone() -> None:
    model = codec(CONFIGS["causal"])
    encoder, audio = StreamingEncoder(model, seconds=0), noise(model, 20)
    assert [encoder.push(piece).shape[-1] for piece in audio.split(model.hop, -1)] == [0] * 6 + [7] + [1] * 13


# --- lengths, batches, memory -------------------------------------------------


@pytest.mark.parametrize("name", ["convnext", "causal"])
def test_no_samples_give_no_codes(name: str) -> None:
    model = codec(CONFIGS[name])
    encoder, nothing = StreamingEncoder(model), noise(model, 0)
    assert encoder.push(nothing).shape == (2, 3, 0) and encoder.push(nothing).shape == (2, 3, 0)
    assert encoder.finish().shape == (2, 3, 0)
    assert StreamingEncoder(model).finish().shape == (0, 3, 0)


@pytest.mark.parametrize("name", ["convnext", "causal"])
def test_fewer_codebooks_are_the_first_ones(name: str) -> None:
    model = codec(CONFIGS[name])
    audio = noise(model, 20)
    assert torch.equal(streamed(model, audio, 9, num_codebooks=2), model.encode(audio, 2))


@pytest.mark.parametrize("name", ["convnext", "causal", "both ways"])
def test_minutes_stream_in_the_memory_of_a_piece(name: str) -> None:
    model = codec(CONFIGS[name])
    encoder, held, frames = StreamingEncoder(model), [], 0
    for piece in noise(model, 400, batch=1).split(4 * model.hop, -1):
        frames += encoder.push(piece).shape[-1]
        held.append(encoder.held)
    assert frames + encoder.finish().shape[-1] == 400
    assert max(held[20:]) == max(held[20:40]) <= 4 * model.sample_rate


def test_two_streams_of_one_codec_do_not_mix() -> None:
    model = codec(CONFIGS["causal"])
    sounds = noise(model, 20), -noise(model, 20)
    encoders, made = [StreamingEncoder(model), StreamingEncoder(model)], [[], []]  # type: ignore[var-annotated]
    for place in range(20):
        for encoder, audio, out in zip(encoders, sounds, made, strict=True):
            out.append(encoder.push(audio[..., place * model.hop : (place + 1) * model.hop]))
    for encoder, audio, out in zip(encoders, sounds, made, strict=True):
        assert torch.equal(torch.cat([*out, encoder.finish()], -1), model.encode(audio))


# --- refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"peak": 0.9}, "scales each sound to a peak of 0.9 has to hear all of it first: encode the whole"),
        ({"normalize": True}, "scales each sound by its loudness has to hear all of it first"),
        ({"segment": 1.0}, r"a codec of segments \(1.0 s\) cannot encode piece by piece"),
    ],
)
def test_what_must_hear_the_whole_sound_first_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StreamingEncoder(NeuralCodec(dataclasses.replace(CONVNEXT, **options)))


def test_what_averages_over_time_is_refused() -> None:
    with pytest.raises(ValueError, match="averages over the whole sound .* encode the whole sound"):
        StreamingEncoder(codec(seanet(causal=False, norm="time_group_norm")))


@pytest.mark.parametrize("count", [0, 4])
def test_codebooks_that_are_not_there_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="this codec has 1 to 3"):
        StreamingEncoder(codec(CONVNEXT), count)


@pytest.mark.parametrize("shape", [(2, 160), (2, 2, 160), (3, 1, 160)])
def test_another_shape_or_batch_is_refused(shape: tuple[int, ...]) -> None:
    model = codec(CONVNEXT)
    encoder, audio = StreamingEncoder(model), noise(model, 20)
    first = encoder.push(audio[..., :99])
    with pytest.raises(ValueError, match=r"audio is of shape .* wanted \[2, 1, 'n'\]: encode another batch with"):
        encoder.push(torch.zeros(shape))
    rest = [encoder.push(audio[..., 99:]), encoder.finish()]
    assert torch.equal(torch.cat([first, *rest], -1), model.encode(audio))  # a refusal leaves the stream as it was


def test_a_finished_stream_takes_nothing_more() -> None:
    model = codec(CONVNEXT)
    encoder = StreamingEncoder(model)
    encoder.push(noise(model, 3))
    encoder.finish()
    for again in (encoder.finish, lambda: encoder.push(noise(model, 3))):
        with pytest.raises(ValueError, match="this StreamingEncoder is finished: make another one"):
            again()
