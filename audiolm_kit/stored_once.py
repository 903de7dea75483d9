"""Equal tensors that lie on disk once, in the form in which safetensors itself stores tensors that share memory.

The file's metadata names each one that is left out, and the one that it equals. Moving averages of a codebook that no
longer learns are such tensors. One of zeros alone is left out, too, and said as "0 int8 256 963".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

ZEROS = "0"
_ZEROS = re.compile(r"0 (float32|float16|bfloat16|int8|int64)( \d+)+")
"""No name of a tensor has spaces."""
MANY = 64
"""Zeros at least: fewer take less than what is said of them."""


def once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What is to be stored of a state, and the metadata that belongs to it: each name left out, and what it equals."""
    kept: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() >= MANY and not tensor.any():
            same[name] = " ".join([ZEROS, str(tensor.dtype).removeprefix("torch."), *map(str, tensor.shape)])
            continue
        like = next((other for other, own in kept.items() if _equal(own, tensor)), None)
        if like is None:
            kept[name] = tensor
        else:
            same[name] = like
    return kept, same


def again(stored: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The whole state of what ``once`` has taken apart; of a file with other metadata, what it holds."""
    missing = {name: like for name, like in metadata.items() if name not in stored}
    left_out = {name: stored[like].clone() for name, like in missing.items() if like in stored}
    return {**stored, **left_out, **{name: _zeros(like) for name, like in missing.items() if _ZEROS.fullmatch(like)}}


def _zeros(told: str) -> Tensor:
    """Of what ``once`` says of one."""
    _, dtype, *shape = told.split()
    return torch.zeros(*map(int, shape), dtype=getattr(torch, dtype))


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.numel() > 1 and torch.equal(first, second)
