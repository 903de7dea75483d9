"""Captions -> Context: a frozen T5, or a small encoder trained with the model; the null context, and dropping to it.

A ``TextConditioner`` (nothing trained, nothing saved) turns captions into a ``TextInput``; the model's ``condition``
turns that into a ``Context``, with weights the model owns.

Shapes: B batch, N context tokens, D width of the model, E width of the text states.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from audiolm_kit.text import Vocabulary
from audiolm_kit.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class TextConfig:
    """How captions are read."""

    kind: Literal["none", "small", "t5"] = "none"
    """No captions; a small encoder trained with the model; a frozen T5 encoder."""
    dim: int = 256
    """Width E of the text states; for t5 that of the named model (t5-base 768, t5-large 1024)."""
    layers: int = 2
    """Of the small encoder, as are heads, dropout and pieces."""
    heads: int = 4
    dropout: float = 0.0
    pieces: int = 1000
    """Rows of the small encoder's embedding: at least the size of the text vocabulary."""
    name: str = "t5-base"
    """Folder, or name on the Hugging Face hub, of the T5."""

    def __post_init__(self) -> None:
        if self.kind not in ("none", "small", "t5"):
            raise ValueError(f"text kind is {self.kind!r}: give one of none, small, t5")
        if min(self.dim, self.pieces) < 1:
            raise ValueError(f"text dim and pieces are {self.dim} and {self.pieces}: give positive numbers")
        if self.kind == "small":
            encoder_config(self)


class Context(NamedTuple):
    """What a model attends to. A row without any True in its mask is the null context: it adds exactly nothing."""

    states: Tensor  # [B, N, D]
    mask: Tensor  # [B, N] bool


class TextInput(NamedTuple):
    """Captions as the model takes them."""

    content: Tensor  # pieces [B, N] int64 (small), or states [B, N, E] (t5)
    mask: Tensor  # [B, N] bool; no True for an empty caption


def drop(context: Context, probability: float, generator: torch.Generator | None = None) -> Context:
    """Replace each row by the null context with this probability, each by a coin of its own (training for guidance)."""
    device = context.mask.device
    coins = torch.rand(len(context.mask), generator=generator, device=generator.device if generator else device)
    return context._replace(mask=context.mask & (coins >= probability).to(device)[:, None])


def with_null(context: Context) -> Context:
    """``[B, N, D] -> [2B, N, D]``: the rows, then as many null rows."""
    states = torch.cat([context.states, torch.zeros_like(context.states)])
    return Context(states, torch.cat([context.mask, torch.zeros_like(context.mask)]))


def encoder_config(config: TextConfig) -> TransformerConfig:
    """The small encoder's transformer."""
    return TransformerConfig(
        dim=config.dim, heads=config.heads, layers=config.layers, dropout=config.dropout, causal=False
    )


class SmallTextEncoder(nn.Module):
    """Pieces -> text states, by a bidirectional transformer; an item does not depend on its batch-mates' lengths."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.pieces, config.dim)
        self.transformer = Transformer(encoder_config(config))

    def forward(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """Pieces and mask ``[B, N] -> [B, N, E]``."""
        states: Tensor = self.transformer(self.embedding(pieces), mask=mask)
        return states


class FrozenT5:
    """A T5 encoder that is only read: no module of ours holds its weights, no checkpoint of ours saves them."""

    def __init__(self, name: str, dim: int) -> None:
        """Load from a folder or the hub; ``dim`` is what its states must be wide."""
        from transformers import AutoTokenizer, T5EncoderModel

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            model: Any = T5EncoderModel.from_pretrained(name)
        except (OSError, ValueError) as error:
            cause = str(error).split("\n", 1)[0]
            raise FileNotFoundError(f"no T5 at {name!r} ({cause}): give a folder or a name on the hub") from None
        self._model = model.float().eval().requires_grad_(False)
        if model.config.d_model != dim:
            raise ValueError(f"text dim is {dim}, but {name} is {model.config.d_model} wide: set text dim to that")

    @torch.no_grad()
    def __call__(self, texts: list[str], device: torch.device | str = "cpu") -> TextInput:
        """Captions -> states ``[B, N, E]``, in float32 (T5 overflows float16) whatever runs around it."""
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True).to(device)
        mask = inputs["attention_mask"].bool()
        with torch.autocast(torch.device(device).type, enabled=False):
            states = self._model.to(device)(**inputs).last_hidden_state
        said = torch.tensor([bool(text.strip()) for text in texts], device=mask.device)
        return TextInput(states, mask & said[:, None])


TEXT_MODEL = "text.model"
"""The vocabulary's name in a checkpoint folder."""


class TextConditioner:
    """Captions -> ``TextInput``, for training and for generation alike.

    Usage: ``context = lm.condition(conditioner.prepare(texts, device))``; an empty text is the null context.
    """

    def __init__(self, config: TextConfig, vocabulary: Vocabulary | None = None) -> None:
        """Take the vocabulary of the small encoder, or load the T5 that ``config`` names."""
        if config.kind == "small":
            if vocabulary is None:
                raise ValueError("the small text encoder needs its vocabulary: pass Vocabulary.load(path)")
            if vocabulary.size > config.pieces:
                raise ValueError(
                    f"the text vocabulary has {vocabulary.size} pieces, the model takes {config.pieces}: "
                    "set text pieces to that, or use the vocabulary it was trained with"
                )
        self.config = config
        self.vocabulary = vocabulary
        self._t5 = FrozenT5(config.name, config.dim) if config.kind == "t5" else None

    @classmethod
    def load(cls, config: TextConfig, vocabulary_path: str | Path) -> TextConditioner:
        """As the constructor, with the vocabulary read from a file where ``config`` needs one."""
        return cls(config, Vocabulary.load(vocabulary_path) if config.kind == "small" else None)

    def prepare(self, texts: list[str], device: torch.device | str = "cpu") -> TextInput:
        """One row for each caption, on ``device``."""
        if self._t5 is not None:
            return self._t5(texts, device)
        if self.config.kind == "none" or self.vocabulary is None:
            raise ValueError("this model was trained without captions (text kind none): leave the texts out")
        pieces = self.vocabulary.encode(texts)
        return TextInput(pieces.codes.to(device), pieces.mask.to(device))


def text_files(conditioner: TextConditioner | None) -> dict[str, bytes]:
    """What a checkpoint holds beside its models: the vocabulary of the small text encoder, where there is one."""
    vocabulary = None if conditioner is None else conditioner.vocabulary
    return {} if vocabulary is None else {TEXT_MODEL: vocabulary.model}
