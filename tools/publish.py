"""Put a trained model into the package: at a fraction of its size, under a name, with a card of measured figures.

    python tools/publish.py build/streams/lm/guided-0 --name spoken-digits

takes the checkpoint folder of an AudioGen or an AudioLM and writes audiolm_kit/published/NAME, whole or not at all:
language models in 8 bits a weight, what turns sound into codes in 16, and the network that turns them back in 8 (all
are read as float32 again), without blocks of a codec that do nothing;
fingerprints of what is stored; example.json, what ``make demo`` asks of it; prompts; and a card. What the card must say
that no file knows stands in tools/published/NAME.yaml; its figures come of the files of results that are named there,
none is written by hand. All models together have 24 MB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a program or imported by a test alike

from publish_card import About, read_about, stored, tables, write_card
from publish_idle import without_idle_blocks
from publish_rounding import Facts, Model, compact, differences, forget_training, halve
from safetensors.torch import save_file
from torch import nn

from audiolm_kit import (
    AudioGen,
    AudioLM,
    Sampling,
    SemanticTokenizer,
    StageSampling,
    StreamLM,
    audio,
    checkpoint,
    eight_bits,
    provenance,
    stored_once,
)
from audiolm_kit.audio import Sound
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import text_files
from audiolm_kit.evaluation.contrastive import KIND as SCORER_KIND
from audiolm_kit.evaluation.contrastive import PART, ContrastiveScorer
from audiolm_kit.published import names
from audiolm_kit.published.names import Example

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 24_000_000
"""Bytes of all published models together."""
KINDS: dict[str, type[AudioGen] | type[AudioLM]] = {"AudioGen": AudioGen, "AudioLM": AudioLM}


@dataclass(frozen=True)
class Order:
    """What is published, and where it goes."""

    source: Path
    """The checkpoint folder."""
    name: str
    about: About
    prompts: tuple[Path, ...] = ()
    """Recordings that its users may hear continued."""
    folder: Path = names.FOLDER
    """Of all published models."""
    phases: bool = False
    """Leave out blocks of a begun decoder that give phases alone, see ``publish_idle``."""
    scorer: Path | None = None
    """Folder of a small CLAP that an AudioGen brings, to choose among takes (``ContrastiveScorer``)."""

    def __post_init__(self) -> None:
        if not names.NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}, wanted small letters, digits and hyphens: spoken-digits")
        if missing := [str(path) for path in self.prompts if not path.is_file()]:
            raise FileNotFoundError(f"no prompt at {missing[0]}: give a recording")


class Published(NamedTuple):
    """What came of it."""

    folder: Path
    sizes: dict[str, int]
    """Bytes of each part."""
    differences: Facts


def publish(order: Order) -> Published:
    """Write the model's folder, whole or not at all; an earlier one of its name is replaced.

    Raises:
        FileNotFoundError: the checkpoint, a prompt or a file of results is missing.
        ValueError: it is no AudioGen or AudioLM, needs something that has to be fetched, or lacks a part of its card;
            or all models together would be too large.
    """
    shown = tables(order.about, ROOT)  # what is missing is said before the work
    with tempfile.TemporaryDirectory() as folder:  # of the scorer, until it has been copied
        return _published(order, shown, Path(folder))


def _published(order: Order, shown: str, aside: Path) -> Published:
    before, model = opened(order.source), opened(order.source)
    refuse_fetched(model)
    if order.scorer is not None:
        before, model = with_scorer(before, order.scorer), with_scorer(model, smaller(order.scorer, aside / "scorer"))
    model, left_out = without_idle(model, order.phases)
    parts = parts_of(model)
    small, dtypes = {}, {}
    for name, part in parts.items():
        if isinstance(part, StreamLM):
            small[name], dtypes[name] = eight_bits.rounded(part), "int8"
        elif isinstance(part, NeuralCodec):
            forget_training(part)
            small[name], dtypes[name] = compact(part)
        else:
            dtypes[name] = halved(part)
    target = order.folder / order.name
    with checkpoint.replacing(target) as draft:
        model.save(draft)
        for name, state in small.items():
            kept, same = stored_once.once({key: each.contiguous() for key, each in state.items()})
            save_file(kept, draft / name / checkpoint.WEIGHTS, same)
        after = opened(draft)
        example = write_example(order, draft)
        told = differences(before, after, *tried(before, draft, example))
        if facts := provenance.read(order.source):
            checkpoint.write_json(draft / provenance.FILE, facts)
        write_card(draft, order.name, order.about, shown, stored(dtypes, left_out, told))
        refuse_too_large(order.folder, order.name, size_of(draft))
        for path in draft.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # whoever installs the package may read it
    sizes = {path.name: size_of(path) for path in sorted(target.iterdir())}
    return Published(target, sizes, told)


def opened(folder: Path) -> Model:
    """An AudioGen or an AudioLM.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of another kind, or damaged.
    """
    kind = checkpoint.kind_of(folder)
    if kind not in KINDS:
        checkpoint.read_kind(folder, "AudioGen")  # says what is missing, or what else it is
    return KINDS[kind].load(folder)


def with_scorer(model: Model, scorer: Path) -> Model:
    """The model, bringing what chooses among its takes.

    Raises:
        ValueError: it is no AudioGen.
    """
    if not isinstance(model, AudioGen):
        raise ValueError("only an AudioGen reads the texts that a scorer judges by: leave scorer out")
    return AudioGen(model.codec, model.lm, model.conditioner, ContrastiveScorer.load(scorer))


def smaller(scorer: Path, folder: Path) -> Path:
    """A copy of a scorer in numbers of half the size."""
    found = ContrastiveScorer.load(scorer)
    halve(found.model)
    checkpoint.save_bundle(folder, SCORER_KIND, {PART: found.model}, text_files(found.conditioner))
    if facts := provenance.read(scorer):
        checkpoint.write_json(folder / provenance.FILE, facts)
    return folder


def parts_of(model: Model) -> dict[str, nn.Module]:
    """What has weights, by where it stands in a checkpoint's folder."""
    if isinstance(model, AudioGen):
        return {"codec": model.codec, "lm": model.lm}
    stages = {f"stages/{name}": lm for name, (_, lm) in model.stages.items()}
    return {"semantic": model.semantic, "codec": model.codec, **stages}


