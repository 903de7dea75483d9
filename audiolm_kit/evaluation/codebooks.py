"""How a codec's codebooks are used by the codes of sounds.

Shapes: N sounds, K codebooks, V codebook size, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def counts(codes: Sequence[Tensor], codebook_size: int) -> np.ndarray:
    """How often each code stands in each sound, codes [K, T] each -> [N, K, V].

    Raises:
        ValueError: There are none, or codes outside [0, V).
    """
    if not codes or any(each.dim() != 2 or each.numel() == 0 for each in codes):
        raise ValueError("codes are wanted as [K, T] for each sound, one frame at least")
    low, high = min(int(each.min()) for each in codes), max(int(each.max()) for each in codes)
    if low < 0 or high >= codebook_size:
        raise ValueError(f"codes reach from {low} to {high}, wanted 0 to {codebook_size - 1}")
    made = [torch.stack([row.bincount(minlength=codebook_size) for row in each.cpu()]) for each in codes]
    return torch.stack(made).double().numpy()


def use(counted: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of counts [N, K, V]: the share of all codes that occur, mean over codebooks, as a function of weights [N]."""
    return lambda weights: float((_total(counted, weights) > 0).mean())


def entropy(counted: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of counts [N, K, V]: bits of a code, mean over codebooks, as a function of weights [N]; at most log2 V."""
    return lambda weights: float(np.mean(bits(_total(counted, weights))))


def bits(total: np.ndarray) -> np.ndarray:
    """The entropy of each codebook, counts [K, V] -> [K]."""
    shares = total / total.sum(-1, keepdims=True)
    return np.asarray(-(shares * np.log2(np.maximum(shares, 1e-300))).sum(-1))


def _total(counted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.tensordot(weights, counted, 1))
