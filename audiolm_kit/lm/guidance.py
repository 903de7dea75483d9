"""Guidance: under which conditions a request is read, how much each weighs, and the logits that come of it.

The model reads a request several times: with nothing of what it is given, with the prompt, with the prompt and the
text. The logits start from the first and move by each further condition, as far as its scale says (``guide``):

    none + prompt_guidance_scale * (prompt - none) + guidance_scale * (both - prompt)

This is equation 3 of InstructPix2Pix (arXiv:2211.09800) on logits. The double guidance of MusicGen-Style
(arXiv:2407.12563), ``none + a * (prompt + b * (both - prompt) - none)``, is the same with prompt_guidance_scale a and
guidance_scale a * b. With prompt_guidance_scale 1, or without a prompt, the first term falls out and classifier-free
guidance stays (arXiv:2207.12598; on language models arXiv:2306.17806).

*none* needs no training of its own: it is the model that reads only what was drawn after the prompt, as if that stood
at the beginning; a model that was trained on crops of sounds knows such beginnings.

A stage that stands on an earlier one's codes is told more firmly what these say in the same way. Its first reading has
the prompt and none of them, which takes a stage that has learned some of its items without (``prefix_dropout``):

    prompt + prefix_guidance_scale * (prefix - prompt) + guidance_scale * (both - prefix)

A negative text stands wherever there is no text otherwise: in *prompt* and in *none*, so that each difference shows
one condition alone, guidance_scale leads away from the negative text, and prompt_guidance_scale never towards it.

Shapes: B batch, R readings, K codebooks, P prompt frames, T frames, S steps, V codebook size, N context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.kv_cache import KVCache
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling, fine


@dataclass(frozen=True)
class Request:
    """What the loop is asked for."""

    prompt: Tensor
    """``[B, K, P]``."""
    num_frames: int
    """T, those of the prompt among them."""
    sampling: Sampling
    context: Context | None = None
    """``[B, N, D]``."""
    prefix: Tensor | None = None
    negative: Context | None = None
    """``[B, N, D]`` or ``[1, N, D]``, of any N."""

    @property
    def apart(self) -> bool:
        """Whether the prompt is a condition of its own."""
        return self.prompt.shape[-1] > 0 and self.sampling.prompt_guidance_scale != 1

    @property
    def prefix_apart(self) -> bool:
        """Whether the earlier stage's codes are a condition of their own, in one of the codebooks at least."""
        scale = self.sampling.prefix_guidance_scale
        return self.prefix is not None and any(each != 1 for each in (scale if isinstance(scale, tuple) else [scale]))


class Reading(NamedTuple):
    """One way to read a request."""

    context: Context | None
    prompted: bool
    prefixed: bool = True


def guide(logits: Sequence[Tensor], scales: Sequence[Tensor | float]) -> Tensor:
    """R times ``[B, K, V] -> [B, K, V]``: the first logits, moved by each further condition as far as its scale says.

    Args:
        logits: Of readings, each of which knows one condition more than the one before.
        scales: One fewer, broadcasting to the logits; 0 ignores a condition, 1 takes it as it is.
    """
    if len(logits) == 1:
        return logits[0]
    finer = [fine(each) for each in logits]
    guided = finer[0]
    for (less, more), scale in zip(pairwise(finer), scales, strict=True):
        guided = guided + (more - less) * scale
    return guided


def readings(request: Request) -> list[Reading]:
    """The readings that a request may take, each with one condition more than the one before."""
    text, textless = _side_by_side(request)
    nothing = [Reading(textless, prompted=False)] if request.apart else []
    bare = [Reading(textless, prompted=True, prefixed=False)] if request.prefix_apart else []
    both = [] if text is None else [Reading(text, prompted=True)]
    return [*nothing, *bare, Reading(textless, prompted=True), *both]


