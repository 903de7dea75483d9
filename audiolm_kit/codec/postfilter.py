"""The light body's postfilter: it draws the detail of magnitudes that codes leave open; and its discriminator.

After Kaneko et al. 2017 (GAN-based postfilter for STFT spectrograms, Interspeech): a network over time and frequency,
learned against a discriminator of spectrograms that knows what was to be made better. N items times channels, S
spectral frames, F frequencies, W width, M maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from audiolm_kit.codec.discriminator import Judgement, conv2d

MAPS = 4
"""What the decoder's blocks tell the postfilter of each frequency, beside how loud it is."""
DRAWS = 2
"""Maps of noise that it makes detail of."""
KERNELS = (5, 3, 3, 3, 3)
"""Of its convolutions, over time and frequency alike."""
SLOPE = 0.2
"""Of the leaky rectifiers."""
MIDDLE, SPREAD = -3.5, 2.0
"""Where log magnitudes of sounds lie, and how far around that: what networks read is of size 1."""
GAIN = 3.0
"""Of the postfilter's change, so that it needs no large weights to change much."""


class Postfilter(nn.Module):
    """Log magnitudes that are means [N, S, F] -> log magnitudes that vary as those of real sound do, [N, S, F].

    It begins by changing nothing.
    """

    def __init__(self, width: int, channels: int, bins: int, filters: int) -> None:
        """
        Args:
            width: of the hidden frames, W.
            channels: of the sound.
            bins: frequencies of a frame, F.
            filters: feature channels of its convolutions.
        """
        super().__init__()
        self.tell = nn.Linear(width, MAPS * channels * bins)
        sizes = [MAPS + DRAWS + 2, *[filters] * (len(KERNELS) - 1), 1]
        self.layers = nn.ModuleList(
            conv2d(sizes[i], sizes[i + 1], (kernel, kernel)) for i, kernel in enumerate(KERNELS)
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]  # a convolution's
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    @property
    def reach(self) -> int:
        """How many frames on either side it looks at."""
        return sum(kernel // 2 for kernel in KERNELS)

    def forward(self, loud: Tensor, maps: Tensor, noise: Tensor) -> Tensor:
        """Loud [N, S, F], maps [N, M, S, F] that the blocks ``tell``, noise [N, DRAWS, S, F] -> [N, S, F]."""
        given = torch.cat([maps, _scaled(loud)[:, None], _frequencies(loud), noise], 1)
        hidden = given.contiguous(memory_format=torch.channels_last)  # half the time of a convolution on processors
        for place, layer in enumerate(self.layers[:-1]):
            update = F.leaky_relu(layer(hidden), SLOPE)
            hidden = hidden + update if place else update
        return loud + GAIN * self.layers[-1](hidden)[:, 0].float()


@dataclass(frozen=True)
class SpectrogramDiscriminatorConfig:
    """Sizes of `SpectrogramDiscriminator`."""

    filters: tuple[int, ...] = (24, 16)
    """Feature channels of the first layers of each scale; the first scale sees spectrograms as they are, each further
    one at half the resolution of the one before."""

    def __post_init__(self) -> None:
        if not self.filters or min(self.filters) < 1:
            raise ValueError(f"discriminator.filters are {self.filters}: give one or more numbers of at least 1")


class SpectrogramDiscriminator(nn.Module):
    """Tells log magnitudes of sounds from made ones, both beside those that the codes say [N, S, F].

    What it learns is so which details belong to these codes, and not only which are found in sound.
    """

    def __init__(self, config: SpectrogramDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(_Scale(filters) for filters in config.filters)

    def forward(self, magnitudes: Tensor, loud: Tensor) -> Judgement:
        """Two of [N, S, F], S and F at least ``2 ** len(filters)`` -> `Judgement`."""
        both = torch.stack([_scaled(magnitudes), _scaled(loud)], 1)
        verdicts = []
        for scale in self.scales:
            verdicts.append(scale(both))
            both = F.avg_pool2d(both, 2)
        return Judgement([logits for logits, _ in verdicts], [features for _, features in verdicts])


class _Scale(nn.Module):
    """One scale: five layers that halve frequency four times and time twice."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        twice = 2 * filters
        sizes = [  # channels in and out, kernel and stride over time and frequency
            (3, filters, (3, 7), (1, 2)),
            (filters, filters, (3, 7), (2, 2)),
            (filters, twice, (3, 5), (1, 2)),
            (twice, twice, (3, 5), (2, 2)),
            (twice, twice, (3, 3), (1, 1)),
        ]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, behind, kernel, stride, (kernel[0] // 2, kernel[1] // 2)))
            for before, behind, kernel, stride in sizes
        )
        self.head = weight_norm(conv2d(twice, 1, (3, 3)))

    def forward(self, both: Tensor) -> tuple[Tensor, list[Tensor]]:
        hidden, features = torch.cat([both, _frequencies(both[:, 0])], 1), []
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            features.append(hidden)
        return self.head(hidden), features


PATCH = (4, 8)
"""Frames and frequencies over which `patch_distance` takes means."""


def patch_distance(made: Tensor, real: Tensor) -> Tensor:
    """How far log magnitudes [N, S, F] are from real ones in their means over patches: where, not which detail. -> []

    Of the logarithms, and half as much of the logarithms of the mean power, which peaks decide.
    """
    (first, louder), (second, real_louder) = _patches(made), _patches(real)
    return F.l1_loss(first, second) + F.l1_loss(louder, real_louder) / 2


def _patches(logs: Tensor) -> tuple[Tensor, Tensor]:
    power = F.avg_pool2d((2 * logs).exp()[:, None], PATCH)
    return F.avg_pool2d(logs[:, None], PATCH), power.clamp_min(1e-6).log()


def _scaled(logs: Tensor) -> Tensor:
    return (logs - MIDDLE) / SPREAD


def _frequencies(like: Tensor) -> Tensor:
    """From -1 for the lowest to 1 for the highest, [N, 1, S, F]: what is detail depends on the frequency."""
    return torch.linspace(-1, 1, like.shape[-1], device=like.device).expand(like.shape)[:, None]
