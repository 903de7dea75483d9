"""Equal tensors lie on disk once and are all there when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from audiolm_kit import checkpoint, stored_once


def test_what_is_read_is_the_state_as_it_was(tmp_path: Path) -> None:
    first = torch.randn(3, 4)
    state = {
        "a": first,
        "b": first.clone(),
        "c": first + 1,
        "d": first.half(),
        "e": first.clone(),
        "one": torch.ones(1),
    }
    kept, same = stored_once.once(state | {"other": torch.ones(1)})
    assert same == {"b": "a", "e": "a"}  # a single number takes less than its name in the metadata
    save_file(kept, tmp_path / "w.safetensors", same)
    assert set(load_file(tmp_path / "w.safetensors")) == {"a", "c", "d", "one", "other"}
    found = checkpoint.read_weights(tmp_path / "w.safetensors")
    assert found.keys() == state.keys() | {"other"} and all(torch.equal(found[name], state[name]) for name in state)
    found["b"].zero_()
    assert torch.equal(found["a"], first)  # they are equal, and not the same


def test_it_reads_what_safetensors_leaves_out_itself(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight  # tied
    save_model(model, str(tmp_path / "w.safetensors"))
    assert len(load_file(tmp_path / "w.safetensors")) == 3
    found = checkpoint.read_weights(tmp_path / "w.safetensors")
    assert found.keys() == model.state_dict().keys()


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"a": "b"}, {"new": "nothing"}])
def test_other_metadata_is_left_alone(metadata: dict[str, str]) -> None:
    stored = {"a": torch.zeros(2), "b": torch.ones(2)}
    found = stored_once.again(stored, metadata)
    assert found.keys() == stored.keys() and all(found[name] is stored[name] for name in stored)


def test_zeros_lie_on_disk_as_their_shape_alone(tmp_path: Path) -> None:
    state = {
        "idle": torch.zeros(30, 20, dtype=torch.int8),
        "also": torch.zeros(200, dtype=torch.float16),
        "few": torch.zeros(3),
        "full": torch.ones(200),
    }
    kept, same = stored_once.once(state)
    assert kept.keys() == {"few", "full"} and same == {"idle": "0 int8 30 20", "also": "0 float16 200"}
    save_file(kept, tmp_path / "w.safetensors", same)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        found = stored_once.again({name: file.get_tensor(name) for name in kept}, file.metadata())
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("told", ["0", "0 int8", "0 save 3", "0 int8 -3", "0 int8 3 "])
def test_what_says_no_zeros_makes_none(told: str) -> None:
    assert stored_once.again({"a": torch.ones(2)}, {"b": told}).keys() == {"a"}
