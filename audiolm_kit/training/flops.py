"""How many operations a training step asks for by its formula, and how many a device can do.

B batch, K codebooks, T frames, S steps, V codebook size, D width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from audiolm_kit.lm.model import StreamLM

PEAKS = (
    ("B200", 2250.0, 80.0),
    ("GH200", 989.0, 67.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A40", 150.0, 37.4),
    ("A30", 165.0, 10.3),
    ("A10G", 70.0, 35.0),
    ("A10", 125.0, 31.2),
    ("L40S", 362.0, 91.6),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 30.3),
    ("RTX A6000", 155.0, 38.7),
    ("RTX 5090", 209.5, 104.8),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
    ("V100", 125.0, 15.7),
    ("T4", 65.0, 8.1),
)
"""Of NVIDIA's data sheets: TFLOP/s of 16-bit matrices (summed up in float32, no sparsity), and of plain float32."""
WITH_TENSOR_CORES_FOR_16_BIT_ALONE = ("V100", "T4")


def lm_flops(lm: StreamLM, shape: Sequence[int], prefix: Tensor | None = None) -> float:
    """Operations of a step on codes ``[B, K, T]``: forth and back, in matrices and in attention.

    A multiplication and an addition are two. A matrix that learns takes as much for its own gradient as for that of its
    input, a frozen one nothing; attention counts where the mask is open, half of it. What is computed twice to save
    memory counts once, what captions need (their encoder, their keys and values) and what is not a matrix counts not.

    Args:
        shape: B, K, T.
        prefix: Codes ``[B, K, T]`` in front, if there are any.
    """
    batch, num_codebooks, num_frames = shape
    config = lm.config.transformer
    in_front = 0 if prefix is None or not lm.config.prefix.in_front else prefix.shape[1] * prefix.shape[2]
    steps = lm.pattern.num_steps(num_frames) + in_front
    matrices = sum(_per_row(weight) for name, weight in lm.transformer.named_parameters() if _reads_steps(name, weight))
    heads = sum(_per_row(weight) for weight in lm.heads.parameters() if weight.ndim == 2)
    attention = 3 * 2 * config.layers * steps * config.dim
    # Each of a step's codebooks has its own head, and with most patterns every step has a code of each of them.
    return float(batch * (steps * (matrices + attention) + num_frames * heads))


def _reads_steps(name: str, weight: nn.Parameter) -> bool:
    """Whether it is a matrix that every step goes through."""
    return weight.ndim == 2 and ".cross_attention.key_value." not in name and "relative_positions" not in name


def _per_row(weight: nn.Parameter) -> int:
    return weight.numel() * (6 if weight.requires_grad else 4)


def peak_flops(device: str, precision: str, tf32: bool = False) -> float:
    """Operations a second that a device of this name can do in matrices; 0 where that is not known.

    Args:
        device: As torch names it.
        precision: As Lightning names it.
        tf32: Whether float32 matrices are multiplied in TF32, which is half as fast as 16 bits.
    """
    found = next((peaks for peaks in PEAKS if re.search(rf"\b{peaks[0]}\b", device.replace("-", " "))), None)
    if found is None or "Laptop" in device or precision.split("-")[0] not in ("bf16", "16", "32"):
        return 0.0
    name, sixteen, plain = found
    if not precision.startswith("32"):
        return sixteen * 1e12
    return (sixteen / 2 if tf32 and name not in WITH_TENSOR_CORES_FOR_16_BIT_ALONE else plain) * 1e12
