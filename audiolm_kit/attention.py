"""Attention as it is learned on a CPU in bfloat16: torch's own takes several times as long there.

Torch's attention for CPUs goes back through bfloat16 at a small part of the speed of its matrix products. Here all is
matrix products: weights stay in memory, a block of queries after the other, and no block looks at keys that are ahead
of all of its steps. As in attention spelled out under autocast, scores and weights are rounded to bfloat16.

Shapes: B batch, H heads, S steps, P keys, E width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from audiolm_kit.kv_cache import minus_infinity

BLOCK = 128
"""Queries whose scores are made at once. Smaller ones look at fewer keys in vain, larger ones need fewer products."""
KEPT = 2**26
"""Bytes of weights that a layer may keep for the way back; torch's own attention keeps none of them."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, past: bool) -> Tensor:
    """Queries ``[B, H, S, E]``, keys and values ``[B, H, P, E] -> [B, H, S, E]``.

    Args:
        mask: Broadcasts to ``[B, H, S, P]``: True where a step may look, or what is added to scores.
        past: No step looks at later ones, which a mask says, too, where there is one. Then P is S.
    """
    if _ours(query, key):
        query, key, value = (each.bfloat16() for each in (query, key, value))
        if mask is not None and mask.dtype == torch.bool:
            mask = minus_infinity(~mask, query.dtype)
        mixed: Tensor = _Attention.apply(query, key, value, mask, past)  # type: ignore[no-untyped-call]
        return mixed
    if query.dtype != key.dtype and not torch.is_autocast_enabled(query.device.type):  # a cache's: ``kept_dtype``
        mask = mask.to(key.dtype) if mask is not None and mask.is_floating_point() else mask
        return attend(query.to(key.dtype), key, value, mask, past).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=past and mask is None)


def _ours(query: Tensor, key: Tensor) -> bool:
    """Whether these are learned on a CPU in bfloat16, and not too many."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or not (query.requires_grad or key.requires_grad):
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    pairs = query.shape[:-1].numel() * key.shape[-2]
    return dtype == torch.bfloat16 and dtype.itemsize * pairs <= KEPT and not torch.compiler.is_compiling()


class _Attention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(E) + mask) V, and its derivatives, a block of queries at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, past: bool) -> Tensor:
        """As ``attend``, of bfloat16 and of a mask that is added."""
        query, key, value = query * query.shape[-1] ** -0.5, key.contiguous(), value.contiguous()
        weights, mixed = [], []
        with torch.autocast("cpu", enabled=False):
            for begin, end, seen in _blocks(query, key, past):
                scores = query[:, :, begin:end] @ key[:, :, :seen].transpose(-1, -2)
                if mask is not None:
                    scores += _part(mask, begin, end, seen)
                elif past:
                    ahead = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
                    scores[..., begin:].masked_fill_(ahead, -math.inf)
                weights.append(scores.softmax(-1))
                mixed.append(weights[-1] @ value[:, :, :seen])
        ctx.save_for_backward(query, key, value, *weights)
        ctx.past = past
        ctx.mask = None if mask is None else (mask.shape, mask.dtype)
        return torch.cat(mixed, 2) if len(mixed) > 1 else mixed[0]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """From the slope by what came out to those by query, key, value and mask."""
        query, key, value, *weights = ctx.saved_tensors
        slope = slope.contiguous()
        blocks = _blocks(query, key, ctx.past)
        of_query, of_key, of_value = [], torch.zeros_like(key), torch.zeros_like(value)
        of_mask = torch.zeros(ctx.mask[0]) if ctx.needs_input_grad[3] else None
        with torch.autocast("cpu", enabled=False):
            for (begin, end, seen), weight in zip(blocks, weights, strict=True):
                given = slope[:, :, begin:end]
                of_value[:, :, :seen] += weight.transpose(-1, -2) @ given
                raised = given @ value[:, :, :seen].transpose(-1, -2)
                of_scores = torch._softmax_backward_data(raised, weight, -1, weight.dtype)
                of_query.append(of_scores @ key[:, :, :seen])
                of_key[:, :, :seen] += of_scores.transpose(-1, -2) @ query[:, :, begin:end]
                if of_mask is not None:
                    part = _part(of_mask, begin, end, seen)
                    part += of_scores.float().sum_to_size(part.shape)
        whole = torch.cat(of_query, 2) if len(of_query) > 1 else of_query[0]
        if of_mask is not None:
            of_mask = of_mask.to(ctx.mask[1])
        return whole * query.shape[-1] ** -0.5, of_key, of_value, of_mask, None


def _blocks(query: Tensor, key: Tensor, past: bool) -> list[tuple[int, int, int]]:
    """From and up to which query each block goes, and up to which key it looks."""
    steps, keys = query.shape[2], key.shape[2]
    ends = [min(steps, begin + BLOCK) for begin in range(0, steps, BLOCK)]
    return [(begin, end, end if past else keys) for begin, end in zip(range(0, steps, BLOCK), ends, strict=True)]


def _part(mask: Tensor, begin: int, end: int, seen: int) -> Tensor:
    """What a mask that broadcasts to ``[B, H, S, P]`` says of a block."""
    rows = slice(begin, end) if mask.shape[-2] > 1 else slice(None)
    return mask[..., rows, :seen] if mask.shape[-1] > 1 else mask[..., rows, :]
