"""Sharding on a mesh of one rank: the same model, and its weights come back whole. See also test_many_ranks.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from audiolm_kit.conditioning import TextConfig, TextInput
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.training.lm import MATRICES, whole
from audiolm_kit.training.optim import parameter_groups
from audiolm_kit.training.sharding import Sharded, by_name, gathered, is_sharded, part, scatter, shard
from audiolm_kit.transformer import TransformerConfig

CONFIG = LMConfig(
    num_codebooks=2,
    codebook_size=16,
    transformer=TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True),
    text=TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=20),
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    store = tmp_path_factory.mktemp("ranks") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def make_lm(mesh: DeviceMesh | None = None, dtype: torch.dtype | None = None, seed: int = 0) -> StreamLM:
    torch.manual_seed(seed)
    lm = StreamLM(CONFIG)
    if mesh is not None:
        shard(lm, [module for module in lm.modules() if isinstance(module, MATRICES)], mesh, dtype)
        torch.distributed.fsdp.register_fsdp_forward_method(lm, "condition")
    return lm


def logits_of(lm: StreamLM) -> Tensor:
    codes = torch.randint(16, (2, 2, 5), generator=torch.Generator().manual_seed(1))
    pieces = torch.randint(20, (2, 3), generator=torch.Generator().manual_seed(2))
    return lm(codes, lm.condition(TextInput(pieces, torch.ones(2, 3, dtype=torch.bool))))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_sharded_model_computes_the_same_forth_and_back(mesh: DeviceMesh, checkpointing: bool) -> None:
    plain, sharded = make_lm(), make_lm(mesh)
    for lm in (plain, sharded):
        lm.transformer.checkpointing = checkpointing
        logits_of(lm).logsumexp(-1).sum().backward()
    torch.testing.assert_close(logits_of(sharded), logits_of(plain))
    assert is_sharded(sharded) and not is_sharded(plain)
    expected = {name: weight.grad for name, weight in plain.named_parameters()}
    found = {name: part(weight.grad) for name, weight in sharded.named_parameters()}
    torch.testing.assert_close(found, expected)


def test_gathering_in_half_precision_changes_nothing_under_autocast(mesh: DeviceMesh) -> None:
    plain, sharded, seen = make_lm(), make_lm(mesh, torch.bfloat16), []
    sharded.transformer.layers[1].register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    sharded.transformer.layers[1].attention.output.register_forward_pre_hook(
        lambda module, given: seen.append(module.weight.dtype)
    )
    for lm in (plain, sharded):
        with torch.autocast("cpu", torch.bfloat16):
            logits = logits_of(lm)
        logits.float().logsumexp(-1).sum().backward()
    assert seen == [torch.float32, torch.bfloat16]  # the stream between the layers, and a matrix
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits_of(sharded), logits_of(plain))
    expected = {name: weight.grad for name, weight in plain.named_parameters()}
    found = {name: part(weight.grad) for name, weight in sharded.named_parameters()}
    torch.testing.assert_close(found, expected)
    assert all(weight.dtype == torch.float32 for weight in sharded.parameters())


def test_weights_come_back_whole_and_go_in_again(mesh: DeviceMesh) -> None:
    plain, sharded, other = make_lm(), make_lm(mesh), make_lm(mesh, seed=1)
    weights = gathered(sharded)
    assert weights.keys() == plain.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
    copy = whole(sharded)
    assert type(copy) is StreamLM and copy.config == CONFIG and not is_sharded(copy)
    torch.testing.assert_close(logits_of(copy), logits_of(plain))
    assert whole(plain) is plain
    scatter(other, weights)
    torch.testing.assert_close(logits_of(other), logits_of(plain))
    with pytest.raises(RuntimeError, match="heads"):
        scatter(other, {name: value for name, value in weights.items() if name != "heads.weight"})


def test_an_optimizers_state_is_named_in_the_order_of_its_groups() -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 5))
        return model, torch.optim.AdamW(parameter_groups(model))

    model, optimizer = make()
    model(torch.tensor([0])).sum().backward()
    optimizer.step()
    named = by_name(optimizer.state_dict(), *make())
    assert [group["params"] for group in named["param_groups"]] == [["1.weight"], ["0.weight", "1.bias"]]
    shapes = {name: tuple(state["exp_avg"].shape) for name, state in named["state"].items()}
    assert shapes == {"1.weight": (5, 4), "0.weight": (3, 4), "1.bias": (5,)}


def test_all_ranks_begin_with_the_weights_of_the_first(mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(distributed, "broadcast", lambda weight, src: sent.append(weight.numel()))
    lm = make_lm(mesh)
    assert sum(sent) == sum(weight.numel() for weight in lm.parameters())  # each of them once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16-mixed", "callbacks": []}, "precision is '16-mixed'"),
        ({"precision": "32-true", "callbacks": [EMAWeightAveraging()]}, "use audiolm_kit.training.averaging"),
    ],
)
def test_what_shards_cannot_do_is_refused_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        Sharded().setup(SimpleNamespace(**options))
    assert "\n" not in str(refusal.value)
