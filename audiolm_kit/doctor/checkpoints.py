"""A checkpoint folder is opened whole, whatever it holds, and tried: does it open, and does it make a sound?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from audiolm_kit import checkpoint, hub
from audiolm_kit.audio import Sound
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.conditioning import TextConditioner
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.evaluation.contrastive import ContrastiveScorer
from audiolm_kit.inference.assembly import read_stage
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.semantic.masked import MaskedModel
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.stages import Stage

TRIED = 0.1
"""Seconds of the sound that a checkpoint makes to show that it can."""
DAMAGED = "copy or export the checkpoint folder again, all of it"


class Model(NamedTuple):
    """A language model, and what it learns from."""

    lm: StreamLM
    stage: Stage | None = None
    """Of AudioLM; None: all codes of the codec."""
    conditioner: TextConditioner | None = None


class Patient(NamedTuple):
    """A checkpoint that opens: its parts, as far as it has them."""

    folder: Path
    kind: str
    shape: str
    """What it is, in a few words."""
    codec: AnyCodec | None = None
    semantic: SemanticTokenizer | None = None
    models: Mapping[str, Model] = {}
    """By their folders' names."""
    make: Callable[[float], Sound] | None = None
    """A sound of so many seconds, where it makes any by itself."""


def check_checkpoint(folder: Path, device: str = "cpu") -> Finding:
    """A checkpoint opens, its parts fit each other, and it makes a short sound."""
    return examine(folder, device)[0]


def examine(name: str | Path, device: str = "cpu") -> tuple[Finding, Patient | None]:
    """As ``check_checkpoint``, of a folder or a name on the hub, with what was opened; None where it does not open."""
    try:
        patient = opened(hub.checkpoint(name), device)
        done = _tried(patient)
    except (ValueError, OSError) as error:
        return Finding("checkpoint", " ".join(str(error).split()), _cure(Path(name))), None
    return Finding(
        "checkpoint", f"{patient.folder} is {checkpoint.article(patient.kind)}: {patient.shape}, {done}"
    ), patient


def opened(folder: Path, device: str = "cpu") -> Patient:
    """A checkpoint of any kind of ours.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: it holds something else, or is damaged.
    """
    kind = str(checkpoint.read_json(folder / checkpoint.CONFIG).get("kind"))
    if kind not in OPENERS:
        raise ValueError(f"{folder} holds {checkpoint.article(kind)}, wanted one of {', '.join(OPENERS)}")
    return OPENERS[kind](folder, device)


def place_of(model: torch.nn.Module) -> torch.device:
    """Where a model computes."""
    return next(iter((*model.parameters(), *model.buffers()))).device


def _cure(folder: Path) -> str:
    """Another program's checkpoint is imported, ours is mended."""
    foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / checkpoint.CONFIG).is_file()
    config = folder / checkpoint.CONFIG
    if config.is_file():
        try:
            foreign = "kind" not in checkpoint.read_json(config)
        except ValueError:
            foreign = False
    return f"if another program wrote it: audiolm-kit import {folder} NEW_FOLDER" if foreign else DAMAGED


