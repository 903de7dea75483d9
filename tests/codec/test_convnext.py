"""Laws of the light body: its head inverts an analysis, lengths follow the hop, convolutions keep full precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from audiolm_kit.codec.convnext import ConvNeXtConfig, ConvNeXtDecoder, ConvNeXtEncoder, FourierHead, FrameConv

TINY = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=2, hop=8, fft_size=32, frames_per_code=2)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3


def analysis(audio: Tensor, config: ConvNeXtConfig) -> Tensor:
    """The spectrum that the head's projection would have to give for this audio, [B, C, L] -> [B, S, 2 C F]."""
    margin = (config.fft_size - config.hop) // 2
    flat = nn.functional.pad(rearrange(audio, "b c l -> (b c) l"), (margin, margin))
    frames = flat.unfold(1, config.fft_size, config.hop) * torch.hann_window(config.fft_size)
    spectrum = torch.fft.rfft(frames, norm="ortho")
    parts = torch.stack([spectrum.abs().clamp_min(1e-9).log(), spectrum.angle()])
    return rearrange(parts, "n (b c) s f -> b s (n c f)", c=audio.shape[1])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("hop", "fft_size"), [(8, 32), (8, 16), (5, 21), (10, 64)])
def test_the_head_rebuilds_a_sound_from_its_analysis(channels: int, hop: int, fft_size: int) -> None:
    config = dataclasses.replace(TINY, hop=hop, fft_size=fft_size)
    head = FourierHead(config, channels)
    head.project = nn.Identity()
    audio = noise(2, channels, 12 * hop)
    torch.testing.assert_close(head(analysis(audio, config)), audio, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_encoder_and_decoder_follow_the_hop(channels: int, num_frames: int) -> None:
    length = num_frames * TINY.hop * TINY.frames_per_code
    latents = ConvNeXtEncoder(TINY, channels)(noise(3, channels, length))
    assert latents.shape == (3, 4, num_frames)
    assert ConvNeXtDecoder(TINY, channels)(latents).shape == (3, channels, length)


def test_a_delay_by_one_frame_delays_the_latents_by_one() -> None:
    encoder, hop = ConvNeXtEncoder(TINY, 1), TINY.hop * TINY.frames_per_code
    audio = nn.functional.pad(noise(1, 1, 10 * hop), (10 * hop, 10 * hop))
    later = audio.roll(hop, dims=-1)
    torch.testing.assert_close(encoder(later)[..., 5:25], encoder(audio)[..., 4:24], atol=1e-5, rtol=1e-4)


def test_the_channels_of_stereo_are_told_apart() -> None:
    encoder, decoder, audio = ConvNeXtEncoder(TINY, 2), ConvNeXtDecoder(TINY, 2), noise(1, 2, 64)
    assert not torch.allclose(encoder(audio), encoder(audio.flip(1)))
    made = decoder(encoder(audio))
    assert not torch.allclose(made[:, 0], made[:, 1])


def test_a_convolution_over_frames_keeps_full_precision_under_autocast_on_a_cpu() -> None:
    conv, frames = FrameConv(8, 8, kernel=7, groups=8), noise(2, 20, 8)
    assert conv(frames).shape == frames.shape
    wanted = nn.functional.conv1d(frames.transpose(1, 2), conv.weight, conv.bias, padding=3, groups=8).transpose(1, 2)
    assert torch.equal(conv(frames), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.linear(frames, torch.eye(8)).dtype == torch.bfloat16  # or this test says nothing
        assert conv(frames).dtype == torch.float32
        assert torch.equal(conv(frames), wanted)
        assert conv(frames.bfloat16()).dtype == torch.float32


def test_autocast_gives_audio_in_full_precision_and_finite_gradients() -> None:
    body = nn.Sequential(ConvNeXtEncoder(TINY, 1), ConvNeXtDecoder(TINY, 1))
    audio = noise(2, 1, 160)
    with torch.autocast("cpu", torch.bfloat16):
        made = body(audio)
    assert made.dtype == torch.float32
    made.square().mean().backward()
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in body.parameters())


def test_silence_and_full_scale_give_finite_gradients() -> None:
    body = nn.Sequential(ConvNeXtEncoder(TINY, 1), ConvNeXtDecoder(TINY, 1))
    for audio in (torch.zeros(1, 1, 160), torch.ones(1, 1, 160)):
        body.zero_grad()
        body(audio).square().mean().backward()
        assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in body.parameters())


def test_one_bad_spectrum_stays_bounded() -> None:
    head = FourierHead(TINY, 1)
    nn.init.constant_(head.project.bias, 1e4)
    assert head(noise(1, 5, 8)).abs().max().item() < 1e5


@pytest.mark.parametrize(("hop", "fft_size"), [(8, 31), (32, 16)])
def test_windows_that_do_not_overlap_evenly_are_refused(hop: int, fft_size: int) -> None:
    with pytest.raises(ValueError, match="frames overlap evenly"):
        dataclasses.replace(TINY, hop=hop, fft_size=fft_size)
