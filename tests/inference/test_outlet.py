"""Chunks become one WAV, in a file that stands whole or not at all, or on standard output as they come."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.inference import outlet

RATE = 8000


def chunks(*sizes: int, channels: int = 1) -> Iterator[Sound]:
    """Noise in chunks of these sizes."""
    generator = torch.Generator().manual_seed(0)
    return (Sound(torch.rand(channels, size, generator=generator) * 2 - 1, RATE) for size in sizes)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_of_chunks_is_the_file_of_the_whole(tmp_path: Path, channels: int) -> None:
    whole = torch.cat([chunk.samples for chunk in chunks(5, 800, 1, channels=channels)], dim=1)
    audio.write(tmp_path / "whole.wav", Sound(whole, RATE))
    seconds = outlet.to_file(tmp_path / "deep" / "er" / "out.wav", chunks(5, 800, 1, channels=channels))
    assert seconds == 806 / RATE
    assert (tmp_path / "deep" / "er" / "out.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_a_file_that_breaks_off_leaves_the_earlier_one(tmp_path: Path) -> None:
    def failing() -> Iterator[Sound]:
        yield from chunks(800)
        raise KeyboardInterrupt

    (tmp_path / "out.wav").write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        outlet.to_file(tmp_path / "out.wav", failing())
    with pytest.raises(ValueError, match="nothing was made"):
        outlet.to_file(tmp_path / "out.wav", chunks())
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]
    assert (tmp_path / "out.wav").read_bytes() == b"earlier"


def test_a_chunk_is_in_the_pipe_before_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = os.pipe()
    with os.fdopen(ends[0], "rb") as reader, os.fdopen(ends[1], "w") as writer:
        monkeypatch.setattr(sys, "stdout", writer)

        def watched() -> Iterator[Sound]:
            for chunk in chunks(100, 50):
                print("not for the pipe")
                yield chunk
                head = 44 if chunk.samples.shape[1] == 100 else 0
                assert len(os.read(ends[0], 10_000)) == head + 2 * chunk.samples.shape[1]

        outlet.to_standard_output(watched())
        monkeypatch.undo()
        assert reader.readable()


def test_what_is_on_standard_output_reads_as_a_wav(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    outlet.to_standard_output(chunks(100, 50, channels=2))
    told, complaints = capsysbinary.readouterr()
    samples, rate = soundfile.read(io.BytesIO(told), dtype="int16")
    whole = torch.cat([chunk.samples for chunk in chunks(100, 50, channels=2)], dim=1)
    assert rate == RATE and samples.shape == (150, 2)
    assert np.array_equal(samples.T, (whole * 32768).round().clamp(-32768, 32767).short().numpy())
    outlet.to_standard_output(chunks())
    assert capsysbinary.readouterr() == (b"", b"") and complaints == b""


@pytest.mark.parametrize("target", ["x.flac", "x", "folder/x.mp3"])
def test_only_a_wav_grows(target: str) -> None:
    with pytest.raises(ValueError, match="give a .wav, or - for standard output"):
        outlet.check(target)
    outlet.check("x.WAV")
