"""One batch is learned by heart: whether gradients flow, the loss falls, and what a training step costs.

It is plain torch on a copy: neither the checkpoint nor the model at hand changes.
B batch, C channels, L samples.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.losses import MelLoss
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.doctor.batches import Batch, loss_of
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.lm.model import StreamLM

STEPS = 40
BUDGET = 25.0
"""Seconds of all steps, the first one's aside."""
ENOUGH = 5
"""Fewer steps say nothing of a loss."""
FALL = 0.98
"""The loss of a language model falls below this share of the first one."""
WARM_UP = 5
COMMITMENT = 0.25


@dataclass(frozen=True)
class Trial:
    """How learning went."""

    losses: tuple[float, ...]
    seconds: float
    """Of a step, the first one's aside."""
    activations: int
    """Bytes that a step keeps for the way back."""
    rows: int
    length: float
    """Seconds of each row."""
    broken: str = ""
    """The first weight whose gradient is not finite."""


def learn_lm(lm: StreamLM, batch: Batch, budget: float = BUDGET) -> Trial:
    """A copy of a language model learns a batch."""
    pupil = copy.deepcopy(lm)
    rate = min(3e-3, 0.5 / lm.config.transformer.dim)
    return _learn(pupil, lambda: loss_of(pupil, batch), rate, budget, (len(batch.codes), batch.seconds))


def learn_codec(codec: NeuralCodec, audio: Tensor, budget: float = BUDGET) -> Trial:
    """A copy of a codec learns ``[B, C, L]`` by spectral and plain distance, without a discriminator."""
    pupil = copy.deepcopy(codec).train()
    mel = MelLoss(codec.sample_rate).to(audio.device)
    scaled = codec.scaled(audio)

    def loss() -> Tensor:
        made = pupil(scaled)
        value: Tensor = mel(made.audio, scaled) + F.l1_loss(made.audio, scaled) + COMMITMENT * made.commitment
        return value

    return _learn(pupil, loss, 3e-4, budget, (len(audio), audio.shape[-1] / codec.sample_rate))


def told_of(name: str, trial: Trial, fall: float = FALL) -> Finding:
    """Whether a model learned what it should."""
    first, last, steps = trial.losses[0], min(trial.losses[-3:]), len(trial.losses)
    if trial.broken or not math.isfinite(first):
        where = f", the gradient of {trial.broken} is not finite" if trial.broken else ""
        cure = "the weights are damaged, or the sounds are: copy the checkpoint again, lint the manifest"
        return Finding("one batch", f"{name} cannot learn: its first loss is {first:.3g}{where}", cure)
    told = (
        f"{name} learns {trial.rows} x {trial.length:.1f} s by heart: loss {first:.3f} -> {last:.3f} in {steps} steps"
    )
    if steps < ENOUGH:
        return Finding("one batch", f"{told}, too few to say more: this machine takes {trial.seconds:.1f} s for each")
    if last < fall * first:
        return Finding("one batch", told)
    return Finding("one batch", told, "it does not learn even one batch: compare its config with a recipe's")


def _learn(pupil: nn.Module, loss: Callable[[], Tensor], rate: float, budget: float, shape: tuple[int, float]) -> Trial:
    """Adam with a short warm-up, for so many steps or seconds."""
    trained = {name: each.requires_grad_() for name, each in pupil.named_parameters()}
    optimizer = torch.optim.AdamW(trained.values(), lr=rate, weight_decay=0.0)
    losses: list[float] = []
    times: list[float] = []
    kept, begun = 0, time.perf_counter()
    while len(losses) < STEPS and (not times or sum(times) < budget):
        value, kept = _counted(loss, trained) if not losses else (loss(), kept)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        losses.append(float(value.detach()))
        broken = next((name for name, each in trained.items() if not _finite(each.grad)), "")
        if broken or not math.isfinite(losses[-1]):
            return Trial(tuple(losses), time.perf_counter() - begun, kept, *shape, broken)
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, len(losses) / WARM_UP)
        optimizer.step()
        now = time.perf_counter()
        if len(losses) > 1 or now - begun > budget:
            times.append(now - begun)
        begun = now
    return Trial(tuple(losses), sum(times) / len(times), kept, *shape)


def _counted(loss: Callable[[], Tensor], weights: dict[str, Any]) -> tuple[Tensor, int]:
    """A loss, and the bytes that are kept for its way back, each storage once and weights not at all."""
    own = {each.untyped_storage().data_ptr() for each in weights.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    return value, sum(kept.values())


def _finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(gradient).all())
