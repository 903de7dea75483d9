"""The sounds that a checkpoint is tried with: the first of a manifest, or one that is made here.

C channels, L samples.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound, rms_dbfs
from audiolm_kit.data.manifest import Row, read_manifest

CLIPS = 4
SECONDS = 2.0
"""At most, of each: where it is loudest."""
READ = 15.0
"""Seconds of a sound that are looked through for that."""
SILENT = -60.0
"""dBFS, below which a clip says nothing."""
RATE = 32000
"""Of the sound that is made here."""


class Clip(NamedTuple):
    """A sound and what is said about it."""

    sound: Sound
    text: str = ""


class Clips(NamedTuple):
    """What a checkpoint is tried with."""

    clips: list[Clip]
    own: bool
    """Whether they are the user's: then a checkpoint that fails on them is at fault."""
    told: str


def clips_of(manifest: str) -> Clips:
    """The first sounds of a manifest that are not silent, or the built-in one where none is named.

    Raises:
        FileNotFoundError: there is no such manifest, or a sound of it is missing.
        ValueError: it is none, a sound cannot be read, or all that were looked at are silent.
    """
    if not manifest:
        return Clips([Clip(built_in_sound())], own=False, told="the built-in test sound (a MANIFEST tells more)")
    rows = read_manifest(manifest)
    if not rows:
        raise ValueError(f"{manifest} has no rows: give a manifest of sounds")
    found: list[Clip] = []
    for row in rows[: 4 * CLIPS]:
        clip = _clip(row)
        if rms_dbfs(clip.sound.samples) > SILENT:
            found.append(clip)
        if len(found) == CLIPS:
            break
    if not found:
        raise ValueError(f"the first sounds of {manifest} are silent: give a manifest of sounds")
    return Clips(found, own=True, told=f"the first {len(found)} sounds of {Path(manifest).name}")


def _clip(row: Row) -> Clip:
    samples, rate = audio.read(row.path, row.start, min(READ, row.duration))
    length = round(SECONDS * rate)
    if samples.shape[1] > length:
        windows = samples.square().sum(0).unfold(0, length, max(1, length // 8)).sum(-1)
        begin = int(windows.argmax()) * max(1, length // 8)
        samples = samples[:, begin : begin + length].contiguous()
    return Clip(Sound(samples, rate), row.caption or "")


def built_in_sound() -> Sound:
    """Two seconds, always the same: three gliding harmonic tones that fade, a rising sweep, puffs of noise."""
    time = torch.arange(round(RATE * SECONDS)) / RATE
    made = torch.zeros_like(time)
    for begin, pitch, glide in ((0.0, 220.0, 1.5), (0.4, 330.0, 0.7), (0.9, 140.0, 1.1)):
        own = (time - begin).clamp(min=0)
        phase = 2 * math.pi * pitch * (own + (glide - 1) * own.square() / 4)
        tone = torch.stack([torch.sin(n * phase) / n for n in range(1, 9)]).sum(0)
        made += 0.25 * tone * torch.exp(-2 * own) * (time >= begin)
    made += 0.1 * torch.sin(2 * math.pi * (200 * time + 900 * time.square()))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    made += 0.15 * noise * torch.exp(-((time * 2) % 1) * 12)
    return Sound((made * (0.5 / made.abs().max()))[None], RATE)
