"""NeuralCodec: a body (SEANet or ConvNeXt) around a residual quantiser.

B batch, C channels, L samples, D latent width, K codebooks, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.beginning import begin_linear, begin_noise
from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.losses import energy_distance
from audiolm_kit.codec.rvq import Codebook, QuantizerConfig, ResidualQuantizer
from audiolm_kit.codec.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder
from audiolm_kit.codec.segments import Scaled, Segments, cut_into
from audiolm_kit.protocols import check_audio

NOISE_BEGINS = 8192
"""Code frames that shares of noise are found on, at most but for a rest of an item."""
LEVEL = 0.1
"""The root mean square (-20 dBFS) at which a codec that normalises decodes codes whose scales nobody knows."""


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
    split_channels: bool = False
    """Stereo by a codec of one channel: left and right are coded each by itself, level by level in turns (code 2i is
    left's level i, 2i + 1 right's), so that a codec has twice the codebooks of its quantizer."""
    normalize: bool = False
    """Every segment (the whole sound where there are none) is scaled to a root mean square of 1 before it is encoded,
    as in EnCodec's 48 kHz model; ``encode_scaled`` tells what each was divided by."""
    segment: float = 0.0
    """Seconds of the segments that a sound is cut into, each coded for itself (0: it is coded as one)."""
    overlap: float = 0.0
    """Share of a segment that is heard in the next one as well: there the one fades into the other."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ValueError(f"channels is {self.channels}, wanted 1 (mono) or 2 (stereo)")
        if self.split_channels and self.channels != 2:
            raise ValueError(
                f"split_channels codes left and right each by itself, but channels is {self.channels}: give 2"
            )
        if not 0 <= self.peak <= 1:
            raise ValueError(f"peak is {self.peak}, wanted 0 (leave levels alone) to 1 (full scale)")
        if self.normalize and self.peak:
            raise ValueError(f"normalize is set and so is peak, {self.peak}: scale sounds by one of them")
        if self.quantizer.dim != self.latent_dim:
            raise ValueError(
                f"quantizer.dim is {self.quantizer.dim}, wanted {self.body}.dim, {self.latent_dim}: set both alike"
            )
        _ = self.segments  # refuses what cannot be cut

    @property
    def latent_dim(self) -> int:
        """D of the chosen body."""
        return self.seanet.dim if self.body == "seanet" else self.convnext.dim

    @property
    def frame(self) -> int:
        """Samples that the body makes one frame of codes of."""
        if self.body == "seanet":
            return self.seanet.hop
        return self.convnext.hop * self.convnext.frames_per_code

    @property
    def hop(self) -> int:
        """Samples that each frame of codes brings: those of a frame, less what segments say twice, rounded down."""
        return self.frame if self.segments is None else self.segments.hop

    @property
    def segments(self) -> Segments | None:
        """How sounds are cut; None where they are not."""
        return cut_into(self.segment, self.overlap, self.sample_rate, self.frame)

    @property
    def parts(self) -> int:
        """Sounds that each sound is coded as: its channels where they are split, else itself."""
        return self.channels if self.split_channels else 1


class Reconstruction(NamedTuple):
    """One pass through the whole codec."""

    audio: Tensor
    """[B, C, L], as long as the input; of several renditions, [draws * B, C, L], each after the other."""
    codes: Tensor
    """[B, K, T]."""
    commitment: Tensor
    """[], how far the latents are from their codebook entries."""
    magnitude: Tensor
    """[], how far the decoder's log magnitudes are from those of the sound, in nats, as a ``losses.energy_distance``
    where they vary; 0 where it has none (SEANet)."""


class NeuralCodec(nn.Module):
    """Waveform to codes and back; satisfies ``protocols.Codec``.

    A sound of L samples has ceil(L / hop) frames, and T frames decode to T * hop samples. Where sounds are cut into
    segments that overlap, these are bounds: at most ceil(L / hop) frames, and at least T * hop samples. So whoever
    makes ceil(L / hop) frames and keeps the first L samples of their sound has the length that he wants.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: SEANetEncoder | ConvNeXtEncoder
        self.decoder: SEANetDecoder | ConvNeXtDecoder
        channels = config.channels // config.parts
        if config.body == "seanet":
            self.encoder = SEANetEncoder(config.seanet, channels)
            self.decoder = SEANetDecoder(config.seanet, channels)
        else:
            self.encoder = ConvNeXtEncoder(config.convnext, channels)
            self.decoder = ConvNeXtDecoder(config.convnext, channels)
        self.quantizer = ResidualQuantizer(config.quantizer)

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def num_codebooks(self) -> int:
        """K, over both channels where they are split."""
        return self.config.quantizer.num_codebooks * self.config.parts

    @property
    def codebook_size(self) -> int:
        return self.config.quantizer.codebook_size

    @property
    def entries(self) -> Tensor:
        """What each code stands for among the latents, [K, V, D], left's and right's by turns as in ``encode``."""
        books = torch.stack([cast(Codebook, book).embed for book in self.quantizer.books])
        return books.repeat_interleave(self.config.parts, 0)

    @property
    def hop(self) -> int:
        """Samples of one frame; with overlapping segments the fewest that a frame brings, see above."""
        return self.config.hop

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop

    @property
    def can_stream(self) -> bool:
        """Whether codes can be decoded piece by piece (`codec.streaming`)."""
        averages = self.config.body == "seanet" and self.config.seanet.norm == "time_group_norm"
        return not averages and self.config.segments is None

    @property
    def level(self) -> float:
        """What decoded audio is multiplied by where its own scale is not known."""
        return LEVEL if self.config.normalize else 1.0

    @property
    def draws_noise(self) -> bool:
        """Whether the decoder adds noise: then it is trained on two renditions of each item, see ``forward``."""
        return self.config.body == "convnext" and self.config.convnext.noise

    def forward(
        self, audio: Tensor, num_codebooks: Tensor | None = None, quantize: bool = True, draws: int = 0
    ) -> Reconstruction:
        """Audio [B, C, L] there and back, for training; as one segment, however long it is.

        Args:
            num_codebooks: [B], how many codebooks each item uses; all where None. Where channels are split, the two of
                a level go together: an odd number is rounded up.
            quantize: False leaves the latents as they are (a warm-up for the body); codes and commitment are zeros.
            draws: with a decoder that adds noise, renditions of each item, their noise drawn afresh; 0: as ``decode``.
        """
        loudness = self._loudness(audio)
        given = self.body_input(audio / loudness)
        latents = self.encoder(given)
        if quantize:
            levels = None if num_codebooks is None else self._levels(num_codebooks)
            latents, codes, commitment = self.quantizer(latents, levels)
            codes = self._by_turns(codes)
        else:
            codes = torch.zeros(len(audio), self.num_codebooks, latents.shape[2], dtype=torch.long, device=audio.device)
            commitment = latents.new_zeros(())
        magnitude = latents.new_zeros(())
        if isinstance(self.decoder, ConvNeXtDecoder):
            frames, head = self.decoder.frames(latents), self.decoder.head
            made = head(frames, draws)
            magnitude = energy_distance(F.l1_loss, head.log_magnitudes(frames), head.measured(given))
        else:
            made = self.decoder(latents)
        made = self.with_channels(made)[..., : audio.shape[-1]] * loudness.repeat(len(made) // len(given) or 1, 1, 1)
        return Reconstruction(made, codes, commitment, magnitude)

    def begin(self, audio: Tensor) -> None:
        """Before training, start what has a best start, from audio [B, C, L] such as is trained on.

        That is the linear way (principal components) and, on what comes of it, the codebooks (k-means); with
        ``convnext.linear_noise`` also how much is noise, on what these leave out.

        Raises:
            ValueError: the body has none (``convnext.linear``), or there is too little audio.
        """
        if not (isinstance(self.encoder, ConvNeXtEncoder) and isinstance(self.decoder, ConvNeXtDecoder)):
            raise ValueError(f"body {self.config.body} has no linear way: leave begin out")
        given = self.normalised(audio)
        begin_linear(self.encoder, self.decoder, given)
        with torch.no_grad():
            self.quantizer.begin(self.encoder(given))
            if self.config.convnext.linear_noise:
                some = given[: max(1, round(NOISE_BEGINS / (given.shape[-1] / self.hop)))]
                latents = self.quantizer.decode(self.quantizer.encode(self.encoder(some)))
                begin_noise(self.decoder, latents, self.encoder.log_magnitudes(some))

    def encode(self, audio: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Audio [B, C, L] -> codes [B, K, T] with T = ceil(L / hop); the last frame is filled up with silence.

        Where sounds are cut into segments, their frames follow one another; T is then the sum of theirs.

        Raises:
            ValueError: not three axes, another number of channels, no samples, or a ``num_codebooks`` out of range or,
                where channels are split, odd.
        """
        return self.encode_scaled(audio, num_codebooks).codes

    def encode_steady(self, audio: Tensor, hold: float) -> Tensor:
        """As ``encode``, but a code changes from one frame to the next only where that pays: see `steady_codes`.

        Of the whole of each sound; streamed encoding looks at each frame alone.

        Raises:
            ValueError: as ``encode``, and for a negative ``hold``.
        """
        return self.encode_scaled(audio, hold=hold).codes

    @torch.no_grad()
    def encode_scaled(self, audio: Tensor, num_codebooks: int | None = None, hold: float = 0.0) -> Scaled:
        """As ``encode``, with the scales that ``decode`` takes to make the sound as loud as it was.

        Args:
            hold: as ``encode_steady``; 0 looks at each frame alone.

        Raises:
            ValueError: as ``encode``.
        """
        num_codebooks = self.checked(audio, num_codebooks)
        given, cut = self.scaled(audio), self.config.segments
        codes, scales = [], []
        for begin, end in [(0, audio.shape[-1])] if cut is None else cut.bounds(audio.shape[-1]):
            piece = given[..., begin:end]
            scales.append(self._loudness(piece))
            codes.append(self.codes(self.encoder(self.body_input(piece / scales[-1])), num_codebooks, hold))
        return Scaled(torch.cat(codes, -1), torch.cat(scales, -1)[:, 0])

    def scaled(self, audio: Tensor) -> Tensor:
        """Each item [C, L] of a batch at the codec's own peak; near-silence is raised by at most 60 dB.

        Its channels are scaled alike, so that the balance between them stays.
        """
        if not self.config.peak:
            return audio
        return audio * (self.config.peak / audio.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-3))

    @torch.no_grad()
    def decode(self, codes: Tensor, scales: Tensor | None = None) -> Tensor:
        """Codes [B, K', T] of the first K' <= K codebooks -> audio [B, C, T * hop], or longer: see `NeuralCodec`.

        Args:
            scales: [B, segments], those of ``encode_scaled``; without them a codec that normalises makes all segments
                equally loud, at `LEVEL`.

        Raises:
            ValueError: more codebooks than this codec has, no frames, codes outside [0, codebook_size), where channels
                are split, an odd number of codebooks, or scales of another shape.
        """
        if codes.numel() == 0:
            raise ValueError(self._wanted(codes))
        self.check(codes)
        cut = self.config.segments
        sizes = [codes.shape[2]] if cut is None else cut.sizes(codes.shape[2])
        if scales is None:
            scales = torch.full((len(codes), len(sizes)), self.level, device=codes.device)
        scales = scales.to(next(self.parameters()))
        if scales.shape != (len(codes), len(sizes)):
            raise ValueError(f"scales are of shape {list(scales.shape)}, wanted {[len(codes), len(sizes)]}")
        pieces = [
            self.with_channels(self.decoder(self.latents(piece)))[..., : piece.shape[2] * self.config.frame]
            * scale[:, None, None]
            for piece, scale in zip(codes.split(sizes, -1), scales.unbind(1), strict=True)
        ]
        return pieces[0] if cut is None else cut.joined(pieces)

    # --- the ends of encoder and decoder, for those who run them themselves (codec.streaming) -------------------------

    def checked(self, audio: Tensor, num_codebooks: int | None) -> int:
        """How many codebooks to encode audio with, if that can be done."""
        count = check_audio(self, audio, num_codebooks)
        self._check_turns(count)
        return count

    def normalised(self, audio: Tensor) -> Tensor:
        """Audio [B, C, L] as the encoder reads it in training: one segment and, where loudness is coded apart, at 1."""
        return self.body_input(audio / self._loudness(audio))

    def body_input(self, audio: Tensor) -> Tensor:
        """[B, C, L] -> what the encoder reads: split channels as items of their own, and whole frames."""
        audio = rearrange(audio, "b (p c) l -> (b p) c l", p=self.config.parts)
        # SEANet pads inside its convolutions as the encodec package does, so its input stays as it is.
        missing = 0 if self.config.body == "seanet" else -audio.shape[-1] % self.config.frame
        return F.pad(audio, (0, missing))

    def codes(self, latents: Tensor, num_codebooks: int, hold: float = 0.0) -> Tensor:
        """What the encoder gives, [B, D, T] or [B * C, D, T] where channels are split -> codes [B, K', T]."""
        return self._by_turns(self.quantizer.encode(latents, num_codebooks // self.config.parts, hold))

    def check(self, codes: Tensor) -> None:
        """Refuse what cannot be decoded; no frames at all are fine.

        Raises:
            ValueError: as ``decode``.
        """
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.num_codebooks or len(codes) == 0:
            raise ValueError(self._wanted(codes))
        self._check_turns(codes.shape[1])
        low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes reach from {low} to {high}, wanted 0 to {self.codebook_size - 1}")

    def latents(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] -> what the decoder reads, [B, D, T], or [B * C, D, T] where channels are split."""
        return self.quantizer.decode(rearrange(codes, "b (k c) t -> (b c) k t", c=self.config.parts))

    def with_channels(self, audio: Tensor) -> Tensor:
        """What the decoder gives, [B, C, L] or [B * C, 1, L] -> [B, C, L]."""
        return rearrange(audio, "(b p) c l -> b (p c) l", p=self.config.parts)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _loudness(self, audio: Tensor) -> Tensor:
        """What audio [B, C, L] is divided by before it is encoded, [B, 1, 1]: the root mean square of its channels'
        mean, or 1."""
        if not self.config.normalize:
            return audio.new_ones(len(audio), 1, 1)
        return 1e-8 + audio.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True).sqrt()

    def _by_turns(self, codes: Tensor) -> Tensor:
        """The quantiser's codes [B, K, T] or, where channels are split, [B * C, K / C, T] -> [B, K, T]."""
        return rearrange(codes, "(b c) k t -> b (k c) t", c=self.config.parts)

    def _levels(self, num_codebooks: Tensor) -> Tensor:
        """How many codebooks of its own each item of the body's batch uses, [B] -> [B] or [B * C]."""
        parts = self.config.parts
        return num_codebooks.add(parts - 1).div(parts, rounding_mode="floor").repeat_interleave(parts)

    def _check_turns(self, num_codebooks: int) -> None:
        if num_codebooks % self.config.parts:
            raise ValueError(
                f"{num_codebooks} codebooks of a codec that codes left and right by turns: give an even number of them"
            )

    def _wanted(self, codes: Tensor) -> str:
        return f"codes are of shape {list(codes.shape)}, wanted [B, 1 to {self.num_codebooks}, at least 1]"
