"""Best of n: several sounds are made for each text, and a scorer says which one is kept.

Shapes: N pairs of a sound and a text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.evaluation.contrastive import ContrastiveScorer
from audiolm_kit.evaluation.perceptual import ClapScorer, Scorer
from audiolm_kit.inference.items import Item
from audiolm_kit.inference.mutual_information import Captioned, MutualInformation

TOGETHER = 32
"""Sounds that are asked for and held at once, or as many as there are candidates; the choice does not depend on it."""
OWN = "self"
"""In the place of a CLAP's name: the model that makes the sounds judges them, too (``mutual_information``)."""
BROUGHT = "its own"
"""In notes, in the place of a scorer's name: the one that the model brings."""
STRIDE = 0x9E3779B1
"""Between the seeds of an item's candidates: odd, and 2**32 over the golden ratio."""

Make = Callable[[list[str], list[int]], list[Sound]]
"""Texts and as many seeds to sounds; a sound depends on its own text and seed alone."""


class Choice(NamedTuple):
    """The best of an item's candidates."""

    sound: Sound
    seed: int
    """Makes this very sound again, without candidates."""
    score: float
    scores: tuple[float, ...]
    """Of all candidates, in the order of `candidate_seed`."""


def best_of(
    make: Make, texts: Sequence[str], seeds: Sequence[int], candidates: int, scorer: Scorer | str
) -> list[Choice]:
    """For each text the candidate with the highest score; of equals the first.

    Args:
        make: Makes the sounds, as ``lambda texts, seeds: model.generate(texts, seconds, sampling, seeds)`` does.
        texts: One for each item.
        seeds: One for each item, from -2**63 to 2**64 - 1; candidate j has `candidate_seed(seed, j)`, so that the
            first candidate is the sound without candidates and more candidates are never worse by the scorer.
        candidates: How many are made for each text.
        scorer: Judges sounds by texts; a name is that of a CLAP or of a folder, see `scorer_of`.

    Raises:
        ValueError: No candidates, not one seed for each text, or a scorer whose answer is not one number for each pair.
    """
    if not 1 <= candidates < 2**32:
        raise ValueError(f"candidates is {candidates}: ask for at least 1")
    if len(seeds) != len(texts):
        raise ValueError(f"{len(seeds)} seeds for {len(texts)} texts: give one for each")
    judge = scorer_of(scorer)
    choices: list[Choice] = []
    several = max(1, TOGETHER // candidates)  # items at a time, so that memory does not grow with their number
    for first in range(0, len(texts), several):
        rows = slice(first, first + several)
        own_texts = [text for text in texts[rows] for _ in range(candidates)]
        own_seeds = [candidate_seed(seed, j) for seed in seeds[rows] for j in range(candidates)]
        sounds = make(own_texts, own_seeds)
        if len(sounds) != len(own_texts):
            raise ValueError(f"{len(sounds)} sounds were made for {len(own_texts)} texts: make one for each")
        scores = checked(judge(sounds, own_texts), own_texts)
        for start in range(0, len(sounds), candidates):
            own = slice(start, start + candidates)
            choices.append(_best(sounds[own], own_seeds[own], scores[own]))
    return choices


def best_of_items(
    make: Callable[[list[Item]], list[Sound]], items: Sequence[Item], candidates: int, judge: Scorer
) -> list[Choice]:
    """``best_of`` for items as an AudioGen makes them; those with the same negative text are made together.

    Raises:
        ValueError: A timeline among them, and as ``best_of``.
    """
    if not all(isinstance(item.text, str) for item in items):
        raise ValueError("candidates are judged by one text, and a timeline has several: make it without a scorer")
    best: dict[int, Choice] = {}
    for unwanted in dict.fromkeys(item.negative for item in items):
        places = [i for i, item in enumerate(items) if item.negative == unwanted]
        like = items[places[0]]

        def made(texts: list[str], seeds: list[int], like: Item = like) -> list[Sound]:
            return make([like._replace(text=text, seed=seed) for text, seed in zip(texts, seeds, strict=True)])

        texts, seeds = [str(items[i].text) for i in places], [items[i].seed for i in places]
        best.update(zip(places, best_of(made, texts, seeds, candidates, judge), strict=True))
    return [best[i] for i in range(len(items))]


def candidate_seed(seed: int, candidate: int) -> int:
    """``seed + candidate * STRIDE``, less 2**64 where that is past 2**64 - 1; candidate 0 has the seed itself.

    torch's generator on the CPU tells seeds apart by their last 32 bits alone, so a stride of 2**32 would make the same
    sound over and over. Multiples of this one stay as far from one another as multiples can (three-distance theorem):
    items that lie one apart, as ``seed + i`` does, share no candidate's seed while there are fewer than
    2**32 / (2.3 * candidates) of them, which is 18 million items of 100 candidates.
    """
    derived = seed + candidate * STRIDE
    return derived if derived < 2**64 else derived - 2**64


class Bringing(Captioned, Protocol):
    """A model that may bring a scorer of its own: an ``AudioGen``."""

    scorer: ContrastiveScorer | None


def judge_of(model: Bringing, scorer: Scorer | str | None, candidates: int) -> Scorer:
    """What a model's takes are judged by: what is named, the model itself, or the scorer that it brings.

    Raises:
        ValueError: None is named, and the model brings none.
    """
    if scorer == OWN:
        return MutualInformation(model)
    if scorer is not None:
        return scorer_of(scorer, str(model.device))
    if model.scorer is None:
        raise ValueError(
            f"candidates is {candidates}, but nothing judges them, and this model brings no scorer: "
            "give one, self or a CLAP"
        )
    return model.scorer


def scorer_of(scorer: Scorer | str, device: str = "cpu") -> Scorer:
    """The scorer itself, or that of a folder, small or a CLAP of transformers, or the CLAP of a name on the hub."""
    if not isinstance(scorer, str):
        return scorer
    return ContrastiveScorer.load(scorer, device) if ContrastiveScorer.lies_in(scorer) else ClapScorer(scorer, device)


def checked(scores: Tensor, texts: Sequence[str]) -> list[float]:
    """A scorer's answer [N] as numbers, or one line about why it ranks nothing."""
    if tuple(scores.shape) != (len(texts),):
        raise ValueError(
            f"the scorer gave {list(scores.shape)} for {len(texts)} sounds: it must give one score for each"
        )
    numbers = [float(score) for score in scores.tolist()]
    for number, text in zip(numbers, texts, strict=True):
        if math.isnan(number):
            raise ValueError(
                f"the scorer gave NaN for a sound of {text!r}: scores must be numbers that can be compared"
            )
    return numbers


def _best(sounds: list[Sound], seeds: list[int], scores: list[float]) -> Choice:
    """Of one item's candidates; the first of equals, which is the first that `max` meets."""
    winner = max(range(len(scores)), key=scores.__getitem__)
    return Choice(sounds[winner], seeds[winner], scores[winner], tuple(scores))
