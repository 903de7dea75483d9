"""SEANet for inference: weights folded, frames in rows, and pieces that go on from what the one before them kept.

Convolutions are products of matrices here, one for each tap, so that nothing is rearranged on the way, and a sound goes
through all layers in pieces that stay in the processor's cache. The layers of ``codec.seanet`` are the law; these give
the same up to rounding.
n frames of a piece at the rate of a layer, m frames that it makes, W and W' widths before and behind it, K taps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kept = tuple[Tensor, ...] | None
"""What a layer needs of the pieces before; None at the start of a sound."""
SHORT = 16
"""Up to so many frames an LSTM is quicker step by step: for more at once torch lays all its weights out anew."""
NARROW = 2
"""Up to this width a convolution is one product: its windows side by side, or its taps side by side."""


class Layer(Protocol):
    """One layer of a network that works through a sound piece by piece."""

    def push(self, frames: Tensor, kept: Kept, last: bool) -> tuple[Tensor, Kept]:
        """The next frames [n, W] -> those that they make final [m, W'], and what the next piece needs."""
        ...

    def least(self, count: int) -> int:
        """The fewest frames of a first piece that make ``count``, or that a whole sound must have."""
        ...


@dataclass(frozen=True)
class Padding:
    """How a convolution fills up what its windows lack."""

    left: int
    right: int
    stride: int = 1
    span: int = 1
    """Frames from the first to the last tap of a window."""
    mirrored: bool = False

    @property
    def spare(self) -> int:
        """Frames kept only to be mirrored at the end."""
        return int(self.mirrored and self.right > 0 and self.stride > 1)


class Convolution:
    """A convolution over rows, of what an ELU makes of them where it stands behind one."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, padding: Padding, dilation: int = 1, alpha: float | None = None
    ) -> None:
        """
        Args:
            weight: [W', W, K], as torch has it.
            alpha: of the ELU in front; None where there is none.
        """
        self.padding, self.alpha = padding, alpha
        self.width = weight.shape[0]
        zeros = weight.new_zeros(self.width)
        self._multiply = _multiplication(weight, zeros if bias is None else bias, padding.stride, dilation)

    def push(self, frames: Tensor, kept: Kept, last: bool) -> tuple[Tensor, Kept]:
        """As ``Layer`` says; what is kept are the frames that later windows still reach."""
        pad = self.padding
        before, skipped = (pad.left, 0) if kept is None else (len(kept[0]), pad.spare)
        end = before + len(frames)
        after = pad.right + -(end - skipped - pad.left) % pad.stride if last else 0  # so that the last window is full
        rows = frames.new_empty(end + after, frames.shape[1])
        activate(frames, self.alpha, rows[before:end])
        if kept is not None:
            rows[:before] = kept[0]
        elif before:
            rows[:before] = rows[before + 1 : 2 * before + 1].flip(0) if pad.mirrored else 0
        if after:
            rows[end:] = rows[end - 1 - after : end - 1].flip(0) if pad.mirrored else 0
        count = max(0, (len(rows) - skipped - pad.span) // pad.stride + 1)
        made = self._multiply(rows[skipped:], count) if count else frames.new_empty(0, self.width)
        return made, (rows[skipped + count * pad.stride - pad.spare :].clone(),)  # a view would keep all rows

    def least(self, count: int) -> int:
        pad = self.padding
        mirrored = max(pad.left, pad.right + pad.stride - 1) + 1 if pad.mirrored else 1
        return max((count - 1) * pad.stride + pad.span - pad.left, mirrored)


class Transposed:
    """An ELU and a transposed convolution over two strides, cut to ``stride`` frames for each."""

    def __init__(self, weight: Tensor, bias: Tensor | None, cut: tuple[int, int], alpha: float) -> None:
        """
        Args:
            weight: [W, W', 2 * stride], as torch has it.
            cut: the frames that are cut off on the left and on the right, together ``stride``.
        """
        self.alpha, self.width, self.stride = alpha, weight.shape[1], weight.shape[2] // 2
        self.left, self.right = cut
        new, old = (half.permute(0, 2, 1).flatten(1) for half in weight.split(self.stride, -1))
        zeros = weight.new_zeros(self.width)
        both = torch.stack([old, new])
        self._multiply = _each_tap(both, (zeros if bias is None else bias).repeat(self.stride))

    def push(self, frames: Tensor, kept: Kept, last: bool) -> tuple[Tensor, Kept]:
        behind = int(last and self.left > 0)  # the overhang of the last frame
        rows = frames.new_empty(1 + len(frames) + behind, frames.shape[1])
        rows[0] = 0 if kept is None else kept[0]
        rows[1 + len(frames) :] = 0
        activate(frames, self.alpha, rows[1 : 1 + len(frames)])
        made = self._multiply(rows, len(rows) - 1).view(-1, self.width)
        begin = self.left if kept is None else 0
        return made[begin : len(made) - (self.right if behind else 0)], (rows[len(frames)].clone(),)

    def least(self, count: int) -> int:
        return -(-(count + self.left) // self.stride)


class Unit:
    """A residual unit: two convolutions beside a third, or beside nothing."""

    def __init__(self, first: Convolution, second: Tensor, bias: Tensor, shortcut: Tensor | None) -> None:
        """
        Args:
            second: the pointwise convolution as a matrix, [W / 2, W].
            bias: its and the shortcut's together.
            shortcut: [W, W]; None adds the frames as they are.
        """
        self.first, self.second, self.bias, self.shortcut = first, second, bias, shortcut

    def push(self, frames: Tensor, kept: Kept, last: bool) -> tuple[Tensor, Kept]:
        hidden, beside = self.first.push(frames, None if kept is None else kept[:1], last)
        if kept is not None and len(kept[1]):  # frames that a convolution which looks ahead has not come to yet
            frames = torch.cat([kept[1], frames])
        assert beside is not None
        ready, rest = frames[: len(hidden)], frames[len(hidden) :].clone()
        hidden = activate(hidden, self.first.alpha, torch.empty_like(hidden))
        if self.shortcut is None:
            return torch.addmm(self.bias, hidden, self.second).add_(ready), (*beside, rest)
        return torch.addmm(self.bias, ready, self.shortcut).addmm_(hidden, self.second), (*beside, rest)

    def least(self, count: int) -> int:
        return self.first.least(count)


class Memory:
    """An LSTM beside its own input."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm = lstm
        names = [
            [f"{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            for layer in range(lstm.num_layers)
        ]
        self._weights = [[getattr(lstm, name) for name in layer] for layer in names]

    def push(self, frames: Tensor, kept: Kept, last: bool) -> tuple[Tensor, Kept]:
        if not len(frames):
            return frames, kept
        if len(frames) <= SHORT:
            return self._steps(frames, kept)
        made, state = self.lstm(frames[:, None], kept)
        return made[:, 0] + frames, state

    def _steps(self, frames: Tensor, kept: Kept) -> tuple[Tensor, Kept]:
        """As ``push``, in fewer moves for a few frames; the state is [layers, 1, W], as torch has it."""
        nothing = frames.new_zeros(self.lstm.num_layers, 1, frames.shape[1])
        made, states = frames, []
        for weights, (hidden,), (cell,) in zip(self._weights, *(kept or (nothing, nothing)), strict=True):
            each = []
            for step in torch.addmm(weights[2] + weights[3], made, weights[0].t()):
                enter, forget, new, leave = torch.addmv(step, weights[1], hidden).chunk(4)
                cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
                hidden = leave.sigmoid() * cell.tanh()
                each.append(hidden)
            made = torch.stack(each)
            states.append((hidden, cell))
        return made + frames, tuple(torch.stack(state)[:, None] for state in zip(*states, strict=True))

    def least(self, count: int) -> int:
        return count


class Flow:
    """Sounds of one batch on their way through folded layers."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)
        self._kept: list[list[Kept]] = []

    @property
    def held(self) -> int:
        """Numbers in memory."""
        kept = [each or () for sound in self._kept for each in sound]
        return sum(tensor.numel() for each in kept for tensor in each)

    def needed(self, count: int) -> int:
        """The fewest frames of a first piece that make ``count``.

        A sound that has too few for one is for the layers of ``codec.seanet``, which lengthen what is mirrored.
        """
        for layer in reversed(self.layers):
            count = layer.least(count)
        return count

    def push(self, frames: Tensor, last: bool) -> Tensor:
        """The next frames [B, W, n] -> those that they make final, [B, W', m]."""
        self._kept = self._kept or [[None] * len(self.layers) for _ in frames]
        sounds = zip(frames, self._kept, strict=True)
        with torch.autocast(frames.device.type, enabled=False):
            return torch.stack([self._one(sound.t(), kept, last).t() for sound, kept in sounds])

    def _one(self, frames: Tensor, kept: list[Kept], last: bool) -> Tensor:
        """[n, W] -> [m, W']; ``kept`` is brought up to date."""
        for place, layer in enumerate(self.layers):
            frames, kept[place] = layer.push(frames, kept[place], last)
        return frames

    def whole(self, frames: Tensor, size: int) -> Tensor:
        """A whole batch [B, W, n] of at least ``needed(1)`` frames -> [B, W', m], in pieces of ``size`` frames.

        An LSTM takes all frames of all sounds at once: torch lays its weights out anew in each call.
        """
        pieces = -(-frames.shape[-1] // size)
        sounds = [sound.t() for sound in frames]
        for recurrent, layers in groupby(self.layers, lambda layer: isinstance(layer, Memory)):
            if recurrent:
                (memory,) = layers
                given = torch.stack(sounds, 1)
                sounds = list((cast(Memory, memory).lstm(given)[0] + given).unbind(1))
            else:
                part = Flow(layers)
                sounds = [part._cut(sound, pieces) for sound in sounds]
        return torch.stack([sound.t() for sound in sounds])

    def _cut(self, frames: Tensor, pieces: int) -> Tensor:
        """A whole sound [n, W] -> [m, W'], in so many pieces."""
        kept: list[Kept] = [None] * len(self.layers)
        cut = frames.split(max(self.needed(1), -(-len(frames) // pieces)))
        return torch.cat([self._one(piece, kept, last) for last, piece in _marked(cut)])


def _marked(pieces: Sequence[Tensor]) -> Iterator[tuple[bool, Tensor]]:
    """Pieces, and whether each is the last one."""
    return ((place == len(pieces), piece) for place, piece in enumerate(pieces, start=1))


def activate(frames: Tensor, alpha: float | None, out: Tensor) -> Tensor:
    """The ELU of frames [n, W], or they themselves where ``alpha`` is None; into ``out``."""
    if alpha is None:
        return out.copy_(frames)
    if alpha != 1:
        return out.copy_(F.elu(frames, alpha))
    # In half the time of F.elu, whose expm1 is slow; what it is more exact in is below rounding here.
    torch.clamp_max(frames, 0, out=out)
    return torch.maximum(out.exp_().sub_(1), frames, out=out)


Multiplication = Callable[[Tensor, int], Tensor]
"""Rows [n, W] and how many windows they make, m -> [m, W']."""


def _multiplication(weight: Tensor, bias: Tensor, stride: int, dilation: int) -> Multiplication:
    """The fastest way to convolve rows with a weight [W', W, K]."""
    width_out, width, taps = weight.shape
    if width <= NARROW and dilation == 1:
        return _windows(weight.permute(2, 1, 0).flatten(0, 1).contiguous(), bias, stride)
    if width_out <= NARROW and stride == 1:
        return _diagonals(weight.permute(1, 2, 0).contiguous(), bias, dilation)
    if taps == 2 * stride and dilation == 1:
        old, new = (half.permute(2, 1, 0).flatten(0, 1) for half in weight.split(stride, -1))
        pair = _each_tap(torch.stack([old, new]), bias)
        return lambda rows, count: pair(rows[: (count + 1) * stride].view(count + 1, stride * width), count)
    return _each_tap(weight.permute(2, 1, 0).contiguous(), bias, stride, dilation)


def _each_tap(weight: Tensor, bias: Tensor, stride: int = 1, dilation: int = 1) -> Multiplication:
    """One product for each tap, added up; ``weight`` is [K, W, W']."""

    def multiply(rows: Tensor, count: int) -> Tensor:
        reach = (count - 1) * stride + 1
        made = torch.addmm(bias, rows[:reach:stride], weight[0])
        for tap in range(1, len(weight)):
            made.addmm_(rows[tap * dilation : tap * dilation + reach : stride], weight[tap])
        return made

    return multiply


def _windows(weight: Tensor, bias: Tensor, stride: int) -> Multiplication:
    """Windows of few numbers beside one another, in one product; ``weight`` is [K W, W']."""

    def multiply(rows: Tensor, count: int) -> Tensor:
        windows = rows.as_strided((count, len(weight)), (stride * rows.shape[1], 1))
        return torch.addmm(bias, windows, weight)

    return multiply


def _diagonals(weight: Tensor, bias: Tensor, dilation: int) -> Multiplication:
    """All taps of every row in one product, then the sums along its diagonals; ``weight`` is [W, K, W']."""
    width, taps, width_out = weight.shape
    flat = weight.flatten(1)

    def multiply(rows: Tensor, count: int) -> Tensor:
        each = torch.mm(rows, flat)
        size = taps * width_out
        return each.as_strided((count, taps, width_out), (size, dilation * size + width_out, 1)).sum(1).add_(bias)

    return multiply