def scales_by_frame(sampling: Sampling, num_codebooks: int, prompt_frames: int, num_frames: int) -> Tensor:
    """The scale of the text at each frame, ``[K, T]`` float64.

    Linear goes from guidance_scale at frame P to guidance_last at frame T - 1 (arXiv:2404.13040 weighs such schedules).
    Interval is guidance_scale at the frames t with t / T in [first, last) and 1 at all others (the idea is
    arXiv:2404.07724's, there of noise levels). So both depend on the length of the request.
    """
    scales = _throughout(sampling.guidance_scale, num_codebooks, num_frames)
    frames = torch.arange(num_frames, dtype=torch.float64)
    if sampling.guidance_schedule == "linear":
        share = ((frames - prompt_frames) / max(1, num_frames - 1 - prompt_frames)).clamp(min=0)
        return torch.lerp(scales, torch.full_like(scales, sampling.guidance_last), share)
    if sampling.guidance_schedule == "interval":
        first, last = sampling.guidance_interval
        place = frames / num_frames
        return scales.where((first <= place) & (place < last), 1.0)
    return scales


class GuidedReader:
    """Reads a request step by step under all the conditions that weigh anything there.

    A reading is left out of a step whose new codes do not ask for it: that without text where the scale of the text is
    1, that with it where the scale is 0, that with the prompt alone where both scales are equal. Asked for again, it
    catches up in one pass.
    """

    def __init__(self, lm: StreamLM, request: Request, new: Tensor) -> None:
        """Plan all steps; ``new`` ``[K, 1 + S]`` is True at the cells that are to be drawn."""
        found = readings(request)
        scales = _scales(lm, request, found)
        asked = ((scales[:-1] != scales[1:]) & new.cpu()).any(dim=1)  # [R, 1 + S]
        self._asked = [[i for i, each in enumerate(step) if each] for step in asked.T.tolist()]
        scales = scales.to(torch.promote_types(lm.dtype, torch.float32)).to(new.device)
        self._scales = [[*each.T[..., None].unbind()] for each in scales]  # [K, 1] by reading and step
        self._groups: list[tuple[list[int], _Rows]] = []
        for prompted in (True, False):
            # Rows with text stand before those without, as in conditioning.with_null.
            group = [i for i in reversed(range(len(found))) if found[i].prompted == prompted and asked[i].any()]
            if group:
                rows = _Rows(lm, request, [found[i] for i in group], None if prompted else new)
                self._groups.append((group, rows))

    @property
    def steps(self) -> list[int]:
        """The steps at which a code is to be drawn."""
        return [step for step, asked in enumerate(self._asked) if asked]

    def logits(self, sequence: Tensor, step: int) -> Tensor:
        """Logits ``[B, K, V]`` of a step, from those before it in ``[B, K, 1 + S]``; for one step after the other."""
        asked = self._asked[step]
        found: dict[int, Tensor] = {}
        for group, rows in self._groups:
            members = [i for i in group if i in asked]
            if members:
                places = tuple(group.index(i) for i in members)
                found.update(zip(members, rows.read(sequence, step, places), strict=True))
        return guide([found[i] for i in asked], [self._scales[i][step] for i in asked[1:]])


