"""The verbs that make and judge sound: generate, continue, score."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from audiolm_kit.commands.given import Asked, Opening, checked_device
from audiolm_kit.published import names

if TYPE_CHECKING:
    from audiolm_kit.inference.audiogen import AudioGen
    from audiolm_kit.inference.orders import Making, Order
    from audiolm_kit.inference.unscripted import Unscripted
    from audiolm_kit.lm.sampling import Sampling


def generate(
    checkpoint: str,
    *texts: str,
    text: tuple[str, ...] = (),
    asked: Asked,
    candidates: int = 1,
    scorer: str = "",
    semantics_of: str = "",
    voice: str = "",
    opening: Opening,
    sampling: Sampling,
) -> None:
    """Make a sound for each text, and beside it a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text; or its hub name.
        texts (str, optional): What is to be heard; several texts make several sounds.
        text: A further text; or a line of a timeline, as in --text "0-4: rain" --text "4-8: rain and a dog barking".
        candidates: How many are made for each text; the one that the scorer likes best is kept.
        scorer: What likes them: self, which is the model itself, or a CLAP's folder, of ours or of transformers, or its
            name on the hub; nothing is the scorer that the model brings, if it does.
        semantics_of: With an AudioLM, a recording to say anew, in another voice.
        voice: A recording in whose voice that is said.
    """
    lines = (*texts, *text)
    asked = asked if semantics_of else as_long_as_usual(checkpoint, lines, asked)
    if is_audiolm(checkpoint):
        order = unscripted(lines, asked, sampling, candidates, scorer, semantics_of=semantics_of, voice=voice)
        make_unscripted(order, checkpoint, opening)
        return
    refuse_stages(checkpoint, temperature_of=asked.temperature_of, semantics_of=semantics_of, voice=voice)
    scripted(lines, asked, sampling, candidates, scorer).generate(opened(checkpoint, opening))


def continue_(
    checkpoint: str,
    prompt: str,
    *,
    text: tuple[str, ...] = (),
    asked: Asked,
    opening: Opening,
    sampling: Sampling,
) -> None:
    """Continue a recording, and write the whole beside a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text; or its hub name.
        prompt: The sound file to continue.
        text: What is to be heard, or a line of a timeline that counts from the prompt's start; nothing leaves it to the
            prompt.
    """
    from audiolm_kit import audio

    if is_audiolm(checkpoint):
        make_unscripted(unscripted(text, asked, sampling, prompt=prompt), checkpoint, opening)
        return
    refuse_stages(checkpoint, temperature_of=asked.temperature_of)
    order = scripted(text or ("",), asked, sampling)
    if len(order.sounds) > 1:
        raise ValueError(f"{len(text)} texts for one prompt: give one, or the lines of a timeline")
    given = audio.read(prompt)
    order.continue_(opened(checkpoint, opening), given, prompt)


def score(checkpoint: str, pairs: str, *, output: str = "", normalise: bool = False, device: str = "auto") -> None:
    """How often an AudioLM finds the first recording of a pair likelier than the second (sWUGGY, sBLIMP and the like).

    Args:
        checkpoint: The checkpoint folder of an AudioLM, or its hub name.
        pairs: Lines of two sound files with a tab between them and perhaps a group behind; paths are relative to it.
        output: A JSON file for the scores of every pair.
        normalise: Compare likelihoods per code, and not of whole recordings.
        device: Where to compute: cpu, cuda, or auto for the best there is.
    """
    from functools import partial

    from audiolm_kit.inference.audiolm import AudioLM
    from audiolm_kit.inference.scoring import read_pairs, score_pairs

    listed = read_pairs(pairs)
    model = AudioLM.load(checkpoint, checked_device(device))
    result = score_pairs(partial(model.log_likelihood, normalise=normalise), listed)
    if output:
        result.save(output)
    print(*result.lines(), sep="\n")


def scripted(texts: tuple[str, ...], asked: Asked, sampling: Sampling, candidates: int = 1, scorer: str = "") -> Order:
    """What is asked of an AudioGen."""
    from audiolm_kit.inference.orders import Order

    given = (asked.seed, asked.seconds, asked.endless, asked.output, asked.stream)
    return Order(texts, making(asked), sampling, *given, candidates=candidates, scorer=scorer)


def unscripted(
    texts: tuple[str, ...],
    asked: Asked,
    sampling: Sampling,
    candidates: int = 1,
    scorer: str = "",
    **recordings: Any,
) -> Unscripted:
    """What is asked of an AudioLM, which reads no text: ``recordings`` are prompt, semantics_of and voice."""
    from audiolm_kit.inference.unscripted import Unscripted, stage_sampling, wordless

    each = wordless(texts, making(asked), candidates, scorer)
    count = 1 if "prompt" in recordings else each
    given = (asked.seed, asked.seconds, asked.endless, asked.window, asked.overlap, asked.output, asked.stream)
    return Unscripted(stage_sampling(sampling, asked.temperature_of), *given, count, **recordings)


def making(asked: Asked) -> Making:
    """What every way to make a sound takes."""
    return {"negative": asked.negative, "window": asked.window, "overlap": asked.overlap}


def opened(checkpoint: str, opening: Opening) -> AudioGen:
    """Load an AudioGen onto a device, to make sound."""
    from audiolm_kit.inference.audiogen import AudioGen

    return AudioGen.load(checkpoint, **opening.loading)


def make_unscripted(order: Unscripted, checkpoint: str, opening: Opening) -> None:
    """Load an AudioLM onto a device, and make what is asked of it."""
    from audiolm_kit.inference.audiolm import AudioLM

    order.make(AudioLM.load(checkpoint, **opening.loading))


def is_audiolm(folder: str) -> bool:
    """Whether a checkpoint, a folder or a model by its name, says that it is an AudioLM."""
    from audiolm_kit import hub
    from audiolm_kit.checkpoint import CONFIG, kind_of

    there = names.found(folder) or (hub.local(folder, [CONFIG]) if hub.is_name(folder) else folder)
    return kind_of(there) == "AudioLM"


def as_long_as_usual(checkpoint: str, lines: tuple[str, ...], asked: Asked) -> Asked:
    """With the seconds that a model of the package makes best, where neither an option nor a timeline says any."""
    own = names.found(checkpoint)
    if own is None or asked.seconds is not None or asked.endless:
        return asked
    from audiolm_kit.inference.timeline import is_timeline

    return asked if is_timeline(lines) else replace(asked, seconds=names.example(own).seconds)


def refuse_stages(folder: str, **given: object) -> None:
    """Options that only an AudioLM has are refused where there is none."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is {value!r}, but {folder} holds no AudioLM: leave it out")
