"""Linear layers that keep their matrix as whole numbers of 8 or 4 bits, for less memory and less of it read at a step.

Few rows at once, as in decoding, go through torch's packed kernel of the device, which reads the whole numbers alone.
Many rows, as of a long prompt, are worth a plain product with the matrix restored: arithmetic counts then, and packed
kernels are slow at it. Both round what comes in to bfloat16 where the kernel or the device's arithmetic asks for it.

Shapes: R rows, O outputs, I inputs, both with ' where padded to what kernels take, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiolm_kit.lm import packed_kernels as kernels
from audiolm_kit.lm.rounding import to_int4, to_int8

How = Literal["int8", "int4"]
GROUP = 32
"""Inputs that share a scale and a zero in 4 bits; the fewest that kernels take, and so the least error."""
PADDED = 64
"""Kernels read rows of whole vectors and blocks of so many outputs; other shapes are filled up."""
ALIGNED = 32
"""Numbers of bfloat16 from where a kernel may begin to read: some load whole cache lines alone."""


class PackedLinear(nn.Module):
    """What both kinds share: ``nn.Linear`` without a bias for any floating dtype, which comes out as it went in.

    It is packed for one device and stays there. What it holds does not learn, and is no checkpoint's.
    """

    levels: Tensor
    in_features: int
    out_features: int
    dtype: torch.dtype
    """Of ``weight``."""
    most_rows: int
    """How many rows the packed kernel takes; more are multiplied plainly."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert linear.bias is None
        if not bool(torch.isfinite(linear.weight).all()):
            raise ValueError("a matrix holds NaN or infinite numbers and cannot be rounded: the checkpoint is damaged")
        self.out_features, self.in_features = linear.weight.shape
        self.padding: int = -self.in_features % PADDED
        self.dtype = linear.weight.dtype
        self.most_rows = 0

    def forward(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., O]``."""
        rows = x.reshape(-1, self.in_features)
        out = self._packed(self._taken(rows)) if len(rows) <= self.most_rows else self.plain(rows)
        return out[:, : self.out_features].to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    @property
    def weight(self) -> Tensor:
        """The matrix restored, ``[O, I]``, for what computes with it and not with the layer."""
        return self._restored(self.dtype)

    def plain(self, rows: Tensor) -> Tensor:
        """``[R, I] -> [R, O]`` by the matrix restored: what the packed kernel is judged by."""
        dtype = kernels.arithmetic(self.levels.device, rows.dtype)
        return F.linear(rows.to(dtype), self._restored(dtype))

    def _packed(self, rows: Tensor) -> Tensor:
        """``[R, I'] -> [R, O']`` by the kernel, bfloat16."""
        raise NotImplementedError

    def _restored(self, dtype: torch.dtype) -> Tensor:
        """The matrix, ``[O, I]``."""
        raise NotImplementedError

    def _taken(self, rows: Tensor) -> Tensor:
        """Rows as kernels take them: ``[R, I']`` bfloat16, one behind the other, from an aligned place on."""
        rows = rows.to(torch.bfloat16)
        if self.padding:
            return F.pad(rows, (0, self.padding))
        return rows.clone() if rows.storage_offset() % ALIGNED else rows.contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """Follow ``to`` in dtype alone: that of ``weight``. Whole numbers and their scales stay as the kernel has them.

        Raises:
            ValueError: another device, whose kernels want another order of the numbers.
        """
        moved = fn(torch.empty(0, dtype=self.dtype, device=self.levels.device))
        if moved.device != self.levels.device:
            places = f"{self.levels.device} and cannot move to {moved.device}"
            raise ValueError(f"the layer is packed for {places}: load the model there, and quantize it there")
        self.dtype = moved.dtype
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, most_rows={self.most_rows}"


class Int8Linear(PackedLinear):
    """8 bits a weight, one scale for each output."""

    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Round and pack a layer's matrix, where it is."""
        super().__init__(linear)
        rounded = to_int8(linear.weight.detach())
        self.register_buffer("levels", F.pad(rounded.levels, (0, self.padding)))  # [O, I']
        self.register_buffer("scales", rounded.scales)  # [O]
        self.most_rows = kernels.int8_rows(self.levels.device)

    def _packed(self, rows: Tensor) -> Tensor:
        return kernels.int8_product(rows, self.levels, self.scales)

    def plain(self, rows: Tensor) -> Tensor:
        """The scales last, so that the matrix is made in one step."""
        dtype = kernels.arithmetic(self.levels.device, rows.dtype)
        levels = self.levels[:, : self.in_features].to(dtype)
        return F.linear(rows.to(dtype), levels) * self.scales.to(torch.promote_types(dtype, torch.float32))

    def _restored(self, dtype: torch.dtype) -> Tensor:
        levels = self.levels[:, : self.in_features].float()
        return (levels * self.scales.float()[:, None]).to(dtype)


class Int4Linear(PackedLinear):
    """4 bits a weight, a scale and a zero for each 32 inputs of an output: 5 bits in all."""

    scales_zeros: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Round and pack a layer's matrix, where it is."""
        super().__init__(linear)
        weight = linear.weight.detach()
        # Inputs that there are not have the last one's weights: groups at the border keep their range.
        weight = torch.cat([weight, weight[:, -1:].expand(-1, self.padding)], dim=1)
        weight = F.pad(weight, (0, 0, 0, -self.out_features % PADDED))
        rounded = to_int4(weight, GROUP)
        self.layout = kernels.int4_layout(weight.device, weight.shape[1])
        self.register_buffer("levels", self.layout.pack(rounded.levels))
        scales_zeros = torch.stack((rounded.scales, rounded.zeros), dim=-1)
        self.register_buffer("scales_zeros", scales_zeros.transpose(0, 1).contiguous())  # [G, O', 2]
        self.most_rows = self.layout.most_rows

    def plain(self, rows: Tensor) -> Tensor:
        """The matrix stays as it is unpacked, inputs first: nothing is turned around."""
        dtype = kernels.arithmetic(self.levels.device, rows.dtype)
        return (rows.to(dtype) @ self._unpacked(dtype))[:, : self.out_features]

    def _packed(self, rows: Tensor) -> Tensor:
        return self.layout.product(rows, self.levels, self.scales_zeros)

    def _restored(self, dtype: torch.dtype) -> Tensor:
        return self._unpacked(torch.float32)[:, : self.out_features].T.to(dtype)

    def _unpacked(self, dtype: torch.dtype) -> Tensor:
        """The matrix, ``[I, O']``."""
        return self.layout.unpack(self.levels, self.scales_zeros, dtype)[: self.in_features]


def packed(linear: nn.Linear, how: How) -> PackedLinear:
    """A linear layer without a bias, rounded and packed on the device where it is."""
    return Int8Linear(linear) if how == "int8" else Int4Linear(linear)
