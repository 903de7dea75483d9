"""The loop: read the prompt in one pass, then step by step with the cache; whole or frame by frame.

Shapes: B batch, K codebooks, P prompt frames, T frames, S steps, V codebook size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.guidance import GuidedReader, Request
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling, draw


def generate(
    lm: StreamLM,
    prompt: Tensor,
    num_frames: int | Sequence[int],
    sampling: Sampling,
    context: Context | None = None,
    prefix: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    negative: Context | None = None,
    prompt_frames: Sequence[int] | None = None,
) -> Tensor:
    """Continue ``[B, K, P]`` to ``[B, K, T]``, the prompt first and as it was; see ``steps``.

    A row that asks for fewer frames than T holds ``lm.special`` behind them.
    """
    frames = steps(lm, prompt, num_frames, sampling, context, prefix, seeds, negative, prompt_frames)
    shared = prompt[..., : prompt.shape[-1] if prompt_frames is None else min(prompt_frames)]
    return torch.cat([shared, *(frame[:, :, None] for frame in frames)], dim=-1)


def steps(
    lm: StreamLM,
    prompt: Tensor,
    num_frames: int | Sequence[int],
    sampling: Sampling,
    context: Context | None = None,
    prefix: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    negative: Context | None = None,
    prompt_frames: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Yield the frames that follow the shortest prompt, T - P times ``[B, K]``, each as soon as its last code is drawn.

    Rows of unequal length go side by side: one whose prompt is not all read yet reads on in it where others draw, and
    one that has all of its frames waits for the longest.

    A row depends on its own prompt, contexts and seed alone, neither on batch size nor on neighbours (up to rounding).
    A longer request begins with the shorter one, but for the frames that reach past its end (delay: the last K - 1);
    not so with a guidance_schedule, which spans the frames of the request.

    Args:
        lm: In eval mode, with or without text; not changed.
        prompt: Codes ``[B, K, P]`` from 0 to V - 1; P may be 0.
        num_frames: T, frames in all, those of the prompt among them; or as many for each row.
        sampling: Its guidance_scale takes a second, textless row for each row, at the steps where it is not 1; its
            prompt_guidance_scale, if not 1 and P > 0, a further one, as its prefix_guidance_scale, if not 1. See
            ``guidance`` for what they do.
        context: ``[B, N, D]``, or None for none.
        prefix: Codes ``[B, K, T]`` of the earlier stage, if the model has one; T may be 0. Shorter rows are padded in
            front with its codebook_size, in all codebooks, which changes nothing for them.
        seeds: One for each row; None takes fresh ones from torch's global generator.
        negative: What guidance goes away from in the place of no text, ``[B, N, D]`` or one for all rows ``[1, N, D]``,
            of any N; without a context too. With guidance_scale 1 it has no say.
        prompt_frames: How many of P frames each row's own prompt has, what is behind them is not looked at; None: all.

    Raises:
        ValueError: what does not fit the model or one another; rows of unequal length with a guidance_schedule or a
            prompt_guidance_scale, which each row would need at other steps.
    """
    rows = _rows(len(prompt), prompt.shape[-1], num_frames, prompt_frames)
    longest = max((each.frames for each in rows), default=0)
    request = Request(prompt, longest, sampling, context, prefix, negative)
    _check(lm, request, rows, seeds)
    if seeds is None:
        seeds = torch.randint(2**63 - 1, (len(prompt),)).tolist()
    return _steps(lm, request, rows, seeds)


class _Row(NamedTuple):
    """The frames of a row."""

    given: int
    """Its prompt's."""
    frames: int
    """All, T."""


def _rows(batch: int, given: int, num_frames: int | Sequence[int], prompt_frames: Sequence[int] | None) -> list[_Row]:
    """What each row has and is to have."""
    given_each = [given] * batch if prompt_frames is None else list(prompt_frames)
    frames = [num_frames] * batch if isinstance(num_frames, int) else list(num_frames)
    for name, each in (("prompt_frames", given_each), ("num_frames", frames)):
        if len(each) != batch:
            raise ValueError(f"{name}: {len(each)} for {batch} rows of the prompt: give one for each")
    if given_each and not 0 <= min(given_each) <= max(given_each) <= given:
        raise ValueError(f"prompt_frames are {min(given_each)} to {max(given_each)}, the prompt has {given} frames")
    return [_Row(*each) for each in zip(given_each, frames, strict=True)]


