"""Laws of the light body: its head inverts an analysis, lengths follow the hop, convolutions keep full precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from audiolm_kit.checkpoint import fingerprint
from audiolm_kit.codec.beginning import begin_noise
from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder, FrameConv
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.fourier_head import QUIETEST, FourierHead
from audiolm_kit.codec.losses import energy_distance
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rice import mean_log, variance_log
from audiolm_kit.codec.rvq import QuantizerConfig

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


@pytest.mark.parametrize("refine", [0, 2])
@pytest.mark.parametrize("with_noise", [False, True])
def test_where_nothing_was_measured_nothing_is_heard(refine: int, with_noise: bool) -> None:
    torch.manual_seed(0)
    head = FourierHead(dataclasses.replace(TINY, refine=refine, noise=with_noise), 1)
    head.project = nn.Identity()
    bins = TINY.fft_size // 2 + 1
    loud = torch.full((1, 20, bins), QUIETEST)
    loud[:, 10:] += math.log(10)
    parts = torch.cat([loud, torch.randn(1, 20, bins), *[torch.zeros(1, 20, bins)] * with_noise], -1)
    learned, heard = (head.train(learning)(parts).detach()[0, 0].unflatten(0, (20, 8)) for learning in (True, False))
    assert not heard[:7].any() and learned[:7].square().mean().sqrt() > 3e-4
    if not refine:  # ten times as loud as the bound: a hundredth of the power is missing
        assert torch.allclose(heard[13:], learned[13:] * 0.99**0.5, rtol=1e-4, atol=1e-7)


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


@pytest.mark.parametrize(("hop", "fft_size", "frames_per_code"), [(8, 32, 2), (8, 8, 1), (8, 24, 4), (8, 16, 3)])
def test_the_context_is_what_a_frame_of_sound_depends_on(hop: int, fft_size: int, frames_per_code: int) -> None:
    config = dataclasses.replace(TINY, hop=hop, fft_size=fft_size, frames_per_code=frames_per_code)
    torch.manual_seed(0)
    decoder, latents, at, size = ConvNeXtDecoder(config, 1), noise(1, 4, 40), 20, hop * frames_per_code
    latents.requires_grad_()
    decoder(latents)[..., at * size : (at + 1) * size].sum().backward()
    assert latents.grad is not None
    reached = latents.grad.abs().sum(1)[0].nonzero().flatten()
    left, right = decoder.context
    assert (int(reached.min()), int(reached.max())) == (at - left, at + right)


def test_the_stages_one_after_the_other_are_the_decoder() -> None:
    decoder, frames = ConvNeXtDecoder(TINY, 2), noise(2, 4, 9)
    wanted = decoder(frames)
    for stage in decoder.stages():
        length = frames.shape[-1]
        frames, _ = stage.network(frames, None)
        assert frames.shape[-1] == length * stage.hop
    assert torch.equal(frames, wanted)


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


# --- noise


def noisy(channels: int = 1) -> FourierHead:
    """A head that makes nothing but noise, of magnitude 1."""
    torch.manual_seed(0)
    head = FourierHead(ConvNeXtConfig(width=8, hop=16, fft_size=64, noise=True), channels)
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.zero_()
        head.project.bias[2 * channels * 33 :] = -20.0
    return head


def test_the_noise_of_decoding_is_the_same_each_time_and_in_any_batch() -> None:
    head, frames = noisy(), noise(3, 20, 8)
    once = head(frames)
    assert torch.equal(once, head(frames))
    torch.testing.assert_close(head(frames[:1]), once[:1])


def test_noise_drawn_afresh_differs_in_each_rendition_and_is_as_strong() -> None:
    head, frames = noisy(), noise(3, 400, 8)
    torch.manual_seed(0)
    made = head(frames, draws=2).detach()
    assert made.shape == (6, 1, 400 * 16)
    one, two = made.flatten(1)[0], made.flatten(1)[3]
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.1
    torch.testing.assert_close(one.std(), two.std(), rtol=0.1, atol=0)
    torch.manual_seed(0)
    assert torch.equal(head(frames, draws=2), made)


def test_the_strength_of_the_noise_is_what_the_decoder_says() -> None:
    head, frames = noisy(), torch.zeros(1, 400, 8)
    before = head(frames).std().detach()
    with torch.no_grad():
        head.project.bias[:33] += 1.0
    torch.testing.assert_close(head(frames).std() / before, torch.tensor(math.e), rtol=0.01, atol=0)


def test_all_tonal_is_the_head_without_noise() -> None:
    head, plain, frames = noisy(), FourierHead(ConvNeXtConfig(width=8, hop=16, fft_size=64), 1), noise(2, 5, 8)
    with torch.no_grad():
        head.project.weight[:66], head.project.bias[:66] = plain.project.weight, plain.project.bias
        head.project.bias[66:] = 200.0
    torch.testing.assert_close(head(frames), plain(frames))


def test_a_head_that_made_just_this_sound_would_have_the_magnitudes_that_are_measured() -> None:
    """Measured magnitudes and the sound's own phases, turned into sound, are the sound again."""
    head = FourierHead(ConvNeXtConfig(width=8, hop=16, fft_size=64), 1)
    audio = noise(2, 1, 20 * 16)
    frames = torch.nn.functional.pad(audio, (24, 24)).unfold(2, 64, 16) * head.window
    phases = torch.fft.rfft(frames).angle()
    spectrum = torch.polar(head.measured(audio).exp(), phases)  # [B, 1, S, F]
    parts = torch.cat([spectrum.real, spectrum.imag], 1)
    made = head.waveform(parts.permute(0, 1, 3, 2).flatten(1, 2))
    torch.testing.assert_close(made, audio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("noise_too", [False, True])
def test_each_round_of_refining_brings_the_sound_nearer_to_its_magnitudes(noise_too: bool) -> None:
    far = []
    for rounds in (0, 1, 4, 16):
        torch.manual_seed(0)
        config = ConvNeXtConfig(width=8, hop=16, fft_size=64, noise=noise_too, refine=rounds)
        head, frames = FourierHead(config, 1).eval(), noise(2, 60, 8)
        with torch.no_grad():
            spectrum = FourierHead.carried(head.train(), frames, None)[0]  # of training, as without any rounds
            real, imaginary = spectrum.transpose(1, 2).chunk(2, dim=-1)
            wanted = torch.hypot(real, imaginary)[:, None]
            made = head.measured(head.eval()(frames)).exp()
        far.append(float((made - wanted).norm() / wanted.norm()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.8 * far[0]


def test_refining_with_noise_starts_from_noise_whatever_the_phases_said() -> None:
    torch.manual_seed(0)
    head, frames = (
        FourierHead(ConvNeXtConfig(width=8, hop=16, fft_size=64, noise=True, refine=2), 1).eval(),
        noise(2, 60, 8),
    )
    with torch.no_grad():
        head.project.bias[66:] = 200.0  # all tonal: the magnitudes do not depend on the noise
        once = head(frames)
        head.project.weight[33:66] = noise(33, 8)
        torch.testing.assert_close(head(frames), once, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("logit", [-2.0, 0.0, 2.0])
def test_magnitudes_that_vary_as_those_of_the_sound_are_nearest(logit: float) -> None:
    """The distance that magnitudes are learned by tells the right share of noise from a larger and a smaller one."""
    torch.manual_seed(0)
    head, frames = noisy(), torch.zeros(40, 60, 8)
    with torch.no_grad():
        head.project.bias[66:] = logit
        real = head.log_magnitudes(frames)[:40]
        far = {}
        for other in (logit - 2, logit, logit + 2):
            head.project.bias[66:] = other
            far[other] = float(energy_distance(nn.functional.l1_loss, head.log_magnitudes(frames), real))
    assert min(far, key=lambda other: far[other]) == logit


def test_training_does_not_refine_and_codes_mean_the_same_with_any_number_of_rounds() -> None:
    plain, refined = (
        ConvNeXtConfig(width=8, hop=16, fft_size=64),
        ConvNeXtConfig(width=8, hop=16, fft_size=64, refine=3),
    )
    torch.manual_seed(0)
    head, frames = FourierHead(refined, 1), noise(2, 9, 8)
    same = FourierHead(plain, 1)
    same.load_state_dict(head.state_dict())
    assert torch.equal(head.train()(frames), same.train()(frames))
    assert not torch.equal(head.eval()(frames), same.eval()(frames))
    codecs = [NeuralCodec(CodecConfig(convnext=config)) for config in (plain, refined)]
    codecs[1].load_state_dict(codecs[0].state_dict())
    assert fingerprint(codecs[0]) == fingerprint(codecs[1])


@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_gradients_stay_finite_however_sure_the_tonal_share_is(logit: float) -> None:
    head = noisy()
    with torch.no_grad():
        head.project.bias[66:] = logit
    head(noise(2, 5, 8)).square().sum().backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_the_channels_of_stereo_have_noise_of_their_own() -> None:
    left, right = noisy(channels=2)(torch.zeros(1, 400, 8))[0].detach()
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.1


def test_a_decoder_without_noise_has_no_draws_to_make() -> None:
    head = FourierHead(ConvNeXtConfig(width=8, hop=16, fft_size=64), 1)
    assert torch.equal(head(noise(2, 5, 8), draws=2), head(noise(2, 5, 8)))


# --- noise that the linear way speaks of


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0])
def test_mean_and_variance_of_logarithms_are_those_of_draws(share: float) -> None:
    drawn = torch.randn(2, 400_000, generator=torch.Generator().manual_seed(0)) * ((1 - share) / 2) ** 0.5
    logs = ((drawn[0] + share**0.5).square() + drawn[1].square()).log() / 2
    given = torch.tensor(share)
    assert float(mean_log(given)) == pytest.approx(float(logs.mean()), abs=5e-3)
    assert float(variance_log(given)) == pytest.approx(float(logs.var()), abs=7e-3)


SPEAKING = ConvNeXtConfig(
    dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=16, fft_size=64, frames_per_code=2, noise=True, linear=True
)


def tones_and_hiss(count: int = 24) -> Tensor:
    """Items by turns a tone of some pitch and noise, each swelling, [B, 1, L]."""
    clock, swell = torch.arange(3200) / 8000, torch.linspace(0.2, 1, 3200)
    pitches = 500 + 250 * torch.arange(count // 2)
    tones = 0.4 * torch.sin(2 * torch.pi * pitches[:, None] * clock)
    return torch.stack([tones, noise(count // 2, 3200)], 1).flatten(0, 1)[:, None] * swell


def begun(linear_noise: bool) -> NeuralCodec:
    torch.manual_seed(0)
    body = dataclasses.replace(SPEAKING, linear_noise=linear_noise)
    quantizer = QuantizerConfig(num_codebooks=1, codebook_size=64, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=8000, body="convnext", convnext=body, quantizer=quantizer))
    torch.manual_seed(1)
    codec.begin(tones_and_hiss())
    return codec.eval()


def test_what_is_said_of_noise_changes_no_codes() -> None:
    audio = tones_and_hiss()
    assert torch.equal(begun(True).encode(audio), begun(False).encode(audio))


@pytest.mark.parametrize("channels", [1, 2])
def test_noise_is_what_latents_leave_out(channels: int) -> None:
    """Of two kinds of frames one is all that is said of it, the other varies as noise does, in the upper half alone."""
    torch.manual_seed(0)
    decoder = ConvNeXtDecoder(dataclasses.replace(SPEAKING, linear_noise=True), channels)
    bins = SPEAKING.bins
    with torch.no_grad():
        decoder.linear.weight.zero_()
        decoder.linear.bias.zero_()
    kinds = torch.randint(0, 2, (2, 1000))
    latents = torch.zeros(2, 8, 1000)
    latents[:, 3] = 2.0 * kinds - 1
    hiss = (torch.randn(2, 1000, 2, channels, bins, 2).square().sum(-1) / 2).log() / 2
    hiss[..., : bins // 2] = 0
    begin_noise(decoder, latents, torch.where(kinds[..., None, None, None] == 1, hiss, 0.0).flatten(2))
    with torch.no_grad():
        share = decoder.head._parts(decoder.frames(latents))[2].sigmoid()  # [B, C, S, F]
    noisy = kinds.repeat_interleave(2, 1)[:, None].expand(-1, channels, -1) == 1
    assert float(share[noisy][:, bins // 2 :].max()) < 0.5  # below that, variances are nearly the same
    assert float(share[noisy][:, : bins // 2].min()) > 0.9 and float(share[~noisy].min()) > 0.9


@torch.no_grad()
def test_noise_varies_from_frame_to_frame_as_it_did() -> None:
    hiss = tones_and_hiss()[1::2]
    varying = {}
    for linear_noise in (False, True):
        codec = begun(linear_noise)
        assert isinstance(codec.decoder, ConvNeXtDecoder)
        head = codec.decoder.head
        made = head.measured(codec.decode(codec.encode(hiss)))
        varying[linear_noise] = float(made.diff(dim=2).abs().mean())
        real = float(head.measured(hiss).diff(dim=2).abs().mean())
    assert varying[False] < 0.96 * real
    assert abs(varying[True] - real) < 0.3 * abs(varying[False] - real)


@torch.no_grad()
def test_the_mean_of_log_magnitudes_is_what_the_linear_way_says() -> None:
    codec, hiss = begun(True), tones_and_hiss()[1::2]
    assert isinstance(codec.decoder, ConvNeXtDecoder)
    head = codec.decoder.head
    made = head.log_magnitudes(codec.decoder.frames(codec.quantizer.decode(codec.encode(hiss))))
    assert float(made.mean()) == pytest.approx(float(head.measured(hiss).mean()), abs=0.1)


@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_gradients_stay_finite_however_sure_the_linear_way_is(logit: float) -> None:
    decoder = ConvNeXtDecoder(dataclasses.replace(SPEAKING, linear_noise=True), 1)
    with torch.no_grad():
        decoder.linear.bias.view(2, 2, -1)[:, 1] = logit
    decoder(noise(2, 8, 5), draws=2).square().sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in decoder.linear.parameters())


def test_only_a_linear_way_beside_noise_can_speak_of_it() -> None:
    for given in ({}, {"linear": True}, {"noise": True}):
        with pytest.raises(ValueError, match="linear_noise is what a linear way says of noise: set linear and noise"):
            ConvNeXtConfig(linear_noise=True, **given)
    with pytest.raises(ValueError, match="says nothing of noise: set convnext.linear_noise"):
        begin_noise(ConvNeXtDecoder(SPEAKING, 1), noise(1, 8, 4), noise(1, 4, 66))
