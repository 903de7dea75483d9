"""Rounding to whole numbers: half a step at most, exact where it can be, better than the plain way, never a crash."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiolm_kit.lm import rounding
from audiolm_kit.lm.rounding import to_int4, to_int8


def a_matrix(outputs: int = 48, inputs: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.02


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_8_bits_are_off_by_half_a_step_at_most() -> None:
    weight = a_matrix()
    rounded = to_int8(weight)
    assert rounded.levels.dtype == torch.int8 and int(rounded.levels.abs().max()) == 127
    steps = rounded.scales.float()[:, None]
    inside = weight.abs() <= 127 * steps  # a scale that bfloat16 rounds down cuts the largest weight
    off = (rounded.restored() - weight).abs() / steps
    assert bool((off[inside] <= 0.501).all()) and float(off.max()) < 1
    assert error(rounded.restored(), weight) < 0.01


def test_4_bits_with_groups_beat_the_plain_way() -> None:
    weight = a_matrix(inputs=128)
    groups = weight.view(-1, 32)
    low, high = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
    plain = ((groups - low) / (high - low) * 15).round() * (high - low) / 15 + low
    found = {group: error(to_int4(weight, group).restored(), weight) for group in (32, 64, 128)}
    assert found[32] < 0.97 * error(plain.view_as(weight), weight) and found[32] < found[64] < found[128] < 0.12


def test_what_16_levels_can_say_is_said_exactly() -> None:
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(16, (6, 64), generator=generator)
    levels[:, ::32], levels[:, 1::32] = 0, 15  # each group reaches both ends
    weight = (levels - 8).float() * 0.0625 + 0.25
    assert torch.equal(to_int4(weight, 32).restored(), weight)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0])
def test_rows_and_groups_where_all_is_alike_stay_alike(value: float) -> None:
    weight = torch.full((3, 32), value)
    for rounded in (to_int8(weight), to_int4(weight, 32)):
        torch.testing.assert_close(rounded.restored(), weight, rtol=2**-8, atol=0)


def test_an_outlier_costs_only_its_own_group() -> None:
    weight = a_matrix(inputs=64)
    spoilt = weight.clone()
    spoilt[:, 0] = 3.0
    plain, found = to_int4(weight, 32).restored(), to_int4(spoilt, 32).restored()
    assert torch.equal(plain[:, 32:], found[:, 32:]) and bool((found[:, 0] - 3).abs().max() < 0.05)


def test_rounding_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = a_matrix()
    whole = [*to_int8(weight), *to_int4(weight, 32)]
    monkeypatch.setattr(rounding, "AT_ONCE", 200)
    pieces = [*to_int8(weight), *to_int4(weight, 32)]
    assert all(torch.equal(one, other) for one, other in zip(whole, pieces, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_any_dtype_are_rounded(dtype: torch.dtype) -> None:
    weight = a_matrix()
    assert error(to_int8(weight.to(dtype)).restored(), weight) < 0.01
    assert error(to_int4(weight.to(dtype), 32).restored(), weight) < 0.1
