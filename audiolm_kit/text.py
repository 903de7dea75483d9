"""Captions <-> pieces: a sentencepiece vocabulary, trained on the captions of a manifest.

Shapes: B batch, N pieces.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch
from torch import Tensor

PADDING = 0
UNKNOWN = 1


class Pieces(NamedTuple):
    """A batch of captions in pieces; an empty caption has none."""

    codes: Tensor  # [B, N] int64, PADDING behind each caption; N is at least 1
    mask: Tensor  # [B, N] bool, True at pieces


class TextInput(NamedTuple):
    """Captions as the model takes them."""

    content: Tensor  # pieces [B, N] int64 (small), places in the table [B, N] int64 (labels), or states [B, N, E] (t5)
    mask: Tensor  # [B, N] bool; no True for an empty caption


class Vocabulary:
    """The pieces of a trained sentencepiece model; case is folded, PADDING is 0 and UNKNOWN is 1."""

    def __init__(self, model: bytes) -> None:
        """Read a serialised sentencepiece model; see ``train`` and ``load``."""
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no text vocabulary at {path}: train one on the captions first")
        try:
            vocabulary = cls(path.read_bytes())
        except RuntimeError:
            raise ValueError(f"{path} is not a sentencepiece model: train it again") from None
        if vocabulary._processor.pad_id() != PADDING:
            raise ValueError(f"{path} has no padding piece {PADDING}: use a vocabulary trained by audiolm_kit.text")
        return vocabulary

    def save(self, path: str | Path) -> None:
        """Write the model; whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(self.model)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Number of pieces, PADDING and UNKNOWN among them."""
        return int(self._processor.get_piece_size())

    def encode(self, texts: list[str]) -> Pieces:
        """Captions -> pieces; an empty (or blank) caption is masked throughout."""
        rows: list[list[int]] = [self._processor.encode(text) for text in texts]
        codes = torch.full((len(rows), max([1, *map(len, rows)])), PADDING)
        for row, pieces in zip(codes, rows, strict=True):
            row[: len(pieces)] = torch.tensor(pieces, dtype=torch.long)
        lengths = torch.tensor([len(pieces) for pieces in rows], dtype=torch.long)
        return Pieces(codes, torch.arange(codes.shape[1]) < lengths[:, None])

    def decode(self, pieces: Pieces) -> list[str]:
        """Pieces -> captions, in folded case."""
        rows = [row[mask].tolist() for row, mask in zip(pieces.codes, pieces.mask, strict=True)]
        return [self._processor.decode(row) for row in rows]


def train(captions: Iterable[str], path: str | Path, size: int = 1000) -> Vocabulary:
    """Train a vocabulary of ``size`` pieces that covers every character, and write it to ``path``.

    Few captions may not hold as many pieces, or hold more characters: then it warns, and trains the nearest size.
    """
    if size < 1:
        raise ValueError(f"text vocabulary size is {size}: give a positive number")
    texts = sorted(text for text in (" ".join(caption.split()) for caption in captions) if text)
    if not texts:
        raise ValueError("no captions to train a text vocabulary on: give some that are not empty")
    try:
        model = _train(texts, size)
    except RuntimeError as error:
        least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
        if least is None:
            raise ValueError(f"sentencepiece cannot train a vocabulary of {size} pieces: {error}") from None
        model = _train(texts, int(least[1]))
    vocabulary = Vocabulary(model)
    if vocabulary.size != size:
        message = f"{len(texts)} captions make a text vocabulary of {vocabulary.size} pieces, not {size}: using that"
        warnings.warn(message, stacklevel=2)
    vocabulary.save(path)
    return vocabulary


def _train(texts: list[str], size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",  # a unigram model of few captions has hardly more than characters
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        max_sentence_length=max(4192, 4 * max(map(len, texts)) + 1),
        pad_id=PADDING,
        unk_id=UNKNOWN,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,  # the same captions make the same vocabulary
        minloglevel=2,
    )
    return model.getvalue()
