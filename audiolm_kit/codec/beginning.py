"""How the light body's linear way begins: as the principal components of the log magnitudes of training sounds.

And, where it speaks of noise, as what those and the codebooks leave out.

B batch, C channels, L samples, D latent width, F frequencies, N spectral frames of a code frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.fourier_head import MOSTLY_TONAL
from audiolm_kit.codec.rice import variance_log

FITTED = 200
"""Steps in which shares of noise are found."""
LEAST = 0.01
"""Of the variance of a log magnitude: also of a tone not all is said."""


@torch.no_grad()
def begin_linear(encoder: ConvNeXtEncoder, decoder: ConvNeXtDecoder, audio: Tensor) -> None:
    """Set the linear way to the principal components of the log magnitudes of audio [B, C, L], whole code frames.

    Latents are scaled to a mean square of 1, the first component the largest.
    """
    if not encoder.config.linear:
        raise ValueError("the codec has no linear way to begin with: set convnext.linear")
    vectors = encoder.log_magnitudes(audio).flatten(0, 1).double()
    if len(vectors) <= encoder.config.dim:
        raise ValueError(f"{len(vectors)} frames do not say {encoder.config.dim} principal components: give more audio")
    mean = vectors.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((vectors - mean).T, correction=0))  # rising
    kept = directions[:, -encoder.config.dim :].flip(1).T  # [D, N C F]
    scale = variances[-encoder.config.dim :].mean().clamp_min(1e-12).sqrt()
    encoder.linear.weight.copy_(kept / scale)
    encoder.linear.bias.copy_(-kept @ mean / scale)
    # Of a tone of that share beside weak noise, the mean log magnitude is that of the tone. What noise the linear way
    # itself speaks of, the head takes into account.
    apart = encoder.config.noise and not encoder.config.linear_noise
    loud = _said(decoder)[0]
    loud.weight.copy_(rearrange(kept.T * scale, "(n w) d -> n w d", n=encoder.config.frames_per_code))
    loud.bias.copy_(
        rearrange(
            mean - (F.logsigmoid(torch.tensor(MOSTLY_TONAL)) / 2 if apart else 0.0), "(n w) -> n w", n=len(loud.bias)
        )
    )


def begin_noise(decoder: ConvNeXtDecoder, latents: Tensor, logs: Tensor) -> None:
    """Set the shares of noise to those under which what latents leave out of the log magnitudes is likeliest.

    Logits of the tonal shares are linear in latents; a log magnitude lies around what latents say of it with the
    variance that noise of that share gives it (``variance_log``), and a little more. ``convnext.tonal`` is added to
    the logits that come of it.

    Args:
        latents: [B, D, T], as they are decoded: quantised.
        logs: [B, T, N C F], the log magnitudes themselves.

    Raises:
        ValueError: the linear way says nothing of noise.
    """
    if not decoder.config.linear_noise:
        raise ValueError("the codec's linear way says nothing of noise: set convnext.linear_noise")
    loud, tonal = _said(decoder)
    read = rearrange(latents, "b d t -> (b t) d").float()
    wanted = rearrange(logs, "b t (n w) -> (b t) n w", n=len(loud.bias)).float()
    with torch.no_grad():
        left = (wanted - torch.einsum("td,nwd->tnw", read, loud.weight) - loud.bias).square()
    weight = torch.zeros_like(tonal.weight, requires_grad=True)
    bias = torch.full_like(tonal.bias, MOSTLY_TONAL, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    with torch.enable_grad():
        for _ in range(FITTED):
            share = (torch.einsum("td,nwd->tnw", read, weight) + bias).sigmoid()
            variance = variance_log(share) + LEAST
            optimizer.zero_grad()
            (variance.log() + left / variance).mean().backward()
            optimizer.step()
    with torch.no_grad():
        tonal.weight.copy_(weight)
        tonal.bias.copy_(bias + decoder.config.tonal)


def encoder_is_idle(encoder: ConvNeXtEncoder) -> bool:
    """Whether all that leaves the blocks is multiplied by zeros, and the linear way alone makes latents."""
    return encoder.config.linear and not bool(encoder.leave.weight.any())


def gives_phases_alone(decoder: ConvNeXtDecoder) -> bool:
    """Whether magnitudes and shares of noise come of the linear way alone, and nothing but phases of the blocks."""
    own, head = decoder.config, decoder.head
    size = head.channels * own.bins
    loud, tonal = head.project.weight[:size], head.project.weight[2 * size :]
    return own.linear and not own.postfilter and not bool(loud.any()) and not bool(tonal.any())


class _Way(NamedTuple):
    """What the decoder's linear way says of one thing, as views of its weights."""

    weight: Tensor  # [N, C F, D]
    bias: Tensor  # [N, C F]


def _said(decoder: ConvNeXtDecoder) -> list[_Way]:
    """Of log magnitudes and, with ``linear_noise``, of tonal shares."""
    config, linear = decoder.config, decoder.linear
    shape = config.frames_per_code, 2 if config.linear_noise else 1, -1
    weights = linear.weight.detach().view(*shape, config.dim).unbind(1)
    return [_Way(*each) for each in zip(weights, linear.bias.detach().view(shape).unbind(1), strict=True)]
