"""What verbs are given: numbers that may be left unsaid, devices that must be there, and the names of precisions."""

from __future__ import annotations

from typing import Any, Literal

UNSAID: Any = None  # of a number; with `float | None` a wrong one would be told of in jsonargparse's words

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Quantize = Literal["int8", "int4"]
# Those of inference.precision, which only a verb that makes sound imports.


def checked_device(name: str) -> str:
    """The device's name, where it is there; `auto` becomes the best there is."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the second where torch is built without CUDA
        raise ValueError(f"device is {name!r}, which this torch does not find: choose auto, cpu or cuda") from error
    return name
