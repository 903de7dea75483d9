"""SEANet body of the codec: strided convolutions and an LSTM, weight for weight the network of the encodec package.

Letters in shapes: B batch, C audio channels, L samples, T frames, D latent width, W the width inside a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import weight_norm

from audiolm_kit.codec.folded import Convolution, Flow, Layer, Memory, Padding, Transposed, Unit
from audiolm_kit.codec.stage import Stage, State, context, stateless


@dataclass(frozen=True)
class SEANetConfig:
    """Options of `SEANetEncoder` and `SEANetDecoder`; the defaults are EnCodec's 24 kHz model."""

    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Upsampling factors of the decoder, from frames to samples; the encoder walks them backwards."""
    filters: int = 32
    """Width at the sample rate; it doubles with each ratio."""
    dim: int = 128
    """Latent width D."""
    residual_layers: int = 1
    """Residual units per ratio."""
    kernel: int = 7
    """Of the first convolution of encoder and decoder."""
    last_kernel: int = 7
    residual_kernel: int = 3
    dilation_base: int = 2
    """Residual unit j of a ratio is dilated by dilation_base ** j."""
    compress: int = 2
    """A residual unit is this many times narrower inside."""
    lstm: int = 2
    """LSTM layers at the frame rate; 0 leaves them out."""
    causal: bool = True
    """Outputs depend on no later sample (but see `pad_mode`), so the codec can stream."""
    norm: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    """time_group_norm, of EnCodec's 48 kHz model, averages over all of time and so is not causal."""
    pad_mode: Literal["reflect", "constant"] = "reflect"
    """How borders are filled. Mirrored ones read a few frames ahead at the very start, also in a causal network;
    EnCodec's own models mirror, audiocraft's pad with zeros."""
    shortcut: Literal["conv", "identity"] = "conv"
    """What goes round a residual unit: a 1x1 convolution (EnCodec's models) or nothing (audiocraft's)."""
    trim_right_ratio: float = 1.0
    """Share of an upsampling layer's overhang that a causal decoder cuts on the right, the rest on the left."""
    elu_alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse networks that could not keep their promises."""
        if not self.ratios or min(self.ratios) < 1:
            raise ValueError(
                f"seanet ratios are {self.ratios}: give one or more whole numbers from 1 up, such as (8, 5, 4, 2)"
            )
        if self.causal and self.norm == "time_group_norm":
            raise ValueError(
                "seanet norm time_group_norm looks at all of time: set causal to false, or norm to weight_norm"
            )
        if not 0 <= self.trim_right_ratio <= 1 or (self.trim_right_ratio < 1 and not self.causal):
            raise ValueError(
                f"trim_right_ratio is {self.trim_right_ratio}, causal is {self.causal}: give 1 (or 0..1 if causal)"
            )
        if not 1 <= self.compress <= self.filters:
            raise ValueError(f"seanet compress is {self.compress}, filters is {self.filters}: give 1..filters")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)


class SEANetEncoder(nn.Module):
    """Waveform to latents: convolutions that shorten and widen, then the LSTM (Defossez et al. 2022, section 3.1)."""

    def __init__(self, config: SEANetConfig, channels: int = 1) -> None:
        super().__init__()
        self.config = config
        width = config.filters
        layers: list[nn.Module] = [PaddedConv(config, channels, width, config.kernel)]
        for ratio in reversed(config.ratios):
            layers += [Residual(config, width, config.dilation_base**j) for j in range(config.residual_layers)]
            layers += [nn.ELU(config.elu_alpha), PaddedConv(config, width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        if config.lstm:
            layers.append(Recurrence(width, config.lstm))
        layers += [nn.ELU(config.elu_alpha), PaddedConv(config, width, config.dim, config.last_kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, C, L] -> [B, D, T] with T = ceil(L / hop)."""
        return _through(self, audio, PIECE)

    def flow(self) -> Flow:
        """The layers as they work through new sounds piece by piece, from samples to latents, for inference.

        Raises:
            ValueError: the network averages over all of time and can only work on a whole sound.
        """
        return _flow(self)

    def train(self, mode: bool = True) -> SEANetEncoder:
        """Folded weights are forgotten, since training may change the weights in ways that torch does not count."""
        _FOLDED.pop(self, None)
        return super().train(mode)


