"""Endless iterators of codes and of sound: streaming, long form and timelines are one mechanism.

A sound is made window after window. Each reads the last frames of what stands so far as its prompt, under the text of
its place, and goes on from there; a short sound under one text is a single window. Frames go from the loop straight to
the decoder, and all that is kept is a window's own cache and the frames that the next one reads: nothing grows with the
length. SoundStorm (arXiv:2305.09636) tells of AudioLM that it goes on so, by 10 s windows that begin with the last 3 s.

B batch, C channels, K codebooks, P prompt frames, T frames, n frames of a block, m samples of a chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.streaming import StreamingDecoder, decode
from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import steps
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling


class Section(NamedTuple):
    """Frames that stand under one text."""

    end: int | None
    """The first frame behind them; None: there is none."""
    context: Context | None = None
    negative: Context | None = None


@dataclass(frozen=True)
class Windows:
    """How much is made at once, in frames."""

    size: int | None = None
    """Of a window, those that it reads of what came before included; None makes each section at once."""
    overlap: int = 0
    """Frames that each window but the first reads of what came before."""


class Window(NamedTuple):
    """One run of the loop."""

    section: int
    prompt: int
    """P, frames that it reads."""
    frames: int
    """T, with those that it adds."""


class Row(NamedTuple):
    """The frames of one sound of a batch."""

    prompt: int
    """P, what it is given."""
    frames: int | None
    """T, with what is made; None is without end."""


@dataclass(frozen=True)
class Request:
    """A batch of sounds, of one shape or, in one window under one text each, of unequal ones."""

    prompt: Tensor
    """``[B, K, P]``; shorter ones have anything behind them."""
    sections: Sequence[Section]
    """One behind the other; those that end within the prompt are passed over."""
    sampling: Sampling
    seeds: Sequence[int]
    """One for each row."""
    windows: Windows = Windows()
    rows: Sequence[Row] = ()
    """One for each sound, where they are unequal."""

    def __post_init__(self) -> None:
        if self.rows and (self.windows.size is not None or len(self.sections) > 1):
            raise ValueError(
                "sounds of unequal length have one window and one text each: ask for those of a kind alone"
            )
        size, overlap = self.windows.size, self.windows.overlap
        if overlap < 0 or (size is not None and size <= overlap):
            raise ValueError(
                f"windows of {size} frames overlap by {overlap}: give 0 or more, and fewer than a window has"
            )
        if size is None and any(section.end is None for section in self.sections):
            raise ValueError("a sound without an end is made window after window: give their size")


def plan(known: int, ends: Sequence[int | None], windows: Windows) -> Iterator[Window]:
    """The windows that lead from ``known`` frames to the last of ``ends``.

    The first one reads all that is known, unless that fills a window: then its last ``overlap`` frames, as the others.
    """
    read = known if windows.size is None or known < windows.size else windows.overlap
    for section, end in enumerate(ends):
        while end is None or known < end:
            room = None if windows.size is None else windows.size - read
            new = min(each for each in (room, None if end is None else end - known) if each is not None)
            yield Window(section, read, read + new)
            known += new
            read = min(known, windows.overlap)


def window_seed(seed: int, number: int) -> int:
    """What a window draws with: the first with the sound's own seed, later ones with 8 bytes of a hash of both numbers.

    Counting up would give neighbours in a batch, whose seeds count up as well, the same numbers.
    """
    if number == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest(), "big")


def codes(lm: StreamLM, request: Request) -> Iterator[Tensor]:
    """Blocks of codes ``[B, K, n]``: the prompt, if there is one, then frame after frame as each becomes whole.

    It goes on as long as the last section does, or as the longest of unequal rows: what stands behind the end of a
    shorter one are no codes of the codec.
    """
    if request.rows:
        yield from _unequal(lm, request)
        return
    known = request.prompt
    if known.shape[-1]:
        yield known
    ends = [section.end for section in request.sections]
    for number, window in enumerate(plan(known.shape[-1], ends, request.windows)):
        _, context, negative = request.sections[window.section]
        seeds = [window_seed(seed, number) for seed in request.seeds]
        prompt = known[..., known.shape[-1] - window.prompt :]
        made = []
        for frame in steps(lm, prompt, window.frames, request.sampling, context, seeds=seeds, negative=negative):
            made.append(frame[..., None])
            yield made[-1]
        known = torch.cat([known, *made], dim=-1)
        known = known[..., max(0, known.shape[-1] - request.windows.overlap) :].clone()


def _unequal(lm: StreamLM, request: Request) -> Iterator[Tensor]:
    """What all prompts have, then frame after frame, those of longer prompts among them."""
    [(_, context, negative)] = request.sections
    given, frames = [row.prompt for row in request.rows], [row.frames for row in request.rows if row.frames is not None]
    if min(given):
        yield request.prompt[..., : min(given)]
    made = steps(
        lm,
        request.prompt,
        frames,
        request.sampling,
        context,
        seeds=request.seeds,
        negative=negative,
        prompt_frames=given,
    )
    for frame in made:
        yield frame[..., None]


def levelled(audio: Tensor, gain: Tensor) -> Tensor:
    """What leaves the decoder ``[B, C, m]`` at its final level ``[B, 1, 1]``, within full scale, on the CPU.

    Sample by sample, so that it is the same for a chunk as for the whole.
    """
    return (audio * gain).float().cpu().clamp(-1, 1)


def sound(codec: AnyCodec, blocks: Iterable[Tensor], gain: Tensor) -> Tensor:
    """Blocks of codes -> audio ``[B, C, L]`` of whole frames, all at once."""
    return levelled(decode(codec, torch.cat(list(blocks), dim=-1)), gain)


def chunks(codec: AnyCodec, blocks: Iterable[Tensor], gain: Tensor, num_samples: int | None) -> Iterator[Tensor]:
    """Blocks of codes -> the same audio in chunks ``[B, C, m]``, m >= 1, each as soon as it is final.

    Args:
        num_samples: Of the whole; None for as many as come.

    Raises:
        ValueError: The codec can only decode whole sounds.
    """
    decoder = StreamingDecoder(codec)  # here, so that a codec that cannot stream is refused by the call

    def final() -> Iterator[Tensor]:
        for block in blocks:
            yield decoder.push(block)
        yield decoder.finish()

    def cut() -> Iterator[Tensor]:
        left = num_samples
        for audio in final():
            chunk = levelled(audio if left is None else audio[..., :left], gain)
            left = None if left is None else left - chunk.shape[-1]
            if chunk.shape[-1]:
                yield chunk

    return cut()


def regrouped(pieces: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same audio ``[..., m]`` in chunks of ``size`` samples; the last one may be shorter."""
    held: list[Tensor] = []
    for piece in pieces:
        held.append(piece)
        if sum(each.shape[-1] for each in held) < size:
            continue
        *whole, rest = torch.cat(held, dim=-1).split(size, dim=-1)
        if rest.shape[-1] == size:
            whole, rest = [*whole, rest], rest[..., :0]
        yield from whole
        held = [rest.clone()]
    if sum(each.shape[-1] for each in held):
        yield torch.cat(held, dim=-1)
