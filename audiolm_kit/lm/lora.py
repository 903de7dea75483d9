"""LoRA: small matrices beside frozen ones learn what a model is to do differently; added to a StreamLM, and merged.

R rank, I and O width of what goes into a matrix and of what comes out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from audiolm_kit.lm.model import LMConfig, StreamLM

FUSED = {"query_key_value": ("query", "key", "value"), "key_value": ("key", "value")}
"""Linear layers that are several matrices in one, in the order of their rows; each has an adapter of its own."""
LAYERS = {
    "attention": ("query_key_value", "output"),
    "cross_attention": ("query", "key_value", "output"),
    "feed_forward": ("up", "down"),
}
"""The linear layers in each part of a transformer's layer."""
PARTS = (*LAYERS, "heads", "text_projection")
MATRICES = tuple(
    f"{part}.{each}" for part, names in LAYERS.items() for name in names for each in FUSED.get(name, (name,))
)
WHOLE = ("norms", "embedding", "prefix_embedding", "heads", "text_encoder", "label_embedding", "text_projection")
ADAPTERS = ".adapters."
"""Stands in the names of an adapter's weights, between those of its linear layer and of its matrix."""


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (arXiv:2106.09685): a frozen matrix W becomes W + alpha / rank * B A, and A and B learn."""

    rank: int = 0
    """Rows of A and columns of B; 0: no adapters, all weights of the model learn."""
    alpha: float = 16.0
    """With rank, how much of B A is added; a multiple of the rank lets other ranks learn at the same rate."""
    dropout: float = 0.0
    """Share of what goes into A that is left out in training; the heads are read as a whole, and leave nothing out."""
    targets: tuple[str, ...] = ("attention", "cross_attention")
    """What gets adapters: attention, cross_attention, feed_forward, heads, text_projection, or single matrices of the
    first three: attention.query and attention.value are the paper's choice."""
    whole: tuple[str, ...] = ()
    """What learns itself, beside the adapters: norms, embedding, prefix_embedding, heads, text_encoder,
    label_embedding, text_projection."""

    def __post_init__(self) -> None:
        for name in ("targets", "whole"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a parser may bring a list
        if self.rank < 0:
            raise ValueError(f"lora rank is {self.rank}, wanted 0 (none) or more")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"lora alpha is {self.alpha}, wanted above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora dropout is {self.dropout}, wanted a share from 0 to below 1")
        _check_names("targets", self.targets, (*PARTS, *MATRICES))
        _check_names("whole", self.whole, WHOLE)
        if self.rank and not self.targets:
            raise ValueError(f"lora rank is {self.rank} and targets are none: name some, or set the rank to 0")
        if not self.rank and self.whole:
            raise ValueError(f"lora rank is 0, so all weights learn, and not {', '.join(self.whole)} alone: set a rank")
        if both := sorted(set(self.targets) & set(self.whole)):
            raise ValueError(f"lora targets and whole both have {', '.join(both)}: what learns itself needs no adapter")

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank


def _check_names(field: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"lora {field} has {', '.join(unknown)}, wanted some of {', '.join(known)}")


