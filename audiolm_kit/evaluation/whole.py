"""The suite, all sounds as one set: the codec's codes, distances from the references, and the classes that are heard.

Shapes: N sounds, K codebooks, V codebook size, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.evaluation import codebooks, distribution
from audiolm_kit.evaluation.examples import Clip, Example
from audiolm_kit.evaluation.job import Job, embedded, judge_of, missing, mixed, shown
from audiolm_kit.evaluation.measures import Bootstrap, Measure
from audiolm_kit.evaluation.report import Heard, Result
from audiolm_kit.protocols import AudioTokenizer

SLOW = 200
"""Draws of a Frechet distance at most: each takes matrices apart."""
FEW = 10
"""Sounds for each dimension, below which a Frechet distance comes with a note."""


def of_codes(job: Job) -> Iterator[Result]:
    """How the codec's codebooks are used by the sounds, and by the references."""
    codec = job.judges.codec
    if not job.plan.codes or codec is None:
        return
    judge = Heard("codec", job.judges.codec_name, job.judges.codec_fingerprint)
    counted = [_counted(codec, job.judges.device, each) if each else None for each in (job.examples, job.references)]
    for metric, statistic in (("codebook_use", codebooks.use), ("codebook_entropy", codebooks.entropy)):
        bounds = (0, 1) if metric == "codebook_use" else (0, math.log2(codec.codebook_size))
        made, real = (
            job.bootstrap.of_sets(statistic(each), len(each), bounds=bounds) if each is not None else None
            for each in counted
        )
        assert made is not None and counted[0] is not None
        total = counted[0].sum(0)
        own = (total > 0).mean(-1) if metric == "codebook_use" else codebooks.bits(total)
        parts = {f"codebook {place}": float(value) for place, value in enumerate(own, start=1)}
        size = codec.codebook_size
        told = f"{int(total[0].sum())} frames; each codebook has {size} codes, {np.log2(size):.3g} bits at most"
        yield Result(metric, made, judge, ceiling=real, parts=parts, facts=(told,))


@torch.no_grad()
def _counted(codec: AudioTokenizer, device: str, examples: Sequence[Example]) -> np.ndarray:
    """[N, K, V]."""
    codes = []
    for example in shown(examples, "codes"):
        samples = audio.fit(example.clip.read(), codec.sample_rate, codec.channels).samples
        codes.append(codec.encode(samples[None].to(device))[0].cpu())
    return codebooks.counts(codes, codec.codebook_size)


def of_distances(job: Job) -> Iterator[Result]:
    """The set of sounds from the set of references, as each embedder hears them."""
    real_clips, together = in_step(job)
    facts = ("drawn in pairs",) if together else ()
    for model, embedder in zip(job.plan.embedders, job.judges.embedders, strict=True):
        judge, real = judge_of(model, embedder), embedded(embedder, real_clips)
        made = embedded(embedder, [each.clip for each in job.examples])
        sizes = (len(made), len(real))
        draw = partial(job.bootstrap.of_sets, together=together)
        for name in job.plan.distances:
            if name == "frechet":
                measure = draw(distribution.frechet(made, real), *sizes, most=SLOW, bounds=(0, math.inf))
                notes = _few(min(sizes), made.shape[1])
                yield Result("frechet_distance", measure, judge, sizes[1], facts=facts, notes=notes)
                continue
            measure = draw(_turned(distribution.kernel(real, made, together)), *sizes)
            ceiling = _halves(real, job.bootstrap) if len(real) >= 4 else None
            yield Result("kernel_distance", measure, judge, sizes[1], ceiling=ceiling, facts=facts)


def in_step(job: Job) -> tuple[list[Clip], bool]:
    """The references, in the order of the sounds where each sound has one of them and none is left over."""
    clips = [each.clip for each in job.references]
    own = [each.reference for each in job.examples if each.reference]
    if len(own) == len(job.examples) == len(clips) == len(set(own)) and set(own) == set(clips):
        return own, True
    return clips, False


def _turned(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """The sounds' weights first, for they are counted."""
    return lambda made, real: statistic(real, made)


def _few(count: int, width: int) -> tuple[str, ...]:
    """What is to be said of a Frechet distance of so few sounds."""
    if count <= width:
        told = (
            f"{count} sounds in {width} dimensions: the covariance is singular, and the distance is mostly their number"
        )
    elif count < FEW * width:
        told = f"{count} sounds in {width} dimensions are few: the distance is too large"
    else:
        return ()
    return (f"{told}; compare at equal N alone, or by the kernel distance",)


def _halves(real: Tensor, bootstrap: Bootstrap) -> Measure:
    """The kernel distance of one half of the references from the other."""
    order = np.random.default_rng(bootstrap.seed).permutation(len(real))
    first, second = real[order[::2].copy()], real[order[1::2].copy()]
    return bootstrap.of_sets(distribution.kernel(first, second), len(first), len(second))


def of_classes(job: Job) -> Iterator[Result]:
    """What each classifier makes of the sounds, and of their references."""
    for model, classifier in zip(job.plan.classifiers, job.judges.classifiers, strict=True):
        judge, made = judge_of(model, classifier), embedded(classifier, [each.clip for each in job.examples])
        if "kl" in job.plan.verdicts:
            places = [place for place, each in enumerate(job.examples) if each.reference]
            real = embedded(classifier, [each.reference for each in job.pairs if each.reference])
            values = distribution.divergence(real, made[places]).tolist()
            others = distribution.divergence(real[mixed(len(real), job.plan.seed)], made[places]).tolist()
            floor = job.bootstrap.mean(others) if len(others) > 1 else None
            notes = missing(len(job.examples) - len(places), len(job.examples), "without a reference")
            by_name = dict(zip((each.name for each in job.pairs), values, strict=True))
            yield Result("kl_divergence", job.bootstrap.mean(values), judge, floor=floor, notes=notes, values=by_name)
        if "inception" in job.plan.verdicts:
            whole = embedded(classifier, [each.clip for each in job.references]) if job.references else None
            draw = partial(job.bootstrap.of_sets, bounds=(1, math.inf))
            ceiling = None if whole is None else draw(distribution.inception(whole), len(whole))
            measure = draw(distribution.inception(made), len(made))
            yield Result("inception_score", measure, judge, ceiling=ceiling)
