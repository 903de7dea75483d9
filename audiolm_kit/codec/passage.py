"""Parts of a network at work on sounds that come piece by piece: each keeps what its next outputs still depend on.

B batch, W and W' widths before and behind a part, n frames of a piece, m that come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from audiolm_kit.codec.seanet import SEANetDecoder, SEANetEncoder
from audiolm_kit.codec.stage import Stage, State


class Part(Protocol):
    """A part at work on the sounds of one batch."""

    @property
    def held(self) -> int:
        """Numbers in memory."""
        ...

    def push(self, new: Tensor | None, last: bool) -> Tensor | None:
        """The next inputs [B, W, n] -> the outputs that they make final [B, W', m]; None is none."""
        ...


class Window:
    """One stage at work: the frames that it still needs, and its state."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.frames: Tensor | None = None
        self.state: State = None

    @property
    def held(self) -> int:
        return numbers(self.frames)

    def push(self, new: Tensor | None, last: bool) -> Tensor | None:
        frames = behind(self.frames, new)
        if frames is None:
            return None
        stage, made = self.stage, None
        out = 0 if self.frames is None else max(0, self.frames.shape[-1] * stage.hop - stage.late)
        final = frames.shape[-1] * stage.hop - (0 if last else stage.late)
        if final > out:
            made, self.state = stage.network(frames, self.state)
            made = made[..., out:final]
        self.frames = frames[..., max(0, frames.shape[-1] - stage.kept) :].clone()
        return made


class Folded:
    """A folded SEANet at work (`codec.folded`)."""

    def __init__(self, body: SEANetEncoder | SEANetDecoder) -> None:
        self.body, self.flow = body, body.flow()
        self.start = self.flow.needed(1)
        """Frames or samples that the first piece of a longer sound must have."""
        self._nothing: Tensor | None = None

    @property
    def held(self) -> int:
        return self.flow.held

    def push(self, new: Tensor | None, last: bool) -> Tensor | None:
        if self._nothing is None:
            if new is None or new.shape[-1] < self.start:  # a whole sound, as shorter first pieces are not allowed
                return None if new is None else self.body.layers(new)
            self._nothing = new[..., :0].clone()
        made = self.flow.push(self._nothing if new is None else new, last)
        return made if made.shape[-1] else None


class Joined:
    """A network that makes one frame of each group of frames; what fills no group at the end of a sound is lost."""

    def __init__(self, network: Callable[[Tensor], Tensor], size: int) -> None:
        self.network, self.size = network, size
        self.frames: Tensor | None = None

    @property
    def held(self) -> int:
        return numbers(self.frames)

    def push(self, new: Tensor | None, last: bool) -> Tensor | None:
        frames = behind(self.frames, new)
        if frames is None:
            return None
        whole = frames.shape[-1] // self.size * self.size
        self.frames = frames[..., whole:].clone()
        return self.network(frames[..., :whole]) if whole else None


def through(parts: Sequence[Part], frames: Tensor | None, last: bool, device: torch.device) -> Tensor | None:
    """The next frames [B, W, n] through all parts in turn -> what they make final [B, W', m]; None is none."""
    with _repeatable(device):
        for part in parts:
            frames = part.push(frames, last)
    return frames


def behind(held: Tensor | None, new: Tensor | None) -> Tensor | None:
    """What is held with what is new behind it, [B, W, n]; None where there is neither."""
    given = [each for each in (held, new) if each is not None]
    return torch.cat(given, -1) if given else None


def numbers(held: Tensor | None) -> int:
    """How many there are in what is held."""
    return 0 if held is None else held.numel()


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """cuDNN chooses algorithms that give the same bits each time; elsewhere they all do."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
