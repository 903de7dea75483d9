"""White noise in the light codec's head, and how much of it a linear way begins with."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from audiolm_kit.codec.beginning import begin_noise
from audiolm_kit.codec.convnext import ConvNeXtDecoder
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.fourier_head import NOISE_FRAMES, FourierHead, noise_table

APART = ConvNeXtConfig(
    dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=16, fft_size=64, frames_per_code=2, noise=True, linear=True
)
WHITE = dataclasses.replace(APART, white=True)


def table(config: ConvNeXtConfig) -> Tensor:
    """As spectra [NOISE_FRAMES, F]."""
    return torch.complex(*noise_table(config))


def fits(config: ConvNeXtConfig, spectra: Tensor) -> float:
    """How far spectra [S, F] stay what they are when they become sound and that is transformed, as a share of them."""
    head = FourierHead(config, 1)
    again = head._analysed(head._synthesised(spectra[None]))[0]
    inside = slice(4, -4)  # the ends have no neighbours
    return float((again - spectra)[inside].abs().square().mean() / spectra[inside].abs().square().mean())


def test_white_noise_fits_itself_where_frames_overlap() -> None:
    assert fits(WHITE, table(WHITE)[:200]) < 1e-9
    assert fits(APART, table(APART)[:200]) > 0.5


def test_it_goes_round_without_a_seam() -> None:
    spectra = table(WHITE)
    assert fits(WHITE, spectra.roll(100, 0)[:200]) < 1e-9
    assert spectra.shape == (NOISE_FRAMES, WHITE.bins)


@pytest.mark.parametrize("config", [APART, WHITE])
def test_noise_has_a_variance_of_1_and_is_the_same_each_time(config: ConvNeXtConfig) -> None:
    spectra = table(config)
    assert float(spectra.abs().square().mean()) == pytest.approx(1, abs=0.02)
    inner = spectra[:, 1:-1].abs().square().mean(0)
    assert float(inner.min()) > 0.85 and float(inner.max()) < 1.15
    assert torch.equal(table(config), spectra)


def test_a_hop_and_window_of_any_size_make_a_table() -> None:
    wide = dataclasses.replace(WHITE, hop=1, fft_size=2**13 + 1)  # more than all noise there is
    assert noise_table(wide).shape == (2, NOISE_FRAMES, wide.bins)


def test_shares_begin_as_likeliest_and_with_tonal_that_much_more_tonal() -> None:
    logits = {}
    for tonal in (0.0, 2.0):
        config = dataclasses.replace(WHITE, linear_noise=True, tonal=tonal)
        torch.manual_seed(0)
        decoder = ConvNeXtDecoder(config, 1)
        latents = torch.randn(1, 8, 300)
        begin_noise(decoder, latents, torch.randn(1, 300, 2 * config.bins))
        logits[tonal] = decoder.linear.bias.view(2, 2, -1)[:, 1]
    torch.testing.assert_close(logits[2.0], logits[0.0] + 2)


def test_what_has_no_noise_to_speak_of_is_refused() -> None:
    with pytest.raises(ValueError, match="tonal is 2.0 without linear_noise"):
        ConvNeXtConfig(tonal=2.0, noise=True, linear=True)
    with pytest.raises(ValueError, match="white says of what kind noise is: set noise, too"):
        ConvNeXtConfig(white=True)
