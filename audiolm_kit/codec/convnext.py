"""The light codec body: ConvNeXt blocks at frame rate between a short-time Fourier transform and its inverse.

Every layer runs on frames instead of samples, so that a second of sound costs some hundred steps of the network where
SEANet takes ten thousand. Blocks after Liu et al. 2022 (ConvNeXt), Fourier head after Siuzdak 2023 (Vocos, section 3).
B batch, C channels, L samples, D latent width, T codec frames, F frequencies, W width, S spectral frames
(S = T * frames_per_code).
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.convnext_block import KERNEL, ConvNeXtBlock, FrameConv, beside
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.fourier_head import QUIETEST, FourierHead
from audiolm_kit.codec.stage import Stage, context, stateless


class ConvNeXtEncoder(nn.Module):
    """Audio [B, C, L] -> latents [B, D, T], L a multiple of ``hop * frames_per_code``."""

    window: Tensor

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        # Log magnitude says what is heard; the compressed complex value adds the phase.
        self.enter = FrameConv(3 * channels * (config.fft_size // 2 + 1), config.width, kernel=1)
        self.blocks = nn.Sequential(*(_block(config) for _ in range(config.encoder_layers)))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width * config.frames_per_code, config.dim)
        if config.linear:
            self.linear = nn.Linear(channels * config.bins * config.frames_per_code, config.dim)
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)

    def forward(self, audio: Tensor) -> Tensor:
        spectrum = self._spectrum(audio)
        joined = self._joined(self.norm(self.blocks(self.enter(spectrum))))
        latents = self.leave(joined).float()
        if self.config.linear:
            latents = latents + self.linear(self._log_magnitudes(spectrum)).float()
        return latents.transpose(1, 2)

    def log_magnitudes(self, audio: Tensor) -> Tensor:
        """Audio [B, C, L] -> what the linear way reads, [B, T, N C F]: the N spectral frames of each code frame."""
        return self._log_magnitudes(self._spectrum(audio))

    def _log_magnitudes(self, spectrum: Tensor) -> Tensor:
        """[B, S, 3 C F] -> [B, T, N C F]."""
        return self._joined(self._logs(spectrum))

    def _logs(self, spectrum: Tensor) -> Tensor:
        """[B, S, 3 C F] -> [B, S, C F]."""
        logs = rearrange(spectrum, "b s (c n f) -> n b s (c f)", n=3, f=self.config.bins)[0]
        return logs.clamp_min(QUIETEST)

    def _joined(self, frames: Tensor) -> Tensor:
        """[B, S, W] -> [B, T, N W]."""
        return rearrange(frames, "b (t n) w -> b t (n w)", n=self.config.frames_per_code)

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

    def stages(self) -> list[Stage]:
        """What streaming runs one after the other, from blocks of ``hop`` samples [B, C hop, S] to what ``leaves``."""
        around = math.ceil((self.config.fft_size - self.config.hop) / 2 / self.config.hop)
        blocks = [beside(block, self.config.width) for block in self.blocks]
        return [
            Stage(stateless(self._entering), kept=2 * around, late=around),
            *(Stage(stateless(block), kept=KERNEL - 1, late=KERNEL // 2) for block in blocks),
        ]

    def _entering(self, samples: Tensor) -> Tensor:
        """[B, C hop, S] -> [B, W', S]: what the blocks read and, beside it, what the linear way reads."""
        spectrum = self._spectrum(rearrange(samples, "b (c n) s -> b c (s n)", n=self.config.hop))
        ways = [self.enter(spectrum), self._logs(spectrum)] if self.config.linear else [self.enter(spectrum)]
        return torch.cat(ways, -1).transpose(1, 2)

    def leaves(self, frames: Tensor) -> Tensor:
        """What the stages give, [B, W', S], S a multiple of ``frames_per_code`` -> latents [B, D, T]."""
        hidden, logs = frames.transpose(1, 2).tensor_split([self.config.width], -1)
        latents = self.leave(self._joined(self.norm(hidden))).float()
        if self.config.linear:
            latents = latents + self.linear(self._joined(logs)).float()
        return latents.transpose(1, 2)


class ConvNeXtDecoder(nn.Module):
    """Latents [B, D, T] -> audio [B, C, T * hop * frames_per_code]."""

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(config.dim, config.width * config.frames_per_code)
        self.mix = FrameConv(config.width, config.width, kernel=KERNEL)
        self.blocks = nn.Sequential(*(_block(config) for _ in range(config.decoder_layers)))
        self.norm = nn.LayerNorm(config.width)
        self.head = FourierHead(config, channels)
        if config.linear:
            said = 2 if config.linear_noise else 1  # log magnitudes and, behind those of a frame, tonal shares
            self.linear = nn.Linear(config.dim, said * channels * config.bins * config.frames_per_code)

    def forward(self, latents: Tensor, draws: int = 0) -> Tensor:
        """See `FourierHead` for ``draws``."""
        return self.head(self.frames(latents), draws)

    def frames(self, latents: Tensor) -> Tensor:
        """Latents [B, D, T] -> what the head reads, [B, S, W']: of the blocks, and what the linear way says."""
        spread = self._spread(latents)
        hidden, beside = spread[..., : self.config.width], spread[..., self.config.width :]
        return torch.cat([self.norm(self.blocks(self.mix(hidden))), beside], -1)

    def _spread(self, latents: Tensor) -> Tensor:
        """[B, D, T] -> [B, S, W']."""
        ways = [self.enter, self.linear] if self.config.linear else [self.enter]
        count, given = self.config.frames_per_code, latents.transpose(1, 2)
        return torch.cat([rearrange(way(given), "b t (n w) -> b (t n) w", n=count) for way in ways], -1)

    def stages(self) -> list[Stage]:
        """What streaming runs one after the other: the convolutions and, for its overlap, the head look around."""
        size, hop = self.config.fft_size, self.config.hop
        *layers, norm = (beside(layer, self.config.width) for layer in (self.mix, *self.blocks, self.norm))
        return [
            Stage(stateless(lambda latents: self._spread(latents).transpose(1, 2)), hop=self.config.frames_per_code),
            *(Stage(stateless(layer), kept=KERNEL - 1, late=KERNEL // 2) for layer in layers),
            Stage(lambda x, state: self.head.carried(norm(x).transpose(1, 2), state)),
            *self.head.filtering(),
            Stage(stateless(self.head.refined), kept=2 * self.head.reach, late=self.head.reach),
            Stage(
                stateless(self.head.waveform),
                kept=math.ceil(size / hop) - 1,
                late=(size - hop) // 2,
                hop=hop,
            ),
        ]

    @property
    def context(self) -> tuple[int, int]:
        """Code frames to the left and right that a frame's audio depends on."""
        return context(self.stages())


def _block(config: ConvNeXtConfig) -> ConvNeXtBlock:
    layers = config.encoder_layers + config.decoder_layers
    return ConvNeXtBlock(config.width, config.expansion * config.width, scale=1 / layers)
