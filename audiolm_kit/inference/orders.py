"""Orders: sounds that the command line asks for, made and put where they belong, with a note of how they were made."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tqdm import tqdm

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.inference import outlet
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.candidates import BROUGHT, OWN, Choice, scorer_of
from audiolm_kit.inference.items import BATCH, Text, length_of
from audiolm_kit.inference.timeline import is_timeline
from audiolm_kit.lm.sampling import Sampling

SECONDS = 5.0
"""The length of a sound of which nothing is said."""


class Making(TypedDict):
    """What every way to make a sound takes."""

    negative: str
    window: float | None
    overlap: float | None


@dataclass(frozen=True)
class Order:
    """One run of `generate` or `continue`; what cannot be is refused before any model is opened."""

    texts: Sequence[str]
    """Captions, one for each sound; or the lines of a timeline, all for one."""
    making: Making
    sampling: Sampling
    seed: int = 0
    seconds: float | None = None
    endless: bool = False
    output: str = ""
    """A file, or a folder."""
    stream: str = ""
    """In its place: a file that grows, or standard output."""
    candidates: int = 1
    scorer: str = ""

    def __post_init__(self) -> None:
        if self.judged and is_timeline(self.texts):
            raise ValueError(
                "candidates are judged by one text, and a timeline has several: leave candidates and scorer out"
            )
        if len(self.texts) == 0:
            raise ValueError("the following arguments are required: texts ('' leaves it to the model)")
        if self.endless and (self.stream != outlet.STANDARD_OUTPUT or self.seconds is not None):
            raise ValueError("only what streams to standard output is endless: give --stream - and no seconds")
        if self.stream and self.output:
            raise ValueError("output and stream are both given: give one (--stream - | tee FILE.wav is heard and kept)")
        if self.stream:
            if len(self.sounds) > 1 or self.judged:
                raise ValueError("a stream is one sound, and out before it could be judged: give output in its place")
            outlet.check(self.stream)
        else:
            _ = self.paths
        _ = self.length

    @property
    def judged(self) -> bool:
        """Whether takes are judged: by the scorer that is named, or by the model's own."""
        return bool(self.scorer) or self.candidates != 1

    @property
    def sounds(self) -> list[Text]:
        """The text of each sound."""
        return [list(self.texts)] if is_timeline(self.texts) else list(self.texts)

    @property
    def paths(self) -> list[Path]:
        """The file of each sound."""
        if not self.output:
            raise ValueError("the following arguments are required: output, or stream")
        return numbered(self.output, len(self.sounds))

    @property
    def length(self) -> float:
        """Seconds of each sound."""
        if self.endless:
            return math.inf
        said = length_of(self.sounds[0]) if self.seconds is None else self.seconds
        if said is None and is_timeline(self.texts):
            raise ValueError(f"the timeline's last line, {self.texts[-1]!r}, has no end: give seconds")
        return SECONDS if said is None else said

    def generate(self, model: AudioGen) -> None:
        """Make the sounds from nothing."""
        if self.stream:
            self._pour(model)
            return
        sounds, paths = self.sounds, self.paths
        named = self.scorer not in ("", OWN)
        scorer = scorer_of(self.scorer, str(model.device)) if named else self.scorer or None
        with tqdm(total=len(sounds), unit="sound", disable=not sys.stderr.isatty() or len(sounds) == 1) as progress:
            for first in range(0, len(sounds), BATCH):
                texts = sounds[first : first + BATCH]
                seeds = range(self.seed + first, self.seed + first + len(texts))
                given: Any = (texts, self.length, self.sampling, seeds)
                if self.judged:
                    best = model.best_of(*given, candidates=self.candidates, scorer=scorer, **self.making)
                else:
                    made = zip(model.generate(*given, **self.making), seeds, strict=True)
                    best = [Choice(sound, seed, math.nan, ()) for sound, seed in made]
                for path, text, (sound, seed, _, scores) in zip(paths[first:], texts, best, strict=False):
                    keep(path, sound, self._about(model, text, self.length, seed, scores=scores))
                progress.update(len(best))

    def continue_(self, model: AudioGen, prompt: Sound, name: str) -> None:
        """Make the one sound that begins with a prompt, of which the note says the name."""
        [text] = self.sounds
        if self.stream:
            self._pour(model, prompt, name)
            return
        [path] = self.paths
        [sound] = model.continue_([prompt], self.length, [text], self.sampling, self.seed, **self.making)
        keep(path, sound, self._about(model, text, self.length, self.seed, name))

    def _pour(self, model: AudioGen, prompt: Sound | None = None, name: str = "") -> None:
        """Give out the one sound while it is made."""
        [text] = self.sounds
        chunks = model.stream(text, self.length, self.sampling, self.seed, prompt=prompt, **self.making)
        if self.stream == outlet.STANDARD_OUTPUT:
            outlet.to_standard_output(chunks)
            return
        seconds = outlet.to_file(self.stream, chunks)
        note(Path(self.stream), self._about(model, text, seconds, self.seed, name))

    def _about(
        self, model: AudioGen, text: Text, seconds: float, seed: int, prompt: str = "", scores: Sequence[float] = ()
    ) -> dict[str, Any]:
        """How a sound was made."""
        judged: Any = {"scores": scores, "scorer": self.scorer or BROUGHT} if scores else {}
        return model.sidecar(text, seconds, self.sampling, seed, prompt, **self.making, **judged)


def numbered(output: str, count: int) -> list[Path]:
    """The files to write: one name as it stands, several as NAME-1, NAME-2 ...; without a suffix it is a folder."""
    path = Path(output)
    if path.is_dir() or not path.suffix:
        return [path / f"{number}.wav" for number in range(1, count + 1)]
    if path.suffix.lower() not in audio.WRITABLE:  # said before the work, not after it
        choices = " ".join(audio.WRITABLE)
        raise ValueError(f"cannot write {path}: the suffix is {path.suffix!r}, choose one of {choices}")
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


def keep(path: Path, sound: Sound, about: dict[str, Any]) -> None:
    """Write a sound and the note of how it was made."""
    audio.write(path, sound)
    note(path, about)


def note(path: Path, about: dict[str, Any]) -> None:
    """Write NAME.json beside a sound that stands, and say where that is."""
    checkpoint.write_json(path.with_suffix(".json"), about)
    print(path)
