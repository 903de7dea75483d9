"""The suite's judges of words: whether sounds fit their captions, what is said in them, and in whose voice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.evaluation import retrieval
from audiolm_kit.evaluation import speech as spoken
from audiolm_kit.evaluation.examples import Clip, Example
from audiolm_kit.evaluation.job import BATCH, Job, embedded, judge_of, missing, mixed, shown
from audiolm_kit.evaluation.measures import Bootstrap, Measure
from audiolm_kit.evaluation.report import Heard, Result
from audiolm_kit.evaluation.speech import Errors

KINDS: dict[str, tuple[str, Callable[[str, str], Errors]]] = {
    "wer": ("word_errors", spoken.word_errors),
    "cer": ("character_errors", spoken.character_errors),
}


# --- captions ---------------------------------------------------------------------------------------------------------


class Fits(NamedTuple):
    """How well sounds fit captions."""

    own: list[float]
    others: list[float]
    """Everybody's neighbour's."""


def of_texts(job: Job) -> Iterator[Result]:
    """Scores and retrieval, by each scorer."""
    told = [each for each in job.examples if each.text]
    real = [each for each in job.references if each.text]
    notes = missing(len(job.examples) - len(told), len(job.examples), "without a caption")
    for model, scorer in zip(job.plan.scorers, job.judges.scorers, strict=True):
        judge = judge_of(model, scorer)
        if model.kind != "clap" and "score" in job.plan.fits:
            yield _scored(job, judge, (_fits_of(scorer, told), _fits_of(scorer, real) if real else None), notes)
        if model.kind != "clap":
            continue
        sounds, texts, owners = _embeddings(scorer, told)
        if "score" in job.plan.fits:
            references = _cosines(*_embeddings(scorer, real)) if real else None
            yield _scored(job, judge, (_cosines(sounds, texts, owners), references), notes)
        if "retrieval" in job.plan.fits:
            yield from _retrieved(job, judge, retrieval.ranks(sounds, texts, owners), notes)


def _scored(job: Job, judge: Heard, fits: tuple[Fits, Fits | None], notes: tuple[str, ...]) -> Result:
    """The mean score, with that of the references above it and that of mixed-up captions below."""
    (own, others), real = fits
    values = dict(zip((each.name for each in job.examples if each.text), own, strict=True))
    ceiling = job.bootstrap.mean(real.own) if real else None
    floor = job.bootstrap.mean(others) if len(others) > 1 else None
    return Result(
        "text_score", job.bootstrap.mean(own), judge, ceiling=ceiling, floor=floor, notes=notes, values=values
    )


def _retrieved(job: Job, judge: Heard, ranks: retrieval.Ranks, notes: tuple[str, ...]) -> Iterator[Result]:
    """Recall both ways, by chance what stands as floor."""
    sizes = (len(ranks.of_sounds), len(ranks.of_texts))  # how many there are to choose from
    for metric, found, among in (
        ("text_recall", ranks.of_texts, sizes[0]),
        ("sound_recall", ranks.of_sounds, sizes[1]),
    ):
        kind = "captions" if metric == "text_recall" else "sounds"
        for count in job.plan.recalls:
            if count >= among:  # always found
                continue
            measure = job.bootstrap.mean(retrieval.recall(found, count))
            yield Result(f"{metric}_at_{count}", measure, judge, facts=(f"among {among} {kind}",), notes=notes)


def _embeddings(clap: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor, list[int]]:
    """Sounds [N, D], captions that all differ [M, D], and which of them is each sound's."""
    texts = list(dict.fromkeys(each.text for each in examples))
    owners = [texts.index(each.text) for each in examples]
    sounds = embedded(clap.embed_sounds, [each.clip for each in examples])
    return sounds, clap.embed_texts(texts).double(), owners


def _cosines(sounds: Tensor, texts: Tensor, owners: Sequence[int]) -> Fits:
    """A caption that is somebody else's is the next one of the list."""
    others = [(owner + 1) % len(texts) for owner in owners]
    scores = [(sounds * texts[list(places)]).sum(-1).tolist() for places in (owners, others)]
    return Fits(scores[0], scores[1] if len(texts) > 1 else [])


def _fits_of(scorer: Any, examples: Sequence[Example]) -> Fits:
    """The same of any scorer."""
    texts = list(dict.fromkeys(each.text for each in examples))
    made: tuple[list[float], list[float]] = ([], [])
    for first in shown(range(0, len(examples), BATCH), "captions"):
        batch = examples[first : first + BATCH]
        sounds = [each.clip.read() for each in batch]
        for shift, kept in enumerate(made[: len(texts)]):
            scores = scorer(sounds, [texts[(texts.index(each.text) + shift) % len(texts)] for each in batch])
            if len(scores) != len(sounds):
                raise ValueError(f"a scorer gives {len(scores)} scores for {len(sounds)} sounds: wanted one for each")
            kept.extend(float(score) for score in scores)
    return Fits(*made)


# --- words ------------------------------------------------------------------------------------------------------------


