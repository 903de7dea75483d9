"""A StreamLM's matrices in the order in which oneDNN multiplies them by a few rows: the same numbers, read faster.

With two rows, one with the text and one without, torch multiplies an ordinary float32 matrix on a CPU at about half the
speed of memory, and a bfloat16 one at less; in blocks they keep up with it. The weights stay what they are, to the last
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiolm_kit.lm.lora import AdaptedLinear
from audiolm_kit.lm.model import StreamLM

ROWS = 2
"""The number of rows that blocks are made for; any other is multiplied as well."""


class BlockedLinear(nn.Module):
    """``nn.Linear`` without a bias that has its matrix in blocks where there are some for it; it does not learn."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert linear.bias is None
        self._keep(linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., O]``."""
        if self._in_blocks and x.dtype == self._matrix.dtype:
            multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._matrix, None, "none", [], "")
            return multiplied
        return F.linear(x, self.weight)

    @property
    def weight(self) -> Tensor:
        """The matrix as it was, ``[O, I]``; in blocks it is put back for this, which takes its time."""
        return self._matrix.to_dense() if self._in_blocks else self._matrix

    def _keep(self, matrix: Tensor) -> None:
        self._in_blocks = has_blocks(matrix)
        self._matrix: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix, ROWS) if self._in_blocks else matrix

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BlockedLinear:
        """Follow ``to``: elsewhere, or in another dtype, it is an ordinary matrix."""
        self._keep(fn(self.weight))
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """As an ordinary layer, so that a checkpoint and its fingerprint are the same."""
        destination[f"{prefix}weight"] = self.weight


def has_blocks(matrix: Tensor) -> bool:
    """Whether there are blocks for a matrix: on a CPU in float32, and in bfloat16 where oneDNN has kernels for it."""
    if matrix.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if matrix.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return matrix.dtype == torch.float32


def block(lm: StreamLM) -> StreamLM:
    """Put a model's matrices into blocks in place, one after the other; for generation on a CPU.

    A model that is elsewhere, in a dtype that has no blocks, or quantised, and a torch without oneDNN, are left as they
    are.

    Raises:
        ValueError: the model has adapters.
    """
    if any(isinstance(module, AdaptedLinear) for module in lm.modules()):
        raise ValueError("the model has adapters, which blocks cannot take: merge them first (audiolm-kit merge)")
    if not has_blocks(lm.embedding.weight):
        return lm
    lm.requires_grad_(False)
    for owner in [*lm.transformer.modules(), lm]:
        for name, linear in list(owner.named_children()):
            if isinstance(linear, nn.Linear) and linear.bias is None:  # what reads captions has biases
                setattr(owner, name, BlockedLinear(linear))
    return lm
