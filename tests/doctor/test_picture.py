"""A picture is a whole PNG, and shows a tone as a line at its height, and what is missing as darkness."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.doctor.picture import BANDS, GAP, LARGER, draw, png


def read_png(data: bytes) -> Tensor:
    """``[H, W, 3]`` of a PNG without filters; every checksum is looked at."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(body),)
        chunks.append((body[:4], body[4:]))
        place += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height = struct.unpack(">II", chunks[0][1][:8])
    lines = torch.frombuffer(bytearray(zlib.decompress(chunks[1][1])), dtype=torch.uint8).view(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def a_tone(hertz: float, seconds: float = 1.0) -> Sound:
    return Sound(0.5 * torch.sin(2 * math.pi * hertz * torch.arange(int(8000 * seconds)) / 8000)[None], 8000)


def test_pixels_come_back_from_the_file() -> None:
    pixels = torch.randint(256, (5, 7, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(read_png(png(pixels)), pixels)


def test_a_tone_is_a_line_at_its_height_and_silence_is_dark(tmp_path: Path) -> None:
    pairs = [(a_tone(500), Sound(torch.zeros(1, 8000), 8000)), (a_tone(2000, 0.5), a_tone(500, 0.5))]
    draw(pairs, tmp_path / "a.png")
    picture = read_png((tmp_path / "a.png").read_bytes()).float().mean(-1)
    high = BANDS * LARGER
    assert picture.shape[0] == 2 * high + GAP
    first, second = picture[:high], picture[high + GAP :]
    width = (picture.shape[1] - GAP) // 2
    low_tone, high_tone = (int(part[:, 100].argmax()) for part in (first[:, :width], first[:, width + GAP :]))
    assert high_tone < low_tone  # pitch upwards
    assert abs(int(second[:, width + GAP + 100].argmax()) - low_tone) <= 2 * LARGER
    assert second[:, : width - 20].max() < 5
