"""Spectrograms as a PNG: what was heard above what came of it, drawn with nothing but torch and zlib.

M mel bands, T columns, H and W pixels.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from audiolm_kit.audio import Sound, log_mel, write_bytes

RANGE = 70.0
"""Decibels from black to the brightest."""
BANDS, LARGER = 96, 2
"""Mel bands of a spectrogram, and pixels of a band."""
COLUMNS = 320
"""Pixels of a second, or of a sound that is shorter."""
GAP = 6
"""Pixels between two spectrograms."""
INKS = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
"""From silence to the loudest, evenly apart."""
PAPER = (255, 255, 255)


def draw(pairs: Sequence[tuple[Sound, Sound]], path: str | Path) -> None:
    """Write original above reconstruction, pair beside pair, time from left to right, pitch upwards.

    Both of a pair share one scale, whose top is the louder one's peak: what is missing is dark.
    """
    columns = [_stacked([_inked(each) for each in _levels(pair)], axis=0) for pair in pairs]
    write_bytes(path, png(_stacked(columns, axis=1)))


def png(pixels: Tensor) -> bytes:
    """``[H, W, 3]`` uint8 as a PNG file (RGB, 8 bits, no filter; ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels.reshape(height, -1)], dim=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.numpy().tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _levels(pair: tuple[Sound, Sound]) -> list[Tensor]:
    """Loudness from 0 to 1 of two sounds of one length, ``[M, T]`` each, low pitches at the bottom."""
    spectra = []
    for sound in pair:
        fft_size = 1 << round(sound.sample_rate * 0.04).bit_length()
        length = sound.samples.shape[-1]
        hop = max(1, round(min(sound.sample_rate, length) / COLUMNS))
        levels = log_mel(sound.samples.mean(0), sound.sample_rate, fft_size, hop, BANDS) * (20 / math.log(10))
        spectra.append(levels.nan_to_num(nan=-math.inf).flip(0))
    top = max(float(each.max()) for each in spectra)
    return [((each - top) / RANGE + 1).clamp(0, 1) for each in spectra]


def _inked(levels: Tensor) -> Tensor:
    """``[M, T]`` from 0 to 1 -> ``[H, W, 3]`` uint8."""
    inks = torch.tensor(INKS, dtype=torch.float32)
    places = levels.float() * (len(inks) - 1)
    below = places.floor().clamp(max=len(inks) - 2).long()
    colours = torch.lerp(inks[below], inks[below + 1], (places - below)[..., None])
    return colours.round().to(torch.uint8).repeat_interleave(LARGER, dim=0)


def _stacked(pictures: list[Tensor], axis: int) -> Tensor:
    """Pictures below (axis 0) or beside (axis 1) one another, with gaps; the other side is filled up with paper."""
    other = 1 - axis
    longest = max(each.shape[other] for each in pictures)
    paper = torch.tensor(PAPER, dtype=torch.uint8)
    parts: list[Tensor] = []
    for each in pictures:
        missing = [*each.shape]
        missing[other] = longest - each.shape[other]
        gap = [GAP if i == axis else longest for i in range(2)]
        parts += [paper.expand(*gap, 3)] if parts else []
        parts.append(torch.cat([each, paper.expand(*missing[:2], 3)], dim=other))
    return torch.cat(parts, dim=axis)
