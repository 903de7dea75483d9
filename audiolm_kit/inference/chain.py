"""The chain of AudioLM's stages: semantic codes, coarse ones that say them, fine ones that fill them in.

A sound is made window after window of the coarse (or acoustic) stage, each of which begins with the last frames of the
one before (SoundStorm, arXiv:2305.09636, tells so of AudioLM: 10 s, the last 3 s of them as prompt of the next).

*Which semantic codes stand in front of a window?* In training those of the window's own time, no more and no fewer.
Codes without repeats have no times, and a share of a window's codes could only be guessed where the next one begins in
its middle. So nothing is guessed: frames are made in *spans* that end wherever a later window will begin. Up to there
the semantic stage makes codes (as many as that time has on average), and the coarse stage frames, with exactly the
codes since the window's start in front. What a window reads of the one before are whole spans, with whole spans' codes.

The semantic stage reads what it has said in the time that its own pieces have, however the spans are cut. Fine codes
are local: windows of a span are made side by side, and the first one reads on from the fine codes before it.
Nothing grows with the length of the sound.

B batch, K codebooks, P prompt frames, T frames, n frames of a block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.inference.items import BATCH, OVERLAP
from audiolm_kit.inference.semantics import Track, extend
from audiolm_kit.inference.streaming import Row, Windows
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.stages import Stage, StageName

Stages = Mapping[StageName, tuple[Stage, StreamLM]]
TEMPERATURES: dict[StageName, float] = {"semantic": 0.6, "coarse": 0.8, "fine": 0.6, "acoustic": 0.8}
"""AudioLM's (arXiv:2209.03143), and for a stage that makes coarse and fine codes at once its coarse one."""


def _at(name: StageName) -> Any:
    return field(default_factory=lambda: Sampling(temperature=TEMPERATURES[name], guidance_scale=1.0))


@dataclass(frozen=True)
class StageSampling:
    """How each stage draws its codes; what a model has no stage for has no say."""

    semantic: Sampling = _at("semantic")
    coarse: Sampling = _at("coarse")
    fine: Sampling = _at("fine")
    acoustic: Sampling = _at("acoustic")

    def __post_init__(self) -> None:
        for name in TEMPERATURES:
            own: Sampling = getattr(self, name)
            if own.guidance_scale != 1 or own.prompt_guidance_scale != 1:
                given = f"{own.guidance_scale} and {own.prompt_guidance_scale}"
                raise ValueError(
                    f"guidance_scale and prompt_guidance_scale of the {name} stage are {given}, but AudioLM reads no "
                    "text to be guided by: set both to 1"
                )
        if self.semantic.prefix_guidance_scale != 1:
            given = f"prefix_guidance_scale of the semantic stage is {self.semantic.prefix_guidance_scale}"
            raise ValueError(f"{given}, but that stage stands on nothing: set it to 1")

    @classmethod
    def of(cls, sampling: Sampling = Sampling(), **temperatures: float) -> StageSampling:  # noqa: B008  frozen
        """One way for all stages but for their temperatures and without guidance.

        Args:
            sampling: top_k, top_p and min_p of all stages, and the prefix_guidance_scale of those that stand on
                semantic codes; its temperature and guidance_scale are not looked at.
            temperatures: by stage; those of AudioLM where a stage is not named.

        Raises:
            ValueError: a name that no stage has, or what ``Sampling`` refuses.
        """
        if unknown := sorted(temperatures.keys() - TEMPERATURES.keys()):
            raise ValueError(f"temperatures of {', '.join(unknown)}: the stages are {', '.join(TEMPERATURES)}")
        chosen = {str(name): heat for name, heat in TEMPERATURES.items()} | temperatures
        plain = replace(sampling, guidance_scale=1.0)
        alone = replace(plain, prefix_guidance_scale=1.0)
        told = {"coarse": plain, "acoustic": plain}
        return cls(**{name: replace(told.get(name, alone), temperature=heat) for name, heat in chosen.items()})