def of_words(job: Job) -> Iterator[Result]:
    """Errors of words and of characters, by each recogniser."""
    wanted = [(example, _words_of(example, job)) for example in job.examples]
    told = [(example, text) for example, text in wanted if spoken.words(text)]
    real = [(each, _words_of(each, job)) for each in job.references]
    real = [(each, text) for each, text in real if spoken.words(text)]
    notes = missing(len(wanted) - len(told), len(wanted), f"without a {job.plan.said}")
    for model, recogniser in zip(job.plan.recognisers, job.judges.recognisers, strict=True):
        judge = judge_of(model, recogniser)
        heard = _heard(recogniser, [example.clip for example, _ in told])
        ceiling = _heard(recogniser, [example.clip for example, _ in real])
        for name in job.plan.words:
            metric, kind = KINDS[name]
            texts, others = [text for _, text in told], _others([text for _, text in told], job.plan.seed)
            found = [kind(*pair) for pair in zip(texts, heard, strict=True)]
            values = {example.name: each.edits / each.length for (example, _), each in zip(told, found, strict=True)}
            above = [kind(text, each) for (_, text), each in zip(real, ceiling, strict=True)]
            below = [kind(*pair) for pair in zip(others, heard, strict=True)]
            yield Result(
                metric,
                _rate(job.bootstrap, found),
                judge,
                ceiling=_rate(job.bootstrap, above) if above else None,
                floor=_rate(job.bootstrap, below),
                parts={"length": sum(each.length for each in found), "errors": sum(each.edits for each in found)},
                notes=notes,
                values=values,
            )


def _words_of(example: Example, job: Job) -> str:
    return example.transcript if job.plan.said == "transcript" else example.text


def _others(texts: Sequence[str], seed: int) -> list[str]:
    """For each text another one, which differs from it if any does."""
    follower = mixed(len(texts), seed)
    others = []
    for place, text in enumerate(texts):
        found = follower[place]
        while texts[found] == text and found != place:
            found = follower[found]
        others.append(texts[found])
    return others


def _heard(recogniser: Callable[[list[Sound]], Sequence[str]], clips: Sequence[Clip]) -> list[str]:
    """What is said in each."""
    heard: list[str] = []
    for first in shown(range(0, len(clips), BATCH), "words"):
        sounds = [clip.read() for clip in clips[first : first + BATCH]]
        texts = recogniser(sounds)
        if isinstance(texts, str) or len(texts) != len(sounds):
            raise ValueError(f"a recogniser gives {len(texts)} texts for {len(sounds)} sounds: wanted one for each")
        heard += [str(text) for text in texts]
    return heard


def _rate(bootstrap: Bootstrap, found: Sequence[Errors]) -> Measure:
    return bootstrap.ratio([each.edits for each in found], [each.length for each in found])


# --- voices -----------------------------------------------------------------------------------------------------------


def of_voices(job: Job) -> Iterator[Result]:
    """Whether the voice is that of the reference, or of the prompt."""
    prompted = job.plan.voice_of == "prompt"
    pairs = [(each, each.prompt if prompted else each.reference) for each in job.examples]
    kept = [(example, other) for example, other in pairs if other is not None]
    notes = missing(len(pairs) - len(kept), len(pairs), f"without a {job.plan.voice_of}")
    for model, voice in zip(job.plan.voices, job.judges.voices, strict=True):
        made = _vectors(
            voice, [example.clip for example, _ in kept], [other if prompted else None for _, other in kept]
        )
        real = _vectors(voice, [other for _, other in kept], [None] * len(kept))
        alike = (made * real).sum(-1).tolist()
        others = (made * real[mixed(len(real), job.plan.seed)]).sum(-1).tolist()
        floor = job.bootstrap.mean(others) if len(others) > 1 else None
        values = dict(zip((example.name for example, _ in kept), alike, strict=True))
        judge = judge_of(model, voice)
        yield Result("speaker_similarity", job.bootstrap.mean(alike), judge, floor=floor, notes=notes, values=values)


def _vectors(voice: Any, clips: Sequence[Clip], prompts: Sequence[Clip | None]) -> Tensor:
    """Unit vectors [N, D], of each sound what follows its prompt."""
    made = []
    for clip, prompt in zip(clips, prompts, strict=True):
        sound = clip.read() if prompt is None else after(clip.read(), prompt.read(), clip)
        made.append(torch.as_tensor(voice([sound])).double().cpu())
    return torch.nn.functional.normalize(torch.cat(made), dim=-1)


def after(sound: Sound, prompt: Sound, clip: Clip) -> Sound:
    """What follows the prompt that a sound begins with.

    Raises:
        ValueError: Nothing does.
    """
    begin = round(prompt.samples.shape[-1] / prompt.sample_rate * sound.sample_rate)
    if begin >= sound.samples.shape[-1]:
        raise ValueError(f"{clip.path} ends with its prompt: nothing follows whose voice could be heard")
    return Sound(sound.samples[:, begin:], sound.sample_rate)
