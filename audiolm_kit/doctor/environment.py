"""The machine and its interpreter: Python, threads, bf16, sound files, disk; and the table of all checks of both.

Foreign packages are looked at in ``packages``.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from audiolm_kit.doctor import packages
from audiolm_kit.doctor.findings import Finding, one_line

OLDEST_PYTHON = (3, 10)
LEAST_DISK = 2 * 2**30  # bytes; a small recipe leaves less than this behind
BF16_WIDTH = 384  # of the square matrices that are multiplied to time bf16; a tenth of a second where it is made up


def check_python() -> Finding:
    """The interpreter is new enough."""
    told = f"{platform.python_version()} ({sys.executable}) on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", told, "" if sys.version_info >= OLDEST_PYTHON else f"use Python {wanted} or newer")


def check_threads() -> Finding:
    """torch computes with no more threads than this process has cores."""
    threads = import_module("torch").get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cure = f"set OMP_NUM_THREADS={cores}: more threads than cores slow each other down" if threads > cores else ""
    return Finding("threads", f"{threads} for {cores} cores", cure)


def check_bf16() -> Finding:
    """Whether the CPU computes in bf16 itself; no fault, for `fit` sees to it."""
    if emulates_bf16():
        return Finding("bf16", "made up by this CPU, many times slower than fp32: `fit` computes in fp32 on it")
    return Finding("bf16", "about as fast as fp32 on this CPU, or faster")


def emulates_bf16() -> bool:
    """Whether products in bf16 take this CPU more than twice as long as in fp32, as where it has no arithmetic for it.

    It is timed, for a tenth to half a second, because what a CPU says it can says nothing about the torch at hand.
    """
    torch = import_module("torch")

    def quickest(kind: str) -> float:
        """Seconds of the fastest of three products."""
        matrix = torch.ones(BF16_WIDTH, BF16_WIDTH, dtype=getattr(torch, kind))
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - begun)
        return min(times)

    quickest("float32")  # whatever is set up once
    return quickest("bfloat16") > 2 * quickest("float32")


def check_sound_files() -> Finding:
    """A tone written as MP3 comes back."""
    torch, audio = import_module("torch"), import_module("audiolm_kit.audio")
    tone = torch.sin(torch.arange(16000) * 0.2)[None] * 0.5
    cure = f"`{sys.executable} -m pip install --upgrade soundfile` (its libsndfile must be 1.1 or newer)"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tone.mp3"
        try:
            audio.write(path, audio.Sound(tone, 16000))
            level = float(audio.read(path).samples.abs().max())
        except Exception as error:
            return Finding("soundfile", f"MP3 cannot be written and read ({one_line(error)})", cure)
    return Finding("soundfile", "MP3 is written and read", "" if 0.3 < level < 0.7 else cure)


def check_disk() -> Finding:
    """The current folder's disk has room for a run."""
    free = shutil.disk_usage(Path.cwd()).free
    cure = "" if free >= LEAST_DISK else f"free some space: a small recipe wants {LEAST_DISK / 2**30:.0f} GiB"
    return Finding("disk", f"{free / 2**30:.1f} GiB free in {Path.cwd()}", cure)


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "packages": packages.check_versions,
    "torch": packages.check_torch,
    "threads": check_threads,
    "bf16": check_bf16,
    "torchaudio": packages.check_torchaudio,
    "torchvision": packages.check_torchvision,
    "transformers": packages.check_transformers,
    "hub": packages.check_hub,
    "encodec": packages.check_encodec,
    "soundfile": check_sound_files,
    "disk": check_disk,
}
