"""One batch for each language model of a checkpoint, made of a few sounds as its training makes them.

B batch, K codebooks, T frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from audiolm_kit import audio
from audiolm_kit.conditioning import TextInput
from audiolm_kit.doctor.checkpoints import Model, Patient, place_of
from audiolm_kit.doctor.sounds import Clip
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.protocols import AudioTokenizer
from audiolm_kit.repeats import deduplicate
from audiolm_kit.stages import Source, Stage


class Batch(NamedTuple):
    """What a model learns from, and how much sound that is."""

    codes: Tensor  # [B, K, T]
    mask: Tensor  # [B, T]
    text: TextInput | None
    prefix: Tensor | None  # [B, K, T]
    seconds: float  # of the longest row


def batch_of(patient: Patient, model: Model, clips: list[Clip]) -> Batch:
    """Codes of the clips as ``model`` learns them, with their captions and what stands in front.

    Raises:
        ValueError: the checkpoint does not hold the tokenizer that makes them, or a caption names no known label.
    """
    pieces = [_piece(patient, model.stage, clip) for clip in clips]
    place = place_of(model.lm)
    codes = pad_sequence([codes.T for codes, _ in pieces], batch_first=True).transpose(1, 2)
    lengths = torch.tensor([codes.shape[1] for codes, _ in pieces])
    mask = torch.arange(codes.shape[2]) < lengths[:, None]
    text = None if model.conditioner is None else model.conditioner.prepare([clip.text for clip in clips], place)
    fronts = [front for _, front in pieces if front is not None]
    prefix = None
    if fronts:
        longest = max(front.shape[1] for front in fronts)
        size = model.lm.config.prefix.codebook_size
        prefix = torch.stack([pad(front, (longest - front.shape[1], 0), value=size) for front in fronts]).to(place)
    seconds = max(_seconds(model.stage, clip) for clip in clips)
    return Batch(codes.to(place), mask.to(place), text, prefix, seconds)


def loss_of(lm: StreamLM, batch: Batch) -> Tensor:
    """Cross-entropy in nats, mean over codebooks, as in training, with every caption."""
    context = None if batch.text is None else lm.condition(batch.text)
    return lm.loss(batch.codes, batch.mask, context, batch.prefix)


def _piece(patient: Patient, stage: Stage | None, clip: Clip) -> tuple[Tensor, Tensor | None]:
    """Codes ``[K, T]`` and those in front, of the beginning of a clip."""
    if stage is None:
        return _codes(patient, "codec", clip, None), None
    learned = _stage_codes(patient, stage, stage.source, stage.codebooks, clip)
    if not stage.prefix:
        return learned, None
    return learned, _stage_codes(patient, stage, stage.prefix, stage.prefix_codebooks, clip)


def _stage_codes(patient: Patient, stage: Stage, source: Source, codebooks: tuple[int, int], clip: Clip) -> Tensor:
    codes = _codes(patient, source, clip, stage)[slice(*codebooks)]
    return deduplicate(codes).codes if source == "semantic" and stage.deduplicated else codes


def _codes(patient: Patient, source: Source, clip: Clip, stage: Stage | None) -> Tensor:
    """All codes ``[K, T]`` that a tokenizer makes of a clip, or of as much of it as a stage reads at once."""
    tokenizer: AudioTokenizer | None = patient.codec if source == "codec" else patient.semantic
    if tokenizer is None:
        raise ValueError(f"{patient.folder} holds no {source} to make its codes: give the folder that `fit` exported")
    sound = audio.fit(clip.sound, tokenizer.sample_rate, tokenizer.channels)
    length = max(1, int(_seconds(stage, clip) * tokenizer.sample_rate))
    assert isinstance(tokenizer, torch.nn.Module)
    return tokenizer.encode(sound.samples[None, :, :length].to(place_of(tokenizer)))[0].cpu()


def _seconds(stage: Stage | None, clip: Clip) -> float:
    """How much of a clip is read."""
    own = clip.sound.samples.shape[1] / clip.sound.sample_rate
    return own if stage is None else min(own, stage.seconds)
