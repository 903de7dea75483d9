"""Captions -> Context: a frozen T5, a small encoder or a table of labels trained with the model; guidance's null.

A ``TextConditioner`` (nothing trained, nothing saved) turns captions into a ``TextInput``; the model's ``condition``
turns that into a ``Context``, with weights the model owns.

Shapes: B batch, N context tokens, D width of the model, E width of the text states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from audiolm_kit.captions import LabelReader, clean
from audiolm_kit.frozen_t5 import FrozenT5 as FrozenT5  # and from here, beside what else reads captions
from audiolm_kit.frozen_t5 import cached_t5
from audiolm_kit.text import TextInput as TextInput
from audiolm_kit.text import Vocabulary
from audiolm_kit.text_cache import CachedStates
from audiolm_kit.transformer import Transformer, TransformerConfig

TEXT_MODEL = "text.model"
"""The vocabulary's name in a checkpoint folder."""
TEXT_ENCODER = "text_encoder"
"""The name there of the folder of a T5 and its tokenizer, where a checkpoint brings its own."""


@dataclass(frozen=True)
class TextConfig:
    """How captions are read."""

    kind: Literal["none", "small", "t5", "labels"] = "none"
    """No captions; a small encoder trained with the model; a frozen T5 encoder; a trained table of class labels."""
    dim: int = 256
    """Width E of the text states; for t5 that of the named model (t5-base 768, t5-large 1024)."""
    layers: int = 2
    """Of the small encoder, as are heads, dropout and pieces."""
    heads: int = 4
    dropout: float = 0.0
    pieces: int = 1000
    """Rows of the small encoder's embedding: at least the size of the text vocabulary."""
    name: str = "t5-base"
    """Folder, or name on the Hugging Face hub, of the T5: T5, T5 v1.1 or FLAN-T5 of any size; ./text_encoder lies in
    the checkpoint's own folder, wherever that is."""
    labels: tuple[str, ...] = ()
    """The class labels of kind labels, in the order of the table; a caption names one or several of them."""
    clean: bool = False
    """Captions are cut down to their base words first, in training and generation alike (``captions.clean``); labels
    are not."""

    def __post_init__(self) -> None:
        if self.kind not in ("none", "small", "t5", "labels"):
            raise ValueError(f"text kind is {self.kind!r}: give one of none, small, t5, labels")
        if min(self.dim, self.pieces) < 1:
            raise ValueError(f"text dim and pieces are {self.dim} and {self.pieces}: give positive numbers")
        if self.kind == "small":
            encoder_config(self)
        object.__setattr__(self, "labels", tuple(self.labels))  # a parser may bring a list
        if self.kind == "labels":
            LabelReader(self.labels)
        if self.kind == "t5" and self.name.startswith("./") and not self.brings_t5:
            raise ValueError(
                f"text name is {self.name!r}, but ./ stands for the checkpoint's own folder, where a T5 is called "
                f"./{TEXT_ENCODER}: give a path without ./, or an absolute one"
            )

    @property
    def brings_t5(self) -> bool:
        """Whether the T5 lies in the checkpoint folder itself."""
        return self.kind == "t5" and self.name == f"./{TEXT_ENCODER}"


class Context(NamedTuple):
    """What a model attends to. A row without any True in its mask is the null context: it adds exactly nothing."""

    states: Tensor  # [B, N, D]
    mask: Tensor  # [B, N] bool


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


