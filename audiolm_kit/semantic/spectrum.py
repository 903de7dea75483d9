"""Log-mel frames, cepstra and pitch classes, one for every begun hop.

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
PITCH_CLASSES = 12
PITCHES = (21, 108)
"""Those of a piano, as MIDI counts them: 27.5 Hz to 4.2 kHz."""
PITCH_SECONDS = 0.25
"""Of a window in which low notes a semitone apart are told from each other (from about 130 Hz on)."""
COMPRESSION = 100.0
"""log(1 + 100 x): what is 40 dB below full scale still counts a quarter as much as full scale itself."""
QUIET = 1.0
"""Length of a frame's pitch classes below which they are not scaled up: noise has no harmony."""
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
        spectrum = magnitudes(audio, self.hop, self.window)
        return (self.filters @ spectrum).clamp(min=FLOOR).log().transpose(1, 2)


class Chroma(nn.Module):
    """How strongly each of the twelve pitch classes sounds, and how much sounds at all; C first, the level last.

    Magnitudes of windows of at least 0.25 s around the middle of each hop go into the semitones of a piano, are
    compressed as log(1 + 100 x), and are summed over octaves; each frame is then scaled to length 1, so that chords are
    told by their notes whether they sound or fade (Mueller, Fundamentals of Music Processing, section 3.1). Semitones
    above half the sample rate are left out. Nothing here is learned or saved.

    Raises:
        ValueError: no semitone lies below half the sample rate.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.fft_size = 2 ** math.ceil(math.log2(max(PITCH_SECONDS * sample_rate, hop)))
        self.register_buffer("filters", semitones(sample_rate, self.fft_size), persistent=False)
        self.register_buffer("window", torch.hann_window(self.fft_size), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, L] -> [B, T, 13]`` with T = ceil(L / hop); silence before and behind."""
        spectrum = magnitudes(audio, self.hop, self.window) * (4 / self.fft_size)  # a full-scale sine is 1
        notes = torch.log1p(COMPRESSION * (self.filters @ spectrum)).transpose(1, 2)  # [B, T, P]
        before, behind = PITCHES[0] % PITCH_CLASSES, -(PITCHES[0] + notes.shape[2]) % PITCH_CLASSES
        octaves = F.pad(notes, (before, behind)).unflatten(2, (-1, PITCH_CLASSES))
        classes = octaves.sum(dim=2)
        level = classes.norm(dim=2, keepdim=True)
        return torch.cat([classes / level.clamp_min(QUIET), level], dim=2)


def semitones(sample_rate: int, fft_size: int) -> Tensor:
    """Weights of the bins of a spectrum in each semitone of PITCHES below half the sample rate, [P, F].

    Triangles that reach to the next semitones, each of sum 1; where they are narrower than bins are apart, the two bins
    next to the semitone share its weight.
    """
    lowest, highest = PITCHES
    reach = 69 + 12 * math.log2(sample_rate / 2 / 440) - 1  # the last triangle ends there
    if reach < lowest:
        raise ValueError(f"sample_rate {sample_rate} has no pitches of a piano: give at least 60")
    pitches = torch.arange(lowest, min(highest, math.floor(reach)) + 1, dtype=torch.float64)
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)
    places = 440 * 2 ** ((pitches[:, None] - 69) / 12) * fft_size / sample_rate  # in bins
    wide = (1 - 12 * (bins.clamp(min=0.5) / places).log2().abs()).clamp(min=0)
    narrow = (1 - (bins - places).abs()).clamp(min=0)
    weights = torch.where(places * (2 ** (1 / 12) - 1) < 1, narrow, wide)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def magnitudes(audio: Tensor, hop: int, window: Tensor) -> Tensor:
    """Spectra around the middle of each begun hop, ``[B, L] -> [B, F, T]``; silence before and behind."""
    size = len(window)
    frames = -(-audio.shape[1] // hop)
    left = (size - hop) // 2
    length = (frames - 1) * hop + size
    padded = F.pad(audio, (left, length - left - audio.shape[1]))
    return torch.stft(padded, size, hop, window=window, center=False, return_complex=True).abs()


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
