"""What a language model learns from: the tokenizers behind its codes, and whether they, shards and model agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import open_codec
from audiolm_kit.data.modules import TokenSource
from audiolm_kit.data.shards import TokenFormat
from audiolm_kit.data.stages import StageData
from audiolm_kit.lm.model import LMConfig
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.stages import Source, Stage

OPENERS: dict[Source, Callable[[str], nn.Module]] = {
    "semantic": partial(checkpoint.load, SemanticTokenizer),
    "codec": open_codec,
}
NOUNS: dict[Source, str] = {"semantic": "semantic tokenizer", "codec": "codec"}


class Tokenizer(NamedTuple):
    """What made codes, as its folder holds it."""

    model: nn.Module
    fingerprint: str
    folder: str


class Codes(NamedTuple):
    """Codes as a model meets them."""

    source: Source
    num_codebooks: int
    """How many of them, of those that the shards hold."""
    format: TokenFormat


def stage_of(data: TokenSource) -> Stage | None:
    """The stage of AudioLM that is learned, if it is one."""
    return data.stage if isinstance(data, StageData) else None


def open_tokenizers(stage: Stage | None, folders: Mapping[Source, str]) -> dict[Source, Tokenizer]:
    """Those whose codes are learned or stand in front; a codec alone without a stage. Other folders are left alone.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a folder is not named, or holds something else.
    """
    opened: dict[Source, Tokenizer] = {}
    needed: tuple[Source, ...] = ("codec",) if stage is None else (stage.source, stage.prefix)
    for source in [each for each in OPENERS if each in needed]:
        folder = folders[source]
        if not folder:
            whose = "the codes that are learned are" if stage is None else f"stage {stage.name} has codes"
            raise ValueError(
                f"{whose} of a {NOUNS[source]}: set {source} to the folder of the one that made the shards"
            )
        model = OPENERS[source](folder)
        opened[source] = Tokenizer(model, checkpoint.fingerprint(model), folder)
    return opened


def check_agreement(config: LMConfig, data: TokenSource, tokenizers: Mapping[Source, Tokenizer]) -> None:
    """Compare the shards with the tokenizers, and the model with both.

    Raises:
        ValueError: they do not belong together; the message names what to set.
    """
    learned, front = _learned(data), _front(data)
    for codes in (learned, front) if front is not None else (learned,):
        _check_made_by(codes, tokenizers[codes.source])
    stage = stage_of(data)
    if (config.num_codebooks, config.codebook_size) != (learned.num_codebooks, learned.format.codebook_size):
        what = "the shards hold" if stage is None else f"stage {stage.name} learns"
        raise ValueError(
            f"the model is for {config.num_codebooks} codebooks of {config.codebook_size}, {what} "
            f"{learned.num_codebooks} of {learned.format.codebook_size}: set lm.num_codebooks and lm.codebook_size to "
            "those"
        )
    _check_prefix(config, front, type(data).__name__ if stage is None else f"stage {stage.name}")
    if stage is not None and front is not None:
        _check_times(config, stage, learned.format.frame_rate, front.format.frame_rate)


def entries(data: TokenSource, tokenizers: Mapping[Source, Tokenizer]) -> tuple[Tensor, Tensor | None]:
    """What the codes stand for that are learned, ``[K, V, E]``, and those in front, where there are some.

    Raises:
        ValueError: a tokenizer has no codebooks that say it.
    """
    stage = stage_of(data)
    if stage is None:
        return _entries(tokenizers["codec"], (0, data.format.num_codebooks)), None
    front = _entries(tokenizers[stage.prefix], stage.prefix_codebooks) if stage.prefix else None
    return _entries(tokenizers[stage.source], stage.codebooks), front


def _entries(tokenizer: Tokenizer, some: tuple[int, int]) -> Tensor:
    """Of some of its codebooks, from the first to before the last."""
    model = tokenizer.model
    if isinstance(model, SemanticTokenizer):
        return model.centroids[None]
    if isinstance(model, NeuralCodec):
        return model.entries[slice(*some)]
    raise ValueError(
        f"codebook_init needs codebooks of ours, and {tokenizer.folder} holds a {type(model).__name__}: set it to false"
    )


def _learned(data: TokenSource) -> Codes:
    if not isinstance(data, StageData):
        return Codes("codec", data.format.num_codebooks, data.format)
    first, end = data.stage.codebooks
    return Codes(data.stage.source, end - first, data.format)


def _front(data: TokenSource) -> Codes | None:
    if not isinstance(data, StageData) or data.prefix_format is None:
        return None
    first, end = data.stage.prefix_codebooks
    return Codes(data.stage.prefix, end - first, data.prefix_format)


def _check_made_by(codes: Codes, tokenizer: Tokenizer) -> None:
    if tokenizer.fingerprint != codes.format.fingerprint:
        noun = NOUNS[codes.source]
        raise ValueError(
            f"the shards were made by {noun} {codes.format.fingerprint}, but {tokenizer.folder} is {noun} "
            f"{tokenizer.fingerprint}: tokenize with this {noun}, or give the folder of the other"
        )


def _check_prefix(config: LMConfig, front: Codes | None, what: str) -> None:
    given = config.prefix
    if front is None:
        if given.num_codebooks:
            raise ValueError(
                f"the model stands on {given.num_codebooks} codebooks, and {what} has none in front: "
                "set lm.prefix.num_codebooks to 0"
            )
        return
    if (given.num_codebooks, given.codebook_size) != (front.num_codebooks, front.format.codebook_size):
        raise ValueError(
            f"the model stands on {given.num_codebooks} codebooks of {given.codebook_size}, {what} has "
            f"{front.num_codebooks} of {front.format.codebook_size} in front: set lm.prefix.num_codebooks and "
            "lm.prefix.codebook_size to those"
        )


def _check_times(config: LMConfig, stage: Stage, rate: float, front_rate: float) -> None:
    """Where no repeats are left out in front, how long its frames last is known; else which are beside is not."""
    given, wanted = config.prefix.frames_per_code, rate / front_rate
    deduplicated = stage.prefix == "semantic" and stage.deduplicated
    if config.prefix.beside and deduplicated:
        raise ValueError(
            f"lm.prefix.beside is true, but stage {stage.name} leaves out repeats in front, and with them the codes' "
            "times: set deduplicate to false, or beside"
        )
    if given and not deduplicated and not math.isclose(given, wanted):
        raise ValueError(
            f"lm.prefix.frames_per_code is {given:g}, and stage {stage.name} makes {rate:g} frames a second behind "
            f"{front_rate:g} in front: set it to {wanted:g}, or to 0 for codes without times"
        )
