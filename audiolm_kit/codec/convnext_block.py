"""The block of the light body, and its convolution over frames.

B batch, S frames, W width, W' width of what lies beside one another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 7
"""Frames that a convolution over time sees."""


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then two pointwise layers, [B, S, W] -> [B, S, W]."""

    def __init__(self, width: int, inner: int, scale: float) -> None:
        """
        Args:
            inner: the width between the pointwise layers.
            scale: of the block's share in its output, at first.
        """
        super().__init__()
        self.depthwise = FrameConv(width, width, kernel=KERNEL, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

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


def beside(layer: nn.Module, width: int) -> Callable[[Tensor], Tensor]:
    """A layer on the first W of [B, S, W'], on [B, W', S] instead; what lies beside passes by."""
    return lambda x: torch.cat([layer(x[:, :width].transpose(1, 2)).transpose(1, 2), x[:, width:]], 1)
