"""NeuralCodec: a body (SEANet or ConvNeXt) around a residual quantiser.

B batch, C channels, L samples, D latent width, K codebooks, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.convnext import ConvNeXtConfig, ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.rvq import QuantizerConfig, ResidualQuantizer
from audiolm_kit.codec.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder


@dataclass(frozen=True)
class CodecConfig:
    """The architecture of a codec."""

    sample_rate: int = 16000
    channels: int = 1
    peak: float = 0.0
    """Every sound is scaled to this peak before it is encoded, so that codes carry no level (0: left as it is)."""
    body: Literal["seanet", "convnext"] = "convnext"
    """``seanet``: weight-compatible with the encodec package. ``convnext``: runs at frame rate, for small machines."""
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    convnext: ConvNeXtConfig = field(default_factory=ConvNeXtConfig)
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(dim=64))

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ValueError(f"channels is {self.channels}, wanted 1 (mono) or 2 (stereo)")
        if not 0 <= self.peak <= 1:
            raise ValueError(f"peak is {self.peak}, wanted 0 (leave levels alone) to 1 (full scale)")
        if self.quantizer.dim != self.latent_dim:
            raise ValueError(
                f"quantizer.dim is {self.quantizer.dim}, wanted {self.body}.dim, {self.latent_dim}: set both alike"
            )

    @property
    def latent_dim(self) -> int:
        """D of the chosen body."""
        return self.seanet.dim if self.body == "seanet" else self.convnext.dim

    @property
    def hop(self) -> int:
        """Samples of one frame of codes."""
        if self.body == "seanet":
            return self.seanet.hop
        return self.convnext.hop * self.convnext.frames_per_code


class Reconstruction(NamedTuple):
    """One pass through the whole codec."""

    audio: Tensor
    """[B, C, L], as long as the input."""
    codes: Tensor
    """[B, K, T]."""
    commitment: Tensor
    """[], how far the latents are from their codebook entries."""


class NeuralCodec(nn.Module):
    """Waveform to codes and back; satisfies ``protocols.Codec``."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.body == "seanet":
            self.encoder = SEANetEncoder(config.seanet, config.channels)
            self.decoder = SEANetDecoder(config.seanet, config.channels)
        else:
            self.encoder = ConvNeXtEncoder(config.convnext, config.channels)
            self.decoder = ConvNeXtDecoder(config.convnext, config.channels)
        self.quantizer = ResidualQuantizer(config.quantizer)

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def num_codebooks(self) -> int:
        return self.config.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        return self.config.quantizer.codebook_size

    @property
    def hop(self) -> int:
        """Samples of one frame."""
        return self.config.hop

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop

    def forward(self, audio: Tensor, num_codebooks: Tensor | None = None, quantize: bool = True) -> Reconstruction:
        """Audio [B, C, L] there and back, for training.

        Args:
            num_codebooks: [B], how many codebooks each item uses; all where None.
            quantize: False leaves the latents as they are (a warm-up for the body); codes and commitment are zeros.
        """
        latents = self.encoder(self._whole_frames(audio))
        if quantize:
            latents, codes, commitment = self.quantizer(latents, num_codebooks)
        else:
            codes = torch.zeros(len(audio), self.num_codebooks, latents.shape[2], dtype=torch.long, device=audio.device)
            commitment = latents.new_zeros(())
        return Reconstruction(self.decoder(latents)[..., : audio.shape[-1]], codes, commitment)

    @torch.no_grad()
    def encode(self, audio: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Audio [B, C, L] -> codes [B, K, T] with T = ceil(L / hop); the last frame is filled up with silence.

        Raises:
            ValueError: not three axes, another number of channels, no samples, or a ``num_codebooks`` out of range.
        """
        if audio.dim() != 3 or audio.shape[1] != self.channels:
            raise ValueError(f"audio is of shape {list(audio.shape)}, wanted [B, {self.channels}, L]: see audio.fit")
        if audio.numel() == 0:
            raise ValueError(f"audio of shape {list(audio.shape)} has no samples: give at least one")
        if num_codebooks is not None and not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks is {num_codebooks}, this codec has 1 to {self.num_codebooks}")
        return self.quantizer.encode(self.encoder(self._whole_frames(self.scaled(audio))), num_codebooks)

    def scaled(self, audio: Tensor) -> Tensor:
        """Each item [C, L] of a batch at the codec's own peak; near-silence is raised by at most 60 dB."""
        if not self.config.peak:
            return audio
        return audio * (self.config.peak / audio.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-3))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] of the first K' <= K codebooks -> audio [B, C, T * hop].

        Raises:
            ValueError: more codebooks than this codec has, no frames, or codes outside [0, codebook_size).
        """
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.num_codebooks or codes.numel() == 0:
            raise ValueError(
                f"codes are of shape {list(codes.shape)}, wanted [B, 1 to {self.num_codebooks}, at least 1]"
            )
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes reach from {low} to {high}, wanted 0 to {self.codebook_size - 1}")
        return self.decoder(self.quantizer.decode(codes))[..., : codes.shape[2] * self.hop]

    def _whole_frames(self, audio: Tensor) -> Tensor:
        """Silence at the end up to a whole number of frames."""
        # SEANet pads inside its convolutions as the encodec package does, so its input stays as it is.
        missing = 0 if self.config.body == "seanet" else -audio.shape[-1] % self.hop
        return F.pad(audio, (0, missing))
