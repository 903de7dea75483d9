"""torch.compile where it is asked for: whether there is a compiler to do it."""

from __future__ import annotations

import torch
from torch import Tensor


def check_compiler(device: torch.device) -> None:
    """Compile a trifle for ``device``, before training has begun.

    Raises:
        ValueError: it does not work; the message says what is missing.
    """
    try:
        _trifle(torch.ones(8, device=device))
    except Exception as error:  # each backend has its own way to say that it finds no compiler
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        wanted = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "triton and a C compiler"
        raise ValueError(
            f"compile is true, and torch.compile does not work on {device.type} here ({reason}): install {wanted}, "
            "or set compile to false"
        ) from None


@torch.compile(dynamic=False)
def _trifle(x: Tensor) -> Tensor:
    return (x + 1).cos() * x
