"""Matrices as whole numbers of 8 or 4 bits, and the scales that make them what they were with little error.

Shapes: O outputs, I inputs, G groups of inputs, R rows or groups at once, g inputs of a group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOP8 = 127
"""The largest level of 8 bits; -128 is left out, so that both signs reach equally far."""
TOP4 = 15
MIDDLE4 = 8
"""The level of 4 bits that stands for a group's zero, as torch's kernels have it."""
CLIPS4 = (1.0, 0.9)
"""Shares of a group's range that are tried: what lies outside is cut off, what lies inside has finer steps. With 8 bits
nothing is tried: cutting a row's largest weight by a share c costs c^2 / I of its square and gains c / 96774, which is
less for every share worth trying and for all but a few thousand inputs."""
AT_ONCE = 2**17
"""Weights that are rounded together: few enough for a processor's cache."""
LEAST_SCALE = 1e-30
"""Of a row or a group where all is alike: its levels do not matter then."""


class Int8(NamedTuple):
    """``weight = levels * scales``."""

    levels: Tensor  # [O, I] int8, from -127 to 127
    scales: Tensor  # [O] bfloat16

    def restored(self) -> Tensor:
        """The matrix, ``[O, I]`` float32."""
        return self.levels.float() * self.scales.float()[:, None]


class Int4(NamedTuple):
    """``weight = (levels - 8) * scales + zeros``, with a scale and a zero for each group of a row."""

    levels: Tensor  # [O, I] uint8, from 0 to 15
    scales: Tensor  # [O, G] bfloat16
    zeros: Tensor  # [O, G] bfloat16

    def restored(self) -> Tensor:
        """The matrix, ``[O, I]`` float32."""
        grouped = (self.levels.float() - MIDDLE4).view(*self.scales.shape, -1)
        return (grouped * self.scales.float()[..., None] + self.zeros.float()[..., None]).view(self.levels.shape)


def to_int8(weight: Tensor) -> Int8:
    """Round a matrix ``[O, I]``, with one scale for each row: that of its largest weight."""
    scales = _stored(torch.maximum(weight.amax(dim=1), -weight.amin(dim=1)).float() / TOP8)
    pieces = zip(_split(weight), _split(scales[:, None], weight.shape[1]), strict=True)
    levels = [rows.float().div(scale).round_().clamp_(-TOP8, TOP8).to(torch.int8) for rows, scale in pieces]
    return Int8(torch.cat(levels), scales.bfloat16())


def to_int4(weight: Tensor, group: int) -> Int4:
    """Round a matrix ``[O, I]``, of which a group of ``group`` inputs has a scale and a zero; I is a multiple of it."""
    outputs, inputs = weight.shape
    found = [_groups_to_int4(rows.float().reshape(-1, group).T.contiguous()) for rows in _split(weight)]
    levels, scales, zeros = (torch.cat(part) for part in zip(*found, strict=True))
    shape = (outputs, inputs // group)
    return Int4(levels.view(outputs, inputs), scales.view(shape), zeros.view(shape))


def _split(weight: Tensor, inputs: int = 0) -> tuple[Tensor, ...]:
    return torch.split(weight, max(1, AT_ONCE // (inputs or weight.shape[1])))


def _groups_to_int4(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``[g, R] -> `` levels ``[R, g]``, scales and zeros ``[R]``: each group's best clip, and then the fit to that.

    The fit is the line through levels and weights by least squares; it is kept where it is better, as rounding may
    move levels once more.
    """
    low, high = groups.amin(dim=0), groups.amax(dim=0)
    middle, reach = (low + high) / 2, (high - low) / 2
    least, scales, zeros = torch.full_like(low, torch.inf), low, low
    for clip in (*CLIPS4, None):
        if clip is None:
            tried = _fitted(groups, _levels4(groups, scales, zeros), scales)
        else:
            scale = _stored(reach * (2 * clip / TOP4))
            tried = (scale, (middle - reach * clip + MIDDLE4 * scale).bfloat16().float())
        restored = torch.addcmul(tried[1] - MIDDLE4 * tried[0], _levels4(groups, *tried), tried[0])
        errors = restored.sub_(groups).square_().sum(dim=0)
        better = errors < least
        scales, zeros = torch.where(better, tried[0], scales), torch.where(better, tried[1], zeros)
        least = torch.minimum(errors, least)
    levels = _levels4(groups, scales, zeros).to(torch.uint8).T.contiguous()
    return levels, scales.bfloat16(), zeros.bfloat16()


def _levels4(groups: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    return groups.sub(zeros - MIDDLE4 * scales).div_(scales).round_().clamp_(0, TOP4)


def _fitted(groups: Tensor, levels: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The scales and zeros with the least squared error for given levels; the old scale where all levels are one."""
    mean, centre = levels.mean(dim=0), groups.mean(dim=0)
    apart = levels - mean
    slope = (apart * groups).sum(dim=0) / apart.square_().sum(dim=0).clamp_(min=1e-6)
    scales = _stored(torch.where(slope > 0, slope, scales))
    return scales, (centre - (mean - MIDDLE4) * scales).bfloat16().float()


def _stored(scales: Tensor) -> Tensor:
    """Scales as they are kept, in bfloat16, so that levels are chosen for what they will be multiplied by; above 0."""
    return scales.clamp(min=LEAST_SCALE).bfloat16().float()
