"""Log-mel frames and cepstra, one for every begun hop.

Shapes: B batch, L samples, T frames, M mel bands, C coefficients, F frequency bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.audio import mel_filters

COEFFICIENTS = 13
"""Of a cepstrum; with deltas and delta-deltas 39 numbers a frame, HuBERT's first features."""
WINDOW_SECONDS = 0.025
FLOOR = 1e-5
HEARD = 5.0
"""Frames are heard whose mean log magnitude is no more than this (43 dB) under that of the loudest."""


@dataclass(frozen=True)
class SpectrumOptions:
    """What is made of the spectra of one sound before they are frames; ``FeatureConfig`` says more of each."""

    dynamic_range_db: float = 0.0
    """In mfcc or mel nothing counts as more than this softer than the loudest; 0 leaves it as it is."""
    standardised: bool = False
    """Take each sound's own mean and deviation out of mfcc or mel: codes tell less of the voice."""
    context: int = 0
    """As many frames of mfcc or mel on each side stand beside every frame."""


class LogMel(nn.Module):
    """Logarithm of mel magnitudes; frame t looks at a window around the middle of its own hop.

    The window is the smallest power of two that holds 25 ms and a hop. Nothing here is learned or saved.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, hop: int, num_mels: int) -> None:
        super().__init__()
        self.hop = hop
        self.fft_size = 2 ** math.ceil(math.log2(max(WINDOW_SECONDS * sample_rate, hop)))
        self.register_buffer("filters", mel_filters(sample_rate, self.fft_size, num_mels), persistent=False)
        self.register_buffer("window", torch.hann_window(self.fft_size), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, L] -> [B, T, M]`` with T = ceil(L / hop); silence before and behind."""
        frames = -(-audio.shape[1] // self.hop)
        left = (self.fft_size - self.hop) // 2
        length = (frames - 1) * self.hop + self.fft_size
        padded = F.pad(audio, (left, length - left - audio.shape[1]))
        spectrum = torch.stft(
            padded, self.fft_size, self.hop, window=self.window, center=False, return_complex=True
        )  # [B, F, T]
        return (self.filters @ spectrum.abs()).clamp(min=FLOOR).log().transpose(1, 2)


def at_peak(audio: Tensor, peak: float) -> Tensor:
    """Each item of ``[B, L]`` at one peak, so that features carry no level (0: as it is).

    Near-silence is raised by at most 60 dB. A peak, unlike a mean power, does not change with silence at the end.
    """
    if not peak:
        return audio
    return audio * (peak / audio.abs().amax(dim=1, keepdim=True).clamp_min(1e-3))


def cepstra(log_mel: Tensor) -> Tensor:
    """Log-mel frames ``[B, T, M]`` -> 13 mel-frequency cepstral coefficients, their deltas and theirs, ``[B, T, 39]``.

    The coefficients are an orthonormal DCT-II (Davis and Mermelstein 1980), the level among them.
    """
    bands = log_mel.shape[2]
    places = torch.arange(bands, dtype=log_mel.dtype, device=log_mel.device) + 0.5
    orders = torch.arange(COEFFICIENTS, dtype=log_mel.dtype, device=log_mel.device)
    cosines = torch.cos(math.pi / bands * orders[:, None] * places) * math.sqrt(2 / bands)
    cosines[0] *= math.sqrt(0.5)
    plain = log_mel @ cosines.T
    first = deltas(plain)
    return torch.cat([plain, first, deltas(first)], dim=-1)


def deltas(frames: Tensor) -> Tensor:
    """The slope of a line through five frames, ``[B, T, C] -> [B, T, C]``; before and behind, the outermost goes on."""
    around = F.pad(frames.transpose(1, 2), (2, 2), mode="replicate").transpose(1, 2)
    number = frames.shape[1]
    back2, back1, on1, on2 = (around[:, shift : shift + number] for shift in (0, 1, 3, 4))
    return (on1 - back1 + 2 * (on2 - back2)) / 10


def compressed(log_mel: Tensor, range_db: float) -> Tensor:
    """Log-mel frames ``[B, T, M]``, no number lower than so many decibels under the greatest of the sound."""
    least = log_mel.amax(dim=(1, 2), keepdim=True) - range_db * math.log(10) / 20
    return torch.maximum(log_mel, least)


def standardised(frames: Tensor, log_mel: Tensor) -> Tensor:
    """Each sound's numbers ``[B, T, C]`` less their mean and over their deviation, of the frames where it is heard.

    Silence does not count, so a pause more or less changes nothing; what never changes becomes 0.

    Args:
        log_mel: [B, T, M] of the same frames: it says where there is something.
    """
    level = log_mel.mean(dim=2, keepdim=True)
    heard = (level >= level.amax(dim=1, keepdim=True) - HEARD).to(frames.dtype)  # [B, T, 1]
    count = heard.sum(dim=1, keepdim=True)
    centred = frames - (frames * heard).sum(dim=1, keepdim=True) / count
    variance = (centred.square() * heard).sum(dim=1, keepdim=True) / count
    return centred / variance.sqrt().clamp_min(1e-3)


def side_by_side(frames: Tensor, context: int) -> Tensor:
    """Each frame with its neighbours, earliest first: ``[B, T, C] -> [B, T, (2 * context + 1) * C]``.

    Before and behind, the outermost goes on.
    """
    number = frames.shape[1]
    around = F.pad(frames.transpose(1, 2), (context, context), mode="replicate").transpose(1, 2)
    return torch.cat([around[:, shift : shift + number] for shift in range(2 * context + 1)], dim=2)