class Span(NamedTuple):
    """Frames that are made in one go, and where the window that they belong to begins."""

    start: int
    known: int
    end: int


def spans(known: int, end: int | None, windows: Windows) -> Iterator[Span]:
    """The spans that lead from ``known`` frames to ``end``, or on and on.

    The first window begins with all that is known, unless that fills it: then with its last ``overlap`` frames. A span
    ends where its window does, where a later window will begin, or at the end; a last window is one span.
    """
    size = windows.size
    if size is None or not 0 <= windows.overlap < size:
        raise ValueError(f"windows of {size} frames overlap by {windows.overlap}: give fewer than a window has")
    stride, start = size - windows.overlap, 0 if known < size else known - windows.overlap
    while end is None or known < end:
        full = start + size
        begins = start + ((known - start) // stride + 1) * stride
        stop = end if end is not None and end <= full else min(begins, full)
        yield Span(start, known, stop)
        known = stop
        if known == full:
            start += stride


def shares(known: int, new: int, size: int) -> list[Span]:
    """Windows of the fine stage over a span, as equal as can be and none longer than ``size``.

    The first one begins with up to 0.3 of a window of frames that are known; the others stand alone.
    """
    read = min(known, round(OVERLAP * size))
    total, first = read + new, known - read
    count = -(-total // size)
    cuts = [first + total * i // count for i in range(count + 1)]
    return [Span(a, min(max(a, known), b), b) for a, b in zip(cuts, cuts[1:], strict=False)]


@dataclass(frozen=True)
class Request:
    """A batch of sounds of one shape or, where each is a single span (``Chain.at_once``), of unequal ones."""

    tracks: Sequence[Track]
    """What each row is known to say, in seconds from its beginning."""
    prompt: Tensor
    """``[B, K, P]``, codes of all codebooks that the chain makes; shorter ones have anything behind them."""
    rows: Sequence[Row]
    """The frames of each row, its prompt's and all."""
    seeds: Sequence[int]
    sampling: StageSampling
    windows: Windows
    spoken: bool = False
    """The tracks say all there is to say; else the semantic stage goes on from where they end."""


class Chain:
    """The stages at work."""

    def __init__(self, stages: Stages, frame_rate: float, semantic_rate: float) -> None:
        """``frame_rate`` is the codec's, ``semantic_rate`` that of semantic codes with their repeats."""
        self.stages, self.frame_rate = stages, frame_rate
        self.first: StageName = "coarse" if "coarse" in stages else "acoustic"
        """The stage that says semantic codes."""
        semantic = stages["semantic"][0]
        self.codes_per_second = semantic.codes_per_second if semantic.deduplicated else semantic_rate

    @property
    def num_codebooks(self) -> int:
        """K that come out."""
        return max(stage.codebooks[1] for stage, _ in self.stages.values() if stage.source == "codec")

    def codes(self, request: Request) -> Iterator[Tensor]:
        """Blocks of codes ``[B, K, n]`` of sounds of one shape: the prompt, if there is one, then span after span."""
        return (torch.stack(block) for block in self.blocks(request))

    def blocks(self, request: Request) -> Iterator[list[Tensor]]:
        """The same of sounds of any shape: of each row ``[K, n]``, with its own n."""
        known = [own[:, : row.prompt] for own, row in zip(request.prompt, request.rows, strict=True)]
        tracks = list(request.tracks)
        if any(own.shape[-1] for own in known):
            yield known
        memory = max(request.windows.size or 0, self._reach("fine") if "fine" in self.stages else 0)
        for plan in self._plans(request):
            if not request.spoken:
                tracks = [self._kept(track, span) for track, span in zip(tracks, plan, strict=True)]
                tracks = self._said(tracks, plan, request)
            block = self._voiced(known, tracks, plan, request)
            if "fine" in self.stages:
                block = self._refined(known, block, plan, request)
            yield block
            known = [torch.cat(both, dim=-1) for both in zip(known, block, strict=True)]
            known = [own[:, max(0, own.shape[-1] - memory) :].clone() for own in known]

    def at_once(self, row: Row, windows: Windows) -> bool:
        """Whether a row is a single span, and its semantic codes a single run."""
        if row.frames is None or windows.size is None or row.prompt >= windows.size or row.frames > windows.size:
            return False
        return len(list(self._pieces(Span(0, row.prompt, row.frames)))) == 1

    def _plans(self, request: Request) -> Iterator[list[Span]]:
        """Spans of all rows, one behind the other."""
        if len(set(request.rows)) == 1:
            for span in spans(*request.rows[0], request.windows):
                yield [span] * len(request.rows)
            return
        if not all(self.at_once(row, request.windows) for row in request.rows):
            raise ValueError("rows of unequal length are more than one span: ask for those of one shape alone")
        yield [Span(0, row.prompt, row.frames) for row in request.rows if row.frames is not None]

    def steps(self, known: int, num_frames: int, windows: Windows) -> dict[str, int]:
        """How many steps each stage takes to lead from ``known`` frames to ``num_frames``, a row's alone.

        Windows of the fine stage that are made side by side count one by one: it is the work that is counted.
        """
        counts: dict[str, int] = dict.fromkeys(self.stages, 0)
        for span in spans(known, num_frames, windows):
            counts["semantic"] += sum(count for _, _, count in self._pieces(span))
            counts[self.first] += _steps(self.stages[self.first][1], span)
            if "fine" in self.stages:
                parts = shares(span.known, span.end - span.known, self._reach("fine"))
                counts["fine"] += sum(_steps(self.stages["fine"][1], part) for part in parts)
        return counts

    # --- inside -------------------------------------------------------------------------------------------------------

    def _reach(self, name: StageName) -> int:
        """Frames of the pieces that a stage was trained on."""
        return max(1, round(self.stages[name][0].seconds * self.frame_rate))

    def _pieces(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Where the semantic stage begins and ends, and how many codes it makes, one run after the other.

        More than one only if a span is so long that the stage would otherwise read too little of what it has said.
        """
        reach, rate = self._reach("semantic"), self.codes_per_second / self.frame_rate
        stride = max(1, reach - round(OVERLAP * reach))
        for start in range(span.known, span.end, stride):
            end = min(span.end, start + stride)
            yield start, end, round(end * rate) - round(start * rate)  # so that rounding never adds up

    def _kept(self, track: Track, span: Span) -> Track:
        """What a later span may still read of a track."""
        oldest = min(span.start, span.known - self._reach("semantic")) / self.frame_rate
        return track.between(oldest, span.end / self.frame_rate)

    def _said(self, tracks: list[Track], plan: list[Span], request: Request) -> list[Track]:
        """The tracks and what the semantic stage says next, until the end of a span."""
        stage, lm = self.stages["semantic"]
        for runs in zip(*(self._pieces(span) for span in plan), strict=True):
            known, seeds = [], []
            for track, (start, end, _), seed in zip(tracks, runs, request.seeds, strict=True):
                oldest = end / self.frame_rate - stage.seconds
                known.append(track.between(oldest, start / self.frame_rate).read(stage.deduplicated))
                seeds.append(stage_seed(seed, "semantic", start))
            counts = [count for _, _, count in runs]
            new = extend(lm, known, counts, request.sampling.semantic, seeds, distinct=stage.deduplicated)
            made = zip(tracks, new, runs, strict=True)
            tracks = [track.then(codes, start / self.frame_rate) for track, codes, (start, _, _) in made]
        return tracks

    def _voiced(self, known: list[Tensor], tracks: list[Track], plan: list[Span], request: Request) -> list[Tensor]:
        """The coarse (or all) codes ``[K, n]`` of a span, of each row."""
        stage, lm = self.stages[self.first]
        said = [
            track.between(span.start / self.frame_rate, span.end / self.frame_rate).read(stage.deduplicated)
            for track, span in zip(tracks, plan, strict=True)
        ]
        prefix = side_by_side(said, lm.config.prefix.codebook_size).to(request.prompt.device)
        read = [span.known - span.start for span in plan]
        given = [own[slice(*stage.codebooks), own.shape[-1] - count :] for own, count in zip(known, read, strict=True)]
        prompt = torch.stack([F.pad(own, (0, max(read) - own.shape[-1])) for own in given])
        seeds = [stage_seed(seed, self.first, span.known) for seed, span in zip(request.seeds, plan, strict=True)]
        frames = [span.end - span.start for span in plan]
        sampling: Sampling = getattr(request.sampling, self.first)
        made = generate(lm, prompt, frames, sampling, prefix=prefix, seeds=seeds, prompt_frames=read)
        return [own[:, first:end] for own, first, end in zip(made, read, frames, strict=True)]

    def _refined(self, known: list[Tensor], coarse: list[Tensor], plan: list[Span], request: Request) -> list[Tensor]:
        """All codes ``[K, n]`` of a span whose coarse ones are known; ``known`` are those before it. Of each row."""
        stage, _ = self.stages["fine"]
        groups: dict[tuple[int, int], list[tuple[int, Span]]] = {}
        parts = [shares(span.known, span.end - span.known, self._reach("fine")) for span in plan]
        for row, own in enumerate(parts):
            for part in own:
                groups.setdefault((part.known - part.start, part.end - part.start), []).append((row, part))
        made: dict[tuple[int, Span], Tensor] = {}
        for group in groups.values():
            prompts, prefixes, seeds = [], [], []
            for row, part in group:
                offset = plan[row].known - known[row].shape[-1]  # the frame of the sound that `known` begins with
                in_front = torch.cat([known[row][: len(coarse[row])], coarse[row]], dim=-1)
                prompts.append(known[row][slice(*stage.codebooks), part.start - offset : part.known - offset])
                prefixes.append(in_front[slice(*stage.prefix_codebooks), part.start - offset : part.end - offset])
                seeds.append(stage_seed(request.seeds[row], "fine", part.known))
            filled = self._filled(torch.stack(prompts), torch.stack(prefixes), seeds, request.sampling.fine)
            made.update(zip(group, filled[..., prompts[0].shape[-1] :], strict=True))
        fine = [torch.cat([made[row, part] for part in own], dim=-1) for row, own in enumerate(parts)]
        return [torch.cat(both) for both in zip(coarse, fine, strict=True)]

    def _filled(self, prompts: Tensor, prefixes: Tensor, seeds: list[int], sampling: Sampling) -> Tensor:
        """Fine codes ``[R, K, T]`` of R windows of one shape, a batch at a time."""
        lm, made = self.stages["fine"][1], []
        for first in range(0, len(seeds), BATCH):
            rows = slice(first, first + BATCH)
            prompt, prefix = prompts[rows], prefixes[rows]
            made.append(generate(lm, prompt, prefix.shape[-1], sampling, prefix=prefix, seeds=seeds[rows]))
        return torch.cat(made)


def stage_seed(seed: int, stage: StageName, place: int) -> int:
    """What a stage draws with from a frame on: 8 bytes of a hash, so that no two runs share their numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {stage} {place}".encode(), digest_size=8).digest(), "big")


def side_by_side(rows: Sequence[Tensor], padding: int) -> Tensor:
    """Codes ``[n]`` of unequal numbers -> ``[B, 1, N]``, padded in front."""
    most = max(len(row) for row in rows)
    return torch.stack([torch.cat([row.new_full((most - len(row),), padding), row]) for row in rows])[:, None]


def _steps(lm: StreamLM, span: Span) -> int:
    """Steps that a model takes for the new frames of a window."""
    if span.known == span.end:
        return 0
    return lm.pattern.num_steps(span.end - span.start) - lm.pattern.first_step(span.known - span.start)
