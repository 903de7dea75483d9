"""One step through all layers, by as few operations and as little Python as there can be.

On a CPU a layer's matrices are read in the time that Python takes to call some modules, the more so if they are packed.

Shapes: B batch, D width, H heads, P steps so far, E width of one head, R rows with a context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiolm_kit.kv_cache import Memory, Place
from audiolm_kit.positions import turned

Function = Callable[[Tensor], Tensor]


class Past(Protocol):
    """What a layer asks of the steps before."""

    memory: Memory | None
    attended: list[tuple[Tensor, Tensor]]

    def append(self, layer: int, newest: Tensor) -> tuple[Tensor, Tensor]:
        """Write a step's keys and values ``[B, 2, H, E]``, and return all of this layer, ``[B, H, P + 1, E]`` each."""
        ...


class Attending(NamedTuple):
    """A sublayer that attends: its norm, what is made of the normed stream, and what is added to the stream."""

    norm: Function
    inward: Function
    output: Function


class Parts(NamedTuple):
    """The functions of one layer."""

    attention: Attending
    cross_attention: Attending | None
    norm: Function
    up: Function
    down: Function


def walk(x: Tensor, layers: Sequence[Parts], heads: int, place: Place, past: Past) -> Tensor:
    """A step ``[B, D] -> [B, D]``, not normed; x stays as it is."""
    x = x.clone() if place.added is None else x + place.added
    shape, memory = x.shape, past.memory
    rows = None if memory is None else x[: memory.rows]
    for index, (attention, cross_attention, norm, up, down) in enumerate(layers):
        fused = attention.inward(attention.norm(x)).view(shape[0], 3, heads, -1)
        if place.cosines is not None and place.sines is not None:
            fused = torch.cat([turned(fused[:, :2], place.cosines, place.sines), fused[:, 2:]], dim=1)
        keys, values = past.append(index, fused[:, 1:])
        query = fused[:, 0, :, None].to(keys.dtype)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=place.mask)
        x += attention.output(mixed.reshape(shape).to(x.dtype))
        if rows is not None and memory is not None and cross_attention is not None:
            query = cross_attention.inward(cross_attention.norm(rows)).view(len(rows), heads, 1, -1)
            keys, values = past.attended[index]
            mixed = F.scaled_dot_product_attention(query.to(keys.dtype), keys, values, attn_mask=memory.mask)
            rows += cross_attention.output(mixed.reshape(rows.shape).to(x.dtype))  # a part of x
        x += down(F.gelu(up(norm(x))))
    return x


def straight(module: nn.Module) -> Function:
    """What a module computes, without what surrounds its call: a third to two thirds of the time of a small one.

    One with hooks is called as ever. The function holds the weights of now.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    if type(module) is nn.Linear and module.bias is None:
        matrix = module.weight
        return lambda x: F.linear(x, matrix)
    if type(module) is nn.LayerNorm:
        shape, weight, bias, eps = list(module.normalized_shape), module.weight, module.bias, module.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    forward: Function = module.forward
    return forward
