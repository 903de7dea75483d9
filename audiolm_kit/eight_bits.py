"""Weights that lie on disk in 8 bits, and are float32 again when they are read: a quarter of the space.

Each row of a matrix is whole numbers from -127 to 127 times a scale of its own; what has no rows (norms, biases) stays
as it is. In a safetensors file the scales of NAME stand under ``NAME:scale``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

MOST = 127
SCALE = ":scale"
"""No name of a parameter of PyTorch has a colon of its own."""
SHORTEST = 8
"""Rows of fewer numbers stay as they are: their scales would take half of what is saved."""


@torch.no_grad()
def rounded(model: nn.Module, chosen: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Round a model's matrices, in place, to what 8 bits hold, and return its state as it lies on disk.

    What ``restored`` makes of that are the model's own weights, bit for bit; the model is of float32.

    Args:
        chosen: says of a name whether it is rounded.
    """
    stored = {}
    for name, tensor in model.state_dict().items():
        stored[name] = tensor
        if chosen(name) and tensor.is_floating_point() and tensor.dim() > 1 and tensor[0].numel() >= SHORTEST:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(1, keepdim=True) / MOST
            numbers = (rows / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
            stored[name], stored[name + SCALE] = numbers.view_as(tensor), scale[:, 0]
            tensor.copy_(_whole(stored[name], stored[name + SCALE]))
    return stored


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as it lies on disk, with what stands in 8 bits as float32 again; any other state as it is.

    Raises:
        ValueError: scales belong to nothing, or are not one for each row.
    """
    state = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name in stored.keys() - state.keys():
        numbers, scale = state.get(name.removesuffix(SCALE)), stored[name]
        if numbers is None or numbers.dtype != torch.int8 or scale.shape != numbers.shape[:1]:
            raise ValueError(f"{name} does not fit {name.removesuffix(SCALE)}: copy the checkpoint again")
        state[name.removesuffix(SCALE)] = _whole(numbers, scale)
    return state


def _whole(numbers: Tensor, scale: Tensor) -> Tensor:
    return numbers.float() * scale.reshape(-1, *[1] * (numbers.dim() - 1))
