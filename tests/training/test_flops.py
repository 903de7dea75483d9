"""Operations by formula are those that torch counts; devices are told apart by their names."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from audiolm_kit.lm.lora import LoRAConfig, add
from audiolm_kit.lm.losses import loss
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.training.flops import lm_flops, peak_flops
from audiolm_kit.transformer import TransformerConfig

B, K, T, V = 2, 3, 10, 50


def make_lm(pattern: str, prefix: Prefix = Prefix()) -> StreamLM:  # noqa: B008  frozen
    transformer = TransformerConfig(dim=16, heads=2, layers=2)
    return StreamLM(LMConfig(K, V, pattern, transformer, prefix=prefix))


def counted(lm: StreamLM, prefix: torch.Tensor | None = None) -> int:
    """What torch counts of matrices, forth and back; it counts no attention on a CPU."""
    with FlopCounterMode(display=False) as counter:
        codes = torch.randint(V, (B, K, T))
        loss(lm(codes, prefix=prefix), codes, torch.ones(B, T, dtype=torch.bool)).backward()
    named = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in named.items() if "attention" not in str(operation))


@pytest.mark.parametrize("pattern", ["parallel", "delay", "flatten"])
def test_operations_are_those_that_torch_counts(pattern: str) -> None:
    lm = make_lm(pattern)
    steps = lm.pattern.num_steps(T)
    attention = B * 3 * 2 * 2 * steps**2 * 16
    assert lm_flops(lm, (B, K, T)) - attention == pytest.approx(counted(lm), rel=1e-6)


def test_a_prefix_is_read_and_not_told() -> None:
    prefix = torch.zeros(B, 1, 4, dtype=torch.long)
    lm = make_lm("delay", Prefix(1, V))
    attention = B * 3 * 2 * 2 * (lm.pattern.num_steps(T) + 4) ** 2 * 16
    assert lm_flops(lm, (B, K, T), prefix) - attention == pytest.approx(counted(lm, prefix), rel=1e-6)


def test_frozen_matrices_take_a_third_less() -> None:
    lm = make_lm("delay")
    whole = lm_flops(lm, (B, K, T))
    add(lm, LoRAConfig(rank=1, alpha=1.0, targets=("attention",)))
    assert 0.6 * whole < lm_flops(lm, (B, K, T)) < 0.85 * whole


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", False, 312),
        ("NVIDIA A10", "bf16-mixed", False, 125),
        ("NVIDIA A10G", "16-mixed", False, 70),
        ("NVIDIA H100 80GB HBM3", "bf16-true", False, 989),
        ("NVIDIA H100 PCIe", "bf16-mixed", False, 756),
        ("NVIDIA H200", "32-true", True, 494.5),
        ("NVIDIA H200", "32-true", False, 67),
        ("NVIDIA L4", "bf16-mixed", False, 121),
        ("NVIDIA L40S", "bf16-mixed", False, 362),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", False, 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16-mixed", False, 0),
        ("Tesla T4", "32-true", True, 8.1),
        ("Radeon of 2031", "bf16-mixed", False, 0),
        ("NVIDIA A100-SXM4-80GB", "64-true", False, 0),
    ],
)
def test_what_a_device_can_do_goes_by_its_name(name: str, precision: str, tf32: bool, teraflops: float) -> None:
    assert peak_flops(name, precision, tf32) == pytest.approx(teraflops * 1e12)
