"""Stages of a decoder: parts that can work through a sound piece by piece, because each says how far it looks around.

B batch, W and W' widths before and behind a stage, T frames at the rate that the stage reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

State = tuple[Tensor, ...] | None
"""What a stage remembers of all earlier frames; None at the start, and for good where it remembers nothing."""


class Stage(NamedTuple):
    """Frames [B, W, T] -> [B, W', T * hop], in one pass over a sound or over windows of it.

    Once the first n frames are known, all but ``late`` of their outputs are final; the others depend on the last
    ``kept`` of the frames known, on what comes, and on the state that the n frames have left behind. A stage with a
    state has ``late`` and ``kept`` 0, so that no frame reaches it twice.
    """

    network: Callable[[Tensor, State], tuple[Tensor, State]]
    kept: int = 0
    late: int = 0
    hop: int = 1
    start: int = 1
    """Frames that the first window of a longer sound must have, since a mirrored border reads ahead at the start."""

    def needed(self, num_outputs: int) -> int:
        """How many frames must be known for the first outputs to be final."""
        return -(-(num_outputs + self.late) // self.hop)


def stateless(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor, State], tuple[Tensor, State]]:
    """A network that remembers nothing, in the form that a `Stage` takes."""
    return lambda frames, state: (network(frames), state)


def context(stages: Sequence[Stage]) -> tuple[int, int]:
    """Frames to the left and right that a frame's output depends on through a chain of stages, states left aside."""
    first, count = 0, math.prod(stage.hop for stage in stages)
    for stage in reversed(stages):
        first, count = (first + stage.late) // stage.hop - stage.kept, stage.needed(count)
    return -first, count - 1


def first_piece(stages: Sequence[Stage]) -> int:
    """The fewest frames that a chain of stages makes a beginning of, where more are to come."""
    count = 1
    for stage in reversed(stages):
        count = max(stage.start, stage.needed(count))
    return count
