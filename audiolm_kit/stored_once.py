"""Equal tensors that lie on disk once, in the form in which safetensors itself stores tensors that share memory.

The file's metadata names each one that is left out, and the one that it equals. Moving averages of a codebook that no
longer learns are such tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What is to be stored of a state, and the metadata that belongs to it: each name left out, and what it equals."""
    kept: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, tensor in state.items():
        like = next((other for other, own in kept.items() if _equal(own, tensor)), None)
        if like is None:
            kept[name] = tensor
        else:
            same[name] = like
    return kept, same


def again(stored: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The whole state of what ``once`` has taken apart; of a file with other metadata, what it holds."""
    left_out = {name: stored[like].clone() for name, like in metadata.items() if like in stored and name not in stored}
    return {**stored, **left_out}


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.numel() > 1 and torch.equal(first, second)
