"""Muon for the matrices between a model's layers, and Adam for all its other weights, as one optimizer.

After Jordan et al. 2024 (Muon: an optimizer for hidden layers in neural networks) with the step size of Liu et al. 2025
(arXiv:2502.16982, equation 4). R rows, C columns, N matrices of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial of degree 5 that moves singular values towards 1, in so many rounds."""
OBLONG = 8
"""A matrix with more than so many times as many rows as columns, or the other way around, is a table: one row for each
code or piece, as embeddings and heads are. A step learns few rows of a table, and Muon would turn all of them."""
LIKE_ADAM = 0.2
"""The root mean square of an Adam step, by its learning rate; Muon's steps are made as large, so that both share it."""


class MuonAdamW(Optimizer):
    """Orthogonal steps for matrices, those of AdamW for tables, norms and biases.

    All directions of a matrix's momentum are taken equally far (its singular values become 1), so that what few items
    of a batch ask for is learned as fast as what all ask for. A step costs a few products of matrices more.

    Args:
        params: weights, or groups of them (``parameter_groups``); a group's own options come first.
        lr: of both kinds of steps, as one would choose it for AdamW.
        betas: of Adam's averages.
        eps: of Adam.
        weight_decay: decoupled, of both.
        momentum: of Muon's average, looked ahead by one step (Nesterov).

    Raises:
        ValueError: ``momentum`` is out of range or, in a step, matrices are sharded.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}, wanted 0 or more and less than 1")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(_split(params), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            (self._muon if group["matrices"] else self._adam)(weights, group)
        return loss

    def _muon(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        shapes: dict[tuple[torch.Size, torch.device, torch.dtype], list[Tensor]] = {}
        for weight in weights:
            if hasattr(weight, "placements"):  # a DTensor's
                raise ValueError("MuonAdamW turns whole matrices, and these are sharded: take AdamW with fsdp")
            shapes.setdefault((weight.shape, weight.device, weight.dtype), []).append(weight)
        for (shape, *_), alike in shapes.items():
            asked = []
            for weight in alike:
                average = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                assert weight.grad is not None
                average.lerp_(weight.grad, 1 - group["momentum"])
                asked.append(weight.grad.lerp(average, group["momentum"]))
            steps = orthogonal(torch.stack(asked))
            size = group["lr"] * LIKE_ADAM * math.sqrt(max(shape))
            for weight, step in zip(alike, steps, strict=True):
                weight.add_(step.to(weight.dtype), alpha=-size)

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for weight in weights:
            state, gradient = self.state[weight], weight.grad
            assert gradient is not None
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            state["step"] += 1
            state["mean"].lerp_(gradient, 1 - first)
            state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            scale = math.sqrt(1 - second ** state["step"])
            size = group["lr"] * scale / (1 - first ** state["step"])
            weight.addcdiv_(state["mean"], state["square"].sqrt().add_(group["eps"] * scale), value=-size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, R, C] with their singular values moved to about 1: between 0.7 and 1.2 but for the smallest.

    By Newton and Schulz's iteration; in bfloat16 on devices that multiply it faster, which is exact enough.
    """
    found = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = found.shape[1] > found.shape[2]
    found = found.mT if tall else found
    found = found / found.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-7)
    one, three, five = COEFFICIENTS
    for _ in range(ROUNDS):
        square = found @ found.mT
        found = one * found + torch.baddbmm(square, square, square, beta=three, alpha=five) @ found
    return found.mT if tall else found


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon learns a weight: a matrix that is no table."""
    return weight.ndim == 2 and max(weight.shape) <= OBLONG * min(weight.shape)


def _split(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Weights or groups of them -> groups, of matrices alone or of none.

    What is spared weight decay is for Adam: ``parameter_groups`` puts embeddings there, which may be small.
    """
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    made = []
    for group in groups:
        weights, spared = list(group["params"]), group.get("weight_decay") == 0.0
        for matrices in (True, False):
            own = [weight for weight in weights if (is_matrix(weight) and not spared) == matrices]
            made += [{**group, "params": own, "matrices": matrices}] if own else []
    return made
