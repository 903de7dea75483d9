"""What AudioLM is put together from: stages that fit one another and their tokenizers, and the folders that hold them.

K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from audiolm_kit import checkpoint
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.inference.chain import Stages
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.protocols import AudioTokenizer
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.stages import Stage, StageName

STAGE_KIND = "AudioLMStage"
SETS: tuple[tuple[StageName, ...], ...] = (
    ("semantic", "coarse", "fine"),
    ("semantic", "acoustic"),
    ("semantic", "coarse"),
)
"""The stages that make a model, in the order in which they work."""
REDO = "put those together that were trained together"
TOKENIZERS: dict[str, Callable[[Path], nn.Module]] = {
    "semantic": partial(checkpoint.load, SemanticTokenizer),
    "codec": open_codec,
}
"""How each is opened."""


class Parts(NamedTuple):
    """All that AudioLM is made of."""

    semantic: SemanticTokenizer
    codec: AnyCodec
    stages: Stages


def gather(folders: Sequence[str | Path], device: str = "cpu") -> Parts:
    """The parts of one model from the folders of its stages, each of which holds the tokenizers of its own codes.

    Raises:
        FileNotFoundError: a folder or a part of it is missing.
        ValueError: a folder holds something else, is damaged, or repeats a stage; two folders hold different
            tokenizers; or no folder holds one of them.
    """
    if isinstance(folders, (str, Path)) or not folders:
        raise ValueError("folders of stages are wanted: give a list, semantic and coarse at least, or acoustic")
    stages: dict[StageName, tuple[Stage, StreamLM]] = {}
    homes: dict[str, Path] = {}
    tokenizers: dict[str, Any] = {}
    found: dict[str, str] = {}
    for folder in map(Path, folders):
        stage, lm, own = read_stage(folder)
        if stage.name in homes:
            raise ValueError(f"{homes[stage.name]} and {folder} both hold a {stage.name} stage: give one of them")
        homes[stage.name], stages[stage.name] = folder, (stage, lm.to(device))
        for name, tokenizer in own.items():
            fingerprint = checkpoint.fingerprint(tokenizer)
            if found.setdefault(name, fingerprint) != fingerprint:
                raise ValueError(
                    f"the {name} part of {folder} is another one than that of {homes[f'{name} part']} "
                    f"({fingerprint} and {found[name]}): put stages together that were trained on the same codes"
                )
            homes.setdefault(f"{name} part", folder)
            tokenizers.setdefault(name, tokenizer.to(device))
    names = ", ".join(str(folder) for folder in folders)
    _check_set(stages, f" in {names}")
    for name in TOKENIZERS.keys() - tokenizers.keys():
        raise ValueError(f"none of {names} holds a part {name!r}: give the folders that `fit` exported, whole")
    return Parts(tokenizers["semantic"], tokenizers["codec"], stages)


def read_stage(folder: Path) -> tuple[Stage, StreamLM, dict[str, nn.Module]]:
    """A stage, its model, and the tokenizers that lie beside it, by their names.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: it holds something else, or a part that is not its own.
    """
    stored = checkpoint.read_kind(folder, STAGE_KIND)
    stage = checkpoint.from_plain(Stage, stored.get("stage"), f"{folder / checkpoint.CONFIG}: stage")
    lm = checkpoint.load(StreamLM, folder / "lm")
    _check_wordless(stage, lm)
    names = [name for name in TOKENIZERS if name in stored.get("fingerprints", {})]
    own: dict[str, nn.Module] = {name: TOKENIZERS[name](folder / name) for name in names}
    checkpoint.check_bundle(folder, STAGE_KIND, checkpoint.bundle_fingerprints({"lm": lm} | own, {}))
    return stage, lm, own


def read_stages(folder: Path, kind: str) -> dict[StageName, tuple[Stage, StreamLM]]:
    """The stages of a whole model's folder, on the CPU."""
    stored = checkpoint.read_kind(folder, kind).get("stages")
    if not isinstance(stored, Mapping):
        raise ValueError(f"{folder / checkpoint.CONFIG}: stages is {stored!r}, wanted one for each: copy it again")
    stages: dict[StageName, tuple[Stage, StreamLM]] = {}
    for name, plain in stored.items():
        stage = checkpoint.from_plain(Stage, plain, f"{folder / checkpoint.CONFIG}: stages.{name}")
        stages[stage.name] = stage, checkpoint.load(StreamLM, folder / "stages" / name)
    return stages


