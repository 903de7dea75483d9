"""How unlike two sequences are that may run at different speeds: dynamic time warping of many pairs at once.

Shapes: T and U frames, D width, K codebooks, N and M sequences, P pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

Distance = Literal["angular", "euclidean", "mismatch"]
CELLS = 1 << 22
"""Distances of frames in memory at once."""
SAME = 1e-12
"""Relative; frames that rounding alone tells apart are one frame."""


def distances(first: Sequence[Tensor], second: Sequence[Tensor], distance: Distance = "angular") -> Tensor:
    """Of each sequence to each, [N, M] float64: the mean distance of frames along the cheapest warping of time.

    A path runs from both first frames to both last ones, in steps of one frame in either or both; of several cheapest
    paths the shortest counts. Equal sequences have equal distances to all others, to the last bit.

    Args:
        first, second: Features [T, D], or codes (integers) [T] or [K, T].
        distance: ``angular``: the angle of two frames [D], as a share of 180 degrees (a frame of zeros has a right
            angle to every frame). ``euclidean``: the length of their difference. ``mismatch``: the share of codebooks
            whose codes differ.
    """
    rows, row_places = _unique([_prepared(each, distance) for each in first])
    columns, column_places = _unique([_prepared(each, distance) for each in second])
    widths = {each.shape[1] for each in (*rows, *columns)}
    if len(widths) > 1:
        raise ValueError(f"items are {sorted(widths)} wide: all must have the same features, or codebooks")
    if not rows or not columns:
        return torch.zeros(len(first), len(second), dtype=torch.float64)
    side = max(1, math.isqrt(CELLS // (len(rows[-1]) * len(columns[-1]))))
    made = [
        torch.cat(
            [_block(rows[i : i + side], columns[j : j + side], distance) for j in range(0, len(columns), side)], 1
        )
        for i in range(0, len(rows), side)
    ]
    return torch.cat(made)[row_places][:, column_places]


def warp(costs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Dynamic time warping of many pairs at once: distances of frames [T, U, P] -> their mean along the path, [P].

    All cells (i, j) of one i + j are found at once, for every pair.

    Args:
        rows, columns: [P] int64, how many of the T and U frames are a pair's own; the rest is padding.
    """
    height, width, pairs = costs.shape
    flat, ends, result = costs.reshape(height * width, pairs), rows + columns - 2, costs.new_empty(pairs)
    # Costs and lengths of paths on this diagonal and the two before, by i + 1; row 0 lies in front of the first frame.
    totals = [costs.new_full((height + 1, pairs), math.inf) for _ in range(3)]
    lengths = [torch.zeros_like(each) for each in totals]
    totals[1][0] = 0  # where a path begins; it stands two diagonals before the first
    for diagonal in range(height + width - 1):
        low, high = max(0, diagonal - width + 1), min(height - 1, diagonal)
        now, last, older = diagonal % 3, (diagonal - 1) % 3, (diagonal - 2) % 3
        start, stride = low * width + diagonal - low, max(1, width - 1)
        own = flat[start : start + (high - low) * stride + 1 : stride]
        here, above = slice(low + 1, high + 2), slice(low, high + 1)
        ways = [(older, above), (last, above), (last, here)]
        best = torch.stack([totals[front][place] for front, place in ways]).amin(0)
        fewest = [torch.where(totals[front][place] == best, lengths[front][place], math.inf) for front, place in ways]
        lengths[now][here] = torch.stack(fewest).amin(0) + 1
        totals[now][here] = best + own
        if diagonal == 0:
            totals[1][0] = math.inf
        done = (ends == diagonal).nonzero()[:, 0]
        result[done] = totals[now][rows[done], done] / lengths[now][rows[done], done]
    return result


def digest(frames: Tensor) -> bytes:
    """A name for what a tensor holds."""
    held = frames.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(f"{frames.dtype} {list(frames.shape)} ".encode() + held, digest_size=16).digest()


def _prepared(frames: Tensor, distance: Distance) -> Tensor:
    """Frames [T, D] or codes as [T, K], ready to be compared."""
    if distance not in get_args(Distance):
        raise ValueError(f"distance is {distance!r}: give one of {', '.join(get_args(Distance))}")
    coded = not (frames.is_floating_point() or frames.is_complex())
    if coded != (distance == "mismatch"):
        given, wanted = ("codes", "mismatch") if coded else ("features", "angular or euclidean")
        raise ValueError(f"{given} cannot be compared by {distance}: their distance is {wanted}")
    if coded and frames.dim() == 1:
        frames = frames[None]
    if frames.dim() != 2 or not frames.numel():
        wanted = "codes [T] or [codebooks, T]" if coded else "features [T, D]"
        raise ValueError(f"an item is {list(frames.shape)}, wanted {wanted}, of one frame at least")
    frames = frames.detach().cpu()
    if coded:
        return frames.T.contiguous()
    if not bool(frames.isfinite().all()):
        raise ValueError("an item holds NaN or infinite features: they must be finite numbers")
    return F.normalize(frames.double(), dim=1) if distance == "angular" else frames.double()


def _block(first: Sequence[Tensor], second: Sequence[Tensor], distance: Distance) -> Tensor:
    """Warped distances of a few sequences, padded to the longest, [N, M]."""
    rows, columns = (torch.tensor([len(each) for each in some]) for some in (first, second))
    padded = pad_sequence(list(first), batch_first=True), pad_sequence(list(second), batch_first=True)
    costs = _between(padded[0], padded[1], distance)
    return warp(costs, rows.repeat_interleave(len(columns)), columns.repeat(len(rows))).reshape(len(rows), -1)


def _between(first: Tensor, second: Tensor, distance: Distance) -> Tensor:
    """Every frame to every frame, [N, T, D] and [M, U, D] -> [T, U, N * M]."""
    first, second = first.transpose(0, 1), second.transpose(0, 1)
    if distance == "mismatch":
        books = zip(first.unbind(-1), second.unbind(-1), strict=True)
        wrong = [(one[:, None, :, None] != two[None, :, None]).double() for one, two in books]
        return (sum(wrong[1:], wrong[0]) / len(wrong)).flatten(2)
    products = torch.einsum("tnd,umd->tunm", first, second)
    if distance == "angular":
        return (products.where(products < 1 - SAME, 1.0).clamp_(min=-1).acos_() / math.pi).flatten(2)
    powers = first.square().sum(-1)[:, None, :, None] + second.square().sum(-1)[None, :, None]
    squares = powers - 2 * products
    return squares.where(squares > SAME * powers, 0.0).sqrt_().flatten(2)


def _unique(sequences: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The sequences, of equal ones one, in an order of their own, the longest last; and where each stands, [N]."""
    names = [(len(each), digest(each)) for each in sequences]
    by_name = dict(zip(names, sequences, strict=True))
    places = {name: place for place, name in enumerate(sorted(by_name))}
    return [by_name[name] for name in places], torch.tensor([places[name] for name in names], dtype=torch.long)