@torch.no_grad()  # inference_mode would forbid any later training on these codes
def _steps(lm: StreamLM, request: Request, rows: Sequence[_Row], seeds: Sequence[int]) -> Iterator[Tensor]:
    prompt, num_frames, pattern = request.prompt, request.num_frames, lm.pattern
    whole = min(row.given for row in rows)  # frames so far
    if whole == num_frames:
        return
    unknown = -1
    frames = F.pad(prompt, (0, num_frames - prompt.shape[-1]), value=unknown)
    for own, row in zip(frames, rows, strict=True):
        own[:, row.given :] = unknown
        own[:, row.frames :] = lm.special  # what a request of its own length reads in the cells behind its end
    sequence = F.pad(pattern.apply(frames, lm.special), (1, 0), value=lm.special)  # [B, K, 1 + S]
    new = sequence == unknown  # cells of the prompt and special cells are known already: they stay
    all_new = new.flatten(0, 1).all(dim=0).tolist()
    uniforms = _uniforms(seeds, sequence.shape).to(prompt.device)
    reader = GuidedReader(lm, request, new.any(dim=0))
    for step in reader.steps:
        drawn = draw(reader.logits(sequence, step), request.sampling, uniforms[:, :, step])
        sequence[:, :, step] = drawn if all_new[step] else torch.where(new[:, :, step], drawn, sequence[:, :, step])
        if step == 1 + pattern.last_step(whole):
            yield pattern.revert(sequence[:, :, 1 + pattern.stride * whole :], 1)[:, :, 0]
            whole += 1


def _uniforms(seeds: Sequence[int], shape: torch.Size) -> Tensor:
    """Uniform numbers for a sequence ``[B, K, 1 + S]``: each row from its own seed, drawn step by step."""
    _, num_codebooks, num_steps = shape
    rows = [torch.rand(num_steps, num_codebooks, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).transpose(1, 2)


def _check(lm: StreamLM, request: Request, rows: Sequence[_Row], seeds: Sequence[int] | None) -> None:
    """Refuse what would fail later, or worse, would not."""
    config, prompt, prefix = lm.config, request.prompt, request.prefix
    if lm.training:
        raise ValueError("the model is in training mode, its dropout would be heard: call lm.eval() first")
    if prompt.dim() != 3 or prompt.shape[1] != config.num_codebooks or prompt.dtype != torch.long:
        wanted = f"int64 codes [batch, {config.num_codebooks}, frames]"
        raise ValueError(f"the prompt is {prompt.dtype} {list(prompt.shape)}: give {wanted}")
    fewest = min((row.frames for row in rows), default=0)
    if fewest < 1:
        raise ValueError(f"{fewest} frames of {len(prompt)} rows were asked for: ask for 1 of each or more")
    for row in rows:
        if row.given > row.frames:
            asked = f"{row.frames} in all were asked for: ask for more"
            raise ValueError(f"the prompt has {row.given} frames, {asked}")
    if len(set(rows)) > 1 and (request.apart or request.sampling.guidance_schedule != "constant"):
        raise ValueError(
            "rows of unequal length with a guidance_schedule or a prompt_guidance_scale, which each would need "
            "at other steps: ask for rows of one length at a time"
        )
    request.sampling.check_codebooks(config.num_codebooks)
    own = torch.arange(prompt.shape[-1]) < torch.tensor([row.given for row in rows])[:, None]
    _check_range("prompt", prompt.transpose(1, 2)[own.to(prompt.device)], config.codebook_size)
    if prefix is not None:
        _check_range("prefix", prefix, config.prefix.codebook_size + 1)  # one more: padding
    lm.lead(prefix)
    if prefix is None and request.sampling.prefix_guidance_scale != 1:
        scale = request.sampling.prefix_guidance_scale
        raise ValueError(f"prefix_guidance_scale is {scale}, but the model stands on no earlier codes: set it to 1")
    if prefix is not None and request.apart:
        raise ValueError("a reading without the prompt has no prefix to stand on: set prompt_guidance_scale to 1")
    for name, given in (("seeds", seeds), ("prefix", prefix)):
        if given is not None and len(given) != len(prompt):
            raise ValueError(f"{name}: {len(given)} for {len(prompt)} rows of the prompt: give one for each")
    _check_context("context", request.context, lm, (len(prompt),))
    _check_context("negative", request.negative, lm, (len(prompt), 1))


def _check_context(name: str, context: Context | None, lm: StreamLM, rows: tuple[int, ...]) -> None:
    if context is None:
        return
    transformer = lm.config.transformer
    if not transformer.cross_attention:
        raise ValueError(f"{name}: the model reads no text (cross_attention is false): leave it out")
    if len(context.mask) not in rows:
        wanted = "one for each" if len(rows) == 1 else "one for each, or a single one"
        raise ValueError(f"{name}: {len(context.mask)} for {rows[0]} rows of the prompt: give {wanted}")
    shape, wanted_shape = list(context.states.shape), [*context.mask.shape, transformer.dim]
    if shape != wanted_shape:
        raise ValueError(f"{name}: states are {shape}, wanted are {wanted_shape}: make it with lm.condition")


def _check_range(name: str, codes: Tensor, codebook_size: int) -> None:
    if codes.numel() and not (0 <= int(codes.min()) and int(codes.max()) < codebook_size):
        found, wanted = f"{int(codes.min())} to {int(codes.max())}", f"0 to {codebook_size - 1}"
        raise ValueError(f"codes of the {name} are {found}, the model's {wanted}: use the codec it was trained on")
