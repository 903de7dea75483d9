"""Judges by what they give: embedders and classifiers of sounds, made of frames, of a codec, or of a function by name.

Shapes: N sounds, C channels, L samples, T frames, D width.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound

Pool = Literal["mean", "mean_std"]


class Judge(Protocol):
    """Whatever hears: figures of two judges are never compared."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes its answers."""
        ...


class Embedder(Judge, Protocol):
    """Sounds to points, or to probabilities of classes."""

    def __call__(self, sounds: Sequence[Sound]) -> Tensor:
        """Sounds of any rate and length -> [N, D], each by itself."""
        ...


class Frames(Protocol):
    """Audio to frames: a model of speech, a codec's latents."""

    def __call__(self, audio: Tensor, /) -> Tensor:
        """[C, L] -> [T, D]."""
        ...


@dataclass(frozen=True)
class FrameEmbedder:
    """An embedder of whole sounds by the frames of a model: their mean, and how far they scatter around it."""

    name: str
    fingerprint: str
    frames: Frames
    sample_rate: int
    channels: int = 1
    pool: Pool = "mean"
    """``mean`` [D], or ``mean_std`` [2 D], which also hears what comes and goes."""

    @torch.no_grad()
    def __call__(self, sounds: Sequence[Sound]) -> Tensor:
        """[N, D] or [N, 2 D], float32 on the CPU."""
        return torch.stack([self._of(sound) for sound in sounds])

    def _of(self, sound: Sound) -> Tensor:
        samples = audio.checked(sound.samples, "a sound to embed")
        frames = self.frames(audio.fit(Sound(samples, sound.sample_rate), self.sample_rate, self.channels).samples)
        parts = [frames.mean(0), frames.std(0, correction=0)]
        return torch.cat(parts if self.pool == "mean_std" else parts[:1]).float().cpu()


@dataclass(frozen=True)
class Named:
    """A function that somebody else wrote, as a judge."""

    name: str
    fingerprint: str
    function: Callable[..., Any]

    def __call__(self, *given: Any) -> Any:
        """Whatever it answers."""
        return self.function(*given)


def function_of(name: str) -> Named:
    """The function ``module:function`` (or an object of that module that can be called).

    Its fingerprint changes with its source, where that can be read, but not with what else it uses.

    Raises:
        ValueError: There is none.
    """
    home, _, inner = name.partition(":")
    try:
        found = getattr(import_module(home), inner) if home and inner else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no function {name!r} ({error}): give module:function, importable from here") from None
    if not callable(found):
        raise ValueError(f"{name!r} names no function: give module:function, importable from here")
    try:
        source = inspect.getsource(found)
    except (OSError, TypeError):
        source = ""
    return Named(name, digest("function", name, source), found)


def digest(*parts: Any) -> str:
    """16 hex digits that change with any of the parts, plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
