"""Training: forward, backward and a step of AdamW on the same batch, as ours, audiocraft and transformers take it.

Shapes: B batch, K codebooks, T frames, S steps, V codebook size, N context tokens, E width of the caption's states.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from bench_cases import AUDIOCRAFT, FEW, OURS, TRANSFORMERS, Check, Contender, Group, Least, Run, Sizes, timed
from bench_models import audiocraft_lm, our_lm, transformers_lm
from torch import Tensor

from audiolm_kit.conditioning import TextInput

PRECISIONS = ("fp32", "bf16")
"""In bf16 products alone are: weights, their gradients and moments stay as they are (autocast)."""
COMPILED = "bf16, compiled"
"""Of ours, on a GPU: on a CPU compiling takes longer than all the rest of this."""
RATE = 1e-4
NEAR = 1e-3
"""How far losses may be apart, as a share."""


class Learner(NamedTuple):
    """A model that learns a batch."""

    loss: Callable[[], Tensor]
    optimizer: Callable[[], torch.optim.Optimizer]


Made = Callable[[], Learner]


class Given:
    """Stands in the place of a T5: the states of the captions are known."""

    vocabulary = None

    def __init__(self, states: Tensor) -> None:
        self.states = states

    def prepare(self, texts: list[str], device: torch.device | str = "cpu", keep: bool = True) -> TextInput:
        """The same states for any captions."""
        return TextInput(self.states, torch.ones(self.states.shape[:2], dtype=torch.bool, device=self.states.device))


def groups(sizes: Sizes) -> Iterator[Group]:
    """One task: every contender has a model, an optimizer and weights of its own."""
    learners: dict[str, Made] = {
        OURS: partial(ours, sizes),
        AUDIOCRAFT: partial(audiocrafts, sizes),
        TRANSFORMERS: partial(transformers_, sizes),
    }
    wanted = cache(lambda: first_loss(learners[OURS]))
    contenders = []
    for by, made in learners.items():
        for option in (*PRECISIONS, COMPILED) if by == OURS and sizes.device != "cpu" else PRECISIONS:
            precision = option.partition(",")[0]
            if option == COMPILED:
                made = partial(ours, sizes, compiled=True)
            like = partial(audiocrafts, sizes, whole=True) if by == AUDIOCRAFT else made
            check = partial(same_loss, wanted, like) if by != OURS and option == "fp32" else None
            run = partial(stepping, made, precision, sizes.device)
            contenders.append(Contender(by, option, run, least(sizes, precision), check))
    frames = sizes.train_batch * sizes.train_frames
    task = f"step of {sizes.train_layers} layers x {sizes.train_dim}, {sizes.train_batch} x {sizes.train_frames} frames"
    yield Group("training", "training", task, "frames/s", frames, contenders, repeats=min(FEW, sizes.repeats))


def stepping(made: Made, precision: str, device: str) -> Run:
    """A step of training."""
    learner = made()
    optimizer = learner.optimizer()

    def step() -> None:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            value = learner.loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return timed(step, device)


@torch.no_grad()
def first_loss(made: Made) -> float:
    """Before anything is learned."""
    return float(made().loss())


def same_loss(wanted: Callable[[], float], made: Made) -> Check:
    """Whether the same weights think the same of the same batch."""
    ours, theirs = wanted(), first_loss(made)
    told = f"first loss {theirs:.4f}, ours {ours:.4f}"
    equal = abs(theirs - ours) <= NEAR * ours
    return Check(equal, told if equal else f"not equal: {told}")


# --- the same batch for all -------------------------------------------------------------------------------------------


def batch(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Codes [B, K, T] and what a T5 would have said [B, N, E]."""
    generator = torch.Generator().manual_seed(sizes.seed)
    shape = (sizes.train_batch, sizes.num_codebooks, sizes.train_frames)
    codes = torch.randint(sizes.codebook_size, shape, generator=generator)
    states = torch.randn(sizes.train_batch, sizes.context, sizes.text_dim, generator=generator)
    return codes.to(sizes.device), states.to(sizes.device)


def ours(sizes: Sizes, compiled: bool = False) -> Learner:
    """``LMTask``: its step and its optimizer, without Lightning's loop around them."""
    warnings.filterwarnings("ignore", message=".*self.log.*")  # nobody listens to what it logs
    lm_task = importlib.import_module("audiolm_kit.training.lm").LMTask
    token_batch = importlib.import_module("audiolm_kit.data.modules").TokenBatch
    codes, states = batch(sizes)
    lm = our_lm(sizes, training=True)
    task = lm_task(lm.config, context_dropout=0.0, optimizer=adam).train().to(sizes.device)
    task.lm.load_state_dict(lm.state_dict())
    task.conditioner = Given(states)
    if compiled:
        task.lm.transformer.compile()  # as its ``compile`` does
    mask = torch.ones(codes.shape[0], codes.shape[2], dtype=torch.bool, device=codes.device)
    given = token_batch(codes, mask, ["a dog barks"] * len(codes))
    return Learner(lambda: task.training_step(given, 0), lambda: task.configure_optimizers()["optimizer"])


def adam(weights: Iterable[Any]) -> torch.optim.Optimizer:
    """The optimizer of all."""
    return torch.optim.AdamW(weights, lr=RATE)


def audiocrafts(sizes: Sizes, whole: bool = False) -> Learner:
    """audiocraft's ``compute_predictions`` and the cross-entropy of its solver.

    Args:
        whole: Learn all codes, as ours does; its solver leaves out the last ones of the later codebooks.
    """
    codes, states = batch(sizes)
    model = audiocraft_lm(our_lm(sizes, training=True)).train()
    conditioner = model.condition_provider.conditioners["description"]

    def loss() -> Tensor:
        given = {"description": conditioner(states)}
        made = model.compute_predictions(codes, [], given, keep_only_valid_steps=not whole)
        logits = made.logits.float()
        each = [
            F.cross_entropy(logits[:, k][made.mask[:, k]], codes[:, k][made.mask[:, k]]) for k in range(codes.shape[1])
        ]
        return torch.stack(each).mean()

    return Learner(loss, lambda: adam(model.parameters()))


def transformers_(sizes: Sizes) -> Learner:
    """The loss that ``MusicgenForConditionalGeneration`` makes of labels, laid out with their delay."""
    codes, states = batch(sizes)
    lm = our_lm(sizes, training=True)
    model = transformers_lm(lm).train()
    for part in (model.text_encoder, model.audio_encoder):
        part.requires_grad_(False)
    labels = lm.pattern.apply(codes, lm.special)  # [B, K, S]
    given = F.pad(labels, (1, -1), value=lm.special)
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)

    def loss() -> Tensor:
        value: Tensor = model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=given.flatten(0, 1),
            labels=labels.transpose(1, 2),
            use_cache=False,
        ).loss
        return value

    return Learner(loss, lambda: adam(each for each in model.parameters() if each.requires_grad))


def least(sizes: Sizes, precision: str) -> Least:
    """The products of forward and backward, counted as the throughput of a run is (``training.flops``)."""
    lm_flops = importlib.import_module("audiolm_kit.training.flops").lm_flops
    with torch.device("meta"):
        lm = our_lm(Sizes(**{**vars(sizes), "device": "meta"}), training=True)
    return Least(0.0, lm_flops(lm, (sizes.train_batch, sizes.num_codebooks, sizes.train_frames)), precision)
