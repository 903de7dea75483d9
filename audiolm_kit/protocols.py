"""What the rest of the house may ask of a tokenizer and of a codec.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class AudioTokenizer(Protocol):
    """Sound to codes: K streams of integers in [0, codebook_size), frame_rate times a second."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def num_codebooks(self) -> int: ...

    @property
    def codebook_size(self) -> int: ...

    @property
    def frame_rate(self) -> float: ...

    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, C, L] -> codes [B, K, T]."""
        ...


@runtime_checkable
class SteadyTokenizer(AudioTokenizer, Protocol):
    """A tokenizer that can also put a price on each change of a code."""

    def encode_steady(self, audio: Tensor, hold: float) -> Tensor:
        """Audio [B, C, L] and what a change costs -> codes [B, K, T]."""
        ...


@runtime_checkable
class Codec(AudioTokenizer, Protocol):
    """A tokenizer that can also turn codes back into sound."""

    @property
    def hop(self) -> int:
        """Samples that each frame of codes brings."""
        ...

    @property
    def can_stream(self) -> bool:
        """Whether codes can be decoded piece by piece."""
        ...

    def check(self, codes: Tensor) -> None:
        """Refuse with a ValueError what ``decode`` would refuse; no frames at all are fine."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K, T] -> audio [B, C, L]; fewer codebooks than K give coarser sound."""
        ...


def check_audio(codec: Codec, audio: Tensor, num_codebooks: int | None) -> int:
    """How many codebooks to encode audio with, all where None is asked for, if that can be done.

    Raises:
        ValueError: not the axes [B, C, L], another number of channels, no samples, or a ``num_codebooks`` out of range.
    """
    if audio.dim() != 3 or audio.shape[1] != codec.channels:
        raise ValueError(f"audio is of shape {list(audio.shape)}, wanted [B, {codec.channels}, L]: see audio.fit")
    if audio.numel() == 0:
        raise ValueError(f"audio of shape {list(audio.shape)} has no samples: give at least one")
    count = codec.num_codebooks if num_codebooks is None else num_codebooks
    if not 1 <= count <= codec.num_codebooks:
        raise ValueError(f"num_codebooks is {num_codebooks}, this codec has 1 to {codec.num_codebooks}")
    return count
