"""The command line: one table of verbs, each a plain function that says its arguments and its help by itself."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audiolm_kit import arguments

if TYPE_CHECKING:
    from pytorch_lightning.cli import LightningArgumentParser

    from audiolm_kit.data.tokenize import TokenizeOptions
    from audiolm_kit.inference.audiogen import AudioGen
    from audiolm_kit.inference.audiolm import AudioLM
    from audiolm_kit.lm.sampling import Sampling
    from audiolm_kit.semantic.tokenizer import SemanticTokenizer

# What is slow to import (torch, Lightning) is imported by the verb that needs it: `audiolm-kit --help` stays quick.

DEBUG = "AUDIOLM_KIT_DEBUG"
UNSAID: Any = None  # of a number; with `float | None` a wrong one would be told of in jsonargparse's words
MOST_NAMED = 20  # rejected files on the screen; the file beside the manifest names all
FULL_DISK = re.compile(r"No space left on device|PytorchStreamWriter failed writing")
# Said by Lightning about itself; nothing that a user can do or should know.
NOISE = (
    "LightningCLI's args parameter is intended",
    ".*treespec, LeafSpec.* is deprecated",
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "Using ModelCheckpoint with manual optimization",  # about checkpoints of validations, which CodecTask has none of
)
ADVERTISEMENT = "litlogger"


def fit(*given: str) -> None:
    """Train a codec or a language model as a recipe says; a stopped run goes on where it was."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    from jsonargparse import set_parsing_settings
    from pytorch_lightning import LightningDataModule, LightningModule
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.cli import LightningCLI

    class Fit(LightningCLI):
        """LightningCLI with one subcommand that finds its run's last checkpoint by itself."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            about = "Start over: the checkpoints of an earlier run in trainer.default_root_dir are set aside."
            parser.add_argument("--fresh", action="store_true", help=about)

        def before_instantiate_classes(self) -> None:
            trainer = self.config["fit"]["trainer"]
            trainer["precision"] = bearable(trainer["precision"], trainer["accelerator"])

        def after_instantiate_classes(self) -> None:
            ready, folder = self.config_init["fit"], Path(self.trainer.default_root_dir) / "checkpoints"
            for callback in self.trainer.checkpoint_callbacks:
                # Left to itself, Lightning hides them in a folder of the logger that has a new name in each run.
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str(folder)
            if ready.pop("fresh"):
                set_aside(folder)
            elif ready["ckpt_path"] is None and (last := newest(folder)):
                print(f"audiolm-kit fit: goes on from {last} (--fresh starts over)", file=sys.stderr)
                ready["ckpt_path"] = str(last)

    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    logger.addFilter(lambda said: ADVERTISEMENT not in str(said.msg))
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    strict = {"exit_on_error": False}
    usage = "audiolm-kit fit -c RECIPE.yaml [-c CHANGES.yaml ...] [--KEY VALUE ...] [--fresh]"
    Fit(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "audiolm-kit", **strict, "fit": {"usage": usage, "description": fit.__doc__, **strict}},
        args=["fit", *given],
    )


def bearable(precision: str | int | None, accelerator: object) -> str | int | None:
    """The precision of a run: fp32 in the place of bf16-mixed, and said so, on a CPU that has no arithmetic for bf16.

    The recipes ask for bf16-mixed, which speeds them up wherever there is such arithmetic.
    """
    if precision != "bf16-mixed" or accelerator not in ("cpu", "auto"):
        return precision
    import torch

    from audiolm_kit.doctor import emulates_bf16

    elsewhere = torch.cuda.is_available() or torch.backends.mps.is_available()
    if (accelerator == "auto" and elsewhere) or not emulates_bf16():
        return precision
    if os.environ.get("LOCAL_RANK", "0") == "0":
        told = "this CPU has no bf16 arithmetic and is many times slower with it: trainer.precision is 32-true"
        print(f"audiolm-kit fit: {told} (--trainer.precision bf16 insists)", file=sys.stderr)
    return "32-true"


def newest(folder: Path) -> Path | None:
    """The latest of a run's last checkpoints.

    There may be several: in a run folder that was moved, Lightning does not take the old ``last.ckpt`` for its own and
    writes ``last-v1.ckpt`` beside it, unless the recipe says ``enable_version_counter: false``.
    """
    return max(folder.glob("last*.ckpt"), key=lambda file: file.stat().st_mtime, default=None)


def set_aside(folder: Path) -> None:
    """Rename a folder to the first free ``NAME.N``; processes of a run beyond the first leave it alone."""
    if folder.is_dir() and os.environ.get("LOCAL_RANK", "0") == "0":
        number = next(n for n in range(1, sys.maxsize) if not folder.with_name(f"{folder.name}.{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{number}"))


def manifest(
    source: str, *, output: str, layout: str = "auto", min_seconds: float = 0.05, without: tuple[str, ...] = ()
) -> None:
    """Make a manifest from a folder of recordings, and say which files are left out and why.

    Args:
        source: A folder of sounds, or a manifest (.jsonl or .jsonl.gz), also one of audiocraft.
        output: The manifest to write (JSON lines); its paths are relative to it.
        layout: Where captions and speakers stand; auto looks at the files, and a wrong name lists all layouts.
        min_seconds: Shorter sounds are left out.
        without: A word (or phrase); sounds whose caption, label or tags have it are left out.
    """
    from audiolm_kit.data.manifest import build_manifest

    kept, rejected = build_manifest(source, output, layout, min_seconds, without=without)
    for path, reason in rejected[:MOST_NAMED]:
        print(f"left out  {path}: {reason}")
    if len(rejected) > MOST_NAMED:
        print(f"left out  {len(rejected) - MOST_NAMED} more: see the .rejected.jsonl beside {output}")
    hours = sum(row.duration for row in kept) / 3600
    print(f"{output}: {len(kept)} sounds, {hours:.2f} h; {len(rejected)} left out")


def tokenize(codec: str, manifest: str, *, output: str, options: TokenizeOptions) -> None:
    """Encode the recordings of a manifest into token shards; a stopped run goes on where it was.

    Args:
        codec: The checkpoint folder of a codec, or of a semantic tokenizer (audiolm-kit kmeans).
        manifest: The manifest of the recordings (JSON lines).
        output: The folder for the shards.
    """
    from audiolm_kit import checkpoint
    from audiolm_kit.codec.model import NeuralCodec
    from audiolm_kit.data.tokenize import SKIPPED
    from audiolm_kit.data.tokenize import tokenize as encode

    device = checked_device(options.device)
    model: NeuralCodec | SemanticTokenizer
    if checkpoint.kind_of(codec) == "SemanticTokenizer":
        from audiolm_kit.semantic.tokenizer import SemanticTokenizer

        model = checkpoint.load(SemanticTokenizer, codec)
    else:
        model = checkpoint.load(NeuralCodec, codec)
    report = encode(model, checkpoint.fingerprint(model), manifest, output, replace(options, device=device))
    told = f"; {report.skipped} sounds skipped, see {SKIPPED}" if report.skipped else ""
    print(f"{output}: {report.rows} rows in {report.shards} shards{told}")


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
    sampling: Sampling,
) -> None:
    """Make a sound for each text, and beside it a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text.
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
    """
    from audiolm_kit.inference.orders import Making, Order

    making = Making(negative=negative, window=window, overlap=overlap)
    if is_audiolm(checkpoint):
        from audiolm_kit.inference.unscripted import Unscripted, stage_sampling, wordless

        count = wordless((*texts, *text), making, candidates, scorer)
        given = (stage_sampling(sampling, temperature_of), seed, seconds, endless, window, overlap, output, stream)
        Unscripted(*given, count, semantics_of=semantics_of, voice=voice).make(opened_audiolm(checkpoint, device))
        return
    refuse_stages(checkpoint, temperature_of=temperature_of, semantics_of=semantics_of, voice=voice)
    order = Order(
        (*texts, *text), making, sampling, seed, seconds, endless, output, stream, candidates=candidates, scorer=scorer
    )
    order.generate(opened(checkpoint, device))


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
    sampling: Sampling,
) -> None:
    """Continue a recording, and write the whole beside a JSON file that says how it was made.

    Args:
        checkpoint: The checkpoint folder of an AudioGen, or of an AudioLM, which reads no text.
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
    """
    from audiolm_kit import audio
    from audiolm_kit.inference.orders import Making, Order

    making = Making(negative=negative, window=window, overlap=overlap)
    if is_audiolm(checkpoint):
        from audiolm_kit.inference.unscripted import Unscripted, stage_sampling, wordless

        wordless(text, making, 1, "")
        whole = (stage_sampling(sampling, temperature_of), seed, seconds, endless, window, overlap, output, stream)
        Unscripted(*whole, prompt=prompt).make(opened_audiolm(checkpoint, device))
        return
    refuse_stages(checkpoint, temperature_of=temperature_of)
    order = Order(text or ("",), making, sampling, seed, seconds, endless, output, stream)
    if len(order.sounds) > 1:
        raise ValueError(f"{len(text)} texts for one prompt: give one, or the lines of a timeline")
    given = audio.read(prompt)
    order.continue_(opened(checkpoint, device), given, prompt)


def opened(checkpoint: str, device: str) -> AudioGen:
    """Load a checkpoint folder onto a device."""
    from audiolm_kit.inference.audiogen import AudioGen

    return AudioGen.load(checkpoint, checked_device(device))


def is_audiolm(folder: str) -> bool:
    """Whether a checkpoint folder says that it holds an AudioLM."""
    from audiolm_kit.checkpoint import kind_of

    return kind_of(folder) == "AudioLM"


def opened_audiolm(folder: str, device: str) -> AudioLM:
    """Load an AudioLM onto a device."""
    from audiolm_kit.inference.audiolm import AudioLM

    return AudioLM.load(folder, checked_device(device))


def refuse_stages(folder: str, **given: object) -> None:
    """Options that only an AudioLM has are refused where there is none."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is {value!r}, but {folder} holds no AudioLM: leave it out")


