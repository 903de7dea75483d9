"""How the light body's linear way begins: as the principal components of the log magnitudes of training sounds.

B batch, C channels, L samples, D latent width, F frequencies, N spectral frames of a code frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm_kit.codec.convnext import MOSTLY_TONAL, ConvNeXtDecoder, ConvNeXtEncoder


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
    decoder.linear.weight.copy_(kept.T * scale)
    # The mean log magnitude of a tone of that share beside weak noise is that of the tone.
    decoder.linear.bias.copy_(mean - (F.logsigmoid(torch.tensor(MOSTLY_TONAL)) / 2 if encoder.config.noise else 0.0))
