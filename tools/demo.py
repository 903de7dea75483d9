"""Let the models that come with the package be heard: from texts and from prompts, with the time it takes, on a page.

    python tools/demo.py -o build/demo [NAME ...]

Each model makes what its example.json asks for (tools/publish.py), all of it at once: an AudioGen says its texts, an
AudioLM continues its prompts or, where there are none, begins by itself. OUT/sounds has the sounds, each with a note of
how it was made, OUT/page/index.html shows them side by side.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a program or imported by a test alike

from listening_items import PROMPT, read_items
from listening_page import Options, write_page

from audiolm_kit import AudioGen, AudioLM, Sampling, StageSampling, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.inference.candidates import BROUGHT, Choice
from audiolm_kit.published import names
from audiolm_kit.published.names import Example

TITLE = "audiolm_kit: the models that come with the package"
UNPROMPTED = 2
"""How many sounds an AudioLM without prompts makes."""


class Heard(NamedTuple):
    """What a model has made, and how long that took."""

    name: str
    kind: str
    sounds: int
    seconds: float
    """Of all its sounds; of continuations what is new."""
    taken: float
    """Seconds to make them, with the model open."""

    @property
    def line(self) -> str:
        """A row of the table that is printed."""
        told = f"{self.name:<20} {self.kind:<9} {self.sounds:>6} {self.seconds:>10.1f} {self.taken:>10.1f}"
        return f"{told} {self.taken / self.seconds:>12.2f}"


HEAD = f"{'model':<20} {'kind':<9} {'sounds':>6} {'s of audio':>10} {'s taken':>10} {'s for each s':>12}"


def chosen(given: Sequence[str]) -> dict[str, str]:
    """The models to hear, by name, and their kinds; all where none is named.

    Raises:
        ValueError: one is none of them, or there are none at all.
    """
    known = names.models()
    if not known:
        raise ValueError("no model comes with this package yet: make -C recipes/hello trains one")
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"no model {unknown[0]!r} comes with the package: there are {', '.join(known)}")
    return {name: known[name] for name in given or known}


def demonstrate(models: dict[str, str], out: Path, seed: int) -> list[Heard]:
    """Make the sounds of all models and the page; earlier ones in this folder are replaced."""
    with checkpoint.replacing(out / "sounds") as sounds:
        heard = [hear(name, kind, sounds, seed) for name, kind in models.items()]
    write_page(read_items(out / "sounds"), out / "page" / "index.html", Options(title=TITLE, modes=("browse",)))
    return heard


def hear(name: str, kind: str, folder: Path, seed: int) -> Heard:
    """Make what a model is asked for, and write it."""
    example = names.example(names.FOLDER / name)
    return speak(name, example, folder, seed) if kind == "AudioGen" else go_on(name, example, folder, seed)


def speak(name: str, example: Example, folder: Path, seed: int) -> Heard:
    """An AudioGen says its texts."""
    model, texts, sampling = AudioGen.load(name, frozen=True), list(example.texts) or [""], Sampling(**example.sampling)
    begun = time.perf_counter()
    if example.chosen:
        made = model.best_of(texts, example.seconds, sampling, seed, **example.chosen)
    else:
        plain = model.generate(texts, example.seconds, sampling, seed)
        made = [Choice(sound, seed + number, math.nan, ()) for number, sound in enumerate(plain)]
    taken = time.perf_counter() - begun
    for number, (text, (sound, own, _, scores)) in enumerate(zip(texts, made, strict=True), 1):
        about = model.sidecar(text, example.seconds, sampling, own, scores=scores, scorer=BROUGHT if scores else "")
        keep(folder / "generated" / f"{name}-{number}.wav", sound, about)
    return Heard(name, "AudioGen", len(made), sum(length(choice.sound) for choice in made), taken)


def go_on(name: str, example: Example, folder: Path, seed: int) -> Heard:
    """An AudioLM continues its prompts, or begins by itself."""
    model, sampling = AudioLM.load(name, frozen=True), StageSampling.of(**example.sampling)
    prompts = [audio.read(names.FOLDER / name / prompt) for prompt in example.prompts]
    begun = time.perf_counter()
    if prompts:
        made = model.continue_(prompts, example.seconds, sampling, seed)
    else:
        made = model.generate(UNPROMPTED, example.seconds, sampling, seed)
    taken = time.perf_counter() - begun
    for number, sound in enumerate(made):
        given = example.prompts[number] if prompts else ""
        about = model.sidecar(example.seconds, sampling, seed + number, given)
        file = f"{name}-{number + 1}.wav"  # of one name a prompt and what follows stand side by side
        keep(folder / ("continuation" if prompts else "generated") / file, sound, about)
        if prompts:
            keep(folder / PROMPT / file, prompts[number], {})
    return Heard(name, "AudioLM", len(made), sum(map(length, made)) - sum(map(length, prompts)), taken)


def length(sound: Sound) -> float:
    """In seconds."""
    return sound.samples.shape[-1] / sound.sample_rate


def keep(path: Path, sound: Sound, about: dict[str, Any]) -> None:
    """Write a sound, and how it was made beside it."""
    audio.write(path, sound)
    if about:
        checkpoint.write_json(path.with_suffix(".json"), about)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the sounds, and say how long they took and where to listen."""
    parser = argparse.ArgumentParser(description="Let the models that come with the package be heard.")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="models; all that come with the package if not given")
    add("-o", "--output", type=Path, default=Path("build/demo"), help="folder; default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        heard = demonstrate(chosen(given.names), given.output, given.seed)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(HEAD, *(each.line for each in heard), sep="\n")
    print(f"Listen:\n{(given.output / 'page' / 'index.html').resolve()}")


if __name__ == "__main__":
    main()
