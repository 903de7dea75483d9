"""The weights of a StreamLM under the names that transformers' MusicGen has for them, and back.

D width, K codebooks, V codebook size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

DECODER = "decoder.model.decoder"
PROJECTION = "enc_to_dec_proj"
"""What makes text states as wide as the model; they have it only where the two differ."""
PARTS = {
    "attention_norm": ("self_attn_layer_norm",),
    "attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": ("self_attn.out_proj",),
    "cross_attention_norm": ("encoder_attn_layer_norm",),
    "cross_attention.query": ("encoder_attn.q_proj",),
    "cross_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.output": ("encoder_attn.out_proj",),
    "feed_forward_norm": ("final_layer_norm",),
    "feed_forward.up": ("fc1",),
    "feed_forward.down": ("fc2",),
}
"""Of a layer: ours, and those of theirs that ours are, one below the other."""


def their_names(name: str, num_codebooks: int) -> tuple[str, ...]:
    """The tensors of theirs that ours of this name is, one below the other: ``[K * V, D]`` is K of ``[V, D]``."""
    if name == "embedding.weight":
        return tuple(f"{DECODER}.embed_tokens.{k}.weight" for k in range(num_codebooks))
    if name == "heads.weight":
        return tuple(f"decoder.lm_heads.{k}.weight" for k in range(num_codebooks))
    if layer := re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
        index, part, kind = layer.groups()
        return tuple(f"{DECODER}.layers.{index}.{each}.{kind}" for each in PARTS[part])
    return (name.replace("transformer.norm.", f"{DECODER}.layer_norm.").replace("text_projection.", f"{PROJECTION}."),)


def to_theirs(state: Mapping[str, Tensor], num_codebooks: int) -> dict[str, Tensor]:
    """Our weights under their names; no two share memory, as files want it. Also on the meta device."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = their_names(name, num_codebooks)
        pieces = [piece.clone() for piece in tensor.chunk(len(names))] if len(names) > 1 else [tensor]
        theirs |= zip(names, pieces, strict=True)
    return theirs


def to_ours(theirs: Mapping[str, Tensor], wanted: Iterable[str], num_codebooks: int) -> dict[str, Tensor]:
    """Their weights under those of our names that are wanted; the inverse of ``to_theirs``."""
    return {name: torch.cat([theirs[each] for each in their_names(name, num_codebooks)]).float() for name in wanted}
