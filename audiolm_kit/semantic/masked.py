"""MaskedModel: learns to tell from its surroundings what was said where nothing is to be heard, as HuBERT does.

Shapes: B batch, L samples, T frames, D width, M mel bands, V target classes, E width in which classes are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.semantic.spectrum import LogMel, at_peak
from audiolm_kit.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class MaskedConfig:
    """The architecture: log-mel frames, stacked, and a bidirectional transformer over them."""

    sample_rate: int = 16000
    hop: int = 320
    """Samples of one frame: 320 at 16 kHz are 50 frames a second."""
    num_mels: int = 80
    stack: int = 2
    """Mel frames in each frame, so that short sounds are seen more finely than frames go."""
    peak: float = 0.9
    """Every sound is scaled to this peak first, so that nothing depends on its level (0: left as it is)."""
    dim: int = 256
    """Width D of the transformer, as are heads, layers, feed_forward (a multiple of dim), dropout and positions its."""
    heads: int = 4
    layers: int = 6
    feed_forward: int = 4
    dropout: float = 0.1
    positions: Literal["sinusoidal", "rotary", "relative"] = "rotary"
    """Rotary and relative ones depend on distances alone: what was trained on crops reads longer recordings."""
    codebook_size: int = 100
    """Target classes V."""
    class_dim: int = 128
    """Width E in which frames and classes are compared."""
    temperature: float = 0.1
    """Divides the cosines: logits reach from -1 / temperature to 1 / temperature."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "hop", "num_mels", "stack", "codebook_size", "class_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"masked {name} is {getattr(self, name)}: give a positive number")
        if self.hop % self.stack:
            raise ValueError(f"masked hop {self.hop} is not divisible by stack {self.stack}: change one of them")
        if not 0 <= self.peak <= 1:
            raise ValueError(f"masked peak is {self.peak}, wanted 0 (leave levels alone) to 1 (full scale)")
        if not self.temperature > 0:
            raise ValueError(f"masked temperature is {self.temperature}: give a positive number")
        _ = self.transformer  # refuses what cannot be

    @property
    def transformer(self) -> TransformerConfig:
        """The transformer's own config."""
        return TransformerConfig(
            dim=self.dim,
            heads=self.heads,
            layers=self.layers,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
            positions=self.positions,
            causal=False,
        )

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop


