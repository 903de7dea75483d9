"""Where each code stands in the sequence: parallel, delay and flatten are one formula.

Shapes: B batch, K codebooks, T frames, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PatternName = Literal["parallel", "delay", "flatten"]


@dataclass(frozen=True)
class Pattern:
    """Code k of frame t stands at ``step(k, t) = stride * t + offsets[k]`` (arXiv:2306.05284, section 2.2)."""

    stride: int
    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"pattern stride is {self.stride}: give 1 or more")
        if not self.offsets or any(type(offset) is not int or offset < 0 for offset in self.offsets):
            raise ValueError(f"pattern offsets are {self.offsets}: give a whole number for each codebook, 0 or more")

    @classmethod
    def parallel(cls, num_codebooks: int) -> Pattern:
        """All codes of a frame at once: T steps, which ignore what a frame's codes say about each other."""
        return cls(1, (0,) * num_codebooks)

    @classmethod
    def delay(cls, num_codebooks: int, offsets: tuple[int, ...] = ()) -> Pattern:
        """Each codebook one step after the coarser one: T + K - 1 steps, a frame's codes come from coarse to fine.

        Args:
            num_codebooks: K.
            offsets: How many steps each codebook is late instead, in any order; MusicGen's stereo models, whose
                codebooks are left's and right's by turns, have 0, 0, 1, 1, 2, 2, 3, 3.
        """
        if offsets and len(offsets) != num_codebooks:
            raise ValueError(f"offsets are {offsets} for {num_codebooks} codebooks: give one for each, or none")
        return cls(1, offsets or tuple(range(num_codebooks)))

    @classmethod
    def flatten(cls, num_codebooks: int) -> Pattern:
        """One code a step: K * T steps, nothing is ignored."""
        return cls(num_codebooks, tuple(range(num_codebooks)))

    @classmethod
    def named(cls, name: PatternName, num_codebooks: int, offsets: tuple[int, ...] = ()) -> Pattern:
        """The pattern of a recipe; ``offsets`` are for delay alone, empty for its own."""
        makers = {"parallel": cls.parallel, "delay": cls.delay, "flatten": cls.flatten}
        if name not in makers:
            raise ValueError(f"pattern is {name!r}: give one of {', '.join(makers)}")
        if not offsets:
            return makers[name](num_codebooks)
        if name != "delay":
            raise ValueError(f"offsets are {offsets}, but {name} has its own: set pattern delay, or leave offsets out")
        return cls.delay(num_codebooks, offsets)

    @property
    def num_codebooks(self) -> int:
        return len(self.offsets)

    def step(self, codebook: int, frame: int) -> int:
        return self.stride * frame + self.offsets[codebook]

    def first_step(self, frame: int) -> int:
        """The step of the frame's earliest code; no code of a later frame stands before it."""
        return self.stride * frame + min(self.offsets)

    def last_step(self, frame: int) -> int:
        """The step of the frame's latest code, with which the frame is whole."""
        return self.stride * frame + max(self.offsets)

    def num_steps(self, num_frames: int) -> int:
        """S for T frames."""
        return self.last_step(num_frames - 1) + 1 if num_frames else 0

    def apply(self, codes: Tensor, fill: int) -> Tensor:
        """``[B, K, T] -> [B, K, S]``; cells where no code stands hold ``fill``."""
        batch, num_codebooks, num_frames = codes.shape
        self._check(num_codebooks)
        sequence = codes.new_full((batch, num_codebooks, self.num_steps(num_frames)), fill)
        for codebook in range(num_codebooks):
            sequence[:, codebook, self._steps(codebook, num_frames)] = codes[:, codebook]
        return sequence

    def revert(self, sequence: Tensor, num_frames: int) -> Tensor:
        """``[B, K, S, ...] -> [B, K, T, ...]``: what stands where the codes stand; S may be longer than need be."""
        self._check(sequence.shape[1])
        needed = self.num_steps(num_frames)
        if sequence.shape[2] < needed:
            raise ValueError(f"{num_frames} frames stand in {needed} steps, got {sequence.shape[2]}: ask for fewer")
        streams = [sequence[:, codebook, self._steps(codebook, num_frames)] for codebook in range(self.num_codebooks)]
        return torch.stack(streams, dim=1)

    def _steps(self, codebook: int, num_frames: int) -> slice:
        """The steps of one codebook: views in place of index tensors."""
        return slice(self.step(codebook, 0), self.step(codebook, num_frames), self.stride)

    def _check(self, num_codebooks: int) -> None:
        if num_codebooks != self.num_codebooks:
            raise ValueError(f"codes have {num_codebooks} codebooks, the pattern lays out {self.num_codebooks}")