def _tried(patient: Patient) -> str:
    """What it can do; raises ValueError where that is no sound."""
    if patient.make is not None:
        sound = patient.make(TRIED)
        if not torch.isfinite(sound.samples).all():
            raise ValueError(f"{patient.folder} generates NaN: its weights are damaged")
        return "generates" if patient.kind == AudioGen.__name__ else f"makes sound at {sound.sample_rate} Hz"
    if patient.models or patient.kind in (MaskedModel.__name__, ContrastiveScorer.__name__):
        return (
            "opens" if patient.kind != "AudioLMStage" else "opens; audiolm-kit assemble makes one model of all stages"
        )
    tokenizer = patient.codec or patient.semantic
    assert tokenizer is not None
    length = int(tokenizer.sample_rate * TRIED)
    noise = torch.randn(1, tokenizer.channels, length, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = tokenizer.encode(noise.to(place_of(tokenizer)))
    if patient.codec is None:
        return "encodes"
    if not torch.isfinite(patient.codec.decode(codes)).all():
        raise ValueError(f"{patient.folder} decodes to NaN: its weights are damaged")
    return "encodes and decodes"


# --- one for each kind ------------------------------------------------------------------------------------------------


def _audiogen(folder: Path, device: str) -> Patient:
    model = AudioGen.load(folder, device)
    text = "" if model.conditioner is None else next(iter(model.lm.config.text.labels), "a sound")
    shape = f"{_grid(model.codec)}, codec {model.fingerprints['codec']}, lm {model.fingerprints['lm']}"
    shape += "" if model.scorer is None else f", a scorer {model.fingerprints['scorer']}"
    models = {"lm": Model(model.lm, None, model.conditioner)}
    make = _first(lambda seconds: model.generate([text], seconds=seconds))
    return Patient(folder, AudioGen.__name__, shape, model.codec, None, models, make)


def _audiolm(folder: Path, device: str) -> Patient:
    model = AudioLM.load(folder, device)
    models = {str(name): Model(lm, stage) for name, (stage, lm) in model.stages.items()}
    make = _first(lambda seconds: model.generate(1, seconds=seconds))
    shape = " -> ".join(model.stages)
    return Patient(folder, AudioLM.__name__, shape, model.codec, model.semantic, models, make)


def _stage(folder: Path, device: str) -> Patient:
    stage, lm, own = read_stage(folder)
    for each in (lm, *own.values()):
        each.to(device)
    codec, semantic = own.get("codec"), own.get("semantic")
    assert codec is None or isinstance(codec, (NeuralCodec, ForeignCodec))
    assert semantic is None or isinstance(semantic, SemanticTokenizer)
    return Patient(folder, "AudioLMStage", stage.name, codec, semantic, {"lm": Model(lm, stage)})


def _codec(folder: Path, device: str) -> Patient:
    codec = open_codec(folder).to(device)
    shape = f"{_grid(codec)}, fingerprint {checkpoint.fingerprint(codec)}"
    return Patient(folder, type(codec).__name__, shape, codec)


def _semantic(folder: Path, device: str) -> Patient:
    tokenizer = checkpoint.load(SemanticTokenizer, folder).to(device)
    shape = f"{tokenizer.codebook_size} codes of {tokenizer.config.features.kind} at {tokenizer.frame_rate:g} Hz"
    shape = f"{shape}, fingerprint {checkpoint.fingerprint(tokenizer)}"
    return Patient(folder, SemanticTokenizer.__name__, shape, None, tokenizer)


def _lm(folder: Path, device: str) -> Patient:
    lm = checkpoint.load(StreamLM, folder).to(device)
    shape = f"{lm.config.num_codebooks} codebooks of {lm.config.codebook_size}, pattern {lm.config.pattern}"
    return Patient(
        folder, StreamLM.__name__, f"{shape}, fingerprint {checkpoint.fingerprint(lm)}", models={"lm": Model(lm)}
    )


def _masked(folder: Path, device: str) -> Patient:
    model = checkpoint.load(MaskedModel, folder).to(device)
    return Patient(folder, MaskedModel.__name__, f"{model.config.codebook_size} codes at {model.config.sample_rate} Hz")


def _scorer(folder: Path, device: str) -> Patient:
    scorer = ContrastiveScorer.load(folder, device)
    silence = Sound(torch.zeros(1, round(TRIED * scorer.sample_rate)), scorer.sample_rate)
    if not torch.isfinite(scorer.embed_sounds([silence])).all():
        raise ValueError(f"{folder} hears NaN: its weights are damaged")
    shape = f"{scorer.model.config.seconds:g} s at {scorer.sample_rate} Hz, fingerprint {scorer.fingerprint}"
    return Patient(folder, ContrastiveScorer.__name__, shape)


OPENERS: dict[str, Callable[[Path, str], Patient]] = {
    "AudioGen": _audiogen,
    "AudioLM": _audiolm,
    "AudioLMStage": _stage,
    "NeuralCodec": _codec,
    "ForeignCodec": _codec,
    "SemanticTokenizer": _semantic,
    "MaskedModel": _masked,
    "ContrastiveScorer": _scorer,
    "StreamLM": _lm,
}


def _grid(codec: AnyCodec) -> str:
    return f"{codec.num_codebooks} codebooks of {codec.codebook_size} at {codec.frame_rate:g} Hz"


def _first(made: Callable[[float], list[Sound]]) -> Callable[[float], Sound]:
    """The one sound of a request for one."""
    return lambda seconds: made(seconds)[0]
