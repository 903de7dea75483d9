"""The weights of audiocraft's language models <-> our StreamLM's.

Shapes: K codebooks, V codebook size, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from audiolm_kit.lm.model import LMConfig, StreamLM

TEXT = "condition_provider.conditioners.description.output_proj"
"""What they call our text projection."""


class Group(NamedTuple):
    """Tensors that are the same numbers, put one below the other: ``cat(ours) == cat(theirs)``."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    """One, or K of one shape."""


def groups(config: LMConfig) -> list[Group]:
    """All weights of a model, under our names and theirs."""
    books = range(config.num_codebooks)
    found = [
        Group(("embedding.weight",), tuple(f"emb.{k}.weight" for k in books)),  # [K * (V + 1), D]
        Group(("heads.weight",), tuple(f"linears.{k}.weight" for k in books)),  # [K * V, D]
        *(Group((f"transformer.norm.{part}",), (f"out_norm.{part}",)) for part in ("weight", "bias")),
    ]
    if config.text.kind == "t5":
        found += [Group((f"text_projection.{part}",), (f"{TEXT}.{part}",)) for part in ("weight", "bias")]
    for i in range(config.transformer.layers):
        prefix = f"transformer.layers.{i}."
        for ours, theirs in _layer(config.transformer.cross_attention):
            found.append(Group(tuple(prefix + name for name in ours), (prefix + theirs,)))
    return found


def _layer(crossing: bool) -> list[tuple[tuple[str, ...], str]]:
    """The weights of one layer: our names, and their one."""
    norms = {"attention_norm": "norm1", "feed_forward_norm": "norm2"}
    found: list[tuple[tuple[str, ...], str]] = [
        (("attention.query_key_value.weight",), "self_attn.in_proj_weight"),
        (("attention.output.weight",), "self_attn.out_proj.weight"),
        (("feed_forward.up.weight",), "linear1.weight"),
        (("feed_forward.down.weight",), "linear2.weight"),
    ]
    if crossing:
        norms["cross_attention_norm"] = "norm_cross"
        queries = ("cross_attention.query.weight", "cross_attention.key_value.weight")
        found += [(queries, "cross_attention.in_proj_weight")]
        found += [(("cross_attention.output.weight",), "cross_attention.out_proj.weight")]
    for ours, theirs in norms.items():
        found += [((f"{ours}.{part}",), f"{theirs}.{part}") for part in ("weight", "bias")]
    return found


def from_audiocraft(config: LMConfig, state: Mapping[str, Tensor]) -> StreamLM:
    """Our model with the weights of theirs, in single precision, in evaluation mode.

    Raises:
        ValueError: weights are missing, unknown or of another shape; they are named.
    """
    # Attention of torch's own instead of audiocraft's has one name more, and the same weights.
    state = {name.replace(".mha.", "."): tensor for name, tensor in state.items()}
    with torch.device("meta"):  # no time and memory for weights that are replaced at once
        lm = StreamLM(config)
    wanted, found = lm.state_dict(), groups(config)
    _check(state, {name: shape for group in found for name, shape in _their_shapes(group, wanted)})
    ours: dict[str, Tensor] = {}
    for group in found:
        whole = torch.cat([state[name].float() for name in group.theirs])
        parts = whole.split([wanted[name].shape[0] for name in group.ours])
        ours.update((name, part.clone()) for name, part in zip(group.ours, parts, strict=True))
    lm.load_state_dict(ours, assign=True)
    return lm.eval()


def to_audiocraft(lm: StreamLM) -> dict[str, Tensor]:
    """The weights of our model under their names, on the CPU, in single precision."""
    state = lm.state_dict()
    theirs: dict[str, Tensor] = {}
    for group in groups(lm.config):
        whole = torch.cat([state[name].detach().cpu().float() for name in group.ours])
        parts = whole.chunk(len(group.theirs))
        theirs.update((name, part.clone()) for name, part in zip(group.theirs, parts, strict=True))
    return theirs


def _their_shapes(group: Group, ours: Mapping[str, Tensor]) -> list[tuple[str, list[int]]]:
    rows = sum(ours[name].shape[0] for name in group.ours) // len(group.theirs)
    return [(name, [rows, *ours[group.ours[0]].shape[1:]]) for name in group.theirs]


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, list[int]]) -> None:
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    shapes = {name: list(state[name].shape) for name in wanted if name in state}
    wrong = [f"{name} {shape}, wanted {wanted[name]}" for name, shape in shapes.items() if shape != wanted[name]]
    for title, names in (("missing", missing), ("unknown", extra), ("wrongly shaped", wrong)):
        if names:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{len(names)} weights are {title} ({shown}): weights and xp.cfg must be of one model")