def check_stages(stages: Stages, semantic: SemanticTokenizer, codec: AnyCodec) -> None:
    """Refuse stages that make no model, or that do not fit one another or their tokenizers.

    Raises:
        ValueError: what does not fit, in one line.
    """
    _check_set(stages)
    tokenizers: dict[str, AudioTokenizer] = {"semantic": semantic, "codec": codec}
    for name, (stage, lm) in stages.items():
        if stage.name != name:
            raise ValueError(f"a {stage.name} stage is given as {name}: give each under its own name")
        _check_codes(stage, lm, tokenizers)
    _check_chain({name: stage for name, (stage, _) in stages.items()})
    ends = max(stage.codebooks[1] for stage, _ in stages.values() if stage.source == "codec")
    codec.check(torch.zeros(1, ends, 0, dtype=torch.long))  # split channels want an even number


def _check_set(names: Iterable[str], where: str = "") -> None:
    given = list(names)
    if set(given) not in [set(each) for each in SETS]:
        wanted = "; ".join(" + ".join(each) for each in SETS)
        raise ValueError(f"stages are {' + '.join(given) or 'none'}{where}: AudioLM is made of {wanted}")


def _check_codes(stage: Stage, lm: StreamLM, tokenizers: Mapping[str, AudioTokenizer]) -> None:
    """A stage's model makes and reads the codes that the stage says, and those are the tokenizers'."""
    prefix = lm.config.prefix
    sides: list[tuple[str, str, tuple[int, int], tuple[int, int]]] = [
        ("makes", stage.source, stage.codebooks, (lm.config.num_codebooks, lm.config.codebook_size))
    ]
    if stage.prefix:
        sides.append(("reads", stage.prefix, stage.prefix_codebooks, (prefix.num_codebooks, prefix.codebook_size)))
    elif prefix.num_codebooks:
        raise ValueError(f"the model of stage {stage.name} stands on a prefix, and the stage has none: {REDO}")
    for verb, source, (first, end), (count, size) in sides:
        tokenizer = tokenizers[source]
        if (count, size) != (end - first, tokenizer.codebook_size) or end > tokenizer.num_codebooks:
            owner = "the semantic tokenizer" if source == "semantic" else "the codec"
            raise ValueError(
                f"the model of stage {stage.name} {verb} {count} codebooks of {size}, the stage {first} to {end} of "
                f"{owner}'s {tokenizer.num_codebooks} of {tokenizer.codebook_size}: {REDO}"
            )
    _check_wordless(stage, lm)


def _check_wordless(stage: Stage, lm: StreamLM) -> None:
    if lm.config.text.kind != "none":
        raise ValueError(f"the model of stage {stage.name} reads text ({lm.config.text.kind}): AudioLM has none")


def _check_chain(stages: Mapping[StageName, Stage]) -> None:
    """Each stage makes what the next one reads."""
    semantic, first = stages["semantic"], stages.get("coarse") or stages["acoustic"]
    if semantic.deduplicated and not semantic.codes_per_second > 0:
        raise ValueError("codes_per_second of stage semantic is 0: export it with data that counts them")
    if semantic.deduplicated and not first.deduplicated:
        raise ValueError(
            f"stage {first.name} reads semantic codes with their repeats, stage semantic makes them without: train "
            "both with, or both without (deduplicate)"
        )
    if first.codebooks[0]:
        raise ValueError(f"stage {first.name} begins with codebook {first.codebooks[0]}: it must make the first ones")
    fine = stages.get("fine")
    if fine and (fine.codebooks[0] != first.codebooks[1] or fine.prefix_codebooks[1] > first.codebooks[1]):
        raise ValueError(
            f"stage fine makes codebooks {list(fine.codebooks)} of {list(fine.prefix_codebooks)}, stage coarse "
            f"{list(first.codebooks)}: fine must begin where coarse ends, and read what coarse makes"
        )
