"""What is measured, and by whom: sounds with what belongs to them, a plan, and the judges that it names.

Shapes: N sounds, D width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiolm_kit.audio import Sound
from audiolm_kit.evaluation import speech
from audiolm_kit.evaluation.examples import Clip, Example
from audiolm_kit.evaluation.measures import Bootstrap
from audiolm_kit.evaluation.plan import Model, Plan
from audiolm_kit.evaluation.report import Heard
from audiolm_kit.protocols import AudioTokenizer

BATCH = 16
"""Sounds in memory at once; what comes out does not depend on it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Judges:
    """The models of a plan, each list in the plan's order."""

    codec: AudioTokenizer | None = None
    codec_name: str = ""
    codec_fingerprint: str = ""
    device: str = "cpu"
    """Where the codec computes."""
    embedders: Sequence[Any] = ()
    """``embedding.Embedder``: list of sounds -> [N, D]."""
    classifiers: Sequence[Any] = ()
    """The same, probabilities [N, C]."""
    scorers: Sequence[Any] = ()
    """``perceptual.Scorer``: sounds and texts -> [N]; with ``embed_sounds`` and ``embed_texts`` for retrieval."""
    recognisers: Sequence[Any] = ()
    """Sounds -> texts."""
    voices: Sequence[Any] = ()
    """Sounds -> vectors [N, D]."""


@dataclass(frozen=True)
class Job:
    """What is measured, by whom."""

    examples: Sequence[Example]
    references: Sequence[Example]
    """All of them; those of ``examples`` are pairs."""
    plan: Plan
    judges: Judges = field(default_factory=Judges)

    @cached_property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(self.plan.draws, self.plan.seed)

    @cached_property
    def pairs(self) -> list[Example]:
        """Those that have a reference."""
        return [example for example in self.examples if example.reference]

    def check(self) -> None:
        """Refuse, before any work, a plan that these sounds do not fit."""
        for wrong, told in self._faults():
            if wrong:
                raise ValueError(told)
        for name in self.plan.signal:
            if name in speech.PACKAGES:
                speech.required(name)

    def _faults(self) -> list[tuple[bool, str]]:
        """What may be wrong, each with what to say then."""
        plan, words = self.plan, self.plan.said
        worded = any(each.transcript if words == "transcript" else each.text for each in self.examples)
        prompted = plan.voice_of == "reference" or any(each.prompt for each in self.examples)
        pairs = "signal, kl, chroma_similarity, voices"
        note = 'put a note beside it (NAME.json with "{}")'
        return [
            (plan.is_empty, "nothing to measure: give references, a codec, or a plan (--config)"),
            (
                plan.wants_pairs and not self.pairs,
                f"no sound has a reference of its name: give references, or leave out what compares pairs ({pairs})",
            ),
            (bool(plan.embedders) and not self.references, "the plan measures distances from references: give them"),
            (
                bool(plan.scorers) and not any(each.text for each in self.examples),
                f"no sound has a caption: {note.format('text')}, or leave scorers out",
            ),
            (
                bool(plan.recognisers) and not worded,
                f"no sound has a {words}: {note.format(words)}, or change `said` in the plan",
            ),
            (bool(plan.voices) and not prompted, "no sound has a prompt that is still there: say voice_of: reference"),
        ]


def embedded(embedder: Callable[[list[Sound]], Tensor], clips: Sequence[Clip]) -> Tensor:
    """What an embedder makes of sounds, [N, D] float64 on the CPU.

    Raises:
        ValueError: It gives something else.
    """
    made = []
    for first in shown(range(0, len(clips), BATCH), "embed"):
        sounds = [clip.read() for clip in clips[first : first + BATCH]]
        found = embedder(sounds)
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(sounds):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"an embedder gives {shape} for {len(sounds)} sounds: wanted a tensor [N, D]")
        made.append(found.detach().cpu().double())
    return torch.cat(made)


def judge_of(model: Model, judge: Any) -> Heard:
    """Who listened, for the record."""
    return Heard(model.kind, judge.name, judge.fingerprint)


def mixed(count: int, seed: int) -> list[int]:
    """Places for floors: of several nobody keeps his own, and everybody's is somebody's, always alike by ``seed``."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    follower = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [follower[place] for place in range(count)]


def missing(count: int, of: int, why: str) -> tuple[str, ...]:
    """A note, where some sounds are not measured."""
    return (f"{count} of {of} {why}",) if count else ()


def shown(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar where there is a terminal."""
    return iter(tqdm(items, desc=what, disable=not sys.stderr.isatty() or len(items) < BATCH))
