"""Our SEANet codec and STFT discriminator against the encodec package's, on the same random weights.

Codes are compared in double precision: random latents have entries that are equally near up to fp32's rounding, and
which of them is chosen then depends on the order of a sum.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.codec.discriminator import DiscriminatorConfig, MultiScaleSTFTDiscriminator
from audiolm_kit.codec.seanet import SEANetDecoder, SEANetEncoder
from audiolm_kit.official.encodec import codec_config, from_encodec, import_encodec, seanet_config
from audiolm_kit.official.encodec_configs import META_24KHZ, META_48KHZ
from audiolm_kit.official.encodec_names import codec_state, encodec_state

HOP = 8
SMALL: dict[str, Any] = {"ratios": [4, 2], "n_filters": 8, "dimension": 16}
# As encodec_24khz, as audiocraft's codecs, as encodec_48khz's network, and the corners between them.
BODIES: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "causal_zeros": {"causal": True, "pad_mode": "constant"},
    "causal_identity": {"causal": True, "true_skip": True},
    "both_ways": {},
    "audiocraft": {"true_skip": True, "pad_mode": "constant"},
    "group_norm": {"norm": "time_group_norm"},
    "deep": {"causal": True, "n_residual_layers": 3, "dilation_base": 3, "compress": 4, "lstm": 1},
    "plain": {"lstm": 0, "kernel_size": 5, "last_kernel_size": 3, "residual_kernel_size": 5, "ratios": [5, 3]},
    "stereo": {"channels": 2, "activation_params": {"alpha": 0.5}},
    "no_residuals": {"n_residual_layers": 0},
}


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights throughout, also where the usual start is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * weight.std(correction=0).clamp_min(0.3) * torch.randn(weight.shape, generator=generator))
    return module


def noise(*shape: int) -> Tensor:
    """The same noise each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def their_bodies(options: dict[str, Any], trim_right_ratio: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """Their encoder and decoder with random weights."""
    import_encodec()
    modules = importlib.import_module("encodec.modules")
    options = SMALL | options
    encoder = scrambled(modules.SEANetEncoder(**options), 2)
    return encoder.eval(), scrambled(modules.SEANetDecoder(**options, trim_right_ratio=trim_right_ratio), 3).eval()


def our_body(kind: type[nn.Module], theirs: nn.Module, pair: tuple[nn.Module, nn.Module], part: str) -> nn.Module:
    """Our encoder or decoder with the weights of theirs."""
    body = kind(seanet_config(*pair), theirs.channels)
    state = codec_state({f"{part}.{name}": weight for name, weight in theirs.state_dict().items()})
    body.load_state_dict({name.removeprefix(f"{part}."): weight for name, weight in state.items()})
    return body.eval()


def their_codec(segments: dict[str, Any] | None = None, **options: Any) -> Any:
    """Their whole model with random weights and random codebooks."""
    encodec = import_encodec()
    quantization = importlib.import_module("encodec.quantization")
    encoder, decoder = their_bodies(options)
    quantizer = quantization.ResidualVectorQuantizer(dimension=16, n_q=4, bins=32)
    channels = options.get("channels", 1)
    with_books(quantizer, encoder(noise(1, channels, 2000)).detach()[0])
    return encodec.EncodecModel(encoder, decoder, quantizer, [1.0], 8000, channels, **(segments or {})).eval()


def with_books(quantizer: Any, latents: Tensor) -> None:
    """Random codebooks that lie among the latents [D, T], so that every frame has a real choice."""
    for index, layer in enumerate(quantizer.vq.layers):
        book = layer._codebook
        entries = torch.randn(book.embed.shape, generator=torch.Generator().manual_seed(index))
        entries = entries * latents.std(1) / (index + 1)
        book.embed.copy_(entries if index else entries + latents.mean(1))
        book.embed_avg.copy_(book.embed * 3)
        book.cluster_size.fill_(3)
        book.inited.fill_(1)


@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_latents_equal_encodecs_at_every_length(name: str) -> None:
    pair = their_bodies(BODIES[name])
    ours = our_body(SEANetEncoder, pair[0], pair, "encoder")
    channels = BODIES[name].get("channels", 1)
    for length in (1, 3, HOP, HOP + 1, 10 * HOP - 1, 10 * HOP, 501):
        audio = noise(2, channels, length)
        assert torch.allclose(ours(audio), pair[0](audio), atol=1e-6), length


@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_sound_equals_encodecs(name: str) -> None:
    pair = their_bodies(BODIES[name])
    ours = our_body(SEANetDecoder, pair[1], pair, "decoder")
    for num_frames in (1, 2, 50):
        latents = noise(2, 16, num_frames)
        assert torch.allclose(ours(latents), pair[1](latents), atol=1e-6), num_frames


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
@torch.no_grad()
def test_trim_right_ratio_cuts_as_encodec_does(ratio: float) -> None:
    pair = their_bodies({"causal": True}, trim_right_ratio=ratio)
    latents = noise(1, 16, 20)
    assert torch.allclose(our_body(SEANetDecoder, pair[1], pair, "decoder")(latents), pair[1](latents), atol=1e-6)


@pytest.mark.parametrize("name", ["causal", "causal_zeros", "audiocraft", "deep", "stereo"])
@torch.no_grad()
def test_imported_codec_gives_encodecs_codes_and_sound(name: str) -> None:
    theirs = their_codec(**BODIES[name])
    ours = from_encodec(theirs).double()
    theirs.double()
    assert (ours.sample_rate, ours.channels, ours.num_codebooks, ours.codebook_size) == (8000, theirs.channels, 4, 32)
    assert not ours.training
    for length in (5, 3 * HOP, 1003):
        audio = noise(2, theirs.channels, length).double()
        [(codes, _)] = theirs.encode(audio)
        assert torch.equal(ours.encode(audio), codes)
        assert torch.allclose(ours.decode(codes), theirs.decode([(codes, None)]), atol=1e-6)
        assert length < 1000 or codes[:, 0].unique().numel() > 8


@torch.no_grad()
def test_fewer_codebooks_are_the_same_prefix_in_both() -> None:
    theirs = their_codec(causal=True)
    ours, audio = from_encodec(theirs).double(), noise(1, 1, 400).double()
    theirs.double()
    [(codes, _)] = theirs.encode(audio)
    assert torch.equal(ours.encode(audio, 2), codes[:, :2])
    assert torch.allclose(ours.decode(codes[:, :2]), theirs.decode([(codes[:, :2], None)]), atol=1e-6)


@pytest.mark.parametrize("options", [{"causal": True}, {"norm": "time_group_norm"}])
def test_weights_go_there_and_back_unchanged(options: dict[str, Any]) -> None:
    state = their_codec(**options).state_dict()
    back = encodec_state(codec_state(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], weight) for name, weight in state.items())


