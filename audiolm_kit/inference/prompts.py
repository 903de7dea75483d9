"""Prompts as codes, and how loud their continuations are.

B batch, C channels, L samples, K codebooks, P prompt frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.streaming import decode

SILENCE = 1e-4
"""A root mean square below this (-80 dBFS) says nothing about loudness."""


def prompted(
    codec: AnyCodec, prompts: Sequence[Tensor | None], device: torch.device, num_codebooks: int | None = None
) -> tuple[Tensor, list[int], Tensor]:
    """Prompts ``[C, L]`` of whole frames, or none -> codes ``[B, K, P]``, the frames of each, and gains ``[B, 1, 1]``.

    They are encoded one by one, so that no neighbour rounds a code to another; behind shorter ones stand zeros.

    Args:
        num_codebooks: K, the first ones; None: all.
    """
    count = codec.num_codebooks if num_codebooks is None else num_codebooks
    coded = [torch.zeros(count, 0, dtype=torch.long, device=device) for _ in prompts]
    gain = torch.ones(len(prompts), 1, 1, device=device)
    for row, samples in enumerate(prompts):
        if samples is not None:
            given = samples[None].to(device)
            [coded[row]] = codes = codec.encode(given)[:, :count]
            gain[row] = level(decode(codec, codes), given)[0]
    frames = [own.shape[-1] for own in coded]
    return torch.stack([F.pad(own, (0, max(frames) - own.shape[-1])) for own in coded]), frames, gain


def level(decoded: Tensor, prompts: Tensor) -> Tensor:
    """The gain ``[B, 1, 1]`` that makes decoded prompts ``[B, C, L]`` as loud as the prompts, but not past full scale.

    It is for the whole of a continuation, and as it is made of the prompt alone it is known before the first new frame.
    A silent prompt has no loudness to follow.
    """
    wanted, found = (audio.square().mean(dim=(1, 2), keepdim=True).sqrt() for audio in (prompts, decoded))
    loudest = decoded.abs().amax(dim=(1, 2), keepdim=True)
    gain = torch.minimum(wanted / found.clamp_min(SILENCE), 1 / loudest.clamp_min(SILENCE))
    return torch.where(wanted < SILENCE, 1.0, gain)
