"""Torch's kernels for packed matrices: which device has one, how it wants them laid out, and for how many rows it pays.

A kernel is used where it agrees with a plain product on a small example; else a warning is given and matrices are
restored for each product, which is right everywhere, and saves memory but no time.

Shapes: R rows, O outputs, I inputs, G groups of inputs, B outputs of a block.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from audiolm_kit.lm.rounding import MIDDLE4, Int4

Place = Literal["cpu", "cpu_bfloat16", "cuda"]
MOST_ROWS: dict[str, dict[Place, int]] = {
    "int8": {"cpu": 32, "cpu_bfloat16": 8, "cuda": 8},
    "int4": {"cpu": 64, "cpu_bfloat16": 32, "cuda": 1024},
}
"""How many rows go through a kernel, from how many on restoring the matrix has paid for itself.

Measured is "cpu" (AVX2, matrices of 1024 x 1024 and 1024 x 4096): both are equal at 24 to 48 rows with 8 bits and at 48
to 96 with 4. The CPU's kernels multiply in float32, so one with arithmetic for bfloat16 is overtaken sooner. CUDA's
kernel for 8 bits reads the matrix again for each row, and restoring 4 bits takes as long as a product of I rows.
"""
TRIED = (64, 128, 3)
"""Outputs, inputs and rows of the small example."""
CLOSE = 0.02
"""How far a kernel may be from the plain product, as a share of the largest number: bfloat16 rounds by 0.004."""


class Layout(Protocol):
    """How a device wants 4 bits in memory."""

    @property
    def most_rows(self) -> int:
        """How many rows the kernel takes; 0 where there is none."""
        ...

    def __hash__(self) -> int: ...

    def pack(self, levels: Tensor) -> Tensor:
        """``[O, I]`` uint8 from 0 to 15 -> the kernel's own form; O is a multiple of 64, I of 32."""
        ...

    def product(self, rows: Tensor, packed: Tensor, scales_zeros: Tensor) -> Tensor:
        """``[R, I]`` bfloat16 ``-> [R, O]``; scales and zeros are ``[G, O, 2]`` bfloat16."""
        ...

    def unpack(self, packed: Tensor, scales_zeros: Tensor, dtype: torch.dtype) -> Tensor:
        """The matrix, ``[I, O]``."""
        ...


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device has arithmetic for bfloat16, and does not make it up from float32's."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def arithmetic(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What plain products of packed layers are made in, for rows of a dtype: the fastest that keeps them."""
    if native_bfloat16(device):
        return torch.bfloat16
    return dtype if device.type == "cuda" and dtype == torch.float16 else torch.float32


def int8_rows(device: torch.device) -> int:
    """How many rows the kernel of a device takes for 8 bits; 0 where there is none, which a warning says."""
    if device.type not in ("cpu", "cuda"):
        return int(_told("int8", device, "torch has none for this device"))
    return MOST_ROWS["int8"][_place(device)] if _int8_works(device) else 0


def int8_product(rows: Tensor, levels: Tensor, scales: Tensor) -> Tensor:
    """``[R, I]`` bfloat16, ``[O, I]`` int8 and ``[O]`` bfloat16 ``-> [R, O]``; I is a multiple of 16."""
    out: Tensor = torch.ops.aten._weight_int8pack_mm(rows, levels, scales)
    return out


def int4_layout(device: torch.device, inputs: int) -> Layout:
    """The layout of a device for matrices of so many inputs, that of its kernel where that works."""
    if device.type == "cuda":
        tiles: Layout = Tiles(next(each for each in (8, 4, 2) if inputs % (16 * each) == 0))
        if _int4_works(tiles, device):
            return tiles
    if device.type == "cpu":
        blocks = _blocks()
        if blocks is None:
            _told("int4", device, "torch lays it out in a way that is not known")
        elif _int4_works(blocks, device):
            return blocks
    if device.type not in ("cpu", "cuda"):
        _told("int4", device, "torch has none for this device")
    return Halves()


@dataclass(frozen=True)
class Halves:
    """Without a kernel: in each input's row of bytes the first half of the outputs is low, the second one high."""

    block: int = 0
    """B: outputs whose halves share bytes; blocks stand one behind the other. 0: all of them."""
    most_rows: int = 0

    def pack(self, levels: Tensor) -> Tensor:
        low, high = levels.T.chunk(2, dim=1)
        return (low | high << 4).contiguous()[None]

    def product(self, rows: Tensor, packed: Tensor, scales_zeros: Tensor) -> Tensor:
        return rows @ self.unpack(packed, scales_zeros, rows.dtype)

    def unpack(self, packed: Tensor, scales_zeros: Tensor, dtype: torch.dtype) -> Tensor:
        groups, outputs, _ = scales_zeros.shape
        block = self.block or outputs
        inputs = 2 * packed.numel() // outputs
        in_bytes = packed.view(outputs // block, inputs, block // 2).transpose(0, 1)
        levels = torch.stack((in_bytes & 15, in_bytes >> 4), dim=2).view(groups, -1, outputs)
        scales, zeros = scales_zeros.float().unbind(-1)
        first = (zeros - MIDDLE4 * scales)[:, None].to(dtype)
        return torch.addcmul(first, levels.to(dtype), scales[:, None].to(dtype)).view(inputs, outputs)


@dataclass(frozen=True)
class Blocks(Halves):
    """For the CPU's kernel, whose blocks are as wide as four of its vectors."""

    def pack(self, levels: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.int(), 1)
        return found

    def product(self, rows: Tensor, packed: Tensor, scales_zeros: Tensor) -> Tensor:
        group = rows.shape[1] // len(scales_zeros)
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, group, scales_zeros)
        return out