def test_our_weights_load_into_encodec() -> None:
    theirs = their_codec(causal=True)
    fresh = their_codec(causal=True)
    scrambled(fresh, 9)
    fresh.load_state_dict(encodec_state(from_encodec(theirs).state_dict()))
    audio = noise(1, 1, 400)
    assert torch.equal(fresh(audio), theirs(audio))


def test_published_24khz_model_is_our_default_network() -> None:
    theirs = import_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
    config = codec_config(theirs)
    assert config == META_24KHZ and config.seanet == type(config.seanet)()
    assert (config.sample_rate, config.quantizer.num_codebooks, config.quantizer.codebook_size) == (24000, 32, 1024)
    assert from_encodec(theirs).frame_rate == theirs.frame_rate == 75


def test_published_48khz_model_normalises_segments() -> None:
    theirs = import_encodec().EncodecModel.encodec_model_48khz(pretrained=False)
    config = codec_config(theirs)
    assert config == META_48KHZ
    assert config.segments == (theirs.segment_length, theirs.segment_stride, 320)
    assert config.segments.frames(theirs.segment_length)[0] == theirs.frame_rate == 150


# As encodec_48khz in small (segments of 400 samples, of which 4 overlap), and the corners around it.
SEGMENTS: dict[str, dict[str, Any]] = {
    "as at 48 kHz": {"normalize": True, "segment": 0.05},
    "levels alone": {"normalize": True},
    "segments alone": {"segment": 0.05},
    "wide overlap": {"normalize": True, "segment": 0.05, "overlap": 0.4},
    "no overlap": {"normalize": True, "segment": 0.05, "overlap": 0.0},
    "odd segments": {"normalize": True, "segment": 0.0417, "overlap": 0.2},
}


