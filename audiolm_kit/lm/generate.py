"""The loop: read the prompt in one pass, then step by step with the cache; whole or frame by frame.

Shapes: B batch, K codebooks, P prompt frames, T frames, S steps, V codebook size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context, with_null
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling, draw, guide


def generate(
    lm: StreamLM,
    prompt: Tensor,
    num_frames: int,
    sampling: Sampling,
    context: Context | None = None,
    prefix: Tensor | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Continue ``[B, K, P]`` to ``[B, K, T]``, the prompt first and as it was; see ``steps``."""
    frames = steps(lm, prompt, num_frames, sampling, context, prefix, seeds)
    return torch.cat([prompt, *(frame[:, :, None] for frame in frames)], dim=-1)


def steps(
    lm: StreamLM,
    prompt: Tensor,
    num_frames: int,
    sampling: Sampling,
    context: Context | None = None,
    prefix: Tensor | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Yield the frames that follow the prompt, T - P times ``[B, K]``, each as soon as its last code is drawn.

    A row depends on its own prompt, context and seed alone, neither on batch size nor on neighbours (up to rounding).
    A longer request begins with the shorter one, but for the frames that reach past its end (delay: the last K - 1).

    Args:
        lm: In eval mode, with or without text; not changed.
        prompt: Codes ``[B, K, P]`` from 0 to V - 1; P may be 0.
        num_frames: T, frames in all, those of the prompt among them.
        sampling: A guidance_scale other than 1 takes a second, null row for each row that has a context.
        context: ``[B, N, D]``, or None for none.
        prefix: Codes ``[B, K, T]`` of the earlier stage, if the model has one.
        seeds: One for each row; None takes fresh ones from torch's global generator.
    """
    _check(lm, prompt, num_frames, context, prefix, seeds)
    if seeds is None:
        seeds = torch.randint(2**63 - 1, (len(prompt),)).tolist()
    guided = context is not None and sampling.guidance_scale != 1
    if context is not None and guided:
        context = with_null(context)
        prefix = None if prefix is None else prefix.repeat(2, 1, 1)
    return _steps(lm, prompt, num_frames, sampling, _Given(context, prefix, seeds, guided))


class _Given(NamedTuple):
    """What stays the same through the loop, one row for each row of the model's batch."""

    context: Context | None
    prefix: Tensor | None
    seeds: Sequence[int]  # one for each row of the prompt
    guided: bool  # null rows follow the rows


@torch.no_grad()  # inference_mode would forbid any later training on these codes
def _steps(lm: StreamLM, prompt: Tensor, num_frames: int, sampling: Sampling, given: _Given) -> Iterator[Tensor]:
    length, pattern = prompt.shape[-1], lm.pattern
    if length == num_frames:
        return
    unknown = -1
    frames = F.pad(prompt, (0, num_frames - length), value=unknown)
    sequence = F.pad(pattern.apply(frames, lm.special), (1, 0), value=lm.special)  # [B, K, 1 + S]
    uniforms = _uniforms(given.seeds, sequence.shape).to(prompt.device)
    rows = 2 if given.guided else 1
    cache = lm.new_cache(rows * len(prompt), num_frames, given.prefix)
    read, whole = 0, length
    for step in range(pattern.first_step(length) + 1, sequence.shape[-1]):
        states = lm.read(sequence[:, :, read:step].repeat(rows, 1, 1), given.context, given.prefix, cache)
        logits = lm.predict(states[:, -1:])[:, :, 0]
        drawn = draw(guide(logits, sampling.guidance_scale) if given.guided else logits, sampling, uniforms[:, :, step])
        # Cells of the prompt and special cells are known already: they stay.
        cell = sequence[:, :, step]
        sequence[:, :, step] = torch.where(cell == unknown, drawn, cell)
        read = step
        if step == 1 + pattern.last_step(whole):
            yield pattern.revert(sequence[:, :, 1 + pattern.stride * whole :], 1)[:, :, 0]
            whole += 1


def _uniforms(seeds: Sequence[int], shape: torch.Size) -> Tensor:
    """Uniform numbers for a sequence ``[B, K, 1 + S]``: each row from its own seed, drawn step by step."""
    _, num_codebooks, num_steps = shape
    rows = [torch.rand(num_steps, num_codebooks, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).transpose(1, 2)


def _check(
    lm: StreamLM,
    prompt: Tensor,
    num_frames: int,
    context: Context | None,
    prefix: Tensor | None,
    seeds: Sequence[int] | None,
) -> None:
    """Refuse what would fail later, or worse, would not."""
    config = lm.config
    if lm.training:
        raise ValueError("the model is in training mode, its dropout would be heard: call lm.eval() first")
    if prompt.dim() != 3 or prompt.shape[1] != config.num_codebooks or prompt.dtype != torch.long:
        wanted = f"int64 codes [batch, {config.num_codebooks}, frames]"
        raise ValueError(f"the prompt is {prompt.dtype} {list(prompt.shape)}: give {wanted}")
    if num_frames < 1 or len(prompt) < 1:
        raise ValueError(f"{num_frames} frames of {len(prompt)} rows were asked for: ask for 1 of each or more")
    if prompt.shape[-1] > num_frames:
        raise ValueError(f"the prompt has {prompt.shape[-1]} frames, {num_frames} in all were asked for: ask for more")
    _check_range("prompt", prompt, config.codebook_size)
    if prefix is not None:
        _check_range("prefix", prefix, config.prefix.codebook_size)
    for name, given in (("seeds", seeds), ("context", context and context.mask), ("prefix", prefix)):
        if given is not None and len(given) != len(prompt):
            raise ValueError(f"{name}: {len(given)} for {len(prompt)} rows of the prompt: give one for each")


def _check_range(name: str, codes: Tensor, codebook_size: int) -> None:
    if codes.numel() and not (0 <= int(codes.min()) and int(codes.max()) < codebook_size):
        found, wanted = f"{int(codes.min())} to {int(codes.max())}", f"0 to {codebook_size - 1}"
        raise ValueError(f"codes of the {name} are {found}, the model's {wanted}: use the codec it was trained on")
