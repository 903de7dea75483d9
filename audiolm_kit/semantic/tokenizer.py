"""SemanticTokenizer: frame features, standardised, and the nearest of k-means' centroids as code.

B batch, L samples, T frames, D dimensions of a frame, V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.kmeans import assign


@dataclass(frozen=True)
class SemanticConfig:
    """What a semantic tokenizer is made of."""

    features: FeatureConfig
    codebook_size: int
    """Centroids V."""
    dim: int
    """Dimensions D of a frame, as the features have them."""

    def __post_init__(self) -> None:
        if min(self.codebook_size, self.dim) < 1:
            raise ValueError(f"codebook_size and dim are {self.codebook_size} and {self.dim}: give positive numbers")


class SemanticTokenizer(nn.Module):
    """Waveform to semantic codes, one codebook; satisfies ``protocols.AudioTokenizer`` (AudioLM, section III-A).

    Repeats stay in: ``repeats.deduplicate`` takes them out.
    """

    mean: Tensor
    deviation: Tensor
    centroids: Tensor

    def __init__(self, config: SemanticConfig, features: FrameFeatures | None = None) -> None:
        """Make one with centroids at 0, for ``checkpoint.load`` and ``with_centroids`` to fill.

        Args:
            features: Those of the config, made already.

        Raises:
            FileNotFoundError: The features are of a model of transformers that is not where the config says.
            ValueError: It is another one, or has frames of another width.
        """
        super().__init__()
        self.features = FrameFeatures(config.features) if features is None else features
        if self.features.dim != config.dim:
            raise ValueError(f"dim is {config.dim}, but the features have {self.features.dim}: set dim to that")
        self.config = replace(config, features=self.features.config)
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("deviation", torch.ones(config.dim))
        self.register_buffer("centroids", torch.zeros(config.codebook_size, config.dim))

    @property
    def sample_rate(self) -> int:
        return self.config.features.sample_rate

    @property
    def channels(self) -> int:
        """1: what is said does not depend on where from."""
        return 1

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    @property
    def hop(self) -> int:
        """Samples of one frame."""
        return self.config.features.hop

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop

    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, L] -> standardised features [B, T, D], T = ceil(L / hop).

        Raises:
            ValueError: not three axes, more than one channel, or no samples.
        """
        if audio.dim() != 3 or audio.shape[1] != 1:
            raise ValueError(f"audio is of shape {list(audio.shape)}, wanted [B, 1, L]: see audio.fit")
        if audio.numel() == 0:
            raise ValueError(f"audio of shape {list(audio.shape)} has no samples: give at least one")
        return (self.features(audio[:, 0]) - self.mean) / self.deviation

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, L] -> codes [B, 1, T] int64 with T = ceil(L / hop); whatever precision runs around it.

        Raises:
            ValueError: as ``embed``.
        """
        with torch.autocast(audio.device.type, enabled=False):
            return assign(self.embed(audio), self.centroids)[:, None]


def with_centroids(
    features: FrameFeatures, centroids: Tensor, mean: Tensor | None = None, deviation: Tensor | None = None
) -> SemanticTokenizer:
    """A tokenizer of any centroids.

    Args:
        centroids: [V, D], of features standardised by the other two.
        mean: [D]; zeros where None.
        deviation: [D], all above 0; ones where None.

    Raises:
        ValueError: another shape, NaN, or a deviation that is not above 0.
    """
    if centroids.dim() != 2 or len(centroids) == 0 or centroids.shape[1] != features.dim:
        raise ValueError(f"centroids are of shape {list(centroids.shape)}, wanted [codebook_size, {features.dim}]")
    tokenizer = SemanticTokenizer(SemanticConfig(features.config, *centroids.shape), features)
    given = {"centroids": centroids, "mean": mean, "deviation": deviation}
    for name, value in given.items():
        if value is None:
            continue
        own: Tensor = getattr(tokenizer, name)
        if value.shape != own.shape or not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite numbers of shape {list(own.shape)}, got {list(value.shape)}")
        own.copy_(value)
    if not bool((tokenizer.deviation > 0).all()):
        raise ValueError("a deviation is not above 0: give 1 for dimensions that never change")
    return tokenizer.eval()
