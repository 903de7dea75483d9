"""What becomes of speech: errors of recognised words, and the scores PESQ and STOI of the telephone's engineers.

Shapes: L samples.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

PACKAGES = {"pesq_wb": "pesq", "pesq_nb": "pesq", "stoi": "pystoi", "estoi": "pystoi"}
"""What torchmetrics, a package of torch's house, needs for each score."""
RATES = {"pesq_wb": 16000, "pesq_nb": 8000, "stoi": 10000, "estoi": 10000}
"""Hertz that each score is defined at."""


class Errors(NamedTuple):
    """Of one recording."""

    edits: int
    """Words (or characters) that were put in, left out or replaced, as few as it takes."""
    length: int
    """Of what was to be said."""


def errors(said: Sequence[str], heard: Sequence[str]) -> Errors:
    """The edits that lead from one sequence to another (Levenshtein)."""
    steps = np.arange(len(heard) + 1)
    costs = steps.copy()
    known = {item: place for place, item in enumerate(dict.fromkeys([*said, *heard]))}
    names = np.array([known[item] for item in heard], dtype=int)
    for row, item in enumerate(said, start=1):
        best = np.minimum(costs[1:] + 1, costs[:-1] + (names != known[item]))
        costs = np.minimum.accumulate(np.concatenate([[row], best]) - steps) + steps  # what is put in costs 1 each
    return Errors(int(costs[-1]), len(said))


def words(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, without punctuation, apostrophes within words aside."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = "".join(sign if sign.isalnum() or sign == "'" or unicodedata.combining(sign) else " " for sign in plain)
    return [word for word in (each.strip("'") for each in kept.split()) if word]


def word_errors(said: str, heard: str) -> Errors:
    """Of the words of two texts."""
    return errors(words(said), words(heard))


def character_errors(said: str, heard: str) -> Errors:
    """Of the characters of two texts, one blank between words."""
    return errors(" ".join(words(said)), " ".join(words(heard)))


def score(name: str) -> Callable[[Tensor, Tensor], float]:
    """The function of a score, estimate and reference [L] at ``RATES[name]`` -> a number, as torchmetrics has it.

    ``pesq_wb`` (ITU-T P.862.2, 16 kHz) and ``pesq_nb`` (P.862, 8 kHz) tell from 1 to about 4.6 how good a listener
    finds it; ``stoi`` and ``estoi`` from 0 to 1 how much can be understood. It raises a ValueError where there is too
    little sound to tell.

    Raises:
        ValueError: A package is missing.
    """
    required(name)
    library: Any = import_module(f"torchmetrics.functional.audio.{'pesq' if 'pesq' in name else 'stoi'}")

    def found(estimate: Tensor, reference: Tensor) -> float:
        """The score of one sound against its reference."""
        pair = (estimate.float(), reference.float())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Not enough STFT frames")
                if "pesq" in name:
                    rated = library.perceptual_evaluation_speech_quality(*pair, RATES[name], name[-2:])
                else:
                    rated = library.short_time_objective_intelligibility(*pair, RATES[name], extended=name == "estoi")
        except (RuntimeError, RuntimeWarning) as error:
            reason = str(error).removeprefix("b'").rstrip("'").split(".")[0]
            raise ValueError(f"{name} cannot tell ({reason[:1].lower()}{reason[1:]}): leave it out") from None
        return float(rated)

    return found


def required(name: str) -> None:
    """Refuse a score whose packages are not there."""
    for package in ("torchmetrics", PACKAGES[name]):
        try:
            import_module(package)
        except ImportError as error:
            told = f"{name} needs the package {package}, which is not there ({error})"
            raise ValueError(f"{told}: pip install {package}, or leave {name} out") from None
