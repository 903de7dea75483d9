"""Logits -> codes: guidance, temperature, top-k and top-p, decided by one uniform number a code.

Shapes: B batch, V codebook size; `...` any further axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn; the defaults are those of the released AudioGen and MusicGen."""

    temperature: float = 1.0
    """Below 1 bolder, above 1 wilder; 0 takes the likeliest code."""
    top_k: int = 250
    """Draw among the k likeliest codes; 0 among all."""
    top_p: float = 0.0
    """Draw among the likeliest codes that together reach this probability (after top_k); 0 or 1 among all."""
    guidance_scale: float = 3.0
    """How far to go from the unconditional to the conditional logits and beyond; 1 is none."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}: give 0 (the likeliest code) or a positive number")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: give 0 (all codes) or a positive whole number")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: give a number from 0 (all codes) to 1")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(f"guidance_scale is {self.guidance_scale}: give 1 (none) or another number from 0 up")


def guide(logits: Tensor, scale: float) -> Tensor:
    """``[2B, ...] -> [B, ...]``: conditional rows first, null rows second (arXiv:2207.12598, on logits)."""
    conditional, null = _fine(logits).chunk(2)
    return null + (conditional - null) * scale


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """``[..., V] -> [...]``: the code at which the cumulative distribution passes the uniform number.

    The codes are walked in their own order, not by likelihood: two codes that rounding makes swap places in a sorted
    list would otherwise swap their sounds.

    Args:
        logits: Any real numbers, -inf among them.
        sampling: Its guidance_scale is not looked at: see ``guide``.
        uniforms: ``[...]`` in [0, 1), one for each code.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = _fine(logits)
    # Relative to the likeliest, so that a tiny temperature ends in -inf and never in inf - inf.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if 0 < sampling.top_p < 1:
        logits = logits.masked_fill(logits < _least_of_nucleus(logits, sampling.top_p), -torch.inf)
    probabilities = logits.softmax(dim=-1)
    # A parallel cumulative sum may creep up where nothing is added: a code of probability 0 is never reached.
    reached = probabilities.cumsum(dim=-1) * (probabilities > 0)
    goal = uniforms[..., None].to(reached.dtype) * reached.amax(dim=-1, keepdim=True)
    return (reached > goal).int().argmax(dim=-1)  # the first one


def _fine(logits: Tensor) -> Tensor:
    """In float32 or finer: what half precision rounds away, guidance would magnify."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _least_of_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The last logit needed to reach ``top_p``, ``[..., V] -> [..., 1]`` (arXiv:1904.09751, section 3.1)."""
    ordered = logits.sort(dim=-1, descending=True).values
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return ordered.gather(-1, last)
