"""The codec's own checks: how much of a sound comes back, and how much of its codebooks a tokenizer uses.

C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.doctor.checkpoints import place_of
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.doctor.picture import draw
from audiolm_kit.doctor.sounds import Clips
from audiolm_kit.evaluation.signal import mel_distance, si_sdr
from audiolm_kit.inference.prompts import level
from audiolm_kit.semantic.tokenizer import SemanticTokenizer

NEARER = 0.75
"""A reconstruction is at most this share as far from the sound as what random codes decode to."""
FEW_FRAMES = 20
"""Below so many frames one code may well stand in all of them."""


class RoundTrip(NamedTuple):
    """A sound, its codes, and what they decode to."""

    original: Sound
    made: Sound
    codes: Tensor  # [K, T]
    random: Tensor  # [C, L], what random codes decode to


def check_codec(codec: AnyCodec, clips: Clips, picture: str) -> Finding:
    """Encode and decode; a fault where what comes back is no nearer to the sound than chance.

    Only sounds of the user's own can show a fault of that kind: a codec may know nothing of the built-in one.

    Args:
        picture: the PNG to write, originals above reconstructions; empty for none.
    """
    trips = [_there_and_back(codec, clip.sound) for clip in clips.clips]
    drawn = ""
    if picture:
        draw([(trip.original, trip.made) for trip in trips], picture)
        drawn = f"; original above reconstruction in {Path(picture)}"
    if not all(bool(torch.isfinite(trip.made.samples).all()) for trip in trips):
        return Finding("codec", f"decodes {clips.told} to NaN{drawn}", "its weights are damaged: copy the folder again")
    distances = [_distance(trip, trip.made.samples) for trip in trips]
    ratios = [float(si_sdr(trip.made.samples.flatten(), trip.original.samples.flatten())) for trip in trips]
    chance = _mean([_distance(trip, trip.random) for trip in trips])
    told = f"{clips.told} come back with SI-SDR {_mean(ratios):.1f} dB, mel distance {_mean(distances):.1f} dB"
    told = f"{told} (random codes: {chance:.1f}), {_used(codec, [trip.codes for trip in trips])}{drawn}"
    return Finding("codec", told, _fault(trips, _mean(distances), chance) if clips.own else "")


def _fault(trips: list[RoundTrip], distance: float, chance: float) -> str:
    """What is to be done about a codec, if anything."""
    many = all(trip.codes.shape[1] >= FEW_FRAMES for trip in trips)
    if many and all(bool((trip.codes == trip.codes[:, :1]).all()) for trip in trips):
        return "one code stands in all frames: the codebooks have collapsed; train the codec again, see quantize_from"
    if distance > NEARER * chance:
        return (
            "it says next to nothing of these sounds: train it (longer) on such, or give the codec that made the codes"
        )
    return ""


def check_semantic(tokenizer: SemanticTokenizer, clips: Clips) -> Finding:
    """How many codes a semantic tokenizer uses; a fault where one stands in all frames of all sounds."""
    rows = []
    for clip in clips.clips:
        samples = audio.fit(clip.sound, tokenizer.sample_rate, tokenizer.channels).samples
        rows.append(tokenizer.encode(samples[None].to(place_of(tokenizer)))[0].cpu())
    codes = torch.cat(rows, dim=1)
    changes = float((codes[:, 1:] != codes[:, :-1]).float().mean()) if codes.shape[1] > 1 else 0.0
    used = _different(codes)
    told = f"{clips.told} use {used} of {tokenizer.codebook_size} codes, {changes:.0%} of frames change"
    stuck = clips.own and codes.shape[1] >= FEW_FRAMES and used == 1
    return Finding("semantic", told, "it hears no difference: fit it anew on such sounds (kmeans)" if stuck else "")


@torch.no_grad()
def _there_and_back(codec: AnyCodec, sound: Sound) -> RoundTrip:
    given = audio.fit(sound, codec.sample_rate, codec.channels)
    samples = given.samples[None].to(place_of(codec))
    codes = codec.encode(samples)
    noise = torch.randint(codec.codebook_size, codes.shape, generator=torch.Generator().manual_seed(0))
    made, random = (_like(codec, codec.decode(each), samples) for each in (codes, noise.to(codes)))
    return RoundTrip(given, Sound(made, codec.sample_rate), codes[0].cpu(), random)


def _like(codec: AnyCodec, made: Tensor, samples: Tensor) -> Tensor:
    """What was decoded ``[1, C, L']``, cut or filled up to the sound ``[1, C, L]``: ``[C, L]``.

    Codes of a codec with a peak of its own carry no level: it is given back the sound's, as a continuation is.
    """
    made = torch.nn.functional.pad(made, (0, max(0, samples.shape[-1] - made.shape[-1])))[..., : samples.shape[-1]]
    if isinstance(codec, NeuralCodec) and codec.config.peak:
        made = made * level(made, samples)
    return made[0].float().cpu()


def _distance(trip: RoundTrip, made: Tensor) -> float:
    """In decibels; inf where random codes decode to NaN."""
    if not bool(torch.isfinite(made).all()):
        return float("inf")
    return float(mel_distance(made.flatten(), trip.original.samples.flatten(), trip.original.sample_rate))


def _used(codec: AnyCodec, codes: list[Tensor]) -> str:
    """How many codes of its codebooks are there: of the poorest and of the richest one."""
    counts = [_different(stream) for stream in torch.cat(codes, dim=1)]
    return f"{min(counts)} to {max(counts)} of {codec.codebook_size} codes used"


def _different(codes: Tensor) -> int:
    """How many values there are among codes."""
    return int(torch.bincount(codes.flatten()).count_nonzero())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