@pytest.mark.parametrize("name", SEGMENTS)
@torch.no_grad()
def test_segments_and_their_levels_are_encodecs(name: str) -> None:
    theirs = their_codec(SEGMENTS[name], channels=2, norm="time_group_norm")
    ours = from_encodec(theirs)
    for length in (1, 3 * HOP, 396, 397, 400, 401, 404, 650, 797, 1003):
        audio = noise(2, 2, length)
        frames = theirs.encode(audio)
        codes, scales = ours.encode_scaled(audio)
        assert torch.equal(codes, torch.cat([each for each, _ in frames], -1)), length
        if theirs.normalize:
            torch.testing.assert_close(scales, torch.cat([scale for _, scale in frames], -1))
        torch.testing.assert_close(ours.decode(codes, scales), theirs.decode(frames), atol=1e-5, rtol=1e-5)
        assert length < 1000 or codes[:, 0].unique().numel() > 8


@pytest.mark.parametrize("name", ["encodec_model_24khz", "encodec_model_48khz"])
@torch.no_grad()
def test_full_size_models_give_encodecs_codes_and_sound(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(import_encodec().EncodecModel, name)(pretrained=False)
    audio = noise(1, theirs.channels, int(1.3 * theirs.sample_rate)) * 0.1
    with_books(theirs.quantizer, theirs.encoder(audio[..., : theirs.sample_rate]).detach()[0])
    if theirs.sample_rate == 24000:  # the other averages over time, by the same kernels as ours
        theirs, audio = theirs.double(), audio.double()
    ours, frames = from_encodec(theirs).to(audio), theirs.encode(audio)
    codes, scales = ours.encode_scaled(audio)
    assert torch.equal(codes, torch.cat([each for each, _ in frames], -1))
    assert codes.shape[1] == theirs.quantizer.n_q and codes[:, 0].unique().numel() > 15
    torch.testing.assert_close(ours.decode(codes, scales), theirs.decode(frames), atol=1e-4, rtol=0)


def test_final_activation_and_unequal_halves_are_refused() -> None:
    import_encodec()
    modules = importlib.import_module("encodec.modules")
    encoder = modules.SEANetEncoder(**SMALL)
    with pytest.raises(ValueError, match="final activation"):
        seanet_config(encoder, modules.SEANetDecoder(**SMALL, final_activation="Tanh"))
    with pytest.raises(ValueError, match="differ in causality or padding"):
        seanet_config(encoder, modules.SEANetDecoder(**SMALL, causal=True))


class Spectrogram(nn.Module):
    """What encodec's discriminator asks of torchaudio: a complex spectrogram by windows of unit energy."""

    def __init__(self, n_fft: int, hop_length: int, win_length: int, window_fn: Any, **options: Any) -> None:
        super().__init__()
        assert options == {"normalized": True, "center": False, "pad_mode": None, "power": None}
        self.sizes, self.window = (n_fft, hop_length, win_length), window_fn(win_length)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, C, L] -> complex [B, C, F, S]."""
        frames = audio.unfold(-1, self.sizes[0], self.sizes[1]) * self.window
        return torch.fft.rfft(frames).transpose(-1, -2) / self.window.pow(2).sum().sqrt()


@pytest.fixture
def msstftd() -> Iterator[ModuleType]:
    """encodec's discriminator module, with the spectrogram above for torchaudio's; nothing of it stays loaded."""
    import_encodec()
    stand_in: Any = ModuleType("torchaudio")
    stand_in.transforms = SimpleNamespace(Spectrogram=Spectrogram)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", stand_in)
        yield importlib.import_module("encodec.msstftd")
    sys.modules.pop("encodec.msstftd", None)


@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_discriminator_equals_encodecs(msstftd: ModuleType, channels: int) -> None:
    sizes = [64, 128]
    theirs = msstftd.MultiScaleSTFTDiscriminator(4, channels, n_ffts=sizes, hop_lengths=[16, 32], win_lengths=sizes)
    scrambled(theirs)
    ours = MultiScaleSTFTDiscriminator(DiscriminatorConfig(channels=channels, filters=4, fft_sizes=(64, 128)))
    for scale, their_scale in zip(ours.scales, theirs.discriminators, strict=True):
        convs = [*their_scale.convs, their_scale.conv_post]
        for conv, their_conv in zip([*scale.layers, scale.head], convs, strict=True):
            names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
            conv.load_state_dict({names.get(key, key): value for key, value in their_conv.conv.state_dict().items()})
    audio = noise(2, channels, 1000)
    judgement, (logits, features) = ours(audio), theirs(audio)
    for mine, other in zip(judgement.logits, logits, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
    for mine, other in zip(sum(judgement.features, []), sum(features, []), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
