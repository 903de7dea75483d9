"""Where a sound goes while it is being made: into a WAV file that grows, or to standard output.

Shapes: C channels, m samples of a chunk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from pathlib import Path

from audiolm_kit.audio import Sound, pcm16, wav_header
from audiolm_kit.checkpoint import replacing

STANDARD_OUTPUT = "-"


def check(target: str) -> None:
    """Refuse what cannot take a stream, before anything is made.

    Raises:
        ValueError: A file that is no .wav, or standard output that leads to a terminal.
    """
    if target == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise ValueError("standard output is a terminal: pipe it into a player (| ffplay -), or stream into a .wav")
    elif Path(target).suffix.lower() != ".wav":
        raise ValueError(f"cannot stream into {target}: give a .wav, or - for standard output")


def to_file(target: str | Path, chunks: Iterable[Sound]) -> float:
    """Write chunks ``[C, m]`` as they come; returns the seconds that they last.

    The file has its name and a whole header when all is written; whatever goes wrong before leaves nothing behind.

    Raises:
        OSError: It cannot be written, for want of space say.
        ValueError: There are no chunks, or more than a .wav can hold, which is 4 GiB.
    """
    length = 0
    last: Sound | None = None
    try:
        with replacing(target) as draft, open(draft, "wb") as file:
            for last in chunks:
                if not length:
                    file.write(wav_header(last.sample_rate, len(last.samples)))
                length += last.samples.shape[1]
                header = wav_header(last.sample_rate, len(last.samples), length)  # refuses what is too long
                file.write(pcm16(last.samples))
            if last is None:
                raise ValueError(f"nothing was made for {target}")
            file.seek(0)
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {target} ({error.strerror}): free or choose another place") from error
    return length / last.sample_rate


def to_standard_output(chunks: Iterable[Sound]) -> None:
    """Write chunks ``[C, m]`` as a WAV of unknown length, each at once; ends quietly when nobody listens any more.

    Meanwhile whatever else is printed goes to standard error.
    """
    pipe = sys.stdout.buffer
    begun = False
    with redirect_stdout(sys.stderr):
        try:
            for chunk in chunks:
                if not begun:
                    pipe.write(wav_header(chunk.sample_rate, len(chunk.samples)))
                    begun = True
                pipe.write(pcm16(chunk.samples))
                pipe.flush()
        except BrokenPipeError:
            # What is left in the buffer would be written when the interpreter ends, and complained about.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