def refuse_fetched(model: Model) -> None:
    """A model of the package works without a network: what lies elsewhere cannot be part of one."""
    if isinstance(model, AudioGen) and model.lm.config.text.kind == "t5":
        name = model.lm.config.text.name
        raise ValueError(
            f"the model reads captions by a T5 ({name}), which is too large to come along: train it anew "
            "with text kind small or labels"
        )
    if isinstance(model, AudioLM) and model.semantic.config.features.kind == "ssl":
        name = model.semantic.config.features.model
        raise ValueError(
            f"the semantic codes are those of {name}, which has to be fetched: publish a model with "
            "features of its own (mel, mfcc, chroma, masked)"
        )


def without_idle(model: Model, phases: bool) -> tuple[Model, str]:
    """The model with no block in its codec that does nothing, and a sentence about those that are left out."""
    codec = without_idle_blocks(model.codec, phases)
    if codec is model.codec:
        return model, ""
    before, after = (sum(weight.numel() for weight in each.parameters()) for each in (model.codec, codec))
    told = f" Of the codec's {before:,} weights {before - after:,} did nothing and are left out"
    told += ", those among them that gave phases which decoding replaces by noise." if phases else "."
    if isinstance(model, AudioGen):
        return AudioGen(codec, model.lm, model.conditioner, model.scorer), told
    return AudioLM(model.semantic, codec, model.stages), told