@dataclass(frozen=True)
class Tiles:
    """For CUDA's kernel: tiles of tensor cores, ``inner`` of which are read at once."""

    inner: int
    most_rows: int = MOST_ROWS["int4"]["cuda"]

    def pack(self, levels: Tensor) -> Tensor:
        pairs = levels[:, ::2] << 4 | levels[:, 1::2]
        found: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), self.inner)
        return found

    def product(self, rows: Tensor, packed: Tensor, scales_zeros: Tensor) -> Tensor:
        group = rows.shape[1] // len(scales_zeros)
        out: Tensor = torch.ops.aten._weight_int4pack_mm(rows, packed, group, scales_zeros)
        return out

    def unpack(self, packed: Tensor, scales_zeros: Tensor, dtype: torch.dtype) -> Tensor:
        """By the kernel itself, from the rows of the identity: the tiles are its own matter."""
        inputs = packed.shape[1] * 16 * self.inner
        rows = torch.eye(inputs, dtype=torch.bfloat16, device=packed.device)
        return self.product(rows, packed, scales_zeros).to(dtype)


def _place(device: torch.device) -> Place:
    if device.type == "cuda":
        return "cuda"
    return "cpu_bfloat16" if native_bfloat16(device) else "cpu"


@cache
def _blocks() -> Blocks | None:
    """How this CPU's kernel lays out 4 bits, found by packing; None where it is not in halves of blocks."""
    outputs = torch.arange(64, dtype=torch.uint8)[:, None]
    for block in (64, 32, 16):
        layout = Blocks(block, MOST_ROWS["int4"][_place(torch.device("cpu"))])
        ones = torch.stack((torch.ones(1, 64), torch.full((1, 64), float(MIDDLE4))), dim=-1).bfloat16()
        found = []
        for digit in (outputs % 16, outputs // 16):  # which output stands where, in two digits
            levels = digit.expand(64, 32).contiguous()
            found.append(torch.equal(layout.unpack(layout.pack(levels), ones, torch.float32), levels.T.float()))
        if all(found):
            return layout
    return None


@cache
def _int8_works(device: torch.device) -> bool:
    outputs, inputs, count = TRIED
    rows, levels = _example(device, count, inputs), torch.arange(-127, 128, 2, device=device)
    levels = levels[torch.arange(outputs * inputs, device=device) % len(levels)].view(outputs, inputs).to(torch.int8)
    scales = torch.linspace(0.01, 0.02, outputs, device=device).bfloat16()
    try:
        found = int8_product(rows, levels, scales)
    except (RuntimeError, NotImplementedError) as error:
        return _told("int8", device, str(error).splitlines()[0])
    wanted = rows.float() @ (levels.float() * scales.float()[:, None]).T
    return _close(found, wanted) or _told("int8", device, "torch's own computes something else")


@cache
def _int4_works(layout: Layout, device: torch.device) -> bool:
    outputs, inputs, count = TRIED
    rows, groups = _example(device, count, inputs), inputs // 32
    levels = (torch.arange(outputs * inputs, device=device) * 7 // 5 % 16).view(outputs, inputs).to(torch.uint8)
    scales = torch.linspace(0.01, 0.02, outputs * groups, device=device).view(outputs, groups).bfloat16()
    rounded = Int4(levels, scales, scales.flip(0))
    scales_zeros = torch.stack((rounded.scales, rounded.zeros), dim=-1).transpose(0, 1).contiguous()
    try:
        packed = layout.pack(levels)
        found, restored = layout.product(rows, packed, scales_zeros), layout.unpack(packed, scales_zeros, torch.float32)
    except (RuntimeError, NotImplementedError) as error:
        return _told("int4", device, str(error).splitlines()[0])
    right = _close(found, rows.float() @ rounded.restored().T) and _close(restored, rounded.restored().T)
    return right or _told("int4", device, "torch's own computes something else")


def _example(device: torch.device, count: int, inputs: int) -> Tensor:
    return torch.linspace(-1, 1, count * inputs, device=device).sin().view(count, inputs).bfloat16()


def _close(found: Tensor, wanted: Tensor) -> bool:
    return float((found.float() - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())


def _told(how: str, device: torch.device, reason: str) -> bool:
    """Warn that there is no kernel, and say so: False."""
    told = f"no packed kernel for {how} on {device} ({reason}): it takes less memory there, and no less time"
    warnings.warn(told, stacklevel=2)
    return False
