"""Whether the parts of a checkpoint belong together: shapes, rates, fingerprints, and what the model makes of codes."""

from __future__ import annotations

import math
from typing import Any

import torch

from audiolm_kit import checkpoint
from audiolm_kit.data.shards import open_shards
from audiolm_kit.doctor.batches import Batch, loss_of
from audiolm_kit.doctor.checkpoints import Model, Patient
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.stages import Source

TOGETHER = "put those together that were trained together: export the checkpoint again"


def check_agreement(patient: Patient, shards: str = "") -> Finding:
    """Codec, semantic tokenizer and models agree in codebooks, sizes and rates, and with shards where they are named.

    Raises:
        FileNotFoundError: there are no such shards.
        ValueError: they cannot be read.
    """
    faults = [fault for name, model in patient.models.items() for fault in _misfits(patient, name, model)]
    if faults:
        return Finding("agreement", "; ".join(faults), TOGETHER)
    told = [f"{name} learns {_size(model.lm.config)}" for name, model in patient.models.items()]
    for name, tokenizer in _tokenizers(patient).items():
        told.append(f"the {name} makes {_size(tokenizer)} at {tokenizer.frame_rate:g} Hz")
    if not shards:
        return Finding("agreement", ", ".join(told))
    return _shards_fit(patient, shards, told)


def check_model(name: str, model: Model, batch: Batch) -> Finding:
    """A model finds the codes of real sounds likelier than chance; one that hears another codec's does not."""
    with torch.no_grad():
        loss = float(loss_of(model.lm, batch))
    chance = math.log(model.lm.config.codebook_size)
    told = f"{name} finds the codes of these sounds at {loss:.2f} nats each (chance is {chance:.2f})"
    if loss < chance:
        return Finding("model", told)
    return Finding(
        "model", told, "it was not trained on such codes: train it, or give the codec that made those it knows"
    )


def _misfits(patient: Patient, name: str, model: Model) -> list[str]:
    """What a model learns, or stands on, that its tokenizers do not make."""
    config, stage = model.lm.config, model.stage
    source: Source = "codec" if stage is None else stage.source
    faults = []
    tokenizer = _tokenizers(patient).get(source)
    if tokenizer is not None:
        first, end = (0, tokenizer.num_codebooks) if stage is None else stage.codebooks
        made, wanted = (end - first, tokenizer.codebook_size), (config.num_codebooks, config.codebook_size)
        if made != wanted or end > tokenizer.num_codebooks:
            faults.append(f"{name} learns {_size(config)}, and its {source} makes {_size(tokenizer)}")
    front = _tokenizers(patient).get(stage.prefix) if stage is not None else None
    if stage is not None and front is not None:
        first, end = stage.prefix_codebooks
        made, wanted = (end - first, front.codebook_size), (config.prefix.num_codebooks, config.prefix.codebook_size)
        if made != wanted or end > front.num_codebooks:
            faults.append(f"{name} stands on {_size(config.prefix)}, and its {stage.prefix} makes {_size(front)}")
    if stage is not None and stage.source == "semantic" and not stage.deduplicated and tokenizer is not None:
        if abs(stage.codes_per_second - tokenizer.frame_rate) > 1e-6:
            rates = f"{stage.codes_per_second:g} codes a second, its tokenizer makes {tokenizer.frame_rate:g}"
            faults.append(f"{name} was trained on {rates}")
    return faults


def _shards_fit(patient: Patient, folder: str, told: list[str]) -> Finding:
    """Shards are those of one of the tokenizers, or at least of the model's shape where there is none."""
    found = open_shards(folder).format
    tokenizers = _tokenizers(patient)
    for name, tokenizer in tokenizers.items():
        if checkpoint.fingerprint(tokenizer) == found.fingerprint:
            return Finding("agreement", ", ".join([*told, f"{folder} holds codes of this {name}"]))
    made = f"{folder} holds {_size(found)} at {found.frame_rate:g} Hz of another tokenizer ({found.fingerprint})"
    if tokenizers:
        own = ", ".join(f"{name} {checkpoint.fingerprint(each)}" for name, each in tokenizers.items())
        cure = "tokenize again with this checkpoint's, or give the checkpoint that was trained on these"
        return Finding("agreement", f"{made}; this checkpoint has {own}", cure)
    shapes = {(each.lm.config.num_codebooks, each.lm.config.codebook_size) for each in patient.models.values()}
    if shapes and (found.num_codebooks, found.codebook_size) not in shapes:
        return Finding("agreement", f"{made}; {', '.join(told)}", "give the shards that this model was trained on")
    return Finding("agreement", ", ".join([*told, f"{folder} holds {_size(found)}"]))


def _tokenizers(patient: Patient) -> dict[Source, Any]:
    """Those that a checkpoint holds."""
    both: dict[Source, Any] = {"codec": patient.codec, "semantic": patient.semantic}
    return {name: tokenizer for name, tokenizer in both.items() if tokenizer is not None}


def _size(counted: Any) -> str:
    return f"{counted.num_codebooks} codebooks of {counted.codebook_size}"
