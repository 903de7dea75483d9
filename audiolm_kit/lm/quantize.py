"""Weight-only quantisation: a StreamLM's matrices as whole numbers of 8 or 4 bits, made from ordinary weights in place.

The matrices are those of the transformer and the heads; embeddings, norms and what reads captions stay as they are.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from audiolm_kit.lm.lora import AdaptedLinear
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.packed import How, Int8Linear, PackedLinear, packed


def quantize(lm: StreamLM, how: How, device: torch.device | str | None = None) -> StreamLM:
    """Replace a model's linear layers, one after the other, each freed before the next is rounded; no more learning.

    int8 has one scale for each output, int4 a scale and a zero for every 32 inputs of one. Layers compute as before,
    in whatever dtype comes in; they are packed for one device and stay there.

    Args:
        lm: Plain, of any floating dtype; best float32, as each rounding adds to the last. It is changed.
        how: int8, or int4, which is smaller and less exact.
        device: Where it is to compute; its matrices go there one by one, so that whole numbers alone take room there.
            None: where it is.

    Returns:
        The model itself, on that device.

    Raises:
        ValueError: another word for ``how``, a model that has adapters or is quantised already, or weights with NaN.
    """
    if how not in get_args(How):
        raise ValueError(f"quantize is {how!r}: give one of {', '.join(get_args(How))}")
    if any(isinstance(module, AdaptedLinear) for module in lm.modules()):
        raise ValueError(
            "the model has adapters, which whole numbers cannot take: merge them first (audiolm-kit merge)"
        )
    if found := quantized(lm):
        raise ValueError(f"the model is quantised already ({found}): load it anew to quantise it otherwise")
    if not isinstance(lm.heads, nn.Linear):
        raise ValueError(
            f"the model's layers are {type(lm.heads).__name__} already: load it anew, and quantise it first"
        )
    place = lm.embedding.weight.device if device is None else device
    lm.requires_grad_(False)
    for name in _matrices(lm):
        path, _, last = name.rpartition(".")
        owner = lm.get_submodule(path)
        setattr(owner, last, packed(getattr(owner, last).to(place), how))
    return lm.to(place)


def quantized(lm: nn.Module) -> How | None:
    """How a model is quantised; None where it is not."""
    for module in lm.modules():
        if isinstance(module, PackedLinear):
            return "int8" if isinstance(module, Int8Linear) else "int4"
    return None


def refuse_quantized(lm: nn.Module) -> None:
    """Whole numbers are made at loading and are no checkpoint's.

    Raises:
        ValueError: the model is quantised.
    """
    if found := quantized(lm):
        raise ValueError(
            f"the model is quantised ({found}) and cannot be saved: load it without quantize, and save that"
        )


def _matrices(lm: StreamLM) -> list[str]:
    """Names of layers, and not the layers: nothing must hold on to one that is being replaced."""
    inside = [name for name, module in lm.transformer.named_modules() if isinstance(module, nn.Linear)]
    return [*(f"transformer.{name}" for name in inside), "heads"]
