"""The verbs that make and judge sound: generate, continue, score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiolm_kit.commands.given import UNSAID, Dtype, Quantize, checked_device

if TYPE_CHECKING:
    from audiolm_kit.inference.audiogen import AudioGen
    from audiolm_kit.inference.audiolm import AudioLM
    from audiolm_kit.lm.sampling import Sampling


def generate(
    checkpoint: str,
    *texts: str,
    text: tuple[str, ...] = (),
    output: str = "",
    stream: str = "",
    seconds: float = UNSAID,
    endless: bool = False,
    negative: str = "",
    window: float = UNSAID,
    overlap: float = UNSAID,
    candidates: int = 1,
    scorer: str = "",
    semantics_of: str = "",
    voice: str = "",
    temperature_of: tuple[str, ...] = (),
    seed: int = 0,
    device: str = "auto",
    dtype: Dtype = "float32",
    quantize: Quantize = UNSAID,
    compile: bool = False,
    sampling: Sampling,
) -> None:
    """Make a sound for each text, and beside it a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text; or its hub name.
        texts (str, optional): What is to be heard; several texts make several sounds.
        text: A further text; or a line of a timeline, as in --text "0-4: rain" --text "4-8: rain and a dog barking".
        output: The sound file (.wav, .flac, .ogg, .mp3); several are numbered, and a name without a suffix is a folder.
        stream: In the place of output: a .wav that is written while it is made, or - for standard output.
        seconds: The length of each sound; unless said 5, or that of the timeline.
        endless: With --stream -, go on until nobody listens any more.
        negative: What is not to be heard: guidance leads away from it.
        window: Seconds that are made at once; a longer sound is made window after window.
        overlap: Seconds at the end of a window that the next one begins with; unless said 0.3 of a window.
        candidates: How many are made for each text; the one that the scorer likes best is kept.
        scorer: What likes them: the folder of a CLAP, or its name on the hub.
        semantics_of: With an AudioLM, a recording to say anew, in another voice.
        voice: A recording in whose voice that is said.
        temperature_of: With an AudioLM, of one stage, as in --temperature_of semantic=0.7; else those of the paper.
        seed: The same seed makes the same sound.
        device: Where to compute: cpu, cuda, or auto for the best there is.
        dtype: What the language model computes with: bfloat16 and float16 halve its memory and pay on GPUs, bfloat16
            also on CPUs that have arithmetic for it; auto takes the fastest that is safe where it computes.
        quantize: The language model's matrices as whole numbers, int8 or int4: a quarter or a sixth of the memory of
            float32. It pays most on CPUs that make one or two sounds at once; large batches are faster without.
        compile: Compile the step that is taken for each frame: it takes a minute at first, and pays on GPUs.
    """
    from audiolm_kit.inference.orders import Making, Order

    making = Making(negative=negative, window=window, overlap=overlap)
    if is_audiolm(checkpoint):
        from audiolm_kit.inference.unscripted import Unscripted, stage_sampling, wordless

        count = wordless((*texts, *text), making, candidates, scorer)
        given = (stage_sampling(sampling, temperature_of), seed, seconds, endless, window, overlap, output, stream)
        Unscripted(*given, count, semantics_of=semantics_of, voice=voice).make(
            opened_audiolm(checkpoint, device, dtype, quantize, compile)
        )
        return
    refuse_stages(checkpoint, temperature_of=temperature_of, semantics_of=semantics_of, voice=voice)
    order = Order(
        (*texts, *text), making, sampling, seed, seconds, endless, output, stream, candidates=candidates, scorer=scorer
    )
    order.generate(opened(checkpoint, device, dtype, quantize, compile))


def continue_(
    checkpoint: str,
    prompt: str,
    *,
    text: tuple[str, ...] = (),
    output: str = "",
    stream: str = "",
    seconds: float = UNSAID,
    endless: bool = False,
    negative: str = "",
    window: float = UNSAID,
    overlap: float = UNSAID,
    temperature_of: tuple[str, ...] = (),
    seed: int = 0,
    device: str = "auto",
    dtype: Dtype = "float32",
    quantize: Quantize = UNSAID,
    compile: bool = False,
    sampling: Sampling,
) -> None:
    """Continue a recording, and write the whole beside a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text; or its hub name.
        prompt: The sound file to continue.
        text: What is to be heard, or a line of a timeline that counts from the prompt's start; nothing leaves it to the
            prompt.
        output: The sound file to write (.wav, .flac, .ogg, .mp3); it begins with the prompt.
        stream: In the place of output: a .wav that is written while it is made, or - for standard output.
        seconds: The length of the whole, the prompt included; unless said 5, or that of the timeline.
        endless: With --stream -, go on until nobody listens any more.
        negative: What is not to be heard: guidance leads away from it.
        window: Seconds that are made at once; a longer sound is made window after window.
        overlap: Seconds at the end of a window that the next one begins with; unless said 0.3 of a window.
        temperature_of: With an AudioLM, of one stage, as in --temperature_of semantic=0.7; else those of the paper.
        seed: The same seed makes the same sound.
        device: Where to compute: cpu, cuda, or auto for the best there is.
        dtype: What the language model computes with: bfloat16 and float16 halve its memory and pay on GPUs, bfloat16
            also on CPUs that have arithmetic for it; auto takes the fastest that is safe where it computes.
        quantize: The language model's matrices as whole numbers, int8 or int4: a quarter or a sixth of the memory of
            float32. It pays most on CPUs that make one or two sounds at once; large batches are faster without.
        compile: Compile the step that is taken for each frame: it takes a minute at first, and pays on GPUs.
    """
    from audiolm_kit import audio
    from audiolm_kit.inference.orders import Making, Order

    making = Making(negative=negative, window=window, overlap=overlap)
    if is_audiolm(checkpoint):
        from audiolm_kit.inference.unscripted import Unscripted, stage_sampling, wordless

        wordless(text, making, 1, "")
        whole = (stage_sampling(sampling, temperature_of), seed, seconds, endless, window, overlap, output, stream)
        Unscripted(*whole, prompt=prompt).make(opened_audiolm(checkpoint, device, dtype, quantize, compile))
        return
    refuse_stages(checkpoint, temperature_of=temperature_of)
    order = Order(text or ("",), making, sampling, seed, seconds, endless, output, stream)
    if len(order.sounds) > 1:
        raise ValueError(f"{len(text)} texts for one prompt: give one, or the lines of a timeline")
    given = audio.read(prompt)
    order.continue_(opened(checkpoint, device, dtype, quantize, compile), given, prompt)


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


def opened(checkpoint: str, device: str, dtype: Dtype, quantize: Quantize | None, compile: bool) -> AudioGen:
    """Load an AudioGen onto a device, to make sound."""
    from audiolm_kit.inference.audiogen import AudioGen

    chosen = None if dtype == "auto" else dtype
    place = checked_device(device)
    return AudioGen.load(checkpoint, place, dtype=chosen, quantize=quantize, compile=compile, frozen=True)


def is_audiolm(folder: str) -> bool:
    """Whether a checkpoint, a folder or one of the hub, says that it is an AudioLM."""
    from audiolm_kit import hub
    from audiolm_kit.checkpoint import CONFIG, kind_of

    return kind_of(hub.local(folder, [CONFIG]) if hub.is_name(folder) else folder) == "AudioLM"


def opened_audiolm(folder: str, device: str, dtype: Dtype, quantize: Quantize | None, compile: bool) -> AudioLM:
    """Load an AudioLM onto a device, to make sound."""
    from audiolm_kit.inference.audiolm import AudioLM

    chosen = None if dtype == "auto" else dtype
    place = checked_device(device)
    return AudioLM.load(folder, place, dtype=chosen, quantize=quantize, compile=compile, frozen=True)


def refuse_stages(folder: str, **given: object) -> None:
    """Options that only an AudioLM has are refused where there is none."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is {value!r}, but {folder} holds no AudioLM: leave it out")
