"""Orders without words: what the command line asks of an AudioLM, made and put where it belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm_kit import audio
from audiolm_kit.inference import outlet
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.inference.chain import StageSampling
from audiolm_kit.inference.orders import SECONDS, Making, keep, note, numbered
from audiolm_kit.lm.sampling import Sampling


@dataclass(frozen=True)
class Unscripted:
    """One run of `generate` or `continue` with an AudioLM; what cannot be is refused before anything is made."""

    sampling: StageSampling
    seed: int = 0
    seconds: float | None = None
    endless: bool = False
    window: float | None = None
    overlap: float | None = None
    output: str = ""
    """A file, or a folder."""
    stream: str = ""
    """In its place: a file that grows, or standard output."""
    count: int = 1
    prompt: str = ""
    """A recording to continue."""
    semantics_of: str = ""
    """A recording to say anew."""
    voice: str = ""
    """A recording in whose voice that is said."""

    def __post_init__(self) -> None:
        if bool(self.stream) == bool(self.output):
            raise ValueError("give output or stream, one of the two")
        if self.endless and (self.stream != outlet.STANDARD_OUTPUT or self.seconds is not None):
            raise ValueError("only what streams to standard output is endless: give --stream - and no seconds")
        if self.stream and (self.count > 1 or self.semantics_of):
            raise ValueError("a stream is one sound, and what is said anew is made whole: give output in its place")
        if self.voice and not self.semantics_of:
            raise ValueError(f"voice {self.voice} has nothing to say: give semantics_of, or continue the recording")
        if self.semantics_of and self.seconds is not None:
            raise ValueError("what is said anew is as long as it was: leave seconds out")
        if self.stream:
            outlet.check(self.stream)
        else:
            numbered(self.output, self.count)

    @property
    def length(self) -> float:
        """Seconds of each sound."""
        if self.endless:
            return math.inf
        return SECONDS if self.seconds is None else self.seconds

    def make(self, model: AudioLM) -> None:
        """Make the sounds, each with a note of how."""
        windows: Any = {"window": self.window, "overlap": self.overlap}
        prompt = audio.read(self.prompt) if self.prompt else None
        if self.stream:
            chunks = model.stream(prompt, self.length, self.sampling, self.seed, **windows)
            if self.stream == outlet.STANDARD_OUTPUT:
                outlet.to_standard_output(chunks)
            else:
                seconds = outlet.to_file(self.stream, chunks)
                note(Path(self.stream), self._about(model, seconds, self.seed))
            return
        seeds = range(self.seed, self.seed + self.count)
        given: Any = (self.sampling, seeds)
        if self.semantics_of:
            said = [audio.read(self.semantics_of)] * self.count
            voices = [audio.read(self.voice)] * self.count if self.voice else None
            sounds = model.resynthesize(said, *given, voices=voices, **windows)
        elif prompt is not None:
            sounds = model.continue_([prompt] * self.count, self.length, *given, **windows)
        else:
            sounds = model.generate(self.count, self.length, *given, **windows)
        for path, sound, seed in zip(numbered(self.output, self.count), sounds, seeds, strict=True):
            seconds = round(sound.samples.shape[1] / sound.sample_rate, 6)
            keep(path, sound, self._about(model, seconds, seed))

    def _about(self, model: AudioLM, seconds: float, seed: int) -> dict[str, Any]:
        """How a sound was made."""
        named = {name: Path(given).name if given else "" for name, given in self._recordings.items()}
        return model.sidecar(seconds, self.sampling, seed, **named, window=self.window, overlap=self.overlap)

    @property
    def _recordings(self) -> dict[str, str]:
        return {"prompt": self.prompt, "semantics_of": self.semantics_of, "voice": self.voice}


def stage_sampling(sampling: Sampling, temperature_of: Sequence[str]) -> StageSampling:
    """The command line's options as stages have them: ``semantic=0.7`` is the temperature of the semantic stage.

    Raises:
        ValueError: a line of another form, a stage that there is not, or what ``Sampling`` refuses; one temperature for
            all, or guidance.
    """
    plain = Sampling()
    if sampling.temperature != plain.temperature:
        given = f"temperature is {sampling.temperature}"
        raise ValueError(f"{given}, but the stages of an AudioLM have their own: say temperature_of semantic=0.7")
    if sampling.guidance_scale not in (1, plain.guidance_scale):
        raise ValueError(f"guidance_scale is {sampling.guidance_scale}, but an AudioLM reads no text: leave it out")
    temperatures = {}
    for line in temperature_of:
        name, _, heat = line.partition("=")
        try:
            temperatures[name] = float(heat)
        except ValueError:
            raise ValueError(f"temperature_of is {line!r}, wanted STAGE=NUMBER such as semantic=0.7") from None
    return StageSampling.of(sampling, **temperatures)


def wordless(texts: Sequence[str], making: Making, candidates: int, scorer: str) -> int:
    """How many sounds are asked for by texts that must be empty, as AudioLM reads none: one for each, or one.

    Raises:
        ValueError: words, or something else that only makes sense with them.
    """
    given = [text for text in texts if text]
    if given or making["negative"]:
        said = given[0] if given else making["negative"]
        raise ValueError(f"the text is {said!r}, but this checkpoint is an AudioLM, which reads none: leave it out")
    if candidates != 1 or scorer:
        raise ValueError("candidates are judged by a text, and an AudioLM reads none: leave candidates and scorer out")
    return max(1, len(texts))
