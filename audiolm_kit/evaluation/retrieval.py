"""Whether sounds find their captions among all captions, and captions their sounds.

Shapes: N sounds, M captions, D width of the embeddings both are compared in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Ranks(NamedTuple):
    """How many stand before the first that is right (0: none); ties count half."""

    of_texts: Tensor
    """[N]: for each sound, the captions that fit better than its own."""
    of_sounds: Tensor
    """[M]: for each caption, the sounds that fit better than the best of its own."""


def ranks(sounds: Tensor, texts: Tensor, owners: Sequence[int]) -> Ranks:
    """Ranks by cosine.

    Args:
        sounds: Embeddings [N, D].
        texts: Embeddings [M, D] of captions that all differ.
        owners: Of each sound, which caption is its own.

    Raises:
        ValueError: The shapes do not fit.
    """
    if sounds.dim() != 2 or texts.dim() != 2 or sounds.shape[1] != texts.shape[1] or len(owners) != len(sounds):
        shapes = f"{list(sounds.shape)} and {list(texts.shape)}, {len(owners)} owners"
        raise ValueError(f"embeddings are {shapes}: wanted sounds [N, D], texts [M, D] and one owner for each sound")
    unit = torch.nn.functional.normalize
    fit = unit(sounds.double(), dim=1) @ unit(texts.double(), dim=1).T  # [N, M]
    own = torch.nn.functional.one_hot(torch.tensor(owners), len(texts)).bool()
    return Ranks(_before(fit, own), _before(fit.T, own.T))


def recall(found: Tensor, count: int) -> list[float]:
    """For each query, whether one of the first ``count`` is right: 1 or 0."""
    return (found < count).double().tolist()


def _before(fit: Tensor, right: Tensor) -> Tensor:
    """Queries [Q, G]: how many wrong ones stand before the best right one."""
    best = fit.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    wrong = ~right
    return ((fit > best) & wrong).double().sum(1) + ((fit == best) & wrong).double().sum(1) / 2
