"""Opens a codec of any kind: ours, or one of transformers'."""

from __future__ import annotations

from pathlib import Path

from audiolm_kit import checkpoint
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec

AnyCodec = NeuralCodec | ForeignCodec


def open_codec(folder: str | Path) -> AnyCodec:
    """The codec of a checkpoint folder, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing.
        ValueError: it holds something else, is cut off, or its weights do not fit its config.
    """
    if checkpoint.kind_of(folder) == ForeignCodec.__name__:
        return checkpoint.load(ForeignCodec, folder)
    return checkpoint.load(NeuralCodec, folder)
