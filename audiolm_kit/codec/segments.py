"""Segments of a sound that are coded each for itself, and faded into one another again, as EnCodec at 48 kHz does.

B batch, C channels, L samples, T frames.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Scaled(NamedTuple):
    """Codes, and how loud what they stand for was."""

    codes: Tensor
    """[B, K, T], the frames of the segments one after the other."""
    scales: Tensor
    """[B, segments], what each was divided by before it was encoded; all 1 in a codec that leaves levels alone."""


class Segments(NamedTuple):
    """How sounds are cut: a segment begins every ``stride`` samples, also where the last one reaches to the end.

    So a sound that ends where two segments overlap has a short one more, and its last but one may be short as well.
    """

    length: int
    """Samples of a whole segment."""
    stride: int
    """Samples from one beginning to the next."""
    frame: int
    """Samples of a frame inside a segment."""

    @property
    def hop(self) -> int:
        """Samples that each frame brings at least, those that two segments have counted once."""
        return min(self.frame, self.stride // -(-self.length // self.frame))

    def bounds(self, num_samples: int) -> list[tuple[int, int]]:
        """Where the segments of a sound begin and end, in samples."""
        return [(begin, min(begin + self.length, num_samples)) for begin in range(0, num_samples, self.stride)]

    def frames(self, num_samples: int) -> list[int]:
        """The frames of each segment of a sound; together they are its T."""
        return [-(-(end - begin) // self.frame) for begin, end in self.bounds(num_samples)]

    def sizes(self, num_frames: int) -> list[int]:
        """The frames of each segment of a sound of T frames: the way back from T alone.

        A longer sound has no shorter segment, so that no two ways to cut have the same T. A T that no sound has (a
        model may make one) is the nearest shorter sound's with a longer last segment.
        """
        nearest = bisect_left(range(1, num_frames * self.frame), num_frames, key=lambda num: sum(self.frames(num))) + 1
        sizes = self.frames(nearest)
        if sum(sizes) > num_frames:
            sizes = self.frames(nearest - 1)
            sizes[-1] += num_frames - sum(sizes)
        return sizes

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """Decoded segments [B, C, l], each of its frames in full -> audio [B, C, L].

        Each is weighted by a triangle over a whole segment, and the sum divided by that of the weights: what lies in
        one segment alone stays as it is, and where two overlap the one fades into the other.
        """
        whole = max(piece.shape[-1] for piece in pieces)
        ramp = torch.linspace(0, 1, whole + 2, device=pieces[0].device, dtype=pieces[0].dtype)[1:-1]
        weight = 0.5 - (ramp - 0.5).abs()
        length = max(self.stride * place + piece.shape[-1] for place, piece in enumerate(pieces))
        audio = pieces[0].new_zeros(*pieces[0].shape[:-1], length)
        weights = weight.new_zeros(length)
        for place, piece in enumerate(pieces):
            within = slice(self.stride * place, self.stride * place + piece.shape[-1])
            audio[..., within] += weight[: piece.shape[-1]] * piece
            weights[within] += weight[: piece.shape[-1]]
        return audio / weights


def cut_into(seconds: float, overlap: float, sample_rate: int, frame: int) -> Segments | None:
    """Segments of so many seconds, of which the next one repeats a share; None for 0 s.

    Raises:
        ValueError: no lengths, or an overlap that leaves a segment fewer samples of its own than it has frames.
    """
    if seconds < 0 or not 0 <= overlap < 1 or (overlap and not seconds):
        raise ValueError(f"segment is {seconds} s and overlap {overlap}: give 0 and 0, or a length and 0 to below 1")
    if not seconds:
        return None
    length = int(seconds * sample_rate)
    stride = int((1 - overlap) * length)
    if length < 1 or stride < -(-length // frame):
        raise ValueError(f"segment is {seconds} s and overlap {overlap}: make segments longer, or overlap less")
    return Segments(length, stride, frame)
