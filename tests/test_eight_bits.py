"""Weights in 8 bits come back as the model had them when it was rounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from audiolm_kit import checkpoint
from audiolm_kit.eight_bits import restored, rounded


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(64, 32), nn.Conv1d(4, 6, 5), nn.LayerNorm(32), nn.Linear(4, 3), nn.Embedding(5, 16))
    made[0].weight.data[3] = 0.0  # a row of nothing has no scale to be divided by
    made[0].weight.data[5, 7] = 100.0  # nor does a large number spoil other rows
    return made


def test_what_is_read_is_bit_for_bit_the_rounded_model(model: nn.Module, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_file(rounded(model), tmp_path / "model.safetensors")
    after = checkpoint.read_weights(tmp_path / "model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in model.state_dict().items():
        assert after[name].dtype == torch.float32 and torch.equal(after[name], weight)
        step = before[name].flatten(1).abs().amax(1) / 127 if weight.dim() > 1 else torch.zeros(len(weight))
        error = (weight - before[name]).reshape(len(weight), -1).abs().amax(1)
        assert (error <= 0.5 * step * (1 + 1e-4)).all()


def test_only_rows_that_are_long_enough_take_8_bits(model: nn.Module) -> None:
    types = {name: weight.dtype for name, weight in rounded(model).items()}
    small = {name for name, dtype in types.items() if dtype == torch.int8}
    assert small == {"0.weight", "1.weight", "4.weight"}
    assert {name.removesuffix(":scale") for name in types if name.endswith(":scale")} == small


def test_rounding_twice_changes_nothing_more(model: nn.Module) -> None:
    first = rounded(model)
    second = rounded(model)
    assert all(torch.equal(first[name], second[name]) for name in first if not name.endswith(":scale"))


def test_a_state_of_another_kind_is_left_alone() -> None:
    state = {"weight": torch.randn(3, 16), "codes": torch.ones(4, 16, dtype=torch.int8)}
    assert all(restored(state)[name] is weight for name, weight in state.items())


def test_scales_that_belong_to_nothing_are_told(tmp_path: Path) -> None:
    for state in (
        {"a:scale": torch.ones(3)},
        {"a": torch.ones(3, 8), "a:scale": torch.ones(3)},
        {"a": torch.ones(3, 8, dtype=torch.int8), "a:scale": torch.ones(2)},
    ):
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"model.safetensors: a:scale does not fit a: copy the checkpoint again"):
            checkpoint.read_weights(tmp_path / "model.safetensors")
