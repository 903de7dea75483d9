"""What a checkpoint costs on this machine: memory and time to generate, and to train it further.

K codebooks, T frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.doctor.checkpoints import TRIED, Model, Patient, place_of
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.doctor.trial import Trial
from audiolm_kit.protocols import AudioTokenizer

GIB = 2**30
USUAL = 10.0
"""Seconds of the sound whose memory is told."""
PATIENCE = 3.0
"""Seconds that a tenth of a second of sound may take for a whole one to be made too."""
STATES = 4
"""Numbers for each weight in training: itself, its gradient, and Adam's two averages."""
WIDTH = 4  # bytes of a number in fp32
SAMPLE_STEPS = 10_000


def check_generate(patient: Patient) -> Finding:
    """Memory and time of generation, or of encoding and decoding for what makes no sound by itself."""
    parts = _modules(patient)
    told = [f"weights {_size(sum(map(weights_of, parts.values())))}"]
    for name, model in patient.models.items():
        if frames := _frames(patient, model):
            told.append(f"{name}: key-value cache {_size(cache_of(model, frames))} for {USUAL:g} s")
    if patient.make is not None:
        told.append(_speed(patient.make))
    for name, tokenizer in (("codec", patient.codec), ("semantic", patient.semantic)):
        if tokenizer is not None:
            told.append(f"{name} {_tokenizer_speed(tokenizer)}")
    if (free := free_memory(_place(patient))) is not None:
        told.append(f"{_size(free)} are free")
    return Finding("generate", ", ".join(told))


def check_fit(name: str, model: nn.Module, trial: Trial) -> Finding:
    """Memory and time of training further: full, of this batch, and by adapters alone."""
    fixed, number = training_memory(model), sum(each.numel() for each in model.parameters())
    row = trial.activations / trial.rows
    told = f"{name}: {number / 1e6:.1f} million weights, {_size(fixed)} with gradients and Adam in fp32"
    told = f"{told}, and {_size(row)} for each {trial.length:.1f} s of a batch; {trial.seconds:.2f} s a step"
    hours = trial.seconds * SAMPLE_STEPS / 3600
    told = f"{told} of {trial.rows}, {SAMPLE_STEPS:,} steps take {hours:.1f} h here"
    free = free_memory(place_of(model))
    if free is not None and fixed + trial.activations > free:
        return Finding("fit", f"{told}; {_size(free)} are free", "train by adapters (LoRA), or on a larger machine")
    return Finding("fit", told)


def training_memory(model: nn.Module) -> int:
    """Bytes of weights, gradients and Adam's averages in fp32."""
    return STATES * WIDTH * sum(each.numel() for each in model.parameters())


def too_large(model: nn.Module) -> str:
    """Why a copy of a model is not trained here; empty where there is room for one."""
    needed, free = training_memory(model), free_memory(place_of(model))
    if free is None or needed < 0.8 * free:
        return ""
    return f"learning one batch would take {_size(needed)}, {_size(free)} are free: left out"


def weights_of(model: nn.Module) -> int:
    """Bytes of all that a model holds."""
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))


def cache_of(model: Model, num_frames: int) -> int:
    """Bytes of keys and values of one sound of T frames; twice with guidance, where there are captions to guide by."""
    lm = model.lm
    config, rows = lm.config.transformer, 1 if model.conditioner is None else 2
    steps = 1 + lm.pattern.num_steps(num_frames)
    return 2 * config.layers * rows * steps * config.dim * lm.dtype.itemsize


def free_memory(place: torch.device) -> int | None:
    """Bytes that are free where a model computes; None where nobody says."""
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _frames(patient: Patient, model: Model) -> int:
    """T of the usual sound, or of the pieces that a stage makes at once; 0 where the frame rate is not known."""
    seconds = USUAL if model.stage is None else min(USUAL, model.stage.seconds)
    source = "codec" if model.stage is None else model.stage.source
    tokenizer = patient.codec if source == "codec" else patient.semantic
    return 0 if tokenizer is None else max(1, round(seconds * tokenizer.frame_rate))


def _speed(make: Callable[[float], Sound]) -> str:
    """How fast sound is made: of a second of it, or of a tenth where that is slow enough."""
    spent = _timed(lambda: make(TRIED))
    seconds = TRIED
    if spent < PATIENCE:
        seconds, spent = 1.0, _timed(lambda: make(1.0))
    return f"{spent / seconds:.2f} s for each second of sound"


def _tokenizer_speed(tokenizer: AudioTokenizer) -> str:
    """Seconds of work for a second of sound."""
    assert isinstance(tokenizer, nn.Module)
    place = place_of(tokenizer)
    tone = 0.1 * torch.sin(torch.arange(tokenizer.sample_rate) * 0.1)
    samples = audio.to_channels(tone[None], tokenizer.channels)[None].to(place)
    codes = tokenizer.encode(samples)
    told = f"encodes a second in {_timed(lambda: tokenizer.encode(samples)):.3f} s"
    decode = getattr(tokenizer, "decode", None)
    return told if decode is None else f"{told}, decodes it in {_timed(lambda: decode(codes)):.3f} s"


@torch.no_grad()
def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _modules(patient: Patient) -> dict[str, nn.Module]:
    tokenizers = {"codec": patient.codec, "semantic": patient.semantic}
    own: dict[str, nn.Module] = {name: each for name, each in tokenizers.items() if each is not None}
    return own | {name: model.lm for name, model in patient.models.items()}


def _place(patient: Patient) -> torch.device:
    return next((place_of(each) for each in _modules(patient).values()), torch.device("cpu"))


def _size(count: float) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
