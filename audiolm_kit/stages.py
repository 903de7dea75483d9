"""Stages of AudioLM: which codes a model learns, and which stand in front of them.

K codebooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

StageName = Literal["semantic", "coarse", "fine", "acoustic"]
Source = Literal["", "semantic", "codec"]


@dataclass(frozen=True)
class Stage:
    """One model of AudioLM (arXiv:2209.03143, section III-C), named by what it makes.

    Semantic makes semantic codes. Coarse makes the codec's first codebooks, given semantic codes; fine the rest, given
    coarse ones. Acoustic makes all codebooks at once, given semantic codes: coarse and fine in one model.
    """

    name: StageName
    codebooks: tuple[int, int]
    """The first of the codebooks that it makes, and the one after the last."""
    seconds: float
    """The length of the pieces that it was trained on."""
    prefix_codebooks: tuple[int, int] = (0, 0)
    """The same of those that stand in front, each step of them frame by frame; equal numbers: none do."""
    deduplicated: bool = True
    """Whether semantic codes, its own or those in front, are without repeats (``repeats.deduplicate``)."""
    codes_per_second: float = 0.0
    """How many semantic codes a second has on average, as they stand in the sequence; for the semantic stage."""

    def __post_init__(self) -> None:
        for name in ("codebooks", "prefix_codebooks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists, as JSON has them
            first, end = getattr(self, name)
            if not (0 <= first <= end and (name == "prefix_codebooks" or first < end)):
                raise ValueError(f"{name} of stage {self.name} are {[first, end]}: give a first and a later end")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds of stage {self.name} is {self.seconds}, wanted above 0")
        if bool(self.prefix) != (self.prefix_codebooks[0] < self.prefix_codebooks[1]):
            wanted = f"those of the {self.prefix} codes" if self.prefix else "none, [0, 0]"
            given = list(self.prefix_codebooks)
            raise ValueError(f"prefix_codebooks of stage {self.name} are {given}, wanted {wanted}")

    @property
    def source(self) -> Source:
        """Which tokenizer's codes it makes."""
        return "semantic" if self.name == "semantic" else "codec"

    @property
    def prefix(self) -> Source:
        """Which tokenizer's codes stand in front; empty where none do."""
        prefixes: dict[str, Source] = {"semantic": "", "coarse": "semantic", "acoustic": "semantic", "fine": "codec"}
        return prefixes[self.name]
