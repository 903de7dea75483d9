"""The suite, sound by sound: each against its reference, and what is told of one by itself.

Shapes: L samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.evaluation import music, speech
from audiolm_kit.evaluation.examples import Example
from audiolm_kit.evaluation.job import Job, missing, shown
from audiolm_kit.evaluation.measures import Measure
from audiolm_kit.evaluation.report import Result
from audiolm_kit.evaluation.signal import mel_distance, si_sdr, stft_distance

APART = 0.05
"""Of a pair's lengths; what differs more is told."""


def of_pairs(job: Job) -> Iterator[Result]:
    """Each sound against its reference, both at the lower of their rates, as mono, cut to the shorter."""
    wanted: list[str] = [*job.plan.signal, *(name for name in job.plan.music if name == "chroma_similarity")]
    if not wanted:
        return
    scores = {name: speech.score(name) for name in wanted if name in speech.PACKAGES}
    values: dict[str, dict[str, float]] = {name: {} for name in wanted}
    refused: dict[str, list[str]] = {name: [] for name in wanted}
    uneven = 0
    for example in shown(job.pairs, "pairs"):
        estimate, reference, rate, apart = aligned(example)
        uneven += apart > APART
        for name in wanted:
            try:
                values[name][example.name] = _compared(name, estimate, reference, rate, scores)
            except ValueError as error:
                refused[name].append(f"{example.name}: {str(error).partition(':')[0]}")
    for name in wanted:
        notes = [*missing(len(job.examples) - len(job.pairs), len(job.examples), "without a reference")]
        notes += [f"{len(refused[name])} left out; {refused[name][0]}"] if refused[name] else []
        notes += [f"{uneven} pairs differ in length by more than {APART:.0%}: cut to the shorter"] if uneven else []
        found = values[name]
        measure = job.bootstrap.mean(list(found.values())) if found else Measure(math.nan, math.nan, math.nan, 0)
        yield Result(name, measure, notes=tuple(notes), values=found)


def aligned(example: Example) -> tuple[Tensor, Tensor, int, float]:
    """A sound and its reference, [L] each, their rate, and by how much their lengths differed (as a share)."""
    assert example.reference is not None
    made, real = example.clip.read(), example.reference.read()
    rate = min(made.sample_rate, real.sample_rate)
    first, second = (audio.fit(each, rate, 1).samples[0] for each in (made, real))
    short, long = sorted((len(first), len(second)))
    return first[:short], second[:short], rate, 1 - short / long


def _compared(
    name: str, estimate: Tensor, reference: Tensor, rate: int, scores: Mapping[str, Callable[[Tensor, Tensor], float]]
) -> float:
    """One metric of one pair."""
    if name == "si_sdr":
        return float(si_sdr(estimate, reference))
    if name == "stft_distance":
        return float(stft_distance(estimate, reference))
    if name == "mel_distance":
        return float(mel_distance(estimate, reference, rate))
    if name == "chroma_similarity":
        return music.similarity(estimate, reference, rate)
    pair = (audio.resample(each, rate, speech.RATES[name]) for each in (estimate, reference))
    return scores[name](*pair)


def of_music(job: Job) -> Iterator[Result]:
    """What is told of a sound by itself; ``of_pairs`` compares."""
    if "chroma_entropy" not in job.plan.music:
        return
    values, notes = _entropies(job.examples)
    ceiling = job.bootstrap.mean(list(_entropies(job.references)[0].values())) if job.references else None
    yield Result(
        "chroma_entropy", job.bootstrap.mean(list(values.values())), ceiling=ceiling, notes=notes, values=values
    )


def _entropies(examples: Sequence[Example]) -> tuple[dict[str, float], tuple[str, ...]]:
    values: dict[str, float] = {}
    for example in shown(examples, "pitches"):
        sound = example.clip.read()
        try:
            values[example.name] = music.entropy(sound.samples.mean(0), sound.sample_rate)
        except ValueError:  # silent
            continue
    return values, missing(len(examples) - len(values), len(examples), "left out: silent")
