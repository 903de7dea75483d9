"""What a checkpoint in any layout is made of: a codec, a model, and what reads its captions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from audiolm_kit import checkpoint
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import open_codec
from audiolm_kit.conditioning import TEXT_ENCODER, TEXT_MODEL, TextConditioner, folders_of
from audiolm_kit.evaluation.contrastive import SCORER
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.text import Vocabulary

KIND = "AudioGen"


class Parts(NamedTuple):
    """A whole checkpoint, whichever layout it came in."""

    codec: NeuralCodec | ForeignCodec
    lm: StreamLM
    text_encoder: Path | None
    """A folder called text_encoder, of a T5 with its tokenizer, where the source holds one; else
    ``lm.config.text.name`` says which T5 it is. One that was cut out of the source's weights is temporary: it is there
    as long as ``lm`` is."""
    vocabulary: bytes | None = None
    """That of the small text encoder, in a model of ours."""
    scorer: Path | None = None
    """The folder of what chooses among its takes, where a model of ours brings it."""


def conditioner_of(parts: Parts, cache: str | Path | None = None) -> TextConditioner | None:
    """What reads the captions of a model; None for one without captions.

    Args:
        cache: a folder for the states of a T5, see ``TextConditioner``.

    Raises:
        FileNotFoundError: there is no T5 of the name that the model says.
        ValueError: its text encoder or vocabulary is not among the parts.
    """
    text = parts.lm.config.text
    if text.kind == "none":
        return None
    vocabulary = None if parts.vocabulary is None else Vocabulary(parts.vocabulary)
    return TextConditioner(text, vocabulary, cache, parts.text_encoder and parts.text_encoder.parent)


def check_agreement(parts: Parts) -> None:
    """Refuse parts that cannot be one checkpoint.

    Raises:
        ValueError: codec and model are for other codes, or what reads the captions is not among the parts.
    """
    lm, codec = parts.lm.config, parts.codec
    made, taken = (codec.num_codebooks, codec.codebook_size), (lm.num_codebooks, lm.codebook_size)
    if made != taken:
        raise ValueError(
            f"the model is for {taken[0]} codebooks of {taken[1]}, the codec has {made[0]} of {made[1]}: "
            "put those together that were trained together"
        )
    if lm.text.brings_t5 and parts.text_encoder is None or lm.text.kind == "small" and parts.vocabulary is None:
        raise ValueError(f"what reads the captions of this model (text kind {lm.text.kind}) is missing: give it too")


def read_ours(folder: str | Path) -> Parts:
    """The parts of a checkpoint folder as ``AudioGen`` saves it, without loading a T5.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: it is no AudioGen checkpoint, it is cut off, or its parts do not belong together.
    """
    folder = Path(folder)
    checkpoint.read_kind(folder, KIND)
    codec, lm = open_codec(folder / "codec"), checkpoint.load(StreamLM, folder / "lm")
    text = lm.config.text
    vocabulary = Vocabulary.load(folder / TEXT_MODEL).model if text.kind == "small" else None
    scorer = folder / SCORER if (folder / SCORER).is_dir() else None
    parts = Parts(codec, lm, folders_of(text, folder).get(TEXT_ENCODER), vocabulary, scorer)
    if parts.text_encoder is not None and not parts.text_encoder.is_dir():
        raise FileNotFoundError(f"{parts.text_encoder} is missing: copy the whole checkpoint folder")
    found = checkpoint.bundle_fingerprints({"codec": codec, "lm": lm}, _files(parts), _folders(parts))
    checkpoint.check_bundle(folder, KIND, found)
    return parts


def write_ours(parts: Parts, folder: str | Path) -> None:
    """Write the checkpoint folder that ``AudioGen.load`` opens, whole or not at all; an earlier one is replaced.

    Raises:
        FileNotFoundError: the text encoder is not there any more.
        ValueError: the folder holds something else; or codec and model do not fit, or what reads the captions is not
            among the parts.
    """
    check_agreement(parts)
    models = {"codec": parts.codec, "lm": parts.lm}
    checkpoint.save_bundle(folder, KIND, models, _files(parts), folders=_folders(parts))


def _files(parts: Parts) -> dict[str, bytes]:
    return {} if parts.vocabulary is None else {TEXT_MODEL: parts.vocabulary}


def _folders(parts: Parts) -> dict[str, Path]:
    brought = {} if parts.scorer is None else {SCORER: parts.scorer}
    if parts.text_encoder is None or not parts.lm.config.text.brings_t5:
        return brought
    return {TEXT_ENCODER: parts.text_encoder, **brought}
