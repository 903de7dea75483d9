"""Codes that stay: the nearest ones under a price for each change, found over a whole sound.

A quantiser that looks at each frame alone names the chance of noise anew in every frame. Rate-distortion optimised
quantisation asks instead whether a change is worth its bits; here as the cheapest path through a trellis (Viterbi 1967;
for codebooks Marcellin and Fischer 1990), a constant price for a change in the place of its bits. What is left is what
a model of codes can learn. B batch, D width, T frames, K codebooks, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SWEEPS = 2
"""Times that each codebook is gone through again, knowing what all others say by then."""


def steady_codes(latents: Tensor, books: Sequence[Tensor], hold: float) -> Tensor:
    """Codes of a residual quantiser, of which a change costs as much as that squared distance.

    Codebook after codebook takes the best path through what the others leave over, twice more when all have one: the
    sum of squared distances and prices falls with each. It is not the least there is.

    Args:
        latents: [B, D, T], the whole of each sound.
        books: the entries of each codebook, [V, D].
        hold: what a change of one code from a frame to the next costs, in squared distance summed over D; 0 is
            nearest entries, book after book, and two sweeps over them.

    Returns:
        Codes [B, K, T].

    Raises:
        ValueError: hold is negative or no number.
    """
    if not hold >= 0:
        raise ValueError(f"hold is {hold}, wanted a price of at least 0")
    left = latents.transpose(1, 2).float()  # [B, T, D]
    chosen: list[Tensor] = []
    for entries in books:
        chosen.append(steadiest(left, entries, hold))
        left = left - entries[chosen[-1]]
    for _ in range(SWEEPS):
        for place, entries in enumerate(books):
            left = left + entries[chosen[place]]
            chosen[place] = steadiest(left, entries, hold)
            left = left - entries[chosen[place]]
    return torch.stack(chosen, 1)


def steadiest(vectors: Tensor, entries: Tensor, hold: float) -> Tensor:
    """The sequence of entries of least squared distance and ``hold`` for each change: [B, T, D], [V, D] -> [B, T].

    All changes cost the same, so that a step needs the best state before it and each state's own: O(T V D).
    """
    if not vectors.shape[1]:
        return vectors.new_zeros(vectors.shape[:2], dtype=torch.long)
    squares, frames = entries.square().sum(1), vectors.unbind(1)
    cost = squares - 2 * frames[0] @ entries.T  # without |x|^2, which is the same for every entry
    stayed: list[Tensor] = []
    best: list[Tensor] = []
    for frame in frames[1:]:
        least, state = cost.min(1, keepdim=True)
        stays = cost <= least + hold
        stayed.append(stays)
        best.append(state[:, 0])
        cost = torch.where(stays, cost, least + hold) + squares - 2 * frame @ entries.T
        cost = cost - cost.min(1, keepdim=True).values  # or rounding would grow along a sound
    state = cost.argmin(1)
    path = [state]
    for stays, before in zip(reversed(stayed), reversed(best), strict=True):
        state = torch.where(stays.gather(1, state[:, None])[:, 0], state, before)
        path.append(state)
    return torch.stack(path[::-1], 1)
