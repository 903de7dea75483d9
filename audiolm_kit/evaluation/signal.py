"""How near a waveform is to the one it should be: scale-invariant distortion, and distances of spectrograms.

Shapes: L samples, F frequency bins, M mel bands, T frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiolm_kit.audio import checked, log_mel

LIMIT = 100.0
"""Decibels: no ratio is told beyond it, so that a mean over sounds stays a number."""
WINDOWS = (256, 512, 1024, 2048)
HEARD = 80.0
"""Decibels below the reference's loudest band; what is softer counts as so loud."""
ROUNDING = 1e-18
"""The share of a constant sound's power that is left when its mean is taken out."""
_DECIBELS = 20 / math.log(10)
_FLOOR = 1e-30  # of magnitudes, keeps logarithms finite


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in decibels, ``[..., L]`` twice -> ``[...]`` float64, -100 to 100.

    Both are freed of their mean. The estimate is parted into the multiple of the reference that is nearest to it and
    a rest; the ratio of their powers is told (Le Roux et al. 2019, arXiv:1811.02508). Loudness does not count: a
    multiple of the reference, its negative too, has 100, and a silent estimate, which holds nothing of it, -100.

    Raises:
        ValueError: The shapes differ, or a reference is silent (constant).
    """
    made, real = (_centred(each) for each in _pair(estimate, reference))
    power = real.square().sum(-1, keepdim=True)
    _refuse_silence(power[..., 0])
    target = (made * real).sum(-1, keepdim=True) / power * real
    kept, lost = target.square().sum(-1), (made - target).square().sum(-1)
    ratio = 10 * (kept / lost.maximum(kept * 10 ** (-LIMIT / 10))).log10()
    return torch.where(kept > 0, ratio, -LIMIT).clamp_min(-LIMIT)


def mel_distance(estimate: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of two mel spectrograms in decibels, ``[..., L]`` twice -> ``[...]`` float64.

    For windows (Hann) of 256, 512, 1024 and 2048 samples, a quarter of a window apart, the magnitudes of each frame are
    summed into one mel band (Slaney's scale, 0 Hz to half the sample rate) per 16 samples of the window, and told in
    decibels; in both sounds whatever lies more than 80 dB below the loudest band of the reference is raised to there.
    The mean of the absolute difference is taken over bands and frames, and then over the four windows: 6 means that a
    band is on average twice as loud as it should be, or half. Gain and sign of both together do not count, gain of one
    does: an estimate of half the amplitude is 6.02 dB away.

    Raises:
        ValueError: The shapes differ, or a reference is silent.
    """
    made, real = _pair(estimate, reference)
    _refuse_silence(real.square().sum(-1))
    terms = []
    for size in WINDOWS:
        first, second = (_levels(each, sample_rate, size) for each in (made, real))
        floor = second.amax((-2, -1), keepdim=True) - HEARD
        terms.append((first.maximum(floor) - second.maximum(floor)).abs().mean((-2, -1)))
    return torch.stack(terms).mean(0)


def stft_distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """The multi-scale distance of magnitudes of short-time spectra, ``[..., L]`` twice -> ``[...]`` float64, 0 and up.

    For windows (Hann) of 256, 512, 1024 and 2048 samples, a quarter of a window apart: the norm of the difference of
    the magnitudes by that of the reference's (spectral convergence), and the mean absolute difference of their natural
    logarithms, what lies more than 80 dB below the reference's largest raised to there; the sum of the two, and its
    mean over the windows (Yamamoto et al. 2020, arXiv:1910.11480). A gain of both does not count.

    Raises:
        ValueError: The shapes differ, or a reference is silent.
    """
    made, real = _pair(estimate, reference)
    _refuse_silence(real.square().sum(-1))
    terms = []
    for size in WINDOWS:
        first, second = _magnitudes(made, size), _magnitudes(real, size)
        floor = second.amax((-2, -1), keepdim=True) * 10 ** (-HEARD / 20)
        convergence = (first - second).square().sum((-2, -1)) / second.square().sum((-2, -1))
        logs = (first.maximum(floor).log() - second.maximum(floor).log()).abs().mean((-2, -1))
        terms.append(convergence.sqrt() + logs)
    return torch.stack(terms).mean(0)


def _magnitudes(audio: Tensor, size: int) -> Tensor:
    """[..., L] -> [..., F, T]."""
    window = torch.hann_window(size, dtype=audio.dtype, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(flat, size, size // 4, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs().reshape(*audio.shape[:-1], *spectrum.shape[-2:])


def _levels(audio: Tensor, sample_rate: int, size: int) -> Tensor:
    """[..., L] -> decibels [..., M, T]."""
    return log_mel(audio, sample_rate, size, size // 4, num_mels=size // 16, floor=_FLOOR) * _DECIBELS


def _pair(estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64, of one shape and finite."""
    if estimate.shape != reference.shape or not reference.dim():
        given = f"{list(estimate.shape)} and {list(reference.shape)}"
        raise ValueError(f"estimate and reference are {given}: cut both to the same [..., samples]")
    return checked(estimate, "the estimate").double(), checked(reference, "the reference").double()


def _centred(audio: Tensor) -> Tensor:
    """[..., L] less its mean; what is constant but for rounding becomes silence."""
    centred = audio - audio.mean(-1, keepdim=True)
    varies = centred.square().sum(-1, keepdim=True) > ROUNDING * audio.square().sum(-1, keepdim=True)
    return centred * varies


def _refuse_silence(power: Tensor) -> None:
    silent = int((power == 0).sum())
    if silent:
        raise ValueError(f"{silent} of {power.numel()} references are silent: leave them out")
