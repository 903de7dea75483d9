"""What one request has computed so far: keys and values of its steps and of its context, and where its rows begin.

Shapes: B batch, S steps, P steps so far, N context tokens, D width, H heads, E width of a head, R rows with a context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """A context made ready to be attended to."""

    states: Tensor  # [R, N, D], zero where masked
    mask: Tensor | None  # [R, 1, 1, N], bool or what is added to scores; None where all is seen

    @property
    def rows(self) -> int:
        """R: the leading rows, behind which no row has any context; without a cache, all of them."""
        return len(self.states)

    def kept(self, dtype: torch.dtype) -> Memory:
        """The same for keys of a dtype, which what is added to scores has to have."""
        if self.mask is None or self.mask.dtype == torch.bool:
            return self
        return Memory(self.states, self.mask.to(dtype))


class Places(NamedTuple):
    """What the steps of a cache are told of where they stand, for all of them at once."""

    added: Tensor | None = None  # [max_steps, D], sinusoids
    cosines: Tensor | None = None  # [max_steps, E / 2], of rotary angles
    sines: Tensor | None = None
    bias: Tensor | None = None  # [1, H, 1, max_steps], what the last step adds for each before it: relative positions
    seen: Tensor | None = None  # [B, 1, 1, max_steps], minus infinity at padding in front and 0 elsewhere


class Place(NamedTuple):
    """The same for one step."""

    added: Tensor | None  # broadcasts to [B, D]
    cosines: Tensor | None  # broadcasts to [B, 2, H, E / 2]
    sines: Tensor | None
    mask: Tensor | None  # broadcasts to [B, H, 1, P + 1]: added to scores


class KVCache:
    """The memory of one request; its buffers are allocated once and never move.

    It is readied in the first call (``Transformer.remember``); all that attention knows of the past goes through it.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        """Own empty buffers, one for each layer: keys and values ``[B, 2, H, max_steps, E]``."""
        self.layers = list(layers)
        self.keys_values = [(layer.select(1, 0), layer.select(1, 1)) for layer in self.layers]
        self.length = 0
        self.front = 0  # how many of the steps are a prefix, known from the start
        self.beside: Tensor | None = None  # [B, max_steps - front, D], what the prefix adds to each of the other steps
        self.ready = False
        self.lead: Tensor | None = None  # [B], None where no row has any
        self.longest_lead = 0
        self.memory: Memory | None = None
        self.attended: list[tuple[Tensor, Tensor]] = []  # the context's keys and values, [R, H, N, E] for each layer
        self.places = Places()
        self.paths: Sequence[Any] = ()  # the layers as functions, see ``stepping``
        self.replay: Callable[[Tensor, int], Tensor] | None = None  # of compiled steps, see ``compiled``

    @property
    def max_steps(self) -> int:
        return self.layers[0].shape[3]

    def check(self, end: int) -> None:
        """Refuse steps up to ``end`` that it has no room for."""
        if end > self.max_steps:
            raise ValueError(f"{end} steps do not fit a cache of {self.max_steps}: ask new_cache for more")

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the newest steps, ``[B, H, S, E]``, and return all of this layer so far, ``[B, H, P + S, E]``."""
        end = self.length + keys.shape[2]
        self.check(end)
        own = self.layers[layer]
        own[:, 0, :, self.length : end] = keys
        own[:, 1, :, self.length : end] = values
        return own[:, 0, :, :end], own[:, 1, :, :end]

    def append(self, layer: int, newest: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one step: keys and values ``[B, 2, H, E]`` in one copy."""
        self.layers[layer].select(3, self.length).copy_(newest)
        keys, values = self.keys_values[layer]
        return keys.narrow(2, 0, self.length + 1), values.narrow(2, 0, self.length + 1)

    def place(self) -> Place:
        """Where the next step stands."""
        added, cosines, sines, bias, seen = self.places
        step, count = self.length, self.length + 1
        if self.lead is None:
            row: Tensor | slice = slice(step, count)
        else:
            row = step - self.lead
        mask = None if bias is None else bias[..., self.max_steps - count :]
        if seen is not None:
            mask = seen[..., :count] if mask is None else mask + seen[..., :count]
        if cosines is not None and sines is not None:
            cosines, sines = cosines[row][:, None, None], sines[row][:, None, None]
        return Place(None if added is None else added[row], cosines, sines, mask)

    def rows(self, begin: int, end: int) -> KVCache:
        """Some rows of a readied cache as a cache of its own: what is written there is written here."""
        part = KVCache([layer[begin:end] for layer in self.layers])
        part.ready, part.longest_lead, part.places = True, self.longest_lead, self.places
        part.paths, part.front = self.paths, self.front
        if self.lead is not None:
            part.lead = self.lead[begin:end]
        if self.beside is not None:
            part.beside = self.beside[begin:end]
        if self.places.seen is not None:
            part.places = self.places._replace(seen=self.places.seen[begin:end])
        if self.memory is not None and begin < self.memory.rows:
            states, mask = self.memory
            part.memory = Memory(states[begin:end], None if mask is None else mask[begin:end])
            part.attended = [(keys[begin:end], values[begin:end]) for keys, values in self.attended]
        return part


def kept_dtype(weight: Tensor) -> torch.dtype:
    """In which dtype keys and values are kept of a model with such weights: that of the weights, on a CPU float32.

    There torch's attention takes four to eight times as long for one step in bfloat16, as it computes in float32 and
    converts the whole past anew.
    """
    return torch.float32 if weight.device.type == "cpu" and weight.dtype.itemsize < 4 else weight.dtype


def minus_infinity(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: minus infinity where hidden, 0 elsewhere; of the shape of ``hidden``."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
