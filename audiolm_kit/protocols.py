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