class SEANetDecoder(nn.Module):
    """Latents to waveform: the encoder's mirror image."""

    def __init__(self, config: SEANetConfig, channels: int = 1) -> None:
        super().__init__()
        self.config = config
        width = config.filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [PaddedConv(config, config.dim, width, config.kernel)]
        if config.lstm:
            layers.append(Recurrence(width, config.lstm))
        for ratio in config.ratios:
            layers += [nn.ELU(config.elu_alpha), Upsampling(config, width, width // 2, ratio)]
            width //= 2
            layers += [Residual(config, width, config.dilation_base**j) for j in range(config.residual_layers)]
        layers += [nn.ELU(config.elu_alpha), PaddedConv(config, width, channels, config.last_kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D, T] -> [B, C, L] with L = T * hop."""
        return _through(self, latents, max(1, PIECE // self.config.hop))

    def flow(self) -> Flow:
        """As `SEANetEncoder.flow`, from latents to samples."""
        return _flow(self)

    def train(self, mode: bool = True) -> SEANetDecoder:
        """As `SEANetEncoder.train`."""
        _FOLDED.pop(self, None)
        return super().train(mode)

    def stages(self) -> list[Stage]:
        """The layers as streaming runs them, one after the other.

        Raises:
            ValueError: the network averages over all of time and can only work on a whole sound.
        """
        _check_local(self.config)
        ours = (PaddedConv, Recurrence, Upsampling, Residual)
        return [layer.stage() if isinstance(layer, ours) else Stage(stateless(layer)) for layer in self.layers]

    @property
    def context(self) -> tuple[int, int]:
        """Code frames to the left and right that a frame's audio depends on, beside what an LSTM remembers."""
        return context(self.stages())


class PaddedConv(nn.Module):
    """A convolution that pads its input so that L samples give ceil(L / stride) outputs."""

    def __init__(
        self, config: SEANetConfig, width_in: int, width_out: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv, self.norm = normed(nn.Conv1d(width_in, width_out, kernel, stride, dilation=dilation), config)
        self.stride, self.mode = stride, config.pad_mode
        overlap = (kernel - 1) * dilation + 1 - stride
        self.right = 0 if config.causal else overlap // 2
        self.left = overlap - self.right

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, L] -> [B, W', ceil(L / stride)]."""
        fill_last_window = -x.shape[-1] % self.stride
        return self.norm(self.conv(padded(x, self.left, self.right + fill_last_window, self.mode)))

    def stage(self) -> Stage:
        """As streaming runs it, with a stride of 1; a mirrored start reads as far ahead as it pads."""
        start = self.left + 1 if self.mode == "reflect" else 1
        return Stage(stateless(self), kept=self.left + self.right, late=self.right, start=start)


class Upsampling(nn.Module):
    """A transposed convolution over two strides, cut to exactly ``ratio`` outputs per input."""

    def __init__(self, config: SEANetConfig, width_in: int, width_out: int, ratio: int) -> None:
        super().__init__()
        self.upsample, self.norm = normed(nn.ConvTranspose1d(width_in, width_out, 2 * ratio, ratio), config)
        self.right = math.ceil(ratio * config.trim_right_ratio) if config.causal else ratio // 2
        self.left, self.ratio = ratio - self.right, ratio

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, T] -> [B, W', T * ratio]."""
        # Normalised before the cut: group norm's statistics count the overhang too, as in the published weights.
        y = self.norm(self.upsample(x))
        return y[..., self.left : y.shape[-1] - self.right]

    def stage(self) -> Stage:
        """As streaming runs it: a frame's outputs overlap with the next one's, and the cut on the left delays them."""
        return Stage(stateless(self), kept=1, late=self.left, hop=self.ratio)


class Residual(nn.Module):
    """A dilated and a pointwise convolution, beside a shortcut."""

    def __init__(self, config: SEANetConfig, width: int, dilation: int) -> None:
        super().__init__()
        narrow = width // config.compress
        self.block = nn.Sequential(
            nn.ELU(config.elu_alpha),
            PaddedConv(config, width, narrow, config.residual_kernel, dilation=dilation),
            nn.ELU(config.elu_alpha),
            PaddedConv(config, narrow, width, 1),
        )
        self.shortcut = nn.Identity() if config.shortcut == "identity" else PaddedConv(config, width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, L] -> [B, W, L]."""
        return self.shortcut(x) + self.block(x)

    def stage(self) -> Stage:
        """As streaming runs it: it looks as far around as its first convolution, the only one that does."""
        return cast(PaddedConv, self.block[1]).stage()._replace(network=stateless(self))


class Recurrence(nn.Module):
    """LSTM over time, added to its own input."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, T] -> [B, W, T]."""
        return self.carried(x, None)[0]

    def carried(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """[B, W, T] -> [B, W, T], going on from the state after the frames before, and the state after these."""
        y, state = self.lstm(rearrange(x, "b w t -> t b w"), state)
        return x + rearrange(y, "t b w -> b w t"), state

    def stage(self) -> Stage:
        """As streaming runs it: it looks nowhere and remembers everything."""
        return Stage(self.carried)


def normed(conv: nn.Conv1d | nn.ConvTranspose1d, config: SEANetConfig) -> tuple[nn.Module, nn.Module]:
    """The convolution and what follows it: weight norm lies on the weights, group norm behind them."""
    if config.norm == "time_group_norm":
        return conv, nn.GroupNorm(1, conv.out_channels)
    return weight_norm(conv), nn.Identity()


def padded(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """[B, W, L] -> [B, W, left + L + right], mirrored or with zeros.

    A sound too short to be mirrored that far is lengthened by zeros first, as encodec does.
    """
    if mode == "constant":
        return pad(x, (left, right))
    missing = max(0, max(left, right) + 1 - x.shape[-1])
    mirrored = pad(pad(x, (0, missing)), (left, right), mode)
    return mirrored[..., : mirrored.shape[-1] - missing]


# --- inference --------------------------------------------------------------------------------------------------------

PIECE = 24000
"""Samples of the pieces that a whole sound is worked through in: few enough that what they become stays in a cache."""
_FOLDED: WeakKeyDictionary[nn.Module, tuple[object, list[Layer]]] = WeakKeyDictionary()
"""The layers of networks that have run, with the state of the weights that they were folded from."""


def can_fold(body: SEANetEncoder | SEANetDecoder) -> bool:
    """Whether folded layers are the faster ones: in evaluation mode on a CPU, in full precision."""
    weight = next(body.parameters())
    whole = type(weight) is nn.Parameter  # and no part of one that other ranks have the rest of
    suits = whole and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    return suits and not body.training and body.config.norm == "weight_norm"


def _through(body: SEANetEncoder | SEANetDecoder, x: Tensor, size: int) -> Tensor:
    """[B, W, n] through all layers; where it can be without gradients, through the folded ones, ``size`` at a time."""
    alike = x.dtype == next(body.parameters()).dtype and x.device.type == "cpu" and len(x) > 0
    if alike and can_fold(body) and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        flow = body.flow()
        if x.shape[-1] >= flow.needed(1):
            return flow.whole(x, size)
    return body.layers(x)


def _check_local(config: SEANetConfig) -> None:
    """Refuse to work piece by piece where it cannot be done."""
    if config.norm == "time_group_norm":
        raise ValueError(
            "a codec with seanet norm time_group_norm averages over the whole sound and cannot work piece by piece: "
            "decode all codes at once, encode the whole sound, or train one with weight_norm"
        )


@torch.no_grad()
def _flow(body: SEANetEncoder | SEANetDecoder) -> Flow:
    _check_local(body.config)
    weights = [*body.parameters()]
    state = [(each.data_ptr(), 0 if each.is_inference() else each._version, each.dtype) for each in weights]
    known = _FOLDED.get(body)
    if known is None or known[0] != state:
        known = _FOLDED[body] = state, list(_layers(body.layers))
    return Flow(known[1])


def _layers(layers: nn.Sequential) -> Iterator[Layer]:
    """The folded layers; an ELU goes together with what stands behind it."""
    alpha = None
    for layer in layers:
        if isinstance(layer, PaddedConv):
            yield _convolution(layer, alpha)
        elif isinstance(layer, Upsampling):
            assert alpha is not None and isinstance(layer.upsample, nn.ConvTranspose1d)
            conv = layer.upsample
            yield Transposed(conv.weight, conv.bias, (layer.left, layer.right), alpha)
        elif isinstance(layer, Residual):
            yield _unit(layer)
        elif isinstance(layer, Recurrence):
            yield Memory(layer.lstm)
        alpha = layer.alpha if isinstance(layer, nn.ELU) else None


def _convolution(layer: PaddedConv, alpha: float | None) -> Convolution:
    conv = cast(nn.Conv1d, layer.conv)
    (kernel,), (dilation,) = conv.kernel_size, conv.dilation
    span = (kernel - 1) * dilation + 1
    padding = Padding(layer.left, layer.right, layer.stride, span, layer.mode == "reflect")
    return Convolution(conv.weight, conv.bias, padding, dilation, alpha)


def _unit(layer: Residual) -> Unit:
    first = _convolution(cast(PaddedConv, layer.block[1]), cast(nn.ELU, layer.block[0]).alpha)
    second = cast(nn.Conv1d, cast(PaddedConv, layer.block[3]).conv)
    bias, shortcut = cast(Tensor, second.bias), None
    if isinstance(layer.shortcut, PaddedConv):
        beside = cast(nn.Conv1d, layer.shortcut.conv)
        bias, shortcut = bias + cast(Tensor, beside.bias), beside.weight[..., 0].t().contiguous()
    return Unit(first, second.weight[..., 0].t().contiguous(), bias, shortcut)