def kmeans(
    manifest: str,
    *,
    output: str,
    features: str = "mfcc",
    layer: int = UNSAID,
    codebook_size: int = 500,
    sample_rate: int = UNSAID,
    frame_rate: float = UNSAID,
    split: str = "train",
    max_frames: int = 500_000,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Fit a semantic tokenizer: k-means of the frames of recordings, each dimension standardised.

    Args:
        manifest: The manifest of the recordings (JSON lines).
        output: The checkpoint folder of the tokenizer.
        features: What a frame is: mfcc, mel, the folder of a masked model, or a model of transformers (folder or hub).
        layer: Which layer of a model; tools/pick_layer.py finds the best.
        codebook_size: How many different codes.
        sample_rate: Of mfcc and mel, 16000 unless said; a model has its own.
        frame_rate: Frames a second of mfcc and mel, 50 unless said; a model has its own.
        split: Only recordings of this split (or of none); '' takes all.
        max_frames: As many frames at most, drawn evenly, go into the k-means.
        seed: The same seed finds the same codes.
        device: Where to compute features: cpu, cuda, or auto for the best there is.
    """
    from tqdm import tqdm

    from audiolm_kit import audio, checkpoint
    from audiolm_kit.data.manifest import read_manifest
    from audiolm_kit.semantic.fit import features_from, fit_tokenizer

    checkpoint.refuse_foreign(Path(output))
    found = features_from(features, layer, sample_rate, frame_rate)
    rows = [row for row in read_manifest(manifest) if not split or row.split in (None, split)]
    if not rows:
        raise ValueError(f"{manifest} has no rows of split {split!r}: give another, or '' for all")
    rate = found.config.sample_rate
    shown = tqdm(rows, unit="clip", desc="kmeans", disable=not sys.stderr.isatty())
    waveforms = (audio.fit(audio.read(row.path, row.start, row.duration), rate, 1).samples[0] for row in shown)
    made = fit_tokenizer(
        found, waveforms, codebook_size, seed=seed, max_frames=max_frames, device=checked_device(device)
    )
    checkpoint.save(made, output)
    print(f"{output}: {codebook_size} codes, {made.frame_rate:g} a second, of {len(rows)} sounds")


def assemble(*stages: str, output: str) -> None:
    """Put the trained stages of an AudioLM together into one checkpoint folder.

    Args:
        stages: Their checkpoint folders, in any order: semantic and acoustic, or semantic, coarse and perhaps fine.
        output: The checkpoint folder to write.
    """
    from audiolm_kit.inference.audiolm import AudioLM

    model = AudioLM.assemble(stages)
    model.save(output)
    print(f"{output}: {' -> '.join(model.stages)}")


def score(checkpoint: str, pairs: str, *, output: str = "", normalise: bool = False, device: str = "auto") -> None:
    """How often an AudioLM finds the first recording of a pair likelier than the second (sWUGGY, sBLIMP and the like).

    Args:
        checkpoint: The checkpoint folder of an AudioLM.
        pairs: Lines of two sound files with a tab between them and perhaps a group behind; paths are relative to it.
        output: A JSON file for the scores of every pair.
        normalise: Compare likelihoods per code, and not of whole recordings.
        device: Where to compute: cpu, cuda, or auto for the best there is.
    """
    from functools import partial

    from audiolm_kit.inference.scoring import read_pairs, score_pairs

    listed = read_pairs(pairs)
    model = opened_audiolm(checkpoint, device)
    result = score_pairs(partial(model.log_likelihood, normalise=normalise), listed)
    if output:
        result.save(output)
    print(*result.lines(), sep="\n")


def checked_device(name: str) -> str:
    """The device's name, where it is there; `auto` becomes the best there is."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the second where torch is built without CUDA
        raise ValueError(f"device is {name!r}, which this torch does not find: choose auto, cpu or cuda") from error
    return name


def doctor(checkpoint: str | None = None) -> int:
    """Look for what commonly goes wrong with an installation, and with a checkpoint if one is named.

    Args:
        checkpoint: A checkpoint folder to open and try.
    """
    from audiolm_kit.doctor import diagnose, report

    return report(diagnose(checkpoint))


class Verb(NamedTuple):
    """A command: what it runs, and the dataclass whose fields are options of it too."""

    run: Callable[..., int | None]
    options: str | None = None  # its home and name; `run` gets it as the one parameter of that type


VERBS: dict[str, Verb] = {
    "fit": Verb(fit),
    "manifest": Verb(manifest),
    "kmeans": Verb(kmeans),
    "tokenize": Verb(tokenize, options="data.tokenize.TokenizeOptions"),
    "assemble": Verb(assemble),
    "generate": Verb(generate, options="lm.sampling.Sampling"),
    "continue": Verb(continue_, options="lm.sampling.Sampling"),
    "score": Verb(score),
    "doctor": Verb(doctor),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb: 0 all well, 2 with one line on stderr for what the user can mend, 130 when interrupted."""
    given = sys.argv[1:] if argv is None else argv
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = given
    if name not in VERBS:
        print(f"audiolm-kit: unknown verb {name!r}, wanted one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    warnings.formatwarning = lambda message, *_, **__: f"audiolm-kit {name}: {message}\n"
    try:
        return run(name, rest) or 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # after --help, or Lightning's way out of a Ctrl-C
        return 130 if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"audiolm-kit {name}: {message}", file=sys.stderr)
        return 2


def overview() -> str:
    """The help of `audiolm-kit` itself: each verb with the claim that its docstring opens with."""
    verbs = "\n".join(f"  {name:<9} {arguments.first_line(verb.run)}" for name, verb in VERBS.items())
    return f"""usage: audiolm-kit VERB ...

From recordings to a trained model that makes sound.

{verbs}

`audiolm-kit VERB --help` says more. {DEBUG}=1 shows where an error comes from."""


def run(name: str, given: list[str]) -> int | None:
    """Call a verb with what was typed behind it; `fit` leaves the parsing to Lightning."""
    function, options = VERBS[name]
    if function is fit:
        fit(*given)
        return None
    kind = None
    if options:
        home, _, name_of_kind = options.rpartition(".")
        kind = getattr(import_module(f"audiolm_kit.{home}"), name_of_kind)
    code: int | None = arguments.call(function, given, f"audiolm-kit {name}", kind)
    return code


def explained(error: Exception) -> str | None:
    """One line for what a user can mend; None for a fault of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC or FULL_DISK.search(text):
        return f"the disk is full ({text}): free some space, or choose another place"
    if isinstance(error, (ValueError, ArgumentError)):
        return arguments.first_cause(str(error))
    if isinstance(error, OSError):
        return text
    if type(error).__name__ == "MisconfigurationException":  # Lightning's own ValueError
        return text
    if type(error).__name__ == "OutOfMemoryError":  # torch's, for accelerators
        return f"the device is out of memory ({text.split('. ')[0]}): make the batch or the model smaller"
    return None
