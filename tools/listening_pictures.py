"""Pictures of sounds for the listening page: mel spectrograms as small PNG files, waveforms as drawings in the page.

Shapes: C channels, L samples, M mel bands, W columns.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from audiolm_kit.audio import Sound, log_mel, write_bytes
from audiolm_kit.doctor.picture import INKS

NUM_MELS = 96
DYNAMIC_RANGE = 70.0
"""Decibels from a picture's brightest colour down to its darkest."""
WAVE_COLUMNS, WAVE_HEIGHT = 240, 100
"""The grid that a waveform is drawn on; the page stretches it."""


def decibels(sound: Sound, columns: int = 480) -> Tensor:
    """A sound's mel spectrogram below its own peak, [M, about ``columns``], from -DYNAMIC_RANGE to 0."""
    fft_size = 1 << round(sound.sample_rate * 0.04).bit_length()
    hop_length = max(1, sound.samples.shape[-1] // columns)
    levels = log_mel(sound.samples.mean(0), sound.sample_rate, fft_size, hop_length, NUM_MELS) * (20 / math.log(10))
    return (levels - levels.max()).clamp_min(-DYNAMIC_RANGE)


def draw(sound: Sound, path: Path) -> None:
    """Write a sound's spectrogram, low pitches at the bottom, as a PNG without axes (the page writes those)."""
    write_bytes(path, mel_picture(sound))


def mel_picture(sound: Sound) -> bytes:
    """A sound's spectrogram as a PNG of M rows, the highest pitch first."""
    levels = decibels(sound).flip(0) / DYNAMIC_RANGE + 1
    return png((levels * 255).round().to(torch.uint8), inks())


def inks() -> Tensor:
    """256 colours from silence to the loudest, [256, 3] uint8."""
    anchors = torch.tensor(INKS, dtype=torch.float32)
    places = torch.linspace(0, len(anchors) - 1, 256)
    below = places.long().clamp(max=len(anchors) - 2)
    return torch.lerp(anchors[below], anchors[below + 1], (places - below)[:, None]).round().to(torch.uint8)


def png(pixels: Tensor, colours: Tensor) -> bytes:
    """``pixels`` [H, W] uint8 and their ``colours`` [256, 3] uint8 as a PNG with a palette (ISO/IEC 15948)."""
    height, width = pixels.shape
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels], dim=1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.numpy().tobytes()),
        (b"IDAT", zlib.compress(lines.numpy().tobytes(), 9)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def waveform(sound: Sound, peak: float) -> str:
    """A sound's envelope as the path of an SVG: highest samples from left to right, lowest ones back.

    Args:
        peak: What reaches the edge; sounds that are to be compared share one.
    """
    samples = sound.samples  # [C, L]
    edges = torch.linspace(0, samples.shape[-1], min(WAVE_COLUMNS, samples.shape[-1]) + 1).long().tolist()
    spans = [samples[:, start:end] for start, end in zip(edges, edges[1:], strict=False)]
    middle, scale = WAVE_HEIGHT / 2, (WAVE_HEIGHT / 2 - 1) / max(peak, 1e-9)
    # Half a unit at least to either side: silence is a thin line.
    tops = [middle - max(0.5, float(span.max()) * scale) for span in spans]
    bottoms = [middle + max(0.5, -float(span.min()) * scale) for span in spans]
    width = WAVE_COLUMNS / max(1, len(spans) - 1)
    points = [(place * width, y) for place, y in enumerate(tops)]
    points += [(place * width, y) for place, y in reversed(list(enumerate(bottoms)))]
    return "M" + " ".join(f"{x:.4g},{y:.3g}" for x, y in points) + "Z"
