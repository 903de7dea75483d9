"""Repeats in codes: taken out, as AudioLM does with semantic codes, and put back where their lengths were kept.

T frames, N runs of equal frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Runs(NamedTuple):
    """Codes without repeats, and how long each of them lasted."""

    codes: Tensor
    """[K, N]: no frame equals the one before it."""
    lengths: Tensor
    """[N] int64, at least 1; their sum is T."""


def deduplicate(codes: Tensor) -> Runs:
    """``[K, T]`` -> runs of equal frames (AudioLM, arXiv:2209.03143, section III-B)."""
    if codes.dim() != 2:
        raise ValueError(f"codes are {list(codes.shape)}, wanted [codebooks, frames] of one recording")
    if codes.shape[1] == 0:
        return Runs(codes, torch.zeros(0, dtype=torch.long, device=codes.device))
    new = torch.ones(codes.shape[1], dtype=torch.bool, device=codes.device)
    new[1:] = (codes[:, 1:] != codes[:, :-1]).any(dim=0)
    starts = new.nonzero()[:, 0]
    end = starts.new_tensor([codes.shape[1]])
    return Runs(codes[:, starts], torch.diff(torch.cat([starts, end])))


def repeat(runs: Runs) -> Tensor:
    """Runs -> the codes ``[K, T]`` that they were made from."""
    return runs.codes.repeat_interleave(runs.lengths, dim=1)
