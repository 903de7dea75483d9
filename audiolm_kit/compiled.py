"""A step of fixed shapes, compiled: the same for every position, and on a GPU replayed as one graph.

Shapes: B batch, H heads, E width of one head, D width.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from audiolm_kit.kv_cache import KVCache, Place, Places, minus_infinity
from audiolm_kit.stepping import Past

BLOCK = 256
"""On a CPU a step looks at its past in whole blocks of so many steps; on a GPU at all steps that there will be."""

KINDS = 64
"""Models and shapes of caches that a process may compile for; torch's own 8 are few for the stages of an AudioLM."""


class Stack(Protocol):
    """What is compiled: the transformer's way for one step."""

    def short(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """``[B, D] -> [B, D]``."""
        ...


class Inputs:
    """What a compiled step is given of a cache: tensors that stay where they are."""

    def __init__(self, cache: KVCache) -> None:
        self.layers, self.memory, self.attended = cache.layers, cache.memory, cache.attended
        self.places, self.lead = cache.places, cache.lead
        for layer in self.layers:  # steps to come are masked, but what is there has to be finite
            layer[:, :, :, cache.length :].zero_()


class FixedPast:
    """The buffers of a cache, written where a tensor says, and looked at up to a step that is known beforehand."""

    def __init__(self, cache: Inputs, position: Tensor, count: int) -> None:
        """``position`` ``[1]`` is that of the step, ``count`` how many steps are looked at."""
        self.layers, self.memory, self.attended = cache.layers, cache.memory, cache.attended
        self.position, self.count = position, count

    def append(self, layer: int, newest: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Past`` says."""
        own = self.layers[layer].index_copy_(3, self.position, newest[:, :, :, None].to(self.layers[layer].dtype))
        keys, values = own[:, :, :, : self.count].unbind(1)
        return keys, values


def require(device: torch.device) -> None:
    """Refuse to compile for a device where the compiler is missing: a look, which takes no time."""
    names = [os.environ.get("CXX", "g++"), "clang++"] if device.type == "cpu" else ["gcc", "cc", "clang"]
    if not any(shutil.which(name) for name in names):
        raise ValueError(f"compiled steps need a compiler, found is none of {', '.join(names)}: install one of them")
    if device.type != "cpu" and importlib.util.find_spec("triton") is None:
        raise ValueError(f"compiled steps on {device.type} need the package triton: install it, or leave compile out")


def attempt(device: torch.device) -> None:
    """Compile a trifle for a device, which takes seconds and also finds a compiler that does not work.

    Raises:
        ValueError: it does not work; the message says what is missing.
    """
    try:
        torch.compile(_trifle, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # each backend has its own way to say that it finds no compiler
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        wanted = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "triton and a C compiler"
        raise ValueError(
            f"compile is true, and torch.compile does not work on {device.type} here ({reason}): install {wanted}, "
            "or set compile to false"
        ) from None


def _trifle(x: Tensor) -> Tensor:
    return (x + 1).cos() * x


def compiled_step(transformer: Stack, x: Tensor, cache: KVCache) -> Tensor:
    """The step of ``Transformer.short``, ``[B, D] -> [B, D]``, at the end of a cache."""
    if cache.replay is None:
        cache.replay = _Graph(transformer, x, cache) if x.is_cuda else _Plain(transformer, cache)
    return cache.replay(x, cache.length)


def fixed_step(transformer: Stack, x: Tensor, position: Tensor, count: int, cache: Inputs) -> Tensor:
    """A step whose position is a tensor ``[1]``, and that looks at ``count`` steps, of which later ones are masked."""
    place = _place(cache.places, cache.lead, position, count, cache.layers[0])
    return transformer.short(x, place, FixedPast(cache, position, count))


def _place(places: Places, lead: Tensor | None, position: Tensor, count: int, own: Tensor) -> Place:
    """What ``KVCache.place`` says, by a tensor in the place of a number."""
    steps = torch.arange(count, device=own.device)
    mask = minus_infinity(steps > position, own.dtype)[None, None, None]
    if places.bias is not None:
        last = own.shape[3] - 1
        mask = mask + places.bias[..., (steps - position + last).clamp(max=last)]
    if places.seen is not None:
        mask = mask + places.seen[..., :count]
    row = position if lead is None else position - lead
    added = None if places.added is None else places.added[row]
    if places.cosines is None or places.sines is None:
        return Place(added, None, None, mask)
    return Place(added, places.cosines[row][:, None, None], places.sines[row][:, None, None], mask)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """One for the whole process: torch compiles it anew for each model and for each kind of cache."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, KINDS)
    compiled: Callable[..., Tensor] = torch.compile(fixed_step, fullgraph=True)
    return compiled


class _Plain:
    """Compiled steps of one cache, run as they come."""

    def __init__(self, transformer: Stack, cache: KVCache) -> None:
        require(cache.layers[0].device)
        self._transformer, self._inputs, self._max_steps = transformer, Inputs(cache), cache.max_steps

    def __call__(self, x: Tensor, length: int) -> Tensor:
        count = min(self._max_steps, -(-(length + 1) // BLOCK) * BLOCK)
        return _compiled()(self._transformer, x, torch.tensor([length]), count, self._inputs)


class _Graph:
    """Compiled steps of one cache, recorded once as a CUDA graph: replaying it costs one launch."""

    WARM_UP = 3

    def __init__(self, transformer: Stack, x: Tensor, cache: KVCache) -> None:
        require(x.device)
        self._x, self._position = x.clone(), torch.tensor([cache.length], device=x.device)
        run = functools.partial(_compiled(), transformer, self._x, self._position, cache.max_steps, Inputs(cache))
        # Whatever is written here at the cache's end is what the step writes there anyway.
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                run()
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = run()

    def __call__(self, x: Tensor, length: int) -> Tensor:
        self._x.copy_(x)
        self._position.fill_(length)
        self._graph.replay()
        return self._out.clone()
