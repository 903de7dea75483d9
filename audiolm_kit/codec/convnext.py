"""The light codec body: ConvNeXt blocks at frame rate between a short-time Fourier transform and its inverse.

Every layer runs on frames instead of samples, so that a second of sound costs some hundred steps of the network where
SEANet takes ten thousand. Blocks after Liu et al. 2022 (ConvNeXt), Fourier head after Siuzdak 2023 (Vocos, section 3).
B batch, C channels, L samples, D latent width, T codec frames, F frequencies, W width, S spectral frames
(S = T * frames_per_code).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Sizes of the light body; its hop is ``hop * frames_per_code`` samples."""

    dim: int = 64
    """The width of the latents, D."""
    width: int = 256
    """Of the residual stream, W."""
    encoder_layers: int = 4
    decoder_layers: int = 8
    expansion: int = 3
    """Of the two pointwise layers inside a block."""
    hop: int = 160
    """Samples between spectral frames."""
    fft_size: int = 640
    """The window of the Fourier transforms, in samples."""
    frames_per_code: int = 2
    """Spectral frames that one code frame stands for."""

    def __post_init__(self) -> None:
        if self.fft_size < self.hop or (self.fft_size - self.hop) % 2:
            wanted = f"hop ({self.hop}) plus an even number, so that frames overlap evenly"
            raise ValueError(f"fft_size is {self.fft_size}, wanted {wanted}")


class ConvNeXtEncoder(nn.Module):
    """Audio [B, C, L] -> latents [B, D, T], L a multiple of ``hop * frames_per_code``."""

    window: Tensor

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        # Log magnitude says what is heard; the compressed complex value adds the phase.
        self.enter = FrameConv(3 * channels * (config.fft_size // 2 + 1), config.width, kernel=1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(config) for _ in range(config.encoder_layers)))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width * config.frames_per_code, config.dim)

    def forward(self, audio: Tensor) -> Tensor:
        hidden = self.blocks(self.enter(self._spectrum(audio)))  # [B, S, W]
        joined = rearrange(self.norm(hidden), "b (t n) w -> b t (n w)", n=self.config.frames_per_code)
        return self.leave(joined).float().transpose(1, 2)

    def _spectrum(self, audio: Tensor) -> Tensor:
        """[B, C, L] -> [B, S, 3 C F]: log magnitude, and real and imaginary part of the magnitude's power 0.3."""
        batch, margin = audio.shape[0], (self.config.fft_size - self.config.hop) // 2
        padded = F.pad(rearrange(audio, "b c l -> (b c) l").float(), (margin, margin))
        spectrum = torch.stft(
            padded,
            self.config.fft_size,
            self.config.hop,
            window=self.window,
            center=False,
            normalized=True,
            return_complex=True,
        )
        magnitude = spectrum.abs()
        turned = spectrum * (magnitude + 1e-4).pow(-0.7)
        features = torch.stack([magnitude.clamp_min(1e-4).log(), turned.real, turned.imag], 1)
        return rearrange(features, "(b c) n f s -> b s (c n f)", b=batch)


class ConvNeXtDecoder(nn.Module):
    """Latents [B, D, T] -> audio [B, C, T * hop * frames_per_code]."""

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(config.dim, config.width * config.frames_per_code)
        self.mix = FrameConv(config.width, config.width, kernel=7)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(config) for _ in range(config.decoder_layers)))
        self.norm = nn.LayerNorm(config.width)
        self.head = FourierHead(config, channels)

    def forward(self, latents: Tensor) -> Tensor:
        spread = rearrange(self.enter(latents.transpose(1, 2)), "b t (n w) -> b (t n) w", n=self.config.frames_per_code)
        return self.head(self.norm(self.blocks(self.mix(spread))))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then two pointwise layers, [B, S, W] -> [B, S, W]."""

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        layers = config.encoder_layers + config.decoder_layers
        self.depthwise = FrameConv(config.width, config.width, kernel=7, groups=config.width)
        self.norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, config.width * config.expansion)
        self.narrow = nn.Linear(config.width * config.expansion, config.width)
        self.scale = nn.Parameter(torch.full((config.width,), 1 / layers))

    def forward(self, hidden: Tensor) -> Tensor:
        update = self.narrow(F.gelu(self.widen(self.norm(self.depthwise(hidden)))))
        return hidden + self.scale * update


class FrameConv(nn.Conv1d):
    """A convolution over frames of [B, S, W], in fp32.

    bf16 autocast slows convolutions on CPUs manyfold, and these are a small share of the work: the pointwise layers are
    linear and profit from it.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups)

    def forward(self, frames: Tensor) -> Tensor:
        kind = frames.device.type
        with torch.autocast(kind, enabled=kind != "cpu" and torch.is_autocast_enabled(kind)):
            return super().forward(frames.transpose(1, 2).to(self.weight.dtype)).transpose(1, 2)


class FourierHead(nn.Module):
    """Frames [B, S, W] -> audio [B, C, S * hop]: magnitude and phase, inverse transform, overlap-add (Vocos)."""

    window: Tensor

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        self.project = nn.Linear(config.width, 2 * channels * (config.fft_size // 2 + 1))

    def forward(self, frames: Tensor) -> Tensor:
        magnitude, phase = rearrange(self.project(frames).float(), "b s (n c f) -> n (b c) s f", n=2, c=self.channels)
        # The bound stops one bad step from blowing up; exp(6) is far above full scale.
        spectrum = torch.polar(magnitude.clamp(max=6.0).exp(), phase)
        samples = torch.fft.irfft(spectrum, self.config.fft_size, norm="ortho") * self.window
        return rearrange(self._overlap_add(samples), "(b c) l -> b c l", c=self.channels)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Windowed frames [N, S, fft_size] -> [N, S * hop], divided by the sum of the squared windows."""
        size, hop, count = self.config.fft_size, self.config.hop, frames.shape[1]
        length = (count - 1) * hop + size
        squared = self.window.square().expand(1, count, -1)
        both = F.fold(
            torch.cat([frames, squared]).transpose(1, 2),
            output_size=(1, length),
            kernel_size=(1, size),
            stride=(1, hop),
        )[:, 0, 0]
        margin = (size - hop) // 2
        both = both[:, margin : length - margin]
        return both[:-1] / both[-1:].clamp_min(1e-3)
