"""The trade-off of semantic and acoustic codes: which tell words apart, and from which the recording comes back.

K codebooks, T frames.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from audiolm_kit import NeuralCodec, SemanticTokenizer, Sound, checkpoint
from audiolm_kit.audio import fit, read
from audiolm_kit.data.manifest import Row
from audiolm_kit.evaluation.abx import AbxScore, Item, abx, interval, mean
from audiolm_kit.evaluation.signal import mel_distance, si_sdr
from audiolm_kit.protocols import AudioTokenizer

Entry = dict[str, Any]


def measure(out: Path, rows: list[Row], seeds: list[int]) -> Entry:
    """Both sides, of what the recipe has left in its folder; ``rows`` are held-out recordings of single digits."""
    semantic = checkpoint.load(SemanticTokenizer, out / "semantic").eval()
    codec = checkpoint.load(NeuralCodec, out / "codec").eval()
    acoustic = items(codec, rows)
    codes = {
        "semantic": items(semantic, rows),
        "acoustic": acoustic,
        "first": [Item(item.frames[:1], item.category, item.speaker) for item in acoustic],
    }
    sounds = out / "sounds"
    return told_apart(codes) | {
        "reconstruction": nearness(sounds / "recordings/real", sounds / "recordings/reconstruction"),
        "resynthesis": [nearness(sounds / "recordings/real", sounds / f"voices/resynthesis-{seed}") for seed in seeds],
    }


@torch.no_grad()
def items(tokenizer: AudioTokenizer, rows: list[Row]) -> list[Item]:
    """The codes [K, T] of each recording, who says what."""
    found = []
    for row in rows:
        sound = fit(read(row.path, row.start, row.duration), tokenizer.sample_rate, tokenizer.channels)
        found.append(Item(tokenizer.encode(sound.samples[None])[0], row.label or "", row.speaker or ""))
    return found


def told_apart(codes: dict[str, list[Item]]) -> Entry:
    """ABX errors of each kind of codes, and by how much those of acoustic ones are above those of semantic ones."""
    scores = {name: abx(each, "mismatch") for name, each in codes.items()}
    above = {}
    for name in scores.keys() - {"semantic"}:
        for side in ("within", "across"):
            apart = getattr(scores[name].tables, side) - getattr(scores["semantic"].tables, side)
            above[f"{name} {side}"] = {"value": round(mean(apart), 4), "interval": rounded(interval(apart))}
    return {"errors": {name: errors(score) for name, score in scores.items()}, "above": above}


def errors(score: AbxScore) -> Entry:
    """Within and across speakers, as rows of a table want them."""
    return {
        side: {
            "value": round(getattr(score, side), 4),
            "interval": rounded(getattr(score.intervals, side)),
            "count": getattr(score.counts, side),
        }
        for side in ("within", "across")
    }


def rounded(edges: tuple[float, ...]) -> list[float]:
    return [round(edge, 4) for edge in edges]


def nearness(real: Path, made: Path) -> dict[str, list[float]]:
    """SI-SDR and mel distance in decibels of each sound of an arm to the same one of another, at equal loudness."""
    names, own = ([told["path"] for told in index(arm)] for arm in (real, made))
    if names != own:
        raise ValueError(f"{real} and {made} hold other sounds: write both for the same strings")
    found: dict[str, list[float]] = {"si_sdr": [], "mel_distance": []}
    for name in names:
        estimate, reference = alike(read(made / name), read(real / name))
        found["si_sdr"].append(round(float(si_sdr(estimate.samples, reference.samples)), 3))
        distance = mel_distance(estimate.samples, reference.samples, reference.sample_rate)
        found["mel_distance"].append(round(float(distance), 3))
    return found


def index(arm: Path) -> list[Entry]:
    sounds: list[Entry] = json.loads((arm / "index.json").read_text(encoding="utf-8"))["sounds"]
    return sounds


def alike(made: Sound, real: Sound) -> tuple[Sound, Sound]:
    """Both of one length, at most a frame away, and what was made as loud as what was recorded: level is no code's."""
    length = min(made.samples.shape[1], real.samples.shape[1])
    one, other = made.samples[:, :length], real.samples[:, :length]
    gain = other.square().mean().sqrt() / one.square().mean().sqrt().clamp_min(1e-6)
    return Sound(one * gain, made.sample_rate), Sound(other, real.sample_rate)
