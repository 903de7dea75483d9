"""What is to be measured, and which models listen: a plan, read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from audiolm_kit.evaluation.embedding import Pool

Signal = Literal["si_sdr", "stft_distance", "mel_distance", "pesq_wb", "pesq_nb", "stoi", "estoi"]
Distance = Literal["frechet", "kernel"]
Verdict = Literal["kl", "inception"]
Music = Literal["chroma_similarity", "chroma_entropy"]
Fit = Literal["score", "retrieval"]
Words = Literal["wer", "cer"]
Kind = Literal["codec", "clap", "ast", "ssl", "encodec", "voice", "recogniser", "function"]


@dataclass(frozen=True)
class Model:
    """A model that listens."""

    kind: Kind
    """``codec``: the latents of the codec that the command is given. Of transformers ``clap`` (or a
    small one of our own, ``ContrastiveTask``), ``ast``, ``ssl``
    (HuBERT, WavLM, wav2vec 2, w2v-BERT 2.0), ``encodec``, ``voice`` (x-vectors), ``recogniser`` (of speech).
    ``function``: any."""
    name: str = ""
    """A folder or a name on the hub; of a function ``module:function``."""
    layer: int = 0
    """Of ssl: 0 is what enters the first layer, n what leaves the n-th."""
    pool: Pool = "mean"
    """Of codec, ssl and encodec: what of its frames tells a sound."""

    def __post_init__(self) -> None:
        if not self.name and self.kind != "codec":
            raise ValueError(f"a model of kind {self.kind} needs a name: a folder, a name on the hub, module:function")


@dataclass(frozen=True)
class Plan:
    """What is to be measured; what is left out is not."""

    signal: tuple[Signal, ...] = ()
    """Of each sound and its reference."""
    codes: bool = False
    """How the codec's codebooks are used."""
    distances: tuple[Distance, ...] = ("frechet", "kernel")
    """Of the sounds from the references, as each of the embedders hears them."""
    embedders: tuple[Model, ...] = ()
    verdicts: tuple[Verdict, ...] = ("kl", "inception")
    """Of what each of the classifiers makes of the sounds; kl wants pairs with references."""
    classifiers: tuple[Model, ...] = ()
    fits: tuple[Fit, ...] = ("score", "retrieval")
    """How sounds fit their captions, by each of the scorers, of kind clap or function (which scores alone)."""
    scorers: tuple[Model, ...] = ()
    recalls: tuple[int, ...] = (1, 5, 10)
    """Of retrieval: among the first so many."""
    words: tuple[Words, ...] = ("wer", "cer")
    """Errors of what each of the recognisers hears."""
    recognisers: tuple[Model, ...] = ()
    said: Literal["transcript", "text"] = "transcript"
    """What is to be said: the transcript of a sound, or its caption."""
    voices: tuple[Model, ...] = ()
    """How alike the voice of a sound is to that of its reference or prompt."""
    voice_of: Literal["reference", "prompt"] = "reference"
    """A sound that continues a prompt begins with it: that part is not heard."""
    music: tuple[Music, ...] = ()
    draws: int = 1000
    """Of sounds, for intervals."""
    seed: int = 0
    """Of these draws, and of the order in which words are mixed up to find the floor."""

    def __post_init__(self) -> None:
        wanted: dict[str, tuple[Kind, ...]] = {
            "embedders": ("codec", "clap", "ast", "ssl", "encodec", "function"),
            "classifiers": ("ast", "function"),
            "scorers": ("clap", "function"),
            "recognisers": ("recogniser", "function"),
            "voices": ("voice", "function"),
        }
        for place, kinds in wanted.items():
            for model in getattr(self, place):
                if model.kind not in kinds:
                    raise ValueError(f"{place} has a model of kind {model.kind}: give one of {', '.join(kinds)}")
        if any(count < 1 for count in self.recalls):
            raise ValueError(f"recalls is {list(self.recalls)}: give numbers from 1 on")

    @property
    def wants_pairs(self) -> bool:
        """Whether sounds are compared each with its own reference."""
        pairs = (
            bool(self.signal) or "chroma_similarity" in self.music or bool(self.classifiers and "kl" in self.verdicts)
        )
        return pairs or bool(self.voices and self.voice_of == "reference")

    @property
    def wants_codec(self) -> bool:
        """Whether a codec listens."""
        return self.codes or any(model.kind == "codec" for model in self.embedders)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to measure."""
        return not (self.wants_pairs or self.wants_codec or self.music or self.embedders or self.classifiers) and not (
            self.scorers or self.recognisers or self.voices
        )


def suggested(paired: bool, referenced: bool, codec: bool) -> Plan:
    """What can be measured without any download of what is there: pairs, a set of references, a codec."""
    return Plan(
        signal=("si_sdr", "stft_distance", "mel_distance") if paired else (),
        codes=codec,
        embedders=(Model("codec"),) if codec and referenced else (),
    )


def read_plan(files: Sequence[str | Path]) -> Plan:
    """A plan from YAML files; what a later one says takes the place of what an earlier one does.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: It is no YAML, or says what no plan has.
    """
    from jsonargparse import ArgumentParser

    told: dict[str, Any] = {}
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"no plan {file}: give a YAML file that says what to measure")
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is not YAML ({' '.join(str(error).split())}): mend it") from None
        known = [field.name for field in fields(Plan)]
        unknown = sorted(set(content) - set(known)) if isinstance(content, dict) else [type(content).__name__]
        if unknown:
            raise ValueError(f"{file} says {unknown[0]!r}, which no plan has: give some of {', '.join(known)}")
        told |= content
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--plan", type=Plan)
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the newer name, since 4.49
    plan: Plan = instantiate(parser.parse_object({"plan": told})).plan
    return plan
