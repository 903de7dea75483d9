"""Learning rates that warm up, then hold or fall; weight decay that spares norms, embeddings and biases."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

FUSED_ON = ("cpu", "cuda")
"""Devices whose Adam torch can do in one pass over weights, gradients and averages."""


class WarmupConstant(LRScheduler):
    """Rise linearly over ``warmup_steps`` steps to the optimizer's own rate, then hold it.

    Its siblings change only ``after``. Checkpoints store the place in the schedule and not the schedule: a resumed run
    follows that of its recipe, also where it was changed.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps is {warmup_steps}, wanted 0 (none) or more")
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """The share of the full rate at a step, counted from 0; the first step of a warm-up has a little already."""
        return (step + 1) / self.warmup_steps if step < self.warmup_steps else self.after(step)

    def after(self, step: int) -> float:
        """The share once warm-up is over."""
        return 1.0

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at this step."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The place in the schedule."""
        return {"last_epoch": self.last_epoch, "_last_lr": self._last_lr, "base_lrs": self.base_lrs}


class WarmupCosine(WarmupConstant):
    """Warm up, then fall along half a cosine to ``floor`` (a share of the full rate) at ``total_steps``; stay there.

    SGDR, arXiv:1608.03983, equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float = 0.0) -> None:
        if not warmup_steps < total_steps:
            raise ValueError(f"total_steps is {total_steps}, wanted more than warmup_steps, {warmup_steps}")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor is {floor}, wanted a share from 0 to 1")
        self.total_steps, self.floor = total_steps, floor
        super().__init__(optimizer, warmup_steps)

    def after(self, step: int) -> float:
        """1 at the end of warm-up, ``floor`` from ``total_steps`` on."""
        gone = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * gone)) / 2


class WarmupInverseSquareRoot(WarmupConstant):
    """Warm up, then fall as 1 / sqrt(step): the released AudioGen's schedule (arXiv:1706.03762, section 5.3)."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int) -> None:
        if warmup_steps < 1:
            raise ValueError(f"warmup_steps is {warmup_steps}, wanted at least 1: the fall is measured by it")
        super().__init__(optimizer, warmup_steps)

    def after(self, step: int) -> float:
        """1 where warm-up ends, half of it after four times as many steps."""
        return math.sqrt(self.warmup_steps / (step + 1))


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimizer: matrices under its weight decay; norms, embeddings and biases without any.

    Frozen parameters are in neither, a shared one is in one of them once.
    """
    spared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in spared]
    plain = [parameter for parameter in trained if parameter.ndim < 2 or id(parameter) in spared]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fused(optimizer: Optimizer) -> Optimizer:
    """Let Adam and AdamW change all weights in one pass over memory, unless their recipe says how they shall do it.

    The same results but for rounding. A run's checkpoint keeps the choice: one that was begun without goes on without.
    (Set here and not in the constructor, which would have the optimizer undo loss scaling, and Lightning then refuse to
    clip gradients.)
    """
    devices = {weight.device.type for group in optimizer.param_groups for weight in group["params"]}
    choices = [group.get(name) for group in optimizer.param_groups for name in ("fused", "foreach")]
    others = [group.get(name) for group in optimizer.param_groups for name in ("capturable", "differentiable")]
    unsaid = all(choice is None for choice in choices) and not any(others)
    if type(optimizer) in (Adam, AdamW) and devices <= set(FUSED_ON) and unsaid:
        for options in (optimizer.defaults, *optimizer.param_groups):
            options["fused"] = True
    return optimizer
