"""Schedules rise and fall as they say, resume in place; decay spares what it should; fused steps are plain steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from audiolm_kit.training.optim import WarmupConstant, WarmupCosine, WarmupInverseSquareRoot, fused, parameter_groups


def make_optimizer(rate: float = 2.0) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def walk(scheduler: LRScheduler, steps: int) -> list[float]:
    """The rate that each of the steps is taken with."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_constant_rises_linearly_and_holds() -> None:
    assert walk(WarmupConstant(make_optimizer(), warmup_steps=4), 7) == pytest.approx(
        [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    )
    assert walk(WarmupConstant(make_optimizer()), 2) == [2.0, 2.0]


def test_cosine_falls_from_the_full_rate_to_its_floor_and_stays() -> None:
    rates = walk(WarmupCosine(make_optimizer(), warmup_steps=2, total_steps=6, floor=0.1), 9)
    assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert rates[4] == pytest.approx(2 * 0.55)
    assert rates[6:] == pytest.approx([0.2, 0.2, 0.2])
    assert all(one > other for one, other in zip(rates[2:6], rates[3:7], strict=True))


def test_inverse_square_root_halves_over_four_times_the_warmup() -> None:
    rates = walk(WarmupInverseSquareRoot(make_optimizer(), warmup_steps=5), 20)
    assert rates[4] == pytest.approx(2.0) and max(rates) == rates[4]
    assert rates[19] == pytest.approx(1.0)


def test_a_resumed_schedule_goes_on_where_it_was_with_its_own_numbers() -> None:
    whole = walk(WarmupCosine(make_optimizer(), 2, 10), 8)
    first = WarmupCosine(make_optimizer(), 2, 10)
    assert walk(first, 3) == whole[:3]
    second = WarmupCosine(make_optimizer(), 2, 10)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert walk(second, 5) == pytest.approx(whole[3:])
    longer = WarmupCosine(make_optimizer(), 2, 100)
    longer.load_state_dict(first.state_dict())
    assert longer.total_steps == 100 and longer.last_epoch == 3


def test_each_group_keeps_its_own_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 3.0)]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    WarmupConstant(optimizer, warmup_steps=2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.5]


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps is -1"):
        WarmupConstant(make_optimizer(), -1)
    with pytest.raises(ValueError, match="total_steps is 5"):
        WarmupCosine(make_optimizer(), 5, 5)
    with pytest.raises(ValueError, match="floor is 2"):
        WarmupCosine(make_optimizer(), 1, 5, 2)
    with pytest.raises(ValueError, match="warmup_steps is 0"):
        WarmupInverseSquareRoot(make_optimizer(), 0)


def test_norms_embeddings_biases_and_frozen_weights_are_not_decayed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm = nn.Embedding(3, 4), nn.LayerNorm(4)
            self.linear, self.frozen = nn.Linear(4, 5), nn.Linear(4, 4).requires_grad_(False)

    model = Model()
    decayed, plain = parameter_groups(model)
    assert [id(each) for each in decayed["params"]] == [id(model.linear.weight)]
    assert {id(each) for each in plain["params"]} == {
        id(each) for each in (model.embedding.weight, model.norm.weight, model.norm.bias, model.linear.bias)
    }
    optimizer = torch.optim.AdamW([decayed, plain], weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_steps_are_plain_steps(kind: type[torch.optim.Optimizer]) -> None:
    def walked(change: Callable[[torch.optim.Optimizer], torch.optim.Optimizer]) -> torch.Tensor:
        weight = nn.Parameter(torch.linspace(-1, 1, 50))
        optimizer = change(kind([weight], lr=0.1, weight_decay=0.1))
        for _ in range(5):
            optimizer.zero_grad()
            (weight**4).sum().backward()
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(walked(fused), walked(lambda optimizer: optimizer))


def test_only_what_has_no_will_of_its_own_is_fused() -> None:
    weight = nn.Parameter(torch.zeros(2))
    for made in (
        torch.optim.SGD([weight], lr=0.1),
        torch.optim.AdamW([weight], foreach=True),
        torch.optim.AdamW([weight], fused=False),
        torch.optim.Adam([nn.Parameter(torch.zeros(2, device="meta"))]),
    ):
        before = [dict(group) for group in made.param_groups]
        assert fused(made) is made and made.param_groups == before


def test_gradients_of_fused_optimizers_can_be_clipped() -> None:
    optimizer = fused(torch.optim.AdamW([nn.Parameter(torch.zeros(2))]))
    assert optimizer.param_groups[0]["fused"] and not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_a_run_that_began_without_goes_on_without() -> None:
    weight = nn.Parameter(torch.ones(2))
    begun = torch.optim.AdamW([weight])
    weight.sum().backward()
    begun.step()
    going_on = fused(torch.optim.AdamW([weight]))
    going_on.load_state_dict(begun.state_dict())
    assert not going_on.param_groups[0]["fused"]
    going_on.step()