class MaskedModel(nn.Module):
    """Masked prediction of target codes (HuBERT, arXiv:2106.07447); its hidden states are features of speech.

    Classes are compared by their cosine, as HuBERT does, and not by a plain linear layer: all have the same length, so
    that frequent ones (silence) cannot win by growing, and what tells classes apart must lie in directions, which is
    what k-means on the hidden states then finds.
    """

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = LogMel(config.sample_rate, config.hop // config.stack, config.num_mels)
        # Standardises each band: by its batch in training, by the mean over all batches of training ever after.
        self.standard = nn.BatchNorm1d(config.num_mels, affine=False, momentum=None)
        self.project = nn.Linear(config.stack * config.num_mels, config.dim, bias=False)
        self.mask_embedding = nn.Parameter(torch.randn(config.dim))
        self.transformer = Transformer(config.transformer)
        self.predict = nn.Linear(config.dim, config.class_dim, bias=False)
        self.classes = nn.Parameter(torch.randn(config.codebook_size, config.class_dim))

    def forward(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, L]`` -> logits of the target classes ``[B, T, V]``, T = ceil(L / hop).

        Args:
            mask: ``[B, T]`` bool, True where the model hears nothing but its learned embedding of a gap.
        """
        inputs = self._inputs(audio)
        if mask is not None:
            inputs = torch.where(mask[..., None], self.mask_embedding.to(inputs.dtype), inputs)
        made = F.normalize(self.predict(self.transformer(inputs)).float(), dim=-1)
        return made @ F.normalize(self.classes.float(), dim=-1).T / self.config.temperature

    @torch.no_grad()
    def hidden(self, audio: Tensor, layer: int) -> Tensor:
        """``[B, L]`` -> ``[B, T, D]``, what leaves layer 1 to ``layers``; 0 is what enters the first.

        Each frame is normed without weights: between the layers of a pre-norm transformer the stream has no scale of
        its own, and each next layer norms it so. Training mode has dropout here too: call ``eval`` first.

        Raises:
            ValueError: there is no such layer, or the audio is not ``[B, L]`` with samples.
        """
        if not 0 <= layer <= self.config.layers:
            raise ValueError(f"layer is {layer}, this model has 0 (its input) to {self.config.layers}")
        stream = self._inputs(audio)
        if layer:
            caught: list[Tensor] = []

            def catch(module: nn.Module, given: Any, made: Tensor) -> None:
                caught.append(made)

            handle = self.transformer.layers[layer - 1].register_forward_hook(catch)
            try:
                self.transformer(stream)
            finally:
                handle.remove()
            stream = caught[0]
        return F.layer_norm(stream.float(), (self.config.dim,))

    def cut(self, layers: int) -> MaskedModel:
        """A copy of the lowest ``layers`` alone, at least 1: its hidden states are those of the whole."""
        if not 1 <= layers <= self.config.layers:
            raise ValueError(f"cannot keep {layers} of {self.config.layers} layers: give 1 to {self.config.layers}")
        copy = MaskedModel(replace(self.config, layers=layers))
        weights = self.state_dict()
        copy.load_state_dict({name: weights[name] for name in copy.state_dict()})
        return copy.train(self.training)

    def _inputs(self, audio: Tensor) -> Tensor:
        """``[B, L] -> [B, T, D]``: stacked log-mel frames, standardised band by band, in single precision."""
        if audio.dim() != 2 or audio.numel() == 0:
            raise ValueError(f"audio is of shape {list(audio.shape)}, wanted [B, L] with at least one sample")
        config = self.config
        with torch.autocast(audio.device.type, enabled=False):
            whole = F.pad(at_peak(audio.float(), config.peak), (0, -audio.shape[1] % config.hop))
            bands = self.standard(self.mel(whole).transpose(1, 2))
        return self.project(rearrange(bands, "b m (t s) -> b t (s m)", s=config.stack))


# --- what it learns by ------------------------------------------------------------------------------------------------


class MaskedLoss(NamedTuple):
    """How well the targets were told."""

    loss: Tensor
    """[], in nats."""
    accuracy: Tensor
    """[], the share of masked frames whose class was the likeliest."""


def masked_loss(logits: Tensor, targets: Tensor, mask: Tensor, alpha: float = 1.0) -> MaskedLoss:
    """Cross-entropy of logits ``[B, T, V]`` and targets ``[B, T]``: ``alpha`` of masked, the rest of unmasked frames.

    HuBERT's loss; with alpha 1, its own choice, what is not masked ``[B, T]`` counts for nothing.
    """
    nats = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
    loss = alpha * _mean(nats, mask)
    if alpha < 1:
        loss = loss + (1 - alpha) * _mean(nats, ~mask)
    return MaskedLoss(loss, _mean((logits.argmax(-1) == targets).float(), mask))


def span_mask(
    batch: int, frames: int, probability: float, span: int, generator: torch.Generator | None = None
) -> Tensor:
    """``[B, T]`` bool on the CPU, True in spans of ``span`` frames (wav2vec 2.0, arXiv:2006.11477, section 3.1).

    A share ``probability`` of all frames, at least one, is drawn without replacement to begin a span; spans overlap,
    and end where the frames do. Every row has equally many.
    """
    count = min(frames, max(1, round(probability * frames)))
    chosen = torch.rand(batch, frames, generator=generator).topk(count, dim=1).indices
    begun = torch.zeros(batch, frames).scatter_(1, chosen, 1.0)
    spread = F.max_pool1d(F.pad(begun, (span - 1, 0))[:, None], span, stride=1)
    return spread[:, 0] > 0


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
