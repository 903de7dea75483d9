"""Sharding: each rank holds its part of weights, gradients and optimizer state; how they are cut up and gathered."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer, callbacks
from pytorch_lightning.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

NAME = "fsdp2"
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "bf16-true": None}
"""Lightning's name, and what gathered weights are cast to (None: left as they are)."""
FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
TO_FIRST = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """FSDP as torch has it now (``fully_shard``), over all ranks: ``--trainer.strategy fsdp2``.

    Matrices are gathered when they are needed and given up right after. A run's checkpoint is one file with everything
    whole, so that a run can go on with another number of ranks. The task must say how it is cut up (``Task.shard``).
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(1, 1, save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    def setup_environment(self) -> None:
        """Put all ranks on one axis."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Cut the task up, then make its optimizers: they must see the parts."""
        task: Any = self.lightning_module
        self._check(trainer)
        assert task is not None and self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(task)
        task.shard(self.device_mesh["data_parallel"], PRECISIONS[trainer.precision])
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _check(self, trainer: Trainer) -> None:
        if trainer.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {trainer.precision!r}, strategy {NAME} takes one of {', '.join(PRECISIONS)}"
            )
        theirs = getattr(callbacks, "WeightAveraging", ())  # of Lightning 2.6 and later
        if any(isinstance(each, theirs) for each in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                f"Lightning's averaging of weights cannot follow strategy {NAME}: "
                "use audiolm_kit.training.averaging.MovingAverage"
            )

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Give each rank its parts of a run's weights and optimizer state, whichever strategy the run had before."""
        path = self.broadcast(checkpoint_path)
        checkpoint: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)
        assert self.model is not None
        scatter(self.model, checkpoint["state_dict"])
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self.model, optimizer, by_name(state, self.model, optimizer), options=FROM_FIRST)
        return checkpoint


StrategyRegistry.register(NAME, Sharded, description="Fully sharded data parallel, torch's fully_shard")


def shard(model: nn.Module, units: Iterable[nn.Module], mesh: DeviceMesh, dtype: torch.dtype | None) -> None:
    """Cut ``model`` up over ``mesh`` in place: each of ``units`` is gathered by itself, the rest together.

    All ranks begin with the weights of the first. Gradients are summed up in float32.

    Args:
        units: those of large matrices alone.
        dtype: what the matrices of ``units`` are gathered in, for half the traffic; under autocast it changes nothing,
            which would cast them too. The rest (embeddings, norms) stays as it is.
    """
    # About logits that are changed in place, which nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    reduced = None if dtype is None else torch.float32
    of_units = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced, cast_forward_inputs=False)
    policies = [*((unit, of_units) for unit in units), (model, MixedPrecisionPolicy(cast_forward_inputs=False))]
    for module, policy in policies:
        module.to(mesh.device_type)  # one at a time: whole, the model may be larger than a device
        for weight in module.parameters():
            if not isinstance(weight, DTensor):
                distributed.broadcast(weight.data, src=0)
        # Nothing stays gathered between passes: what averages weights or saves them finds the parts.
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def part(weight: Tensor) -> Tensor:
    """What this rank holds of a weight, to be read and written in place: all of it where nothing is sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def is_sharded(model: nn.Module) -> bool:
    """Whether any of its weights lies in parts over the ranks."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def gathered(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a sharded model by name, on the CPU of the first rank; empty on the others.

    Every rank must call it, or those that do wait for ever.
    """
    weights: dict[str, Any] = get_model_state_dict(model, options=TO_FIRST)
    return weights


def scatter(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Write whole weights into a sharded model; those of the first rank count. Every rank must call it."""
    given: dict[str, Any] = dict(weights)
    set_model_state_dict(model, given, options=FROM_FIRST)


def by_name(state: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's saved state, whose weights are numbers in the order of its groups, with their names instead."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    found: dict[Any, str] = {}
    groups: list[dict[str, Any]] = []
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group = [names[id(weight)] for weight in own["params"]]
        found |= dict(zip(saved["params"], group, strict=True))
        groups.append({**saved, "params": group})
    return {"state": {found[number]: each for number, each in state["state"].items()}, "param_groups": groups}
