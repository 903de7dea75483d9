"""Adapters in a folder of their own: written, read, put upon the model that they were trained on, merged into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from audiolm_kit import checkpoint, provenance
from audiolm_kit.lm.lora import LoRAConfig, add, merge, trained_weights
from audiolm_kit.lm.model import StreamLM

KIND = "LoRA"
BUNDLES = ("AudioGen", "AudioLMStage")
"""Checkpoints that hold a language model among other things, in the folder ``lm``."""

REPLACED = ("lm", checkpoint.CONFIG, provenance.FILE, "README.md")
"""What merging does not take over from a checkpoint: its record and its card tell of another model."""


class Adapters(NamedTuple):
    """What a fine-tuning has learned."""

    config: LoRAConfig
    base: str
    """The fingerprint of the model that it was learned upon."""
    weights: Mapping[str, Tensor]
    """Of the adapters, and whatever else has learned, by name."""


def save_adapters(adapters: Adapters, folder: str | Path) -> None:
    """Write them as a folder, whole or not at all; an earlier one there is replaced.

    Raises:
        ValueError: the folder holds something else.
    """
    checkpoint.refuse_foreign(Path(folder))
    about = {"format": checkpoint.FORMAT, "kind": KIND, "config": asdict(adapters.config), "base": adapters.base}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in adapters.weights.items()}
    with checkpoint.replacing(folder) as draft:
        draft.mkdir()
        (draft / checkpoint.CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_file(weights, draft / checkpoint.WEIGHTS)


def load_adapters(folder: str | Path) -> Adapters:
    """Read what ``save_adapters`` has written.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing.
        ValueError: it holds something else, or is cut off.
    """
    folder = Path(folder)
    stored = checkpoint.read_kind(folder, KIND)
    config = checkpoint.from_plain(LoRAConfig, stored.get("config"), f"{folder / checkpoint.CONFIG}: config")
    return Adapters(config, str(stored.get("base")), checkpoint.read_weights(folder / checkpoint.WEIGHTS))


def adapt(lm: StreamLM, adapters: Adapters) -> StreamLM:
    """Give a model, in place, the adapters that were trained upon it.

    Raises:
        ValueError: they were trained upon another model, or are not whole.
    """
    if (found := checkpoint.fingerprint(lm)) != adapters.base:
        raise ValueError(
            f"the adapters belong to the model {adapters.base}, this one is {found}: give the one they were trained on"
        )
    state = torch.random.get_rng_state()  # whose first weights are written over at once
    trained = trained_weights(add(lm, adapters.config))
    torch.random.set_rng_state(state)
    checkpoint.check_weights(trained, adapters.weights, Path(checkpoint.WEIGHTS))
    lm.load_state_dict(adapters.weights, strict=False)
    return lm


def merge_folder(base: str | Path, adapters: str | Path, output: str | Path) -> StreamLM:
    """Write the checkpoint of ``base`` (an AudioGen, or a stage of AudioLM) anew, with adapters merged into its model.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: they do not belong together, or ``output`` holds something else.
    """
    base, output = Path(base), Path(output)
    kind = checkpoint.kind_of(base)
    about = checkpoint.read_kind(base, kind if kind in BUNDLES else BUNDLES[0])
    checkpoint.refuse_foreign(output)
    learned = load_adapters(adapters)
    lm = merge(adapt(checkpoint.load(StreamLM, base / "lm"), learned), learned.config)
    with checkpoint.replacing(output) as draft:
        draft.mkdir()
        for path in base.iterdir():
            if path.name not in REPLACED:
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, draft / path.name)
        checkpoint.write_into(lm, draft / "lm")
        about["fingerprints"] = {**about.get("fingerprints", {}), "lm": checkpoint.fingerprint(lm)}
        (draft / checkpoint.CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if (record := Path(adapters) / provenance.FILE).is_file():
            shutil.copyfile(record, draft / provenance.FILE)
    return lm
