"""Laws of the multi-scale STFT discriminator."""

from __future__ import annotations

import pytest
import torch

from audiolm_kit.codec.discriminator import DiscriminatorConfig, MultiScaleSTFTDiscriminator, STFTDiscriminator

SMALL = DiscriminatorConfig(filters=4, fft_sizes=(64, 128))


def small_judge(config: DiscriminatorConfig = SMALL) -> MultiScaleSTFTDiscriminator:
    """A small discriminator with known weights."""
    torch.manual_seed(0)
    return MultiScaleSTFTDiscriminator(config)


def noise(*shape: int) -> torch.Tensor:
    """The same noise each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 2])
def test_one_judgement_per_scale_with_frames_and_halved_bins(channels: int) -> None:
    config = DiscriminatorConfig(channels=channels, filters=4, fft_sizes=(64, 128))
    judgement = small_judge(config)(noise(3, channels, 1000))
    assert len(judgement.logits) == len(judgement.features) == 2
    for fft_size, logits, features in zip(config.fft_sizes, judgement.logits, judgement.features, strict=True):
        frames, bins = (1000 - fft_size) // (fft_size // 4) + 1, fft_size // 2 + 1
        shapes = [(3, 4, frames, bins)]
        for _ in config.dilations:
            bins = (bins + 1) // 2
            shapes.append((3, 4, frames, bins))
        assert [tuple(feature.shape) for feature in features] == [*shapes, shapes[-1]]
        assert tuple(logits.shape) == (3, 1, frames, bins)


def test_filters_grow_up_to_their_limit() -> None:
    config = DiscriminatorConfig(filters=4, growth=2, max_filters=12, fft_sizes=(64,))
    widths = [feature.shape[1] for feature in small_judge(config)(noise(1, 1, 200)).features[0]]
    assert widths == [4, 8, 12, 12, 12]


def test_judgement_is_deterministic_and_items_do_not_mix() -> None:
    judge, audio = small_judge(), noise(2, 1, 600)
    together, again, alone = judge(audio), judge(audio), judge(audio[:1])
    for first, second, single in zip(together.logits, again.logits, alone.logits, strict=True):
        assert torch.equal(first, second)
        assert torch.allclose(first[:1], single, atol=1e-6)


def test_gradient_reaches_the_sound_and_every_weight() -> None:
    judge, audio = small_judge(), noise(2, 1, 600).requires_grad_()
    judgement = judge(audio)
    sum(logits.square().mean() for logits in judgement.logits).backward()
    assert audio.grad is not None and audio.grad.abs().sum() > 0
    for name, weight in judge.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_spectrogram_of_white_noise_has_unit_power_at_every_scale() -> None:
    audio = noise(1, 1, 200_000)
    for fft_size in (64, 512):
        parts = STFTDiscriminator(SMALL, fft_size).spectrogram(audio)
        power = parts.square().sum(1)[..., 1:-1].mean()
        assert abs(power.item() - 1) < 0.03


def test_spectrogram_finds_the_bin_of_a_sine() -> None:
    phase = 2 * torch.pi * 8 * torch.arange(640) / 64
    parts = STFTDiscriminator(SMALL, 64).spectrogram(torch.sin(phase)[None, None])
    assert (parts.square().sum(1).argmax(-1) == 8).all()


def test_too_short_a_sound_is_refused_with_the_size_it_needs() -> None:
    with pytest.raises(ValueError, match="got 100 samples and its FFT size 128"):
        small_judge()(noise(1, 1, 100))


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wants \[B, 1, L\]"):
        small_judge()(noise(1, 2, 600))


@pytest.mark.parametrize("options", [{"kernel": (4, 9)}, {"fft_sizes": ()}, {"fft_sizes": (1023,)}])
def test_config_refuses_uneven_sizes(options: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="discriminator"):
        DiscriminatorConfig(**options)  # type: ignore[arg-type]
