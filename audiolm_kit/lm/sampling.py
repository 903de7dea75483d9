"""Logits -> codes: temperature, top-k, top-p and min-p, decided by one uniform number a code.

Shapes: B batch, K codebooks, V codebook size; `...` any further axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Schedule = Literal["constant", "linear", "interval"]

PER_CODEBOOK = ("temperature", "top_k", "top_p", "min_p", "guidance_scale", "prefix_guidance_scale")
"""The fields that take one value, or one for each codebook."""

COLDEST = 1e-30
"""Nothing changes below this temperature, and float32 would soon take it for 0."""


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn; the defaults are those of the released AudioGen and MusicGen.

    A list in the place of a tuple becomes one, so that options written as JSON read back as what they were.
    """

    temperature: float | tuple[float, ...] = 1.0
    """Below 1 bolder, above 1 wilder; 0 takes the likeliest code; one number, or one for each codebook."""
    top_k: int | tuple[int, ...] = 250
    """Draw among the k likeliest codes; 0 among all; one number, or one for each codebook."""
    top_p: float | tuple[float, ...] = 0.0
    """Draw among the likeliest codes that together reach this probability (after top_k); 0 or 1 among all; as above."""
    min_p: float | tuple[float, ...] = 0.0
    """Draw among the codes at least this share as probable as the likeliest (after top_p); 0 among all; as above."""
    guidance_scale: float | tuple[float, ...] = 3.0
    """How far to go from textless (or negative) logits to those of the text and beyond; 1 is none; as above."""
    prompt_guidance_scale: float = 1.0
    """How far to go from logits that know nothing of the prompt to those that do, and beyond; 1 is none."""
    guidance_schedule: Schedule = "constant"
    """guidance_scale at all frames; from it to guidance_last; or within guidance_interval alone."""
    guidance_last: float = 1.0
    """With schedule linear: the scale at the last frame; guidance_scale is that of the first new one."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """With schedule interval: from and up to which share of all frames guidance acts; outside its scale is 1."""
    prefix_guidance_scale: float | tuple[float, ...] = 1.0
    """How far to go from logits that know nothing of the earlier stage's codes to those that do, and beyond; 1 is none;
    one number, or one for each codebook."""

    def __post_init__(self) -> None:
        for name in (*PER_CODEBOOK, "guidance_interval"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_values("temperature", "0 (the likeliest code) or a positive number", lambda value: value >= 0)
        self._check_values("top_p", "a number from 0 (all codes) to 1", lambda value: 0 <= value <= 1)
        self._check_values("min_p", "a number from 0 (all codes) to 1", lambda value: 0 <= value <= 1)
        for name in ("guidance_scale", "prompt_guidance_scale", "prefix_guidance_scale", "guidance_last"):
            self._check_values(name, "1 (none) or another number from 0 up", lambda value: value >= 0)
        wanted = "0 (all codes) or a positive whole number"
        self._check_values("top_k", wanted, lambda value: isinstance(value, int) and value >= 0)
        self._check_schedule()

    def check_codebooks(self, num_codebooks: int) -> None:
        """Refuse options of another number of codebooks than the model's."""
        for name in PER_CODEBOOK:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_codebooks:
                wanted = f"give one number, or one for each of {num_codebooks}"
                raise ValueError(f"{name} has {len(value)} values, the model {num_codebooks} codebooks: {wanted}")

    def _check_values(self, name: str, wanted: str, fits: Callable[[Any], bool]) -> None:
        """Every value of a field is a finite number that ``fits``."""
        given = getattr(self, name)
        values = given if isinstance(given, tuple) and name in PER_CODEBOOK else (given,)
        if not values or not all(_is_number(value) and fits(value) for value in values):
            each = ", or as many as codebooks" if name in PER_CODEBOOK else ""
            raise ValueError(f"{name} is {given}: give {wanted}{each}")

    def _check_schedule(self) -> None:
        """The schedule is one of ours, and what belongs to another one was not set."""
        if self.guidance_schedule not in get_args(Schedule):
            raise ValueError(f"guidance_schedule is {self.guidance_schedule!r}: give {', '.join(get_args(Schedule))}")
        span = self.guidance_interval
        ordered = isinstance(span, tuple) and len(span) == 2 and all(map(_is_number, span)) and 0 <= span[0] < span[1]
        if not ordered or span[1] > 1:
            raise ValueError(f"guidance_interval is {span}: give two numbers from 0 to 1, the smaller one first")
        for name, default, schedule in (("guidance_last", 1, "linear"), ("guidance_interval", (0, 1), "interval")):
            if getattr(self, name) != default and self.guidance_schedule != schedule:
                given = f"{name} is {getattr(self, name)}, but guidance_schedule {self.guidance_schedule}"
                raise ValueError(f"{given}: set guidance_schedule {schedule}, or leave {name} out")


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """``[..., V] -> [...]``: the code at which the cumulative distribution passes the uniform number.

    First comes the temperature; then top_k, top_p (arXiv:1904.09751, section 3.1) and min_p (arXiv:2407.01082,
    section 3), in this order, each among the codes and in the proportions that the one before has left. As min_p
    looks at the likeliest code alone, it would keep the same ones in any place, but top_p after it fewer.

    The codes are walked in their own order, not by likelihood: two codes that rounding makes swap places in a sorted
    list would otherwise swap their sounds.

    Args:
        logits: Any real numbers, -inf among them; ``[..., K, V]`` if any option has a value for each codebook.
        sampling: Its guidance is not looked at: see ``guidance.guide``.
        uniforms: ``[...]`` in [0, 1), one for each code.
    """
    temperature = _settled(sampling.temperature)
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Relative to the likeliest, so that a tiny temperature ends in -inf and never in inf - inf.
    relative = fine(logits)
    relative = relative - relative.amax(dim=-1, keepdim=True)
    if not isinstance(temperature, tuple):
        tempered = relative if temperature == 1 else relative / max(temperature, COLDEST)
        return _drawn(_kept(tempered, sampling), uniforms)
    heats = _column(temperature, relative)
    codes = _drawn(_kept(relative / heats.clamp(min=COLDEST), sampling), uniforms)
    return torch.where(heats[:, 0] > 0, codes, logits.argmax(dim=-1))


