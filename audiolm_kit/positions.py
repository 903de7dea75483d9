"""Where a step stands: sinusoids, rotary angles and the buckets of relative positions.

Shapes: B batch, S steps, D width, H heads, E width of one head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """``[..., S] -> [..., S, D]``: cosines, then sines, of ``position / 10000^(i / (D/2 - 1))``, as in MusicGen."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * -(math.log(10000) / (half - 1)))
    angles = positions[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def relative_buckets(offsets: Tensor, buckets: int, distance: int, causal: bool) -> Tensor:
    """The bucket of each offset, a key's step minus a query's, exactly as T5 has them.

    The near half of the buckets hold one distance each, the others ever more, the last one all from ``distance`` on.
    Causal: all of them for the past, and the future counts as 0; else half of them, and the upper half for the future.

    Args:
        offsets: Of any shape. On the CPU: elsewhere a logarithm may be rounded over a border between two buckets.
        buckets: How many there are in both directions.
        distance: More than have a bucket of their own.
        causal: As the transformer is.
    """
    buckets = buckets if causal else buckets // 2
    ahead = torch.zeros_like(offsets) if causal else (offsets > 0).long() * buckets
    gone = (-offsets).clamp(min=0) if causal else offsets.abs()
    exact = buckets // 2
    share = (gone.clamp(min=exact).float() / exact).log() / math.log(distance / exact)
    far = (exact + (share * (buckets - exact)).long()).clamp(max=buckets - 1)
    return ahead + gone.where(gone < exact, far)


def rotary_angles(positions: Tensor, dim: int) -> Tensor:
    """``[..., S] -> [..., S, E / 2]``: ``position / 10000^(2i / E)`` (RoFormer, arXiv:2104.09864, equation 15)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device) * -(math.log(10000) / dim))
    return positions[..., None] * rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (i, i + E/2) of ``[B, H, S, E]`` by angles that broadcast to ``[B, H, S, E / 2]``."""
    return turned(x, angles.cos(), angles.sin())


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As ``rotate``, of angles whose cosines and sines are known."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1).to(x.dtype)
