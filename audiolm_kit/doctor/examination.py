"""The checks of a checkpoint in their order: it opens, its parts agree, its sound, its models, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from audiolm_kit import audio
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.doctor.agreement import check_agreement, check_model
from audiolm_kit.doctor.batches import Batch, batch_of
from audiolm_kit.doctor.checkpoints import Model, Patient, examine, place_of
from audiolm_kit.doctor.codecs import check_codec, check_semantic
from audiolm_kit.doctor.estimate import check_fit, check_generate, too_large
from audiolm_kit.doctor.findings import SEEN_TO, Finding, checked
from audiolm_kit.doctor.sounds import Clips, clips_of
from audiolm_kit.doctor.trial import BUDGET, FALL, Trial, learn_codec, learn_lm, told_of

MANIFEST = "audiolm-kit manifest FOLDER -o NEW.jsonl makes one of sounds that can be read"
CAPTIONS = "give a manifest whose captions the model knows, or one without any"
SHARDS = "give a folder of shards that `tokenize` made"


class Asked(NamedTuple):
    """What is tried beside the checkpoint itself; empty for nothing."""

    manifest: str = ""
    shards: str = ""
    picture: str = ""
    device: str = "cpu"


def examination(folder: str | Path, asked: Asked) -> Iterator[Finding]:
    """All findings of a checkpoint, as they are made."""
    found: list[Patient] = []
    device = asked.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def opens() -> Finding:
        finding, patient = examine(folder, device)
        found.extend([] if patient is None else [patient])
        return finding

    yield checked("checkpoint", opens, SEEN_TO)
    for patient in found:
        if patient.models:
            cure = SHARDS if asked.shards else SEEN_TO
            yield checked("agreement", partial(check_agreement, patient, asked.shards), cure)
        try:
            clips = clips_of(asked.manifest)
        except (ValueError, OSError) as error:
            yield Finding("manifest", " ".join(str(error).split()), MANIFEST)
            return
        yield from _of_parts(patient, clips, asked.picture)


def _of_parts(patient: Patient, clips: Clips, picture: str) -> Iterator[Finding]:
    """What tokenizers and models do with the sounds."""
    if patient.codec is not None:
        yield checked("codec", partial(check_codec, patient.codec, clips, picture), SEEN_TO)
    if patient.semantic is not None:
        yield checked("semantic", partial(check_semantic, patient.semantic, clips), SEEN_TO)
    yield checked("generate", partial(check_generate, patient), SEEN_TO)
    for name, model in patient.models.items():
        yield from _of_model(patient, name, model, clips)
    if not patient.models and isinstance(patient.codec, NeuralCodec):
        yield from _trial("codec", patient.codec, partial(_codec_trial, patient.codec, clips), fall=1.0)


def _of_model(patient: Patient, name: str, model: Model, clips: Clips) -> Iterator[Finding]:
    """How likely the codes of one batch are, whether it can be learned, and what learning costs."""
    source = "codec" if model.stage is None else model.stage.source
    if (patient.codec if source == "codec" else patient.semantic) is None:
        yield Finding("one batch", f"{name} has no {source} beside it that makes codes to learn: left out")
        return
    made: list[Batch] = []

    def likely() -> Finding:
        made.append(batch_of(patient, model, clips.clips))
        return check_model(name, model, made[0])

    finding = checked("model", likely, CAPTIONS)
    if clips.own or not made:  # of a sound that it was not trained on, a model may know nothing
        yield finding
    for batch in made:
        yield from _trial(name, model.lm, partial(learn_lm, model.lm, batch, BUDGET / len(patient.models)), FALL)


def _trial(name: str, model: nn.Module, learn: Callable[[], Trial], fall: float) -> Iterator[Finding]:
    """Learning by heart, where there is memory for it, and what it cost."""
    if reason := too_large(model):
        yield Finding("one batch", f"{name}: {reason}")
        return
    trials: list[Trial] = []

    def tried() -> Finding:
        trials.append(learn())
        return told_of(name, trials[0], fall)

    yield checked("one batch", tried, SEEN_TO)
    for trial in trials:
        yield checked("fit", partial(check_fit, name, model, trial), SEEN_TO)


def _codec_trial(codec: NeuralCodec, clips: Clips) -> Trial:
    """The first second of each sound, or as much as the shortest has."""
    sounds = [audio.fit(clip.sound, codec.sample_rate, codec.channels).samples for clip in clips.clips]
    length = min(codec.sample_rate, *(each.shape[1] for each in sounds))
    batch = torch.stack([each[:, :length] for each in sounds])
    return learn_codec(codec, batch.to(place_of(codec)))
