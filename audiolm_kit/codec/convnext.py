"""The light codec body: ConvNeXt blocks at frame rate between a short-time Fourier transform and its inverse.

Every layer runs on frames instead of samples, so that a second of sound costs some hundred steps of the network where
SEANet takes ten thousand. Blocks after Liu et al. 2022 (ConvNeXt), Fourier head after Siuzdak 2023 (Vocos, section 3).
B batch, C channels, L samples, D latent width, T codec frames, F frequencies, W width, S spectral frames
(S = T * frames_per_code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.convnext_block import KERNEL, ConvNeXtBlock, FrameConv, beside
from audiolm_kit.codec.rice import mean_log
from audiolm_kit.codec.stage import Stage, State, context, stateless


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
    noise: bool = False
    """The decoder says for each frame and frequency how much of it is noise, an idea of DDSP (arXiv:2001.04643): what
    codes cannot and ears need not tell apart, such as the drops of rain, is drawn and not copied."""
    linear: bool = False
    """A straight way beside the blocks, from log magnitudes to latents and back. Training starts it as the principal
    components of what is trained on, and the codebooks as the k-means of those (``begin``), so that the blocks have to
    learn only what the best linear codec leaves: pitch, which blocks alone find after very many steps, is there from
    the first one."""
    linear_noise: bool = False
    """With noise, the straight way also says how much of each magnitude that is; it begins as what is likeliest, given
    what codes leave out of magnitudes. Of rain, codes say how loud it is in the mean, which alone is a hum. What codes
    are too few to say of other sounds becomes noise, too: listen to both (recipes/sound_events, ``codecs``)."""
    refine: int = field(default=0, compare=False)
    """Rounds of Griffin and Lim's algorithm that decoding ends with: phases that fit the decoder's magnitudes. With
    noise they start from phases that are noise, and the decoder's own are left out. Training leaves all of it out, and
    codes mean the same with any number: no part of the fingerprint."""

    @property
    def bins(self) -> int:
        """Frequencies of a spectral frame of one channel."""
        return self.fft_size // 2 + 1

    def __post_init__(self) -> None:
        if self.fft_size < self.hop or (self.fft_size - self.hop) % 2:
            wanted = f"hop ({self.hop}) plus an even number, so that frames overlap evenly"
            raise ValueError(f"fft_size is {self.fft_size}, wanted {wanted}")
        if self.linear_noise and not (self.linear and self.noise):
            raise ValueError("linear_noise is what a linear way says of noise: set linear and noise, too")
        if self.refine < 0:
            raise ValueError(f"refine is {self.refine}, wanted 0 rounds or more")


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


QUIETEST = math.log(1e-3)
"""Of a log magnitude: some 70 dB under full scale."""
MOSTLY_TONAL = 2.0
"""The logit of the tonal share that a linear way begins with: 88 % of the power."""
NOISE_FRAMES = 2048
"""Spectral frames until the noise repeats itself."""


class FourierHead(nn.Module):
    """Frames [B, S, W'] -> audio [B, C, S * hop]: magnitude and phase, inverse transform, overlap-add (Vocos).

    With ``noise``, a share of each magnitude has the predicted phase and the rest is complex noise. That stands in a
    table, so that decoding the same codes gives the same samples, in one piece or in many.
    """

    window: Tensor
    table: Tensor

    def __init__(self, config: ConvNeXtConfig, channels: int) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        size = channels * (config.fft_size // 2 + 1)
        self.project = nn.Linear(config.width, (3 if config.noise else 2) * size)
        if config.noise:
            generator = torch.Generator().manual_seed(0)
            table = torch.randn(2, NOISE_FRAMES, config.fft_size // 2 + 1, generator=generator)
            self.register_buffer("table", table / 2**0.5, persistent=False)  # of variance 1
            with torch.no_grad():  # quiet at first, and a quarter of it tonal: how loud is learned before which phase
                self.project.bias[:size] -= 3.0
                self.project.bias[2 * size :] -= 1.0
        if config.linear:
            with torch.no_grad():  # the linear way alone says how loud, and what is loud varies little
                self.project.weight[:size] = 0.0
                self.project.bias[:size] = 0.0
                self.project.weight[2 * size :] = 0.0
                self.project.bias[2 * size :] = 0.0 if config.linear_noise else MOSTLY_TONAL

    def forward(self, frames: Tensor, draws: int = 0) -> Tensor:
        """Frames [B, S, W] -> audio [B, C, S * hop]; with ``draws``, as many of each item, [draws * B, C, S * hop].

        Their noise is drawn afresh, for training; without ``draws`` (0) it is that of decoding.
        """
        if not (draws and self.config.noise):
            return self.waveform(self.refined(self.carried(frames, None)[0]))
        parts, rows = self._parts(frames), len(frames)
        starts = torch.randint(NOISE_FRAMES, (draws, rows), device=frames.device)
        return torch.cat([self.waveform(self._spectrum(parts, each)) for each in starts])

    def log_magnitudes(self, frames: Tensor) -> Tensor:
        """Frames [B, S, W'] -> the logarithms of the magnitudes that are turned into sound, [B, C, S, F].

        With noise they vary as it does: those of two renditions, [2 B, C, S, F], their noise drawn afresh.
        """
        parts, rows = self._parts(frames), len(frames)
        if not self.config.noise:
            return parts[0]
        starts = torch.randint(NOISE_FRAMES, (2, rows), device=frames.device)
        made = torch.cat([self._spectrum(parts, each) for each in starts])
        power = rearrange(made, "b (n c f) s -> n b c s f", n=2, f=self.config.bins).square().sum(0)
        return (power + 1e-14).log() / 2

    def measured(self, audio: Tensor) -> Tensor:
        """Audio [B, C, S * hop] -> what ``log_magnitudes`` would be of a head that made just this, [B, C, S, F].

        Bounded where nothing is heard any more.
        """
        return self._analysed(audio.float()).abs().clamp_min(1e-7).log().clamp_min(QUIETEST)

    def carried(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Frames [B, S, W'] -> spectra [B, 2 C F, S], going on in the noise where the frames before have left it.

        Where they are to be refined, their magnitudes stand behind them, C F more, and with noise in their own place
        that noise alone.
        """
        start = frames.new_zeros(1, dtype=torch.long) if state is None else state[0]
        parts, starts = self._parts(frames), start.expand(len(frames))
        spectrum = self._spectrum(parts, starts)
        if self.config.refine and not self.training:
            flat = rearrange(spectrum, "b (n cf) s -> n b cf s", n=2)
            begun = spectrum
            if self.config.noise:
                begun = rearrange(self.table[:, self._places(parts, starts)], "n b c s f -> b (n c f) s")
            spectrum = torch.cat([begun, flat.square().sum(0).sqrt()], 1)
        return spectrum, (start + frames.shape[1],)

    @property
    def reach(self) -> int:
        """How many frames on either side refining takes into account."""
        return self.config.refine * (math.ceil(self.config.fft_size / self.config.hop) - 1)

    def refined(self, spectrum: Tensor) -> Tensor:
        """Spectra and their magnitudes [B, 3 C F, S] -> spectra [B, 2 C F, S] of those magnitudes that fit each other.

        Each round turns them into sound and that into spectra, and keeps the phases (Griffin and Lim 1984).
        """
        if not self.config.refine or self.training:
            return spectrum
        real, imaginary, magnitude = rearrange(spectrum, "b (n c f) s -> n (b c) s f", n=3, c=self.channels)
        heard = torch.complex(real, imaginary)
        for _ in range(self.config.refine):
            fitted = magnitude * heard / heard.abs().clamp_min(1e-9)
            heard = self._analysed(self._synthesised(fitted))
        fitted = magnitude * heard / heard.abs().clamp_min(1e-9)
        return rearrange(torch.view_as_real(fitted), "(b c) s f n -> b (n c f) s", c=self.channels)

    def _synthesised(self, spectrum: Tensor) -> Tensor:
        """Complex [N, S, F] -> samples [N, S * hop]."""
        return self._overlap_add(torch.fft.irfft(spectrum, self.config.fft_size, norm="ortho") * self.window)

    def _analysed(self, samples: Tensor) -> Tensor:
        """Samples [..., S * hop] -> complex [..., S, F]."""
        margin = (self.config.fft_size - self.config.hop) // 2
        frames = F.pad(samples, (margin, margin)).unfold(-1, self.config.fft_size, self.config.hop)
        return torch.fft.rfft(frames * self.window, norm="ortho")

    def waveform(self, spectrum: Tensor) -> Tensor:
        """Spectra [B, 2 C F, S], whatever stands behind them, -> audio [B, C, S * hop]."""
        spectrum = spectrum[:, : 2 * self.channels * self.config.bins]
        real, imaginary = rearrange(spectrum, "b (n c f) s -> n (b c) s f", n=2, c=self.channels)
        return rearrange(self._synthesised(torch.complex(real, imaginary)), "(b c) l -> b c l", c=self.channels)

    def _parts(self, frames: Tensor) -> Tensor:
        """Log magnitude, phase and, with noise, the logit of the tonal share: [2 or 3, B, C, S, F]."""
        hidden, beside = frames, None
        if self.config.linear:
            hidden, beside = frames.tensor_split([self.config.width], -1)
        parts = rearrange(self.project(hidden).float(), "b s (n c f) -> n b c s f", c=self.channels, f=self.config.bins)
        if beside is None:
            return parts
        loud, *tonal = rearrange(beside.float(), "b s (p c f) -> p b c s f", c=self.channels, f=self.config.bins)
        if not tonal:
            return torch.cat([(parts[0] + loud)[None], parts[1:]])
        share = parts[2] + tonal[0]
        # What the way says is a mean of logarithms, and noise lowers that below the logarithm of the power.
        return torch.stack([parts[0] + loud - mean_log(share.sigmoid()), parts[1], share])

    def _spectrum(self, parts: Tensor, starts: Tensor) -> Tensor:
        """The spectrum under the noise from these places of the table on, one [B] for each item: [B, 2 C F, S]."""
        magnitude, phase = self._magnitude(parts), parts[1]
        spectrum = torch.stack([phase.cos(), phase.sin()])
        if self.config.noise:
            places = self._places(parts, starts)
            # Shares of the power, which add up to 1; their roots by way of the logarithm, as that of 0 has no gradient.
            tonal, noisy = (F.logsigmoid(sign * parts[2]).mul(0.5).exp() for sign in (1, -1))
            spectrum = tonal * spectrum + noisy * self.table[:, places]
        spectrum = magnitude * spectrum
        return rearrange(spectrum, "n b c s f -> b (n c f) s")

    def _places(self, parts: Tensor, starts: Tensor) -> Tensor:
        """Where in the table the noise of each frame stands, [B, C, S]; channels have noise of their own."""
        channel = torch.arange(self.channels, device=starts.device) * (NOISE_FRAMES // self.channels)
        steps = torch.arange(parts.shape[3], device=starts.device)
        return (starts[:, None, None] + channel[:, None] + steps) % NOISE_FRAMES

    def _magnitude(self, parts: Tensor) -> Tensor:
        """[B, C, S, F]; the bound stops one bad step from blowing up, and is far above full scale."""
        return parts[0].clamp(max=6.0).exp()

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
