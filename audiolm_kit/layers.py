"""One layer of the Transformer, its three sublayers, and what all layers are made by and told.

Shapes: B batch, S steps, P steps so far, N context tokens, R rows with a context, D width, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from audiolm_kit.attention import attend
from audiolm_kit.kv_cache import KVCache, Memory
from audiolm_kit.positions import rotate
from audiolm_kit.stepping import Attending, Function, Parts


@dataclass(frozen=True)
class TransformerConfig:
    """Pre-norm LayerNorm, exact GELU, no biases (MusicGen, arXiv:2306.05284, section 3)."""

    dim: int = 512
    """Width D."""
    heads: int = 8
    layers: int = 8
    feed_forward: int = 4
    """Width of the feed-forward layer, as a multiple of dim."""
    dropout: float = 0.0
    """On the input and on what each sublayer adds."""
    cross_attention: bool = False
    """Attend to a context between self-attention and feed-forward."""
    positions: Literal["sinusoidal", "rotary", "relative"] = "sinusoidal"
    """Added once at the input (as MusicGen does), turned into each query and key, or a learned number for each distance
    and head, added where attention weighs (as T5 does): one table for all layers. Relative keeps numbers for each pair
    of steps, and so takes more memory than the others."""
    causal: bool = True
    """Whether a step sees the past alone."""
    attend_padding: bool = False
    """As audiocraft does: padding of the context is attended to as zeros, so an item depends on its batch-mates."""
    relative_buckets: int = 32
    """How many distances relative positions tell apart; where not causal, half of them lie ahead."""
    relative_distance: int = 128
    """All distances from this one on are one."""

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"transformer {name} is {getattr(self, name)}: give a positive number")
        if self.dim % self.heads:
            raise ValueError(f"transformer dim {self.dim} is not divisible by heads {self.heads}: change one of them")
        if self.positions == "sinusoidal" and (self.dim % 2 or self.dim < 4):
            raise ValueError(f"sinusoidal positions need an even transformer dim of at least 4, got {self.dim}")
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(f"rotary positions need an even dim / heads, got {self.dim} / {self.heads}")
        if self.positions not in ("sinusoidal", "rotary", "relative"):
            raise ValueError(f"transformer positions are {self.positions!r}: give sinusoidal, rotary or relative")
        if self.positions == "relative":
            self._check_relative()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"transformer dropout is {self.dropout}: give a number from 0 to below 1")

    def _check_relative(self) -> None:
        least, buckets = (2, self.relative_buckets) if self.causal else (4, self.relative_buckets // 2)
        if self.relative_buckets < least or self.relative_buckets % least:
            wanted = f"a multiple of {least}, {'causal' if self.causal else 'bidirectional'} as it is"
            raise ValueError(f"transformer relative_buckets is {self.relative_buckets}: give {wanted}")
        if self.relative_distance <= buckets // 2:
            wanted = f"more than {buckets // 2}, the distances with a bucket of their own"
            raise ValueError(f"transformer relative_distance is {self.relative_distance}: give {wanted}")


class View(NamedTuple):
    """What every layer needs to know of one pass."""

    angles: Tensor | None  # broadcasts to [B, H, S, E / 2], rotary positions
    mask: Tensor | None  # broadcasts to [B, H, S, P + S], True where a step may look; or what relative positions add
    past: bool  # no step looks at later ones, which stands in the mask or is all that it would say
    memory: Memory | None


class Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward: each on the normed stream, each added to it."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config, index)
        if config.cross_attention:
            self.cross_attention_norm = nn.LayerNorm(config.dim)
            self.cross_attention = CrossAttention(config, index)
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, view: View, cache: KVCache | None) -> Tensor:
        """``[B, S, D] -> [B, S, D]``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), view, cache))
        if view.memory is not None:
            x = self._with_context(x, view.memory, cache)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x

    def parts(self, function: Callable[[nn.Module], Function] = lambda module: module) -> Parts:
        """What a step goes through, each part made a function by ``function``."""
        own, cross = self.attention, None
        if hasattr(self, "cross_attention"):
            given = self.cross_attention
            cross = Attending(*(function(each) for each in (self.cross_attention_norm, given.query, given.output)))
        attending = Attending(*(function(each) for each in (self.attention_norm, own.query_key_value, own.output)))
        ahead = (self.feed_forward_norm, self.feed_forward.up, self.feed_forward.down)
        return Parts(attending, cross, *(function(each) for each in ahead))

    def _with_context(self, x: Tensor, memory: Memory, cache: KVCache | None) -> Tensor:
        """What the context adds; rows behind those of the memory have none, which adds nothing."""
        rows = x[: memory.rows]
        rows = rows + self.dropout(self.cross_attention(self.cross_attention_norm(rows), memory, cache))
        return rows if len(rows) == len(x) else torch.cat([rows, x[memory.rows :]])


class SelfAttention(nn.Module):
    """Multi-head attention of the steps to each other."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.heads, self.index = config.heads, index
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.output = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, view: View, cache: KVCache | None) -> Tensor:
        """``[B, S, D] -> [B, S, D]``."""
        fused = self.query_key_value(x)
        query, key, value = rearrange(fused, "b s (three h e) -> three b h s e", three=3, h=self.heads)
        if view.angles is not None:
            query, key = rotate(query, view.angles), rotate(key, view.angles)
        if cache is not None:
            key, value = cache.extend(self.index, key, value)
        mixed = attend(query, key, value, view.mask, view.past)
        out: Tensor = self.output(rearrange(mixed, "b h s e -> b s (h e)"))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of the steps to a context, whose keys and values a cache keeps."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.heads, self.index = config.heads, index
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.output = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, memory: Memory, cache: KVCache | None) -> Tensor:
        """``[B, S, D] -> [B, S, D]``."""
        query = rearrange(self.query(x), "b s (h e) -> b h s e", h=self.heads)
        key, value = self.read(memory.states) if cache is None else cache.attended[self.index]
        mixed = attend(query, key, value, memory.mask, past=False)
        out: Tensor = self.output(rearrange(mixed, "b h s e -> b s (h e)"))
        return out

    def read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of a context ``[R, N, D]``, ``[R, H, N, E]`` each; once in a request with a cache."""
        key, value = rearrange(self.key_value(states), "b n (two h e) -> two b h n e", two=2, h=self.heads).contiguous()
        return key, value


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, config.feed_forward * config.dim, bias=False)
        self.down = nn.Linear(config.feed_forward * config.dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, D] -> [B, S, D]``."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out
