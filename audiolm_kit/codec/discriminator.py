"""Multi-scale STFT discriminator: judges a waveform by its complex spectrograms at several resolutions.

Letters in shapes: B batch, C audio channels, L samples, W feature channels, S spectrogram frames, F frequency bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import weight_norm


class Judgement(NamedTuple):
    """What the discriminator says about a batch of sounds, one entry per scale."""

    logits: list[Tensor]
    """Per scale [B, 1, S, F']: above zero reads as real, below as made."""
    features: list[list[Tensor]]
    """Per scale and hidden layer [B, W, S, F'], for feature matching."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Options of `MultiScaleSTFTDiscriminator`; the defaults are EnCodec's."""

    channels: int = 1
    """Audio channels C."""
    filters: int = 32
    """Feature channels of the first layer."""
    growth: int = 1
    """Each dilated layer has this many times the filters of the one before, up to `max_filters`."""
    max_filters: int = 1024
    fft_sizes: tuple[int, ...] = (1024, 2048, 512)
    """One spectrogram per size; windows are as long as the FFT and hop by a quarter of it."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Dilation along time of the inner layers, each of which also halves the frequency axis."""
    kernel: tuple[int, int] = (3, 9)
    """Kernel over (time, frequency); both odd, so that the padding is even."""
    negative_slope: float = 0.2
    """Of the LeakyReLU between layers: 0.2 in EnCodec, 0.3 in audiocraft."""

    def __post_init__(self) -> None:
        """Refuse what could not be padded or hopped evenly."""
        if any(size % 2 == 0 for size in self.kernel):
            raise ValueError(f"discriminator kernel is {self.kernel}, both sizes must be odd: try (3, 9)")
        if not self.fft_sizes or any(size < 4 or size % 4 for size in self.fft_sizes):
            raise ValueError(f"discriminator fft_sizes are {self.fft_sizes}: give one or more multiples of 4")


def conv2d(
    channels_in: int, channels_out: int, kernel: tuple[int, int], dilation: int = 1, stride: int = 1
) -> nn.Conv2d:
    """A convolution over (time, frequency) that keeps the number of frames; ``stride`` goes along frequency."""
    padding = ((kernel[0] - 1) * dilation // 2, (kernel[1] - 1) // 2)
    return nn.Conv2d(channels_in, channels_out, kernel, (1, stride), padding, dilation=(dilation, 1))


class STFTDiscriminator(nn.Module):
    """The judge of one scale (Defossez et al. 2022, section 3.4 and figure 2)."""

    window: Tensor

    def __init__(self, config: DiscriminatorConfig, fft_size: int) -> None:
        super().__init__()
        self.config, self.fft_size = config, fft_size
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        # The published discriminator leaves its first layer without weight norm; so do we, to take over its weights.
        layers: list[nn.Module] = [conv2d(2 * config.channels, config.filters, config.kernel)]
        width = config.filters
        for dilation in config.dilations:
            wider = min(width * config.growth, config.max_filters)
            layers.append(weight_norm(conv2d(width, wider, config.kernel, dilation, stride=2)))
            width = wider
        square = (config.kernel[0], config.kernel[0])
        layers.append(weight_norm(conv2d(width, width, square)))
        self.layers = nn.ModuleList(layers)
        self.head = weight_norm(conv2d(width, 1, square))

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Complex STFT of unit-energy windows, [B, C, L] -> [B, 2C, S, F]: real parts, then imaginary ones."""
        if audio.shape[-1] < self.fft_size:
            raise ValueError(
                f"the discriminator got {audio.shape[-1]} samples and its FFT size {self.fft_size} needs as many: "
                "train on longer segments or drop this size from fft_sizes"
            )
        flat = rearrange(audio.float(), "b c l -> (b c) l")
        # Frames lie wholly inside the sound: a mirrored border would tell apart sounds by their cut, not their timbre.
        spectrum = torch.stft(
            flat, self.fft_size, self.fft_size // 4, window=self.window, center=False, return_complex=True
        )
        parts = torch.view_as_real(spectrum / self.window.square().sum().sqrt())
        return rearrange(parts, "(b c) f s part -> b (part c) s f", c=audio.shape[1])

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, C, L] -> logits [B, 1, S, F'] and the output [B, W, S, F'] of each hidden layer."""
        hidden, features = self.spectrogram(audio), []
        for layer in self.layers:
            hidden = leaky_relu(layer(hidden), self.config.negative_slope)
            features.append(hidden)
        return self.head(hidden), features


class MultiScaleSTFTDiscriminator(nn.Module):
    """One `STFTDiscriminator` per FFT size; small windows judge transients, large ones pitch."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(STFTDiscriminator(config, fft_size) for fft_size in config.fft_sizes)

    def forward(self, audio: Tensor) -> Judgement:
        """[B, C, L] -> `Judgement`; L must reach the largest FFT size."""
        if audio.dim() != 3 or audio.shape[1] != self.config.channels:
            raise ValueError(
                f"the discriminator got audio of shape {tuple(audio.shape)} and wants [B, {self.config.channels}, L]"
            )
        verdicts = [scale(audio) for scale in self.scales]
        return Judgement([logits for logits, _ in verdicts], [features for _, features in verdicts])