def halved(part: nn.Module) -> str:
    """Round a part that is no language model and no codec of ours, and name the type of its numbers.

    A semantic tokenizer without a network of its own stays as it is: it is small, and its codes are what a model stands
    on.
    """
    if isinstance(part, SemanticTokenizer) and part.config.features.kind != "masked":
        return "float32"
    forget_training(part)
    return str(halve(part)).removeprefix("torch.")


def write_example(order: Order, draft: Path) -> Example:
    """What the demonstration asks of the model; its prompts are put beside it."""
    copies = [draft / f"prompt-{number}{path.suffix}" for number, path in enumerate(order.prompts, 1)]
    for path, copy in zip(order.prompts, copies, strict=True):
        audio.read(path)  # refuses what is no sound
        shutil.copyfile(path, copy)
    example = dataclasses.replace(order.about.example, prompts=tuple(copy.name for copy in copies))
    sampling_of(checkpoint.kind_of(draft), example)  # refuses options that there are not
    checkpoint.write_json(draft / names.EXAMPLE, dataclasses.asdict(example))
    return example


def sampling_of(kind: str, example: Example) -> Any:
    """How the example is drawn.

    Raises:
        ValueError: it names an option that there is not.
    """
    try:
        return StageSampling.of(**example.sampling) if kind == "AudioLM" else Sampling(**example.sampling)
    except TypeError as error:
        raise ValueError(f"sampling of the example is {dict(example.sampling)}: {error}") from None


def tried(model: Model, draft: Path, example: Example) -> tuple[list[Sound], list[str]]:
    """Sounds that both models are compared by, and what is heard in each: made by the model, or its prompts."""
    if isinstance(model, AudioGen):
        texts = list(example.texts) or [""]
        return model.generate(texts, example.seconds, sampling_of("AudioGen", example), **example.chosen), texts
    prompts = [audio.read(draft / name) for name in example.prompts]
    return prompts or model.generate(2, example.seconds, sampling_of("AudioLM", example)), []


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())


def refuse_too_large(folder: Path, name: str, size: int) -> None:
    """All models of a folder, this one in the place of an earlier one of its name, must stay below the limit."""
    checkpoints = sorted(path.parent for path in folder.glob(f"*/{checkpoint.CONFIG}") if path.parent.name[0] != ".")
    sizes = {path.name: size_of(path) for path in checkpoints} | {name: size}
    if sum(sizes.values()) > LIMIT:
        each = ", ".join(f"{known} {megabytes(own)}" for known, own in sizes.items())
        whole, most = megabytes(sum(sizes.values())), megabytes(LIMIT)
        raise ValueError(f"all models together have {whole} ({each}), wanted at most {most}: make one of them smaller")


def megabytes(size: int) -> str:
    """A number of bytes as it is read."""
    return f"{size / 1e6:.2f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, publish, and say what takes the space."""
    parser = argparse.ArgumentParser(
        description="Put a trained model into the package.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, help="checkpoint folder of an AudioGen or an AudioLM")
    add("--name", required=True, help="what it is loaded by")
    add("--about", type=Path, help="YAML of what the card must say; tools/published/NAME.yaml if not given")
    add("--prompts", type=Path, nargs="+", default=[], help="recordings that the demonstration continues")
    add("--phases", action="store_true", help="leave out blocks of a begun decoder that give phases alone")
    add("--scorer", type=Path, help="folder of a small CLAP (ContrastiveTask) that comes along and chooses among takes")
    add("-o", "--output", type=Path, default=names.FOLDER, help="folder of all published models")
    given = parser.parse_args(arguments)
    try:
        about = read_about(given.about or ROOT / "tools" / "published" / f"{given.name}.yaml")
        order = Order(given.source, given.name, about, tuple(given.prompts), given.output, given.phases, given.scorer)
        done = publish(order)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for part, size in done.sizes.items():
        print(f"  {part:<20} {megabytes(size):>10}")
    print(json.dumps(done.differences, indent=1))
    print(f"{done.folder}: {megabytes(sum(done.sizes.values()))}")


if __name__ == "__main__":
    main()
