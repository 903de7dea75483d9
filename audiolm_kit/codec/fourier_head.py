"""The head of the light body: from hidden frames to magnitudes and phases, and by their inverse transform to sound.

After Siuzdak 2023 (Vocos, section 3). B batch, C channels, S spectral frames, F frequencies, M maps, W' width of what a
frame is told: hidden, and beside it what a linear way says.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.postfilter import DRAWS, MAPS, Postfilter
from audiolm_kit.codec.rice import mean_log
from audiolm_kit.codec.stage import Stage, State, stateless

QUIETEST = math.log(1e-3)
"""Of a log magnitude: some 70 dB under full scale."""
MOSTLY_TONAL = 2.0
"""The logit of the tonal share that a linear way begins with: 88 % of the power."""
LOUDEST = 6.0
"""Of a log magnitude: far above full scale."""
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
            self.register_buffer("table", noise_table(config), persistent=False)
            with torch.no_grad():  # quiet at first, and a quarter of it tonal: how loud is learned before which phase
                self.project.bias[:size] -= 3.0
                self.project.bias[2 * size :] -= 1.0
        if config.postfilter:
            self.postfilter = Postfilter(config.width, channels, config.bins, config.postfilter)
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
            spectrum = self.carried(frames, None)[0]
            for stage in self.filtering():
                spectrum = stage.network(spectrum, None)[0]
            return self.waveform(self.refined(spectrum))
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
        that noise alone. With a postfilter, what that reads (see ``filtering``).
        """
        start = frames.new_zeros(1, dtype=torch.long) if state is None else state[0]
        parts, starts = self._parts(frames), start.expand(len(frames))
        if self.config.postfilter:
            drawn = torch.cat([self._drawn(parts, starts), self._drawn(parts, starts + NOISE_FRAMES // 2)])
            read = torch.cat([drawn, parts[:1], self._told(frames)])
            return rearrange(read, "n b c s f -> b (n c f) s"), (start + frames.shape[1],)
        spectrum = self._spectrum(parts, starts, self.training)
        if self.config.refine and not self.training:
            flat = rearrange(spectrum, "b (n cf) s -> n b cf s", n=2)
            begun = spectrum
            if self.config.noise:
                begun = rearrange(self.table[:, self._places(parts, starts)], "n b c s f -> b (n c f) s")
            spectrum = torch.cat([begun, flat.square().sum(0).sqrt()], 1)
        return spectrum, (start + frames.shape[1],)

    def filtering(self) -> list[Stage]:
        """The stage between ``carried`` and ``refined``: the postfilter, where there is one."""
        if not self.config.postfilter:
            return []
        return [Stage(stateless(self._filtered), kept=2 * self.postfilter.reach, late=self.postfilter.reach)]

    def _filtered(self, read: Tensor) -> Tensor:
        """What ``carried`` gives -> spectra [B, 2 C F, S] of phases that are noise and, to be refined, magnitudes."""
        parts = rearrange(read, "b (n c f) s -> n b c s f", c=self.channels, f=self.config.bins)
        begun, noise, loud, told = parts.split([2, DRAWS, 1, MAPS])
        magnitude = _heard(self._postfiltered(loud[0], told, noise))
        begun = begun / begun.square().sum(0).sqrt().clamp_min(1e-9)
        made = torch.cat([begun, magnitude[None]]) if self.config.refine else magnitude * begun
        return rearrange(made, "n b c s f -> b (n c f) s")

    def drawn_magnitudes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, S, W'] -> log magnitudes as the linear way says them and as the postfilter draws them.

        [B * C, S, F] each, the noise drawn afresh, for training.
        """
        parts = self._parts(frames)
        starts = torch.randint(NOISE_FRAMES, (len(frames),), device=frames.device)
        made = self._postfiltered(parts[0], self._told(frames), self._drawn(parts, starts))
        return parts[0].flatten(0, 1), made.flatten(0, 1)

    def _postfiltered(self, loud: Tensor, told: Tensor, noise: Tensor) -> Tensor:
        """[B, C, S, F], [M, B, C, S, F], [DRAWS, B, C, S, F] -> [B, C, S, F], no quieter than what nobody hears."""
        maps, draws = (rearrange(each, "n b c s f -> (b c) n s f") for each in (told, noise))
        made = self.postfilter(loud.flatten(0, 1), maps, draws)
        return made.view_as(loud).clamp_min(QUIETEST)

    def _told(self, frames: Tensor) -> Tensor:
        """What the blocks tell the postfilter, [M, B, C, S, F]."""
        told = self.postfilter.tell(frames[..., : self.config.width])
        return rearrange(told.float(), "b s (n c f) -> n b c s f", n=MAPS, c=self.channels)

    def _drawn(self, parts: Tensor, starts: Tensor) -> Tensor:
        """Noise of variance 1 from these places of the table on, [2, B, C, S, F]."""
        return self.table[:, self._places(parts, starts)] * 2**0.5

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

    def _spectrum(self, parts: Tensor, starts: Tensor, learning: bool = True) -> Tensor:
        """The spectrum under the noise from these places of the table on, one [B] for each item: [B, 2 C F, S].

        With its magnitudes as they are ``measured``, or, unless they are for ``learning``, as they are to be heard.
        """
        magnitude, phase = self._magnitude(parts) if learning else _heard(parts[0]), parts[1]
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
        return parts[0].clamp(max=LOUDEST).exp()

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


def noise_table(config: ConvNeXtConfig) -> Tensor:
    """Complex noise of variance 1, real and imaginary parts [2, NOISE_FRAMES, F], the same each time.

    With ``white``, the transforms of white noise that goes round in a circle: its frames go on without end.
    """
    generator = torch.Generator().manual_seed(0)
    if not config.white:
        return torch.randn(2, NOISE_FRAMES, config.bins, generator=generator) / 2**0.5
    samples = torch.randn(NOISE_FRAMES * config.hop, generator=generator)
    around = samples.repeat(1 + math.ceil(config.fft_size / len(samples)))  # the first samples again behind the last
    frames = around.unfold(0, config.fft_size, config.hop)[:NOISE_FRAMES] * torch.hann_window(config.fft_size)
    spectrum = torch.fft.rfft(frames, norm="ortho")
    return torch.view_as_real(spectrum / spectrum.abs().square().mean().sqrt()).permute(2, 0, 1).contiguous()


def _heard(logs: Tensor) -> Tensor:
    """Log magnitudes as they are ``measured`` -> magnitudes to be heard: less, in power, the bound of what is measured.

    There it says that nothing is heard, and would be a steady hiss.
    """
    power = (2 * logs.clamp(max=LOUDEST)).exp() - math.exp(2 * QUIETEST)
    return power.clamp_min(0).sqrt()
