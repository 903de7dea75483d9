"""From recordings to a semantic tokenizer: features by name, frames, k-means.

L samples, T frames, D dimensions of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm_kit import audio, checkpoint
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.kmeans import fit_kmeans
from audiolm_kit.semantic.masked import MaskedModel
from audiolm_kit.semantic.spectrum import SpectrumOptions
from audiolm_kit.semantic.tokenizer import SemanticTokenizer, with_centroids

SAMPLE_RATE = 16000
FRAME_RATE = 50.0
PLAIN = SpectrumOptions()
"""Spectra as they are."""


def features_from(
    name: str,
    layer: int | None = None,
    sample_rate: int | None = None,
    frame_rate: float | None = None,
    spectrum: SpectrumOptions = PLAIN,
) -> FrameFeatures:
    """The features of a name.

    Args:
        name: mel, mfcc, chroma, the folder of a ``MaskedModel``, or a folder or hub name of a model of transformers.
        layer: Of a model, where it must be said: which is best, ABX tells.
        sample_rate: Of mel, mfcc and chroma, 16000 where None; models have their own, and another is refused.
        frame_rate: Frames a second, likewise, 50 where None.
        spectrum: Of mel and mfcc; other frames stay as they are, and any other than the default is refused.

    Raises:
        FileNotFoundError: No model stands under this name.
        ValueError: A layer where there is none, none where there are some, or rates that cannot be.
    """
    if name in ("mel", "mfcc", "chroma"):
        if layer is not None:
            raise ValueError(f"layer is {layer}, but {name} has no layers: leave it out")
        rates = SAMPLE_RATE if sample_rate is None else sample_rate, FRAME_RATE if frame_rate is None else frame_rate
        return FrameFeatures(replace(_plain(name, *rates), **asdict(spectrum)))
    if spectrum != PLAIN:
        raise ValueError(f"{name} is a model, whose frames stay as they are: leave standardised and such out")
    if layer is None:
        raise ValueError(f"{name} has several layers: say which one gives the features")
    if _is_ours(name):
        features = FrameFeatures.of_masked(checkpoint.load(MaskedModel, name), layer)
    else:
        features = FrameFeatures.of_ssl(name, layer)
    _check_rates(name, features.config, sample_rate, frame_rate)
    return features


def _check_rates(name: str, config: FeatureConfig, sample_rate: int | None, frame_rate: float | None) -> None:
    """Refuse other rates than a model's own."""
    found: dict[str, tuple[float | None, float]] = {
        "sample_rate": (sample_rate, config.sample_rate),
        "frame_rate": (frame_rate, config.sample_rate / config.hop),
    }
    for what, (given, own) in found.items():
        if given is not None and given != own:
            raise ValueError(f"{what} is {given}, but {name} has {own:g}: give that, or leave it out")


def _plain(kind: Any, sample_rate: int, frame_rate: float) -> FeatureConfig:
    hop = sample_rate / frame_rate if frame_rate > 0 else 0.0
    if hop < 1 or hop != round(hop):
        raise ValueError(f"frame_rate {frame_rate:g} does not divide sample_rate {sample_rate}: change one of them")
    return FeatureConfig(kind, sample_rate, round(hop))


def _is_ours(name: str) -> bool:
    """Whether a folder holds a checkpoint of this toolkit, as its config.json says, and not one of transformers."""
    path = Path(name) / checkpoint.CONFIG
    return path.is_file() and "kind" in checkpoint.read_json(path)


def fit_tokenizer(
    features: FrameFeatures,
    waveforms: Iterable[Tensor],
    codebook_size: int,
    *,
    seed: int = 0,
    max_frames: int = 500_000,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> SemanticTokenizer:
    """Find centroids for the features of recordings, and make them a tokenizer on the CPU.

    Args:
        features: Moved to ``device``, and back to the CPU in the end.
        waveforms: [L] each, mono at the features' sample rate; read once, one after another.
        codebook_size: How many centroids.
        seed: The same gives the same tokenizer again.
        max_frames: How many frames k-means sees, a uniform sample held in memory; standardisation is by all of them.
        progress: Called after each recording with the number of frames so far.

    Raises:
        ValueError: A recording is not [L], is empty or holds NaN; fewer frames than centroids.
    """
    features = features.to(device)
    found = fit_kmeans(_frames(features, waveforms, device, progress), codebook_size, seed, max_frames)
    return with_centroids(features.to("cpu"), found.centroids, found.mean, found.deviation)


def _frames(
    features: FrameFeatures,
    waveforms: Iterable[Tensor],
    device: torch.device | str,
    progress: Callable[[int], None] | None,
) -> Iterator[np.ndarray]:
    """The frames of each recording, [T, D]."""
    count = 0
    for number, waveform in enumerate(waveforms):
        if waveform.dim() != 1:
            raise ValueError(f"recording {number} is of shape {list(waveform.shape)}, wanted [samples] of one channel")
        samples = audio.checked(waveform, f"recording {number}").to(device)
        frames = features(samples[None])[0].cpu().numpy()
        yield frames
        count += len(frames)
        if progress is not None:
            progress(count)
