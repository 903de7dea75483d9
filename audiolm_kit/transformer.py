"""The one Transformer: causal or bidirectional, cross-attending where asked; all steps at once, or one by one.

Shapes: B batch, S steps, P steps so far, N context tokens, D width, H heads, E width of one head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiolm_kit.compiled import compiled_step
from audiolm_kit.kv_cache import KVCache, Memory, Place, Places, kept_dtype, minus_infinity
from audiolm_kit.layers import Layer, View
from audiolm_kit.layers import TransformerConfig as TransformerConfig  # and from here, where the model stands
from audiolm_kit.positions import relative_buckets, rotary_angles, sinusoids
from audiolm_kit.stepping import Parts, Past, straight, walk


class Transformer(nn.Module):
    """Layers and a final norm; weights and nothing else: what a request remembers is in its ``KVCache``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        if config.positions == "relative":
            self.relative_positions = nn.Embedding(config.relative_buckets, config.heads)
        self.checkpointing = False
        """Training keeps each layer's input alone and computes its inside again on the way back: less memory, about a
        third more arithmetic, the same gradients. It is how one trains, and so no part of the config."""
        self.compiling = False
        """Steps behind the first call run compiled (``compiled.require`` says whether they can): the same numbers up to
        rounding. It is how one generates, and so no part of the config."""
        self._initialise()

    def forward(
        self,
        x: Tensor,
        context: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
        lead: Tensor | None = None,
    ) -> Tensor:
        """``[B, S, D] -> [B, S, D]``, normed.

        Args:
            x: The next S steps; they follow those already in ``cache``.
            context: States ``[B, N, D]`` and mask ``[B, N]`` (True where there is something). A row without any True
                adds exactly nothing, as no context does. With a cache it is read in the first call only (``remember``).
            cache: Of ``new_cache``; extended in place.
            mask: ``[B, S]``, False at padding; for bidirectional use.
            lead: ``[B]``, how many steps in front of each row are padding: no step sees them, positions count from the
                one behind, what comes of them is finite. With a cache it is read in the first call only.
        """
        if cache is not None and not cache.ready:
            self.remember(cache, context, lead)
        if cache is not None and mask is None and self._steady(x, cache):
            return self._step(x[:, 0], cache)[:, None]
        start = 0 if cache is None else cache.length
        steps = torch.arange(start, start + x.shape[1], device=x.device)
        lead = self._lead(lead, x) if cache is None else cache.lead
        memory = self._memory(context) if cache is None else cache.memory
        positions = steps if lead is None else (steps - lead[:, None]).clamp(min=0)
        angles = None
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.dim).to(x.dtype)
        if self.config.positions == "rotary":
            angles = rotary_angles(positions[..., None, :], self.config.dim // self.config.heads)
        view = View(angles, *self._weighed(steps, start, mask, lead), memory)
        x = self.dropout(x)
        checkpointing = self.checkpointing and self.training and cache is None and torch.is_grad_enabled()
        for layer in self.layers:
            # Dropout is the same the second time: the random state is kept with the input.
            x = checkpoint(layer, x, view, None, use_reentrant=False) if checkpointing else layer(x, view, cache)
        if cache is not None:
            cache.length += len(steps)
        normed: Tensor = self.norm(x)
        return normed

    def new_cache(self, batch: int, max_steps: int) -> KVCache:
        """Return an empty cache for ``batch`` rows of up to ``max_steps`` steps, where the weights are."""
        if not self.config.causal:
            raise ValueError("a bidirectional transformer sees all steps at once: it has no use for a cache")
        weight = self.norm.weight
        shape = (batch, 2, self.config.heads, max_steps, self.config.dim // self.config.heads)
        return KVCache([weight.new_empty(shape, dtype=kept_dtype(weight)) for _ in self.layers])

    def remember(
        self, cache: KVCache, context: tuple[Tensor, Tensor] | None = None, lead: Tensor | None = None
    ) -> None:
        """Ready an empty cache: what its rows attend to, read once by all layers, and the padding in front of them.

        The first call of ``forward`` does so with what it is given. Whoever calls this before it, to share a cache by
        ``KVCache.rows``, gives context and lead here, as to ``forward``.
        """
        batch = cache.layers[0]
        lead = self._lead(lead, batch)
        memory = None if context is None else _trimmed(self._memory(context), context[1])
        if memory is not None:
            layers = cast("Iterator[Layer]", iter(self.layers))
            kept = batch.dtype
            read = (layer.cross_attention.read(memory.states) for layer in layers)
            cache.attended = [(keys.to(kept), values.to(kept)) for keys, values in read]
            memory = memory.kept(kept)
        cache.memory, cache.lead, cache.ready = memory, lead, True
        cache.longest_lead = 0 if lead is None else int(lead.max())
        cache.places = self._places(cache)

    def _steady(self, x: Tensor, cache: KVCache) -> bool:
        """Whether this is one step like all those behind it, behind any padding: then it takes the short way."""
        behind = cache.length > 0 and cache.length >= cache.longest_lead
        return x.shape[1] == 1 and behind and not self.training and not torch.is_grad_enabled()

    def _step(self, x: Tensor, cache: KVCache) -> Tensor:
        """``[B, D] -> [B, D]``, normed: what ``forward`` does for one step, by fewer operations."""
        cache.check(cache.length + 1)
        if self.compiling:
            stepped = compiled_step(self, x, cache)
        else:
            stepped = self.norm(walk(x, self._paths(cache), self.config.heads, cache.place(), cache))
        cache.length += 1
        return stepped

    def short(self, x: Tensor, place: Place, past: Past) -> Tensor:
        """``[B, D] -> [B, D]``, normed: a step through the layers as modules, which is what is compiled."""
        layers = cast("Iterator[Layer]", iter(self.layers))
        normed: Tensor = self.norm(walk(x, [layer.parts() for layer in layers], self.config.heads, place, past))
        return normed

    def _paths(self, cache: KVCache) -> Sequence[Parts]:
        """The layers as functions, made once for a cache."""
        if not cache.paths:
            cache.paths = [layer.parts(straight) for layer in cast("Iterator[Layer]", iter(self.layers))]
        return cache.paths

    def _places(self, cache: KVCache) -> Places:
        """What is told to each step of a cache, ready for all of them."""
        config, count, own = self.config, cache.max_steps, cache.layers[0]
        steps = torch.arange(count, device=own.device)
        added = cosines = sines = bias = seen = None
        if config.positions == "sinusoidal":
            added = sinusoids(steps, config.dim).to(self.norm.weight.dtype)
        if config.positions == "rotary":
            angles = rotary_angles(steps, config.dim // config.heads)
            cosines, sines = angles.cos(), angles.sin()
        if config.positions == "relative":
            bias = self._relative(count - 1, 1, None).to(own.dtype)
        if cache.lead is not None:
            seen = minus_infinity(steps < cache.lead[:, None], own.dtype)[:, None, None]
        return Places(added, cosines, sines, bias, seen)

    def _lead(self, lead: Tensor | None, x: Tensor) -> Tensor | None:
        """The padding in front of the rows of x; None where no row has any, which is faster."""
        if lead is not None and (lead.shape != x.shape[:1] or bool((lead < 0).any())):
            raise ValueError(f"lead is {lead.tolist()} for {len(x)} rows: give a number of steps, 0 or more, for each")
        return lead if lead is not None and bool(lead.any()) else None

    def _weighed(
        self, steps: Tensor, start: int, mask: Tensor | None, lead: Tensor | None
    ) -> tuple[Tensor | None, bool]:
        """What is said to attention about its scores: the mask of a ``View`` (or None), and whether all look back."""
        seen, past = self._visible(steps, start, mask, lead)
        if self.config.positions == "relative":
            return self._relative(start, len(steps), seen), past
        return seen, past

    def _visible(
        self, steps: Tensor, start: int, mask: Tensor | None, lead: Tensor | None
    ) -> tuple[Tensor | None, bool]:
        """Where each step may look: a mask, or None for everywhere; and whether no step looks at those behind it."""
        if not self.config.causal:
            inside = None if lead is None else steps >= lead[:, None]
            known = [each for each in (mask, inside) if each is not None]
            return (_some(torch.stack(known).all(dim=0)) if known else None), False
        if mask is not None:
            raise ValueError("a causal transformer takes no padding mask: put padding last, no step sees it")
        if lead is None and (start == 0 or len(steps) == 1):
            return None, start == 0
        known_steps = torch.arange(start + len(steps), device=steps.device)
        seen = known_steps <= steps[:, None]
        if lead is None:
            return seen, False
        first = lead[:, None, None, None]
        # Padding looks at padding: a softmax needs something.
        return seen & ((known_steps >= first) | (steps[:, None] < first)), start == 0

    def _relative(self, start: int, num_steps: int, seen: Tensor | None) -> Tensor:
        """What relative positions add to scores, ``[1 or B, H, S, P + S]``; minus infinity where nothing is seen."""
        config, table = self.config, self.relative_positions.weight
        offsets = torch.arange(1 - start - num_steps, num_steps)  # from a step to those that it may look at
        buckets = relative_buckets(offsets, config.relative_buckets, config.relative_distance, config.causal)
        added = table[buckets.to(table.device)].T
        if config.causal:
            added = added.masked_fill((offsets > 0).to(table.device), -math.inf)
        # Each step's row is that of the step before it, moved by one.
        added = added.unfold(1, start + num_steps, 1).flip(1)[None]
        return added if seen is None else added.masked_fill(~seen, -math.inf)

    def _memory(self, context: tuple[Tensor, Tensor] | None) -> Memory | None:
        """Ready a context: zero what is masked, and let rows without anything look at those zeros.

        No projection has a bias, so zeros have the value zero: such a row adds exactly nothing, and without a NaN.
        """
        if context is None:
            return None
        if not self.config.cross_attention:
            raise ValueError("a context was given to a transformer with cross_attention false: leave it out")
        states, mask = context
        seen = torch.ones_like(mask)[:, None, None] if self.config.attend_padding else _some(mask)
        return Memory(states * mask[..., None], seen)

    def _initialise(self) -> None:
        """Normal weights of deviation sqrt(2 / 5D), 0.02 at D = 1024 (arXiv:1910.05895, section 2.2).

        What is added to the residual stream is scaled down by the number of additions, so that depth keeps its scale.
        """
        deviation = math.sqrt(2 / (5 * self.config.dim))
        additions = self.config.layers * (3 if self.config.cross_attention else 2)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                last = name.endswith(("output", "down"))
                nn.init.normal_(module.weight, std=deviation / math.sqrt(additions) if last else deviation)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=deviation)


def _some(mask: Tensor) -> Tensor:
    """``[B, N] -> [B, 1, 1, N]`` for attention; a row without any True becomes all True: a softmax needs something."""
    return (mask | ~mask.any(dim=-1, keepdim=True))[:, None, None]


def _trimmed(memory: Memory | None, mask: Tensor) -> Memory | None:
    """The leading rows behind which none has a context ``[B, N]``, and their mask as attention adds it to scores.

    Looks at the mask, for which a GPU is waited for: once in a request. None where no row has any.
    """
    some = mask.any(dim=-1).nonzero()
    if memory is None or not len(some):
        return None
    rows = int(some[-1]) + 1
    assert memory.mask is not None
    states, seen = memory.states[:rows], memory.mask[:rows]
    return Memory(states, None if bool(seen.all()) else minus_infinity(~seen, states.dtype))