class Adapter(nn.Module):
    """What is added to one matrix: ``scale * B A``, of which B begins with zeros, and so adds nothing."""

    def __init__(self, matrix: Tensor, config: LoRAConfig) -> None:
        """Stand beside a matrix ``[O, I]``, where it is."""
        super().__init__()
        outputs, inputs = matrix.shape
        # Normal, as in the paper (section 4.1): of deviation 1 / sqrt(I), what comes out of A is as large as its input.
        self.a = nn.Parameter(torch.randn(config.rank, inputs).to(matrix) / math.sqrt(inputs))
        self.b = nn.Parameter(matrix.new_zeros(outputs, config.rank))
        self.dropout = nn.Dropout(config.dropout)
        self.scale = config.scale

    def forward(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., O]``."""
        return F.linear(F.linear(self.dropout(x), self.a), self.b) * self.scale

    def change(self) -> Tensor:
        """What it adds to the matrix, ``[O, I]``."""
        return self.scale * self.b @ self.a


class AdaptedLinear(nn.Module):
    """A frozen linear layer, and adapters for some of the matrices it is made of; its own weights keep their names."""

    bias: Tensor | None

    def __init__(
        self, linear: nn.Linear, matrices: tuple[str, ...], adapted: tuple[str, ...], config: LoRAConfig
    ) -> None:
        """Take over a linear layer's weights.

        Args:
            matrices: the names of the equally large matrices whose rows it holds, in their order.
            adapted: which of them get an adapter.
        """
        super().__init__()
        # Registered by hand: the name is also that of a property.
        self._parameters["weight"] = cast(nn.Parameter, linear.weight)
        self.register_parameter("bias", linear.bias)
        self.matrices = matrices
        pieces = dict(zip(matrices, linear.weight.detach().chunk(len(matrices)), strict=True))
        self.adapters = nn.ModuleDict({name: Adapter(pieces[name], config) for name in adapted})

    def forward(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., O]``."""
        frozen = self._parameters["weight"]
        assert frozen is not None
        pieces = F.linear(x, frozen, self.bias).chunk(len(self.matrices), dim=-1)
        adapted = [self._adapted(name, piece, x) for name, piece in self._named(pieces)]
        return torch.cat(adapted, dim=-1) if len(adapted) > 1 else adapted[0]

    def _adapted(self, name: str, piece: Tensor, x: Tensor) -> Tensor:
        added: Tensor | None = self.adapters[name](x) if name in self.adapters else None
        return piece if added is None else piece + added

    def _named(self, pieces: tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
        return zip(self.matrices, pieces, strict=True)

    @property
    def weight(self) -> Tensor:
        """The matrices with what is added to them, ``[O, I]``, for what computes with them and not with the layer."""
        frozen = self._parameters["weight"]
        assert frozen is not None
        if isinstance(frozen, DTensor):
            return frozen  # sharded, and in parts just now: nobody computes with it, it is only looked for by name
        changes = {name: adapter.change() for name, adapter in self.adapters.items() if isinstance(adapter, Adapter)}
        pieces = self._named(frozen.chunk(len(self.matrices)))
        return torch.cat([piece + changes[name] if name in changes else piece for name, piece in pieces])


class Place(NamedTuple):
    """A linear layer of a model that gets adapters."""

    owner: nn.Module
    name: str
    matrices: tuple[str, ...]
    adapted: tuple[str, ...]


def add(lm: StreamLM, config: LoRAConfig) -> StreamLM:
    """Freeze a model in place but for what ``config`` names; give it adapters, which change nothing until they learn.

    Their first weights come of torch's random state. Returns the model itself.

    Raises:
        ValueError: the rank is 0, the model lacks what is named, or it has adapters already.
    """
    if not config.rank:
        raise ValueError("lora rank is 0: give a rank, or train the model as it is")
    if any(isinstance(module, AdaptedLinear) for module in lm.modules()):
        raise ValueError("the model has adapters already: merge them first, or load the model anew")
    _check_present(lm, config)
    lm.requires_grad_(False)
    for owner, name, matrices, adapted in list(_places(lm, config.targets)):
        linear = getattr(owner, name)
        setattr(owner, name, AdaptedLinear(linear, matrices, adapted, config).train(linear.training))
    for name in config.whole:
        for module in _whole(lm, name):
            module.requires_grad_(True)
    return lm


def trained_weights(lm: nn.Module) -> dict[str, Tensor]:
    """What learns of a model, by name."""
    return {name: weight for name, weight in lm.named_parameters() if weight.requires_grad}


def merged(weights: Mapping[str, Tensor], config: LoRAConfig) -> dict[str, Tensor]:
    """The weights of a model with adapters -> those of a plain one that computes the same, under their old names."""
    plain = {name: weight for name, weight in weights.items() if ADAPTERS not in name}
    for name, a in weights.items():
        if ADAPTERS in name and name.endswith(".a"):
            layer, _, matrix = name.removesuffix(".a").rpartition(ADAPTERS)
            b = weights[f"{name.removesuffix('.a')}.b"]
            weight = plain[f"{layer}.weight"].clone()
            first = _place_of(layer, matrix) * len(b)
            weight[first : first + len(b)] += (config.scale * b.float() @ a.float()).to(weight)
            plain[f"{layer}.weight"] = weight
    return plain


def merge(lm: StreamLM, config: LoRAConfig) -> StreamLM:
    """A plain model, in evaluation mode, that computes what a model with adapters does."""
    return model_of(lm.config, merged(lm.state_dict(), config)).eval()


def model_of(config: LMConfig, weights: Mapping[str, Tensor]) -> StreamLM:
    """A model of these very tensors."""
    with torch.device("meta"):
        lm = StreamLM(config)
    lm.load_state_dict(weights, assign=True)
    return lm


def _places(lm: StreamLM, targets: tuple[str, ...]) -> Iterator[Place]:
    for layer in lm.transformer.layers:
        for part, names in LAYERS.items():
            for name in names:
                matrices = FUSED.get(name, (name,))
                adapted = tuple(each for each in matrices if part in targets or f"{part}.{each}" in targets)
                if adapted:
                    yield Place(getattr(layer, part), name, matrices, adapted)
    if "heads" in targets:
        codebooks = tuple(map(str, range(lm.config.num_codebooks)))
        yield Place(lm, "heads", codebooks, codebooks)
    if "text_projection" in targets:
        yield Place(lm, "text_projection", ("text_projection",), ("text_projection",))


def _place_of(layer: str, matrix: str) -> int:
    """Which of a linear layer's matrices one is: heads are named by their number."""
    if matrix.isdecimal():
        return int(matrix)
    name = layer.rpartition(".")[2]
    return FUSED.get(name, (name,)).index(matrix)


def _whole(lm: StreamLM, name: str) -> list[nn.Module]:
    if name == "norms":
        return [module for module in lm.transformer.modules() if isinstance(module, nn.LayerNorm)]
    return [getattr(lm, name)]


def _check_present(lm: StreamLM, config: LoRAConfig) -> None:
    for field, names in (("targets", config.targets), ("whole", config.whole)):
        for name in names:
            part = name.partition(".")[0]
            owner = lm.transformer.layers[0] if part in LAYERS else lm
            if part != "norms" and not hasattr(owner, part):
                raise ValueError(f"lora {field} has {name}, and the model has no {part}: leave it out")