def _padded(rows: list[Tensor], device: torch.device | str) -> TextInput:
    """Rows ``[N, ...]`` -> one batch on ``device``, zeros behind each; no mask at those without any."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = max(1, int(lengths.max()))
    content = torch.stack([torch.cat([row, row.new_zeros(longest - len(row), *row.shape[1:])]) for row in rows])
    return TextInput(content.to(device), (torch.arange(longest) < lengths[:, None]).to(device))


class TextConditioner:
    """Captions -> ``TextInput``, for training and for generation alike.

    Usage: ``context = lm.condition(conditioner.prepare(texts, device))``; an empty text is the null context.
    """

    def __init__(
        self,
        config: TextConfig,
        vocabulary: Vocabulary | None = None,
        cache: str | Path | None = None,
        folder: str | Path | None = None,
    ) -> None:
        """Take the vocabulary of the small encoder, or load the T5 that ``config`` names.

        Args:
            cache: A folder for the states of a T5, which is then loaded only for captions that are not there yet.
            folder: Of the checkpoint, which may bring its T5.
        """
        if config.kind == "small":
            if vocabulary is None:
                raise ValueError("the small text encoder needs its vocabulary: pass Vocabulary.load(path)")
            if vocabulary.size > config.pieces:
                raise ValueError(
                    f"the text vocabulary has {vocabulary.size} pieces, the model takes {config.pieces}: "
                    "set text pieces to that, or use the vocabulary it was trained with"
                )
        if cache is not None and config.kind != "t5":
            raise ValueError(f"text kind is {config.kind!r}, and only states of a t5 are kept: leave the cache out")
        if config.clean:
            clean("a word")  # what this takes is missed now, not in the first step
        self.config = config
        self.vocabulary = vocabulary
        self.folders = folders_of(config, folder)
        self._labels = LabelReader(config.labels) if config.kind == "labels" else None
        self._t5: FrozenT5 | CachedStates | None = None
        if config.kind == "t5":
            name = str(self.folders.get(TEXT_ENCODER, config.name))
            self._t5 = FrozenT5(name, config.dim) if cache is None else cached_t5(name, config.dim, cache)

    @classmethod
    def load(cls, config: TextConfig, where: str | Path, cache: str | Path | None = None) -> TextConditioner:
        """As the constructor, with what ``config`` needs read from a checkpoint folder, or a vocabulary from its file.

        The folder may be moved when this has returned, as long as nothing is saved and no cache lacks a caption.
        """
        where = Path(where)
        folder, file = (where, where / TEXT_MODEL) if where.is_dir() else (where.parent, where)
        return cls(config, Vocabulary.load(file) if config.kind == "small" else None, cache, folder)

    def prepare(self, texts: list[str], device: torch.device | str = "cpu", keep: bool = True) -> TextInput:
        """One row for each caption, on ``device``.

        Args:
            keep: Whether new states go into the cache, where there is one; not those of captions that hardly come
                again, as mixtures drawn in training do.
        """
        texts = caption_texts(self.config, texts)
        if isinstance(self._t5, CachedStates):
            return _padded(self._t5.rows(texts, device, keep), device)
        if self._t5 is not None:
            return self._t5(texts, device)
        if self._labels is not None:
            return _padded([torch.tensor(self._labels(text), dtype=torch.long) for text in texts], device)
        if self.config.kind == "none" or self.vocabulary is None:
            raise ValueError("this model was trained without captions (text kind none): leave the texts out")
        pieces = self.vocabulary.encode(texts)
        return TextInput(pieces.codes.to(device), pieces.mask.to(device))

    def fill(self, texts: Iterable[str], device: torch.device | str = "cpu") -> int:
        """Ready for all these captions: their states go into the cache, or their labels are looked up once.

        A killed run goes on where it was. Of several processes each may take a share: ``texts[rank::world_size]``.

        Returns:
            How many were not in the cache; 0 without one.

        Raises:
            ValueError: a caption names no known label; better now than in the middle of a training.
        """
        texts = caption_texts(self.config, texts)
        if self._labels is not None:
            for text in dict.fromkeys(texts):
                self._labels(text)
        return self._t5.fill(texts, device) if isinstance(self._t5, CachedStates) else 0


def caption_texts(config: TextConfig, texts: Iterable[str]) -> list[str]:
    """Captions as they are read: cleaned where ``config`` says so, else as they are. Train a vocabulary on these.

    What holds no word (``...``) is not cleaned away, for then it would be the null context: it stays, in lower case.
    """
    if not config.clean or config.kind in ("none", "labels"):
        return list(texts)
    return [clean(text) or text.strip().lower() for text in texts]


def folders_of(config: TextConfig, folder: str | Path | None) -> dict[str, Path]:
    """The folders that a checkpoint in ``folder`` holds beside its models, by their names there, as absolute paths.

    Raises:
        ValueError: there are some, and ``folder`` is None.
    """
    if not config.brings_t5:
        return {}
    if folder is None:
        raise ValueError(
            f"the T5 {config.name} lies in a checkpoint folder, and none was given: open the text with "
            "TextConditioner.load(config, folder), or set text name to that folder's path"
        )
    return {TEXT_ENCODER: Path(folder).resolve() / TEXT_ENCODER}


def text_folders(conditioner: TextConditioner | None) -> dict[str, Path]:
    """The folders a checkpoint holds beside its models, by their names there: the T5 that it brings, if it does."""
    return {} if conditioner is None else conditioner.folders


def text_files(conditioner: TextConditioner | None) -> dict[str, bytes]:
    """What a checkpoint holds beside its models: the vocabulary of the small text encoder, where there is one."""
    vocabulary = None if conditioner is None else conditioner.vocabulary
    return {} if vocabulary is None else {TEXT_MODEL: vocabulary.model}
