"""The verbs that train: fit a recipe, fit a semantic tokenizer, put the stages of an AudioLM together."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from audiolm_kit.commands.given import UNSAID, checked_device

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from pytorch_lightning.cli import LightningArgumentParser
    from torch import Tensor

    from audiolm_kit.data.manifest import Row
    from audiolm_kit.semantic.spectrum import SpectrumOptions

# Said by Lightning about itself; nothing that a user can do or should know.
NOISE = (
    "LightningCLI's args parameter is intended",
    ".*treespec, LeafSpec.* is deprecated",
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "Using ModelCheckpoint with manual optimization",  # about checkpoints of validations, which CodecTask has none of
)
ADVERTISEMENT = "litlogger"
LOCK = ".lock"
TERMINATED = 128 + signal.SIGTERM  # as a shell says it


def fit(*given: str) -> None:
    """Train a codec or a language model as a recipe says; a stopped run goes on where it was."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    from jsonargparse import set_parsing_settings
    from pytorch_lightning import LightningDataModule, LightningModule
    from pytorch_lightning.cli import LightningCLI
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    held = ExitStack()

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
            """Find what the run goes on from, or set it aside."""
            ready, folder = self.config_init["fit"], Path(self.trainer.default_root_dir) / "checkpoints"
            hold(folder.parent, held)
            keep_checkpoints(self.trainer, folder)
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
    said = {"usage": usage, "description": fit.__doc__, **strict}
    try:
        with held:
            Fit(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                parser_kwargs={"prog": "audiolm-kit", **strict, "fit": said},
                args=["fit", *given],
            )
    except SIGTERMException:  # has no status: a Makefile or a scheduler would take the run for finished
        print("audiolm-kit fit: terminated before its end; the same command goes on", file=sys.stderr)
        sys.exit(TERMINATED)


def hold(folder: Path, held: ExitStack) -> None:
    """Keep other runs out of a run's folder until ``held`` ends: two would write over each other's checkpoints.

    The lock goes with the process, however that ends; processes of a run beyond the first do without.
    """
    from filelock import FileLock, Timeout

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(folder / LOCK, blocking=False))
    except Timeout:
        told = "wait for it, or give another folder with --trainer.default_root_dir"
        raise ValueError(f"{folder}: another audiolm-kit fit is at work there, {told}") from None


def keep_checkpoints(trainer: Trainer, folder: Path) -> None:
    """Put checkpoints that a recipe has no place for into ``folder``, and save the last one on SIGTERM, too.

    Left to itself, Lightning hides them in a folder of the logger that has a new name in each run.
    """
    from pytorch_lightning.callbacks import ModelCheckpoint

    from audiolm_kit.training.stopping import SaveOnTermination

    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = callback.dirpath or str(folder)
            if callback.save_last:
                trainer.callbacks.append(SaveOnTermination(callback))  # type: ignore[attr-defined]


def bearable(precision: str | int | None, accelerator: object) -> str | int | None:
    """The precision of a run: fp32 in the place of bf16-mixed, and said so, on a CPU that has no arithmetic for bf16.

    The recipes ask for bf16-mixed, which speeds them up wherever there is such arithmetic.
    """
    if precision != "bf16-mixed" or accelerator not in ("cpu", "auto"):
        return precision
    import torch

    from audiolm_kit.doctor.environment import emulates_bf16

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


def kmeans(
    manifest: str,
    *,
    output: str,
    features: str = "mfcc",
    layer: int = UNSAID,
    codebook_size: int = 500,
    sample_rate: int = UNSAID,
    frame_rate: float = UNSAID,
    spectrum: SpectrumOptions,
    split: str = "train",
    max_frames: int = 500_000,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Fit a semantic tokenizer: k-means of the frames of recordings, each dimension standardised.

    Args:
        manifest: The manifest of the recordings (JSON lines).
        output: The checkpoint folder of the tokenizer.
        features: What a frame is: mfcc, mel, chroma (pitch classes, for music), the folder of a masked model, or a
            model of transformers (folder or hub).
        layer: Which layer of a model; tools/pick_layer.py finds the best.
        codebook_size: How many different codes.
        sample_rate: Of mfcc, mel and chroma, 16000 unless said; a model has its own.
        frame_rate: Frames a second of mfcc, mel and chroma, 50 unless said; a model has its own.
        split: Only recordings of this split (or of none); '' takes all.
        max_frames: As many frames at most, drawn evenly, go into the k-means.
        seed: The same seed finds the same codes.
        device: Where to compute features: cpu, cuda, or auto for the best there is.
    """
    from audiolm_kit import checkpoint
    from audiolm_kit.semantic.fit import features_from, fit_tokenizer

    checkpoint.refuse_foreign(Path(output))
    found, rows = features_from(features, layer, sample_rate, frame_rate, spectrum), rows_of(manifest, split)
    sounds, place = waveforms(rows, found.config.sample_rate), checked_device(device)
    made = fit_tokenizer(found, sounds, codebook_size, seed=seed, max_frames=max_frames, device=place)
    checkpoint.save(made, output)
    print(f"{output}: {codebook_size} codes, {made.frame_rate:g} a second, of {len(rows)} sounds")


def rows_of(manifest: str, split: str) -> list[Row]:
    """The rows of a split and of none; with '' all."""
    from audiolm_kit.data.manifest import read_manifest

    rows = [row for row in read_manifest(manifest) if not split or row.split in (None, split)]
    if not rows:
        raise ValueError(f"{manifest} has no rows of split {split!r}: give another, or '' for all")
    return rows


def waveforms(rows: list[Row], sample_rate: int) -> Iterator[Tensor]:
    """The recordings of rows, mono, [L] each, while a bar tells how far they are."""
    from tqdm import tqdm

    from audiolm_kit import audio

    for row in tqdm(rows, unit="clip", desc="kmeans", disable=not sys.stderr.isatty()):
        yield audio.fit(audio.read(row.path, row.start, row.duration), sample_rate, 1).samples[0]


def assemble(*stages: str, output: str) -> None:
    """Put the trained stages of an AudioLM together into one checkpoint folder.

    Args:
        stages: Their checkpoint folders or hub names, in any order: semantic and acoustic, or semantic, coarse and
            perhaps fine.
        output: The checkpoint folder to write.
    """
    from audiolm_kit import checkpoint, hub, provenance
    from audiolm_kit.inference.audiolm import AudioLM

    folders = [hub.checkpoint(stage) for stage in stages]
    model = AudioLM.assemble(folders)
    told = {checkpoint.read_json(each / checkpoint.CONFIG)["stage"]["name"]: provenance.read(each) for each in folders}
    model.save(output)
    if any(told.values()):
        provenance.write(output, {"stages": {name: told[name] for name in model.stages if told[name]}})
    print(f"{output}: {' -> '.join(model.stages)}")
