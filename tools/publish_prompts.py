"""Prompts for a published AudioLM, spoken by a published AudioGen: recordings of others do not come along.

    python tools/publish_prompts.py -o build/prompts "Greek: three four" "German: seven eight"

makes build/prompts/1.flac, 2.flac ...: each word said by itself ("a man with a Greek accent says the digit three"), cut
out of its silence, at the loudness of the others, with pauses between, as recipes/audiolm_digits puts recordings in
strings.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from audiolm_kit import AudioGen, Sampling, Sound, audio
from audiolm_kit.published import names

CAPTION = "a man with a {accent} accent says the digit {word}"
PAUSE, BEHIND = 0.16, 0.06
"""Seconds of silence between two words, and behind the last one."""
QUIET = 10 ** (-40 / 20)
"""What is this much below a word's peak at its ends is cut away."""


def prompt(model: AudioGen, asked: str, sampling: Sampling, seconds: float, seed: int) -> Sound:
    """The words of "ACCENT: WORD WORD" in a row.

    Raises:
        ValueError: nothing but silence was said, or it is asked for in another form.
    """
    form = re.fullmatch(r"\s*(?P<accent>[^:]+?)\s*:\s*(?P<words>\S.*?)\s*", asked)
    if not form:
        raise ValueError(f'prompt is {asked!r}, wanted "ACCENT: WORD WORD", as in "Greek: three four"')
    texts = [CAPTION.format(accent=form["accent"], word=word) for word in form["words"].split()]
    rate, pieces = model.sample_rate, []
    for sound in model.generate(texts, seconds, sampling, seed):
        pieces += [word(sound), torch.zeros(1, round(PAUSE * rate))]
    pieces[-1] = torch.zeros(1, round(BEHIND * rate))
    return Sound(torch.cat(pieces, dim=1), rate)


def word(sound: Sound) -> Tensor:
    """A word without the silence around it, [1, L]."""
    loud = (sound.samples.abs().amax(0) >= QUIET * sound.samples.abs().max().clamp_min(1e-9)).nonzero()[:, 0]
    if not len(loud):
        raise ValueError("a word is silence: ask with another seed")
    cut = sound.samples[:, int(loud[0]) : int(loud[-1]) + 1].mean(0, keepdim=True)
    return audio.normalise(Sound(cut, sound.sample_rate)).samples


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the prompts."""
    parser = argparse.ArgumentParser(description="Let a published AudioGen speak prompts for an AudioLM.")
    add = parser.add_argument
    add("prompts", nargs="+", metavar='"ACCENT: WORD WORD"', help="what is said, and how")
    add("-o", "--output", type=Path, required=True, help="folder")
    add("--model", default="spoken-digits", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the first word of each prompt, default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        model, example = AudioGen.load(given.model, frozen=True), names.example(names.FOLDER / given.model)
        for number, asked in enumerate(given.prompts, 1):
            made = prompt(model, asked, Sampling(**example.sampling), example.seconds, given.seed)
            audio.write(given.output / f"{number}.flac", made)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(given.output)


if __name__ == "__main__":
    main()
