"""How language models compute when they make sound: in which dtype, with what matrices, compiled or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from audiolm_kit import compiled
from audiolm_kit.lm.blocking import block
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.packed import How
from audiolm_kit.lm.packed_kernels import native_bfloat16
from audiolm_kit.lm.quantize import quantize, quantized

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Precision:
    """How a language model is put on a device; codecs, tokenizers and T5 stay in float32."""

    dtype: Dtype | None = "float32"
    """Of weights, activations and caches; None: bfloat16 where the device has arithmetic for it, else float16 on a GPU
    and float32 on a CPU."""
    quantize: How | None = None
    """Whole numbers of 8 or 4 bits for the matrices; dtype is then that of all else."""
    compile: bool = False
    """Whether the step that is taken for each frame is compiled; on a GPU it is replayed as one graph."""
    frozen: bool = False
    """The model makes sound and learns nothing more: on a CPU its float32 matrices are laid out for that, where steps
    are not compiled (``lm.blocking``)."""

    def __post_init__(self) -> None:
        if self.dtype not in (*get_args(Dtype), None):
            raise ValueError(f"dtype is {self.dtype!r}: give one of {', '.join(get_args(Dtype))}, or None for the best")
        if self.quantize not in (*get_args(How), None):
            raise ValueError(f"quantize is {self.quantize!r}: give one of {', '.join(get_args(How))}, or None")

    def put(self, lm: StreamLM, device: torch.device | str) -> StreamLM:
        """Bring a model, in place, to a device and into this state; it is rounded once, from what it is."""
        place = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        if self.compile:
            compiled.require(place)
        if self.quantize:
            quantize(lm, self.quantize, place)
        lm.to(place, self.dtype_on(place))
        lm.transformer.compiling = self.compile
        return block(lm) if self.frozen and not (self.compile or self.quantize) else lm

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """The dtype, chosen for a device where none is said."""
        if self.dtype is not None:
            chosen: torch.dtype = getattr(torch, self.dtype)
            return chosen
        if native_bfloat16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32


def told(lm: StreamLM) -> dict[str, str]:
    """What a model computes with, for the note of how a sound was made; ``quantize`` is empty where it is not."""
    return {"dtype": str(lm.dtype).removeprefix("torch."), "quantize": quantized(lm) or ""}