def fine(logits: Tensor) -> Tensor:
    """In float32 or finer: what half precision rounds away, guidance would magnify."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _kept(logits: Tensor, sampling: Sampling) -> Tensor:
    """``[..., V]``, at most 0: -inf where top_k, top_p and min_p leave a code out."""
    for least in (_least_of_k, _least_of_nucleus, _least_of_share):
        bound = least(logits, sampling)
        logits = logits if bound is None else logits.masked_fill(logits < bound, -torch.inf)
    return logits


def _drawn(logits: Tensor, uniforms: Tensor) -> Tensor:
    """``[..., V] -> [...]``: where the cumulative distribution passes the uniform number."""
    probabilities = logits.softmax(dim=-1)
    if probabilities.device.type == "cpu":
        # Summed one after the other, what is added is never less than nothing, and the place can be searched for.
        summed = probabilities.cumsum(dim=-1)
        place = torch.searchsorted(summed, uniforms[..., None].to(summed.dtype) * summed[..., -1:], right=True)
        return place[..., 0].clamp_(max=logits.shape[-1] - 1)
    # A parallel cumulative sum may creep up where nothing is added: a code of probability 0 is never reached.
    reached = probabilities.cumsum(dim=-1) * (probabilities > 0)
    goal = uniforms[..., None].to(reached.dtype) * reached.amax(dim=-1, keepdim=True)
    return (reached > goal).int().argmax(dim=-1)  # the first one


def _least_of_k(logits: Tensor, sampling: Sampling) -> Tensor | None:
    """The last of the ``top_k`` logits, ``[..., V] -> [..., 1]``; None where none is left out."""
    size, top_k = logits.shape[-1], _settled(sampling.top_k)
    if not isinstance(top_k, tuple):
        return logits.topk(top_k, dim=-1).values[..., -1:] if 0 < top_k < size else None
    counts = [min(count or size, size) for count in top_k]
    highest = logits.topk(max(counts), dim=-1).values
    last = _sent(tuple(count - 1 for count in counts), torch.int64, logits.device)
    return highest.gather(-1, last.expand(*highest.shape[:-1], 1))


def _least_of_nucleus(logits: Tensor, sampling: Sampling) -> Tensor | None:
    """The last logit needed to reach ``top_p``, ``[..., V] -> [..., 1]``; None where none is left out."""
    top_p = _settled(sampling.top_p)
    goal: Tensor | float
    if isinstance(top_p, tuple):
        goal = _column(tuple(share if 0 < share < 1 else 2.0 for share in top_p), logits)  # 2 is never reached
    elif 0 < top_p < 1:
        goal = top_p
    else:
        return None
    ordered = logits.sort(dim=-1, descending=True).values
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    last = (before < goal).sum(dim=-1, keepdim=True) - 1
    return ordered.gather(-1, last)


def _least_of_share(logits: Tensor, sampling: Sampling) -> Tensor | float | None:
    """The logit of ``min_p`` times the probability of the likeliest code, whose own logit is 0; None for no bound."""
    min_p = _settled(sampling.min_p)
    if isinstance(min_p, tuple):
        return _column(tuple(math.log(share) if share else -math.inf for share in min_p), logits)
    return math.log(min_p) if min_p else None


def _settled(value: Any) -> Any:
    """One number where all codebooks have the same."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _column(values: tuple[float, ...], logits: Tensor) -> Tensor:
    """One value for each codebook, beside logits ``[..., K, V]``: ``[K, 1]``."""
    return _sent(values, logits.dtype, logits.device)


@functools.lru_cache(maxsize=64)
def _sent(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[K, 1]``, sent to a GPU once and not at every step: each time, the host would wait for it."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None]


def _is_number(value: object) -> bool:
    """Whether it is a finite real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
