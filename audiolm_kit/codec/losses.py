"""What a codec is trained on: spectral distances, adversarial terms, and the balancer that weighs their gradients.

B batch, C channels, L samples, M mel bands, S spectral frames.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.audio import mel_filters
from audiolm_kit.codec.discriminator import Judgement


class MelLoss(nn.Module):
    """L1 distance of mel magnitudes plus L2 distance of their logarithms, averaged over several resolutions.

    Windows of 2^6 ... 2^11 samples, hops of a quarter (Zeghidour et al. 2021, eq. 5; EnCodec, section 3.4). Short
    windows see when, long ones at which pitch. The L2 distance is that of the whole batch, or with ``by_frame`` the
    mean of its frames' own (for `energy_distance`).
    """

    def __init__(
        self,
        sample_rate: int,
        fft_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048),
        num_mels: int = 64,
        by_frame: bool = False,
    ) -> None:
        super().__init__()
        self.fft_sizes, self.by_frame = fft_sizes, by_frame
        for size in fft_sizes:
            # Short windows have few bins: never more bands than can each hold one.
            bands = min(num_mels, size // 8)
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            self.register_buffer(f"filters_{size}", mel_filters(sample_rate, size, bands), persistent=False)

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Distance of two batches [B, C, L] -> []."""
        distances = []
        for size in self.fft_sizes:
            first, second = self._mel(made, size), self._mel(real, size)
            louder = first.clamp_min(1e-5).log() - second.clamp_min(1e-5).log()
            # A norm has a gradient also at zero, where the root of a mean has none.
            if self.by_frame:
                relative = torch.linalg.vector_norm(louder, dim=1).mean() / louder.shape[1] ** 0.5
            else:
                relative = torch.linalg.vector_norm(louder) / louder.numel() ** 0.5
            distances.append(F.l1_loss(first, second) + relative)
        return torch.stack(distances).mean()

    def _mel(self, audio: Tensor, size: int) -> Tensor:
        """[B, C, L] -> magnitudes [B * C, M, S]."""
        window, filters = self.get_buffer(f"window_{size}"), self.get_buffer(f"filters_{size}")
        flat = rearrange(audio, "b c l -> (b c) l").float()
        flat = F.pad(flat, (0, max(0, size - flat.shape[1])))
        spectrum = torch.stft(flat, size, size // 4, window=window, normalized=True, return_complex=True)
        # The small constant keeps the gradient of the square root finite in silence.
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return filters @ magnitude


def energy_distance(distance: Callable[[Tensor, Tensor], Tensor], made: Tensor, real: Tensor) -> Tensor:
    """How far two renditions ``made`` [2 B, ...] of each item are from the real one, less how far from one another.

    A distance alone is smallest for the average of all that could be, which for noise is a hum. This one is smallest
    when renditions vary as real sounds do (generalised energy distance; Gritsenko et al. 2020, arXiv:2008.01160).
    One rendition, [B, ...], gives the plain distance.
    """
    if len(made) == len(real):
        return distance(made, real)
    one, two = made.chunk(2)
    return (distance(one, real) + distance(two, real) - distance(one, two)) / 2


def hinge_discriminator(made: Judgement, real: Judgement) -> Tensor:
    """What the discriminator minimises: real above 1, made below -1 (Lim and Ye 2017), mean over scales."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + m).mean() for m, r in zip(made.logits, real.logits, strict=True)]
    return torch.stack(terms).mean()


def hinge_generator(made: Judgement) -> Tensor:
    """What the codec minimises: judged as real, mean over scales."""
    return torch.stack([F.relu(1 - logits).mean() for logits in made.logits]).mean()


def feature_matching(made: Judgement, real: Judgement) -> Tensor:
    """Relative L1 distance of the discriminator's hidden layers (EnCodec, section 3.4), mean over layers and scales."""
    terms = [
        F.l1_loss(m, r.detach()) / r.detach().abs().mean().clamp_min(1e-5)
        for made_scale, real_scale in zip(made.features, real.features, strict=True)
        for m, r in zip(made_scale, real_scale, strict=True)
    ]
    return torch.stack(terms).mean()


class Balancer:
    """Weighs losses by the size of their gradients at the decoder's output, so that weights are shares.

    Each gradient is divided by the moving average of its norm and multiplied by ``weight / sum(weights)`` (EnCodec,
    section 3.4). A loss that is ten times as large pulls no harder.

    Args:
        weights: a share for each loss by name.
        decay: of the moving averages of the norms.
    """

    def __init__(self, weights: dict[str, float], decay: float = 0.999) -> None:
        if min(weights.values(), default=0.0) < 0:
            raise ValueError(f"loss weights are {weights}, wanted shares of 0 or more")
        self.weights, self.decay = weights, decay
        self.norms: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def gradient(self, losses: dict[str, Tensor], output: Tensor) -> Tensor:
        """The balanced gradient at ``output`` [B, C, L], to be propagated back from there once.

        Raises:
            ValueError: a loss without a weight, or nothing but weights of 0.
        """
        unknown = sorted(losses.keys() - self.weights.keys())
        if unknown:
            raise ValueError(f"losses {unknown} have no weight: the recipe weighs {sorted(self.weights)}")
        total = sum(self.weights[name] for name in losses)
        if total == 0:
            raise ValueError(f"losses {sorted(losses)} all weigh 0: nothing would be learned; weigh one of them")
        balanced = torch.zeros_like(output)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, [output], retain_graph=True)
            norm = self._average(name, float(gradient.flatten(1).norm(dim=1).mean()))
            balanced += gradient * (self.weights[name] / total / max(norm, 1e-12))
        return balanced

    def _average(self, name: str, norm: float) -> float:
        """The moving average of a norm, without bias towards its start."""
        self.norms[name] = self.norms.get(name, 0.0) * self.decay + norm * (1 - self.decay)
        self.counts[name] = self.counts.get(name, 0.0) * self.decay + (1 - self.decay)
        return self.norms[name] / self.counts[name]

    def state(self) -> dict[str, dict[str, float]]:
        """The moving averages, for a checkpoint."""
        return {"norms": dict(self.norms), "counts": dict(self.counts)}

    def restore(self, state: dict[str, dict[str, float]]) -> None:
        """Go on from the averages of a checkpoint."""
        self.norms, self.counts = dict(state["norms"]), dict(state["counts"])
