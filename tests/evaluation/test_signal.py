"""Distances of waveforms: values found by hand, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from audiolm_kit.evaluation.signal import HEARD, LIMIT, WINDOWS, mel_distance, si_sdr, stft_distance

RATE = 16000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_rest_of_a_tenth_is_twenty_decibels_down() -> None:
    reference = torch.tensor([1.0, -1.0, 1.0, -1.0])
    rest = torch.tensor([1.0, 1.0, -1.0, -1.0])  # at a right angle, no mean
    assert float(si_sdr(reference + 0.1 * rest, reference)) == pytest.approx(20)
    assert float(si_sdr(reference + rest, reference)) == pytest.approx(0)
    assert float(si_sdr(0.1 * reference + rest, reference)) == pytest.approx(-20)


def test_si_sdr_is_of_a_number_for_each_sound() -> None:
    reference, rest = noise(2, 3, 500), noise(2, 3, 500, seed=1)
    found = si_sdr(reference + rest, reference)
    assert found.shape == (2, 3)
    assert float(found[1, 2]) == pytest.approx(float(si_sdr((reference + rest)[1, 2], reference[1, 2])))


@pytest.mark.parametrize("gain", [1e-4, 0.5, -3.0])
def test_si_sdr_does_not_depend_on_gain_sign_or_mean(gain: float) -> None:
    reference = noise(4, 1000)
    estimate = reference + 0.3 * noise(4, 1000, seed=1)
    wanted = si_sdr(estimate, reference)
    assert torch.allclose(si_sdr(gain * estimate + 0.2, reference), wanted, atol=1e-5)
    assert torch.allclose(si_sdr(estimate, gain * reference - 5), wanted, atol=1e-5)


def test_si_sdr_stays_a_number_at_its_ends() -> None:
    reference = noise(1000).float()
    for estimate, wanted in (
        (reference, LIMIT),
        (-0.3 * reference, LIMIT),
        (torch.zeros(1000), -LIMIT),
        (torch.full((1000,), 0.1), -LIMIT),
    ):
        assert float(si_sdr(estimate, reference)) == wanted


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_si_sdr_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.audio").scale_invariant_signal_distortion_ratio
    reference = noise(5, 2000)
    estimate = 0.7 * reference + noise(5, 2000, seed=1) + 0.1
    assert torch.allclose(si_sdr(estimate, reference), theirs(estimate, reference, zero_mean=True), atol=1e-6)


@pytest.mark.parametrize("gain", [0.5, 2.0, -0.1])
def test_a_gain_is_as_many_mel_decibels(gain: float) -> None:
    reference = noise(2, 8000)  # of noise no band lies near the floor
    wanted = torch.full((2,), abs(20 * math.log10(abs(gain))), dtype=torch.float64)
    assert torch.allclose(mel_distance(gain * reference, reference, RATE), wanted, atol=1e-9)


def test_the_mel_distance_does_not_depend_on_a_gain_of_both() -> None:
    reference, estimate = noise(2, 8000), noise(2, 8000, seed=1)
    wanted = mel_distance(estimate, reference, RATE)
    for gain in (1e-5, -30.0):
        assert torch.allclose(mel_distance(gain * estimate, gain * reference, RATE), wanted, atol=1e-9)


def test_the_mel_distance_is_nought_only_to_itself() -> None:
    reference = noise(3, 4000)
    assert torch.equal(mel_distance(reference, reference, RATE), torch.zeros(3, dtype=torch.float64))
    near, far = (mel_distance(reference + share * noise(3, 4000, seed=1), reference, RATE) for share in (0.1, 1.0))
    assert bool((0 < near).all()) and bool((near < far).all())


def test_what_is_softer_than_can_be_heard_does_not_count() -> None:
    steps = torch.arange(8000)
    reference = torch.sin(2 * math.pi * 1000 * steps / RATE)
    # A hiss 140 dB down fills bands that are empty in the tone.
    assert float(mel_distance(reference + 1e-7 * noise(8000), reference, RATE)) < 0.01


def test_silence_for_a_sound_is_far_away_and_still_a_number() -> None:
    distance = float(mel_distance(torch.zeros(4000), noise(4000), RATE))
    assert 40 < distance <= 80


@pytest.mark.parametrize("length", [1, 10, 300])
def test_short_sounds_have_a_mel_distance(length: int) -> None:
    reference = noise(length)
    assert float(mel_distance(0.5 * reference, reference, RATE)) == pytest.approx(6.0206, abs=0.1)


@pytest.mark.parametrize(
    ("estimate", "reference", "said"),
    [
        (torch.ones(4), torch.ones(5), r"\[4\] and \[5\]"),
        (torch.ones(2, 4), torch.ones(4), r"\[2, 4\] and \[4\]"),
        (torch.tensor(1.0), torch.tensor(1.0), "cut both"),
        (torch.ones(0), torch.ones(0), "is empty"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "the estimate holds NaN"),
        (torch.ones(3, 4), torch.stack([torch.arange(4.0), torch.zeros(4), torch.zeros(4)]), "2 of 3 references"),
    ],
)
def test_sounds_that_cannot_be_compared_are_refused(estimate: Tensor, reference: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        si_sdr(estimate, reference)
    with pytest.raises(ValueError, match=said):
        mel_distance(estimate, reference, RATE)


def test_a_constant_has_no_si_sdr() -> None:
    with pytest.raises(ValueError, match="1 of 1 references are silent"):
        si_sdr(noise(16000), torch.full((16000,), 0.1))


# --- short-time spectra -----------------------------------------------------------------------------------------------


def test_the_stft_distance_is_that_of_scipys_spectra() -> None:
    scipy_signal = pytest.importorskip("scipy.signal")
    reference, estimate = noise(4096), noise(4096, seed=1)
    terms = []
    for size in WINDOWS:
        window = scipy_signal.get_window("hann", size)
        transform = scipy_signal.ShortTimeFFT(window, size // 4, RATE)
        made, real = (
            abs(transform.stft(each.numpy(), p0=0, p1=4096 // (size // 4) + 1)) for each in (estimate, reference)
        )
        floor = real.max() * 10 ** (-HEARD / 20)
        convergence = ((made - real) ** 2).sum() ** 0.5 / (real**2).sum() ** 0.5
        logs = abs(np.log(np.maximum(made, floor)) - np.log(np.maximum(real, floor))).mean()
        terms.append(convergence + logs)
    assert float(stft_distance(estimate, reference)) == pytest.approx(np.mean(terms), rel=1e-9)


def test_the_stft_distance_is_nought_only_to_itself_and_grows_with_noise() -> None:
    reference = noise(3, 4000)
    assert torch.equal(stft_distance(reference, reference), torch.zeros(3, dtype=torch.float64))
    near, far = (stft_distance(reference + share * noise(3, 4000, seed=1), reference) for share in (0.1, 1.0))
    assert bool((0 < near).all()) and bool((near < far).all())


def test_the_stft_distance_does_not_depend_on_a_gain_of_both() -> None:
    reference, estimate = noise(2, 8000), noise(2, 8000, seed=1)
    assert torch.allclose(stft_distance(-9 * estimate, -9 * reference), stft_distance(estimate, reference))
    halved = stft_distance(0.5 * reference, reference)
    assert torch.allclose(halved, torch.full((2,), 0.5 + math.log(2), dtype=torch.float64))