class _Rows:
    """Readings side by side in one cache: in one pass where neighbours are asked for and stand alike, else one by one.

    A reading by itself works on its own rows of the common cache: no key and no value ever moves.
    """

    def __init__(self, lm: StreamLM, request: Request, found: list[Reading], visible: Tensor | None) -> None:
        """``visible`` ``[K, 1 + S]``: the cells of readings that begin behind the prompt; None: all, from the start."""
        batch, _, prompt_frames = request.prompt.shape
        behind = 0 if visible is None else prompt_frames
        self._lm, self._visible, self._batch = lm, visible, batch
        self._prefixes = (
            None
            if request.prefix is None
            else [request.prefix if each.prefixed else lm.without_prefix(request.prefix) for each in found]
        )
        every = tuple(range(len(found)))
        self._whole = lm.new_cache(len(found) * batch, request.num_frames - behind, request.prefix)
        lm.transformer.remember(self._whole, _stacked([each.context for each in found]), lm.lead(self._prefix(every)))
        self._caches = {every: self._whole}
        self._next = [lm.pattern.stride * behind] * len(found)  # the step that each reading reads next
        self._length = [0] * len(found)  # of its part of the cache

    def read(self, sequence: Tensor, step: int, which: tuple[int, ...]) -> list[Tensor]:
        """Logits ``[B, K, V]`` of a step, for each of ``which``."""
        alike = len({self._next[i] for i in which}) == 1 and which[-1] - which[0] == len(which) - 1
        passes = [which] if alike else [(i,) for i in which]
        return [logits for each in passes for logits in self._pass(sequence, step, each)]

    def _pass(self, sequence: Tensor, step: int, which: tuple[int, ...]) -> Sequence[Tensor]:
        """Read up to ``step`` from where ``which`` stand."""
        count, start, cache = len(which), self._next[which[0]], self._cache(which)
        cells = sequence[:, :, start:step]
        if self._visible is not None:
            cells = cells.where(self._visible[:, start:step], self._lm.special)
        if count > 1:
            cells = cells.repeat(count, 1, 1)
        prefix = self._prefix(which) if cache.length == 0 else None
        states = self._lm.read(cells, None, prefix, cache)
        for each in which:
            self._next[each], self._length[each] = step, cache.length
        return self._lm.predict(states[:, -1:])[:, :, 0].chunk(count)

    def _cache(self, which: tuple[int, ...]) -> KVCache:
        """The cache of neighbouring readings, as far as they have come."""
        if which not in self._caches:
            self._caches[which] = self._whole.rows(which[0] * self._batch, (which[-1] + 1) * self._batch)
        cache = self._caches[which]
        cache.length = self._length[which[0]]
        return cache

    def _prefix(self, which: tuple[int, ...]) -> Tensor | None:
        """The prefixes of these readings, one below the other."""
        return None if self._prefixes is None else torch.cat([self._prefixes[i] for i in which])


def _scales(lm: StreamLM, request: Request, found: list[Reading]) -> Tensor:
    """How far each reading moves the logits, ``[R + 1, K, 1 + S]`` float64: 1 for the first, 0 behind the last."""
    num_codebooks, num_frames = lm.config.num_codebooks, request.num_frames
    one = torch.ones(num_codebooks, num_frames, dtype=torch.float64)
    scales = [one]
    if request.apart:
        scales.append(one * request.sampling.prompt_guidance_scale)
    if request.prefix_apart:
        scales.append(_throughout(request.sampling.prefix_guidance_scale, num_codebooks, num_frames))
    if len(scales) < len(found):
        scales.append(scales_by_frame(request.sampling, num_codebooks, request.prompt.shape[-1], num_frames))
    by_frame = torch.stack([*scales, torch.zeros_like(one)])
    return F.pad(lm.pattern.apply(by_frame, fill=1), (1, 0), value=1)


def _throughout(scale: float | tuple[float, ...], num_codebooks: int, num_frames: int) -> Tensor:
    """One scale, or one for each codebook, at all frames: ``[K, T]`` float64."""
    scales = torch.tensor(scale if isinstance(scale, tuple) else [scale] * num_codebooks, dtype=torch.float64)
    return scales[:, None].expand(-1, num_frames)


def _side_by_side(request: Request) -> tuple[Context | None, Context | None]:
    """The text and what stands where there is none, with as many rows and tokens each; None where no text is given."""
    text, textless, batch = request.context, request.negative, len(request.prompt)
    if textless is not None:
        textless = Context(*(each.expand(batch, *each.shape[1:]) for each in textless))
    if text is None and textless is not None:
        text = _null(textless)
    if text is None or textless is None:
        return text, None if text is None else _null(text)
    tokens = max(text.mask.shape[1], textless.mask.shape[1])
    return _padded(text, tokens), _padded(textless, tokens)


def _null(context: Context) -> Context:
    """As many null rows."""
    return Context(torch.zeros_like(context.states), torch.zeros_like(context.mask))


def _padded(context: Context, tokens: int) -> Context:
    """``[B, N, D]`` to another, larger N."""
    more = tokens - context.mask.shape[1]
    return Context(F.pad(context.states, (0, 0, 0, more)), F.pad(context.mask, (0, more)))


def _stacked(contexts: list[Context | None]) -> Context | None:
    """Contexts of as many tokens, one below the other; None where there are none."""
    given = [context for context in contexts if context is not None]
    return Context(*(torch.cat(parts) for parts in zip(*given, strict=True))) if given else None
