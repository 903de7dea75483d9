"""MuonAdamW: orthogonal steps for matrices, Adam's own for all else, as one optimizer that resumes exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.training.muon import MuonAdamW, is_matrix, orthogonal
from audiolm_kit.training.optim import parameter_groups


class Small(nn.Module):
    """A table that is read, two layers, a norm, and a head that is a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 8)  # by its shape it could be a matrix
        self.up = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(24)
        self.down = nn.Linear(24, 8)
        self.head = nn.Linear(8, 100, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.down(self.norm(self.up(self.embedding(codes))).relu()))
        return hidden


def learn(model: Small, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    """The losses of some steps."""
    losses = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        codes = torch.randint(12, (32,), generator=generator)
        loss = F.cross_entropy(model(codes), codes * 7 % 100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 48), (2, 48, 12)])
def test_singular_values_move_to_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrices)
    assert made.shape == matrices.shape
    for before, behind in zip(matrices, made, strict=True):
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        found = torch.diagonal(left.T @ behind @ right.T)
        loud = values > 0.05 * values[0]
        assert ((0.65 < found[loud]) & (found[loud] < 1.25)).all()
        torch.testing.assert_close(left @ torch.diag(found) @ right, behind, atol=1e-4, rtol=1e-4)


def test_a_matrix_of_zeros_stays_what_it_is() -> None:
    assert not orthogonal(torch.zeros(1, 4, 6)).any()


def test_tables_norms_and_biases_are_left_to_adam() -> None:
    model = Small()
    optimizer = MuonAdamW(parameter_groups(model))
    learned = {id(weight) for group in optimizer.param_groups if group["matrices"] for weight in group["params"]}
    assert learned == {id(model.up.weight), id(model.down.weight)}
    every = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(every) == sorted(id(weight) for weight in model.parameters())
    assert not is_matrix(model.head.weight) and is_matrix(model.up.weight)


def test_what_is_left_to_adam_learns_as_with_adamw() -> None:
    """Against torch's own AdamW, on weights of which none is a matrix."""
    options = {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
    weights = [[nn.Parameter(torch.linspace(-1, 1, 40)), nn.Parameter(torch.ones(100, 2))] for _ in range(2)]
    both = MuonAdamW(weights[0], **options), torch.optim.AdamW(weights[1], **options)  # type: ignore[arg-type]
    for step in range(20):
        for own, optimizer in zip(weights, both, strict=True):
            for weight in own:
                weight.grad = torch.sin(weight.detach() * 3 + step)
            optimizer.step()
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_step_of_a_matrix_is_as_large_as_one_of_adam_and_decays_apart() -> None:
    weight = nn.Parameter(torch.ones(32, 64))
    optimizer = MuonAdamW([weight], lr=0.01, weight_decay=0.5)
    weight.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * 1e-3
    optimizer.step()
    moved = weight.detach() - (1 - 0.01 * 0.5)
    assert 0.2 * 0.01 * 0.75 < moved.square().mean().sqrt() < 0.2 * 0.01 * 1.1
    still = weight.detach().clone()
    weight.grad = None
    optimizer.step()
    assert torch.equal(weight, still)


def test_it_learns_and_resumes_exactly() -> None:
    whole, model = Small(), Small()
    optimizer = MuonAdamW(parameter_groups(whole), lr=5e-3)
    losses = learn(whole, optimizer, 0, 60)
    assert losses[-1] < 0.5 * losses[0]

    begun = MuonAdamW(parameter_groups(model), lr=5e-3)
    learn(model, begun, 0, 30)
    state = copy.deepcopy((model.state_dict(), begun.state_dict()))
    other = Small()
    other.load_state_dict(state[0])
    again = MuonAdamW(parameter_groups(other), lr=5e-3)
    again.load_state_dict(state[1])
    assert learn(other, again, 30, 60) == losses[30:]


def test_sharded_matrices_are_refused() -> None:
    class Sharded(nn.Parameter):
        placements = ()

    weight = Sharded(torch.ones(4, 4))
    weight.grad = torch.ones(4, 4)
    with pytest.raises(ValueError, match="MuonAdamW turns whole matrices, and these are sharded: take AdamW"):
        MuonAdamW([weight]).step()


def test_a_momentum_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum is 1.0, wanted 0 or more and less than 1"):
        MuonAdamW([nn.Parameter(torch.ones(2, 2))], momentum=1.0)
