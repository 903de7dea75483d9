"""The sounds of an experiment's arms: each arm is one model under one setting, written once, resumed where it stopped.

A recipe's experiment.py says which arms there are; tools/judge_arms.py hears them. An arm's folder holds its sounds,
``plan.json`` (all that decides what they are) and, last of all, ``index.json`` (what each one is).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from audiolm_kit import AudioGen, AudioLM, NeuralCodec, Sampling, Sound, StageSampling
from audiolm_kit.audio import fit, read, write, write_bytes
from audiolm_kit.data.manifest import Row

Entry = dict[str, Any]
BATCH = 32
"""Generations between two visits to the disk; what comes out does not depend on it."""


@dataclass(frozen=True)
class Item:
    """One sound that is asked for."""

    text: str
    labels: tuple[str, ...]
    """What should be heard in it."""
    prompt: Row | None = None
    """A recording to continue, from its start."""


@dataclass(frozen=True)
class Arm:
    """All sounds of one model under one setting."""

    name: str
    sampling: Sampling
    seconds: float
    seed: int = 0
    """Item i is drawn with seed + i."""
    prompt_seconds: float = 0.0
    """How much of each prompt is given; the sound is ``seconds`` long, the prompt included."""


@dataclass(frozen=True)
class Wordless:
    """A model that reads no text, as ``make`` asks it, which has one for everything."""

    model: AudioLM | AudioGen

    @property
    def fingerprints(self) -> dict[str, str]:
        return self.model.fingerprints

    def continue_(
        self,
        prompts: Sequence[Sound],
        seconds: float,
        texts: Sequence[str],
        sampling: StageSampling | Sampling,
        seeds: Sequence[int],
    ) -> list[Sound]:
        """Each prompt continued; the texts name them and are not read."""
        given = (sampling, seeds) if isinstance(self.model, AudioLM) else (None, sampling, seeds)
        return self.model.continue_(prompts, seconds, *given)


def write_arm(model: AudioGen | Wordless, arm: Arm, items: Sequence[Item], folder: Path) -> None:
    """Write all sounds of an arm into ``folder/arm.name``; those that stand there already are kept."""
    plan = {
        "fingerprints": model.fingerprints,
        "arm": dataclasses.asdict(arm),
        "items": [[item.text, item.labels, item.prompt and item.prompt.path] for item in items],
    }
    home = begin(folder / arm.name, plan)
    if (home / "index.json").is_file():
        return
    paths = [home / f"{number:04d}.flac" for number in range(len(items))]
    todo = [number for number, path in enumerate(paths) if not path.is_file()]
    for first in tqdm(range(0, len(todo), BATCH), desc=arm.name, disable=None):
        batch = todo[first : first + BATCH]
        for number, sound in zip(batch, make(model, arm, items, batch), strict=True):
            write(paths[number], sound)
    told = [
        {"path": path.name, "text": item.text, "labels": list(item.labels), "seed": arm.seed + number}
        | ({"prompt": Path(item.prompt.path).name, "prompt_label": item.prompt.label} if item.prompt else {})
        for number, (path, item) in enumerate(zip(paths, items, strict=True))
    ]
    write_index(home, plan, told)


def make(model: AudioGen | Wordless, arm: Arm, items: Sequence[Item], numbers: Sequence[int]) -> list[Sound]:
    """The sounds of these items."""
    chosen, seeds = [items[number] for number in numbers], [arm.seed + number for number in numbers]
    texts = [item.text for item in chosen]
    if not arm.prompt_seconds:
        return model.generate(texts, arm.seconds, arm.sampling, seeds)
    prompts = [
        read(item.prompt.path, item.prompt.start, arm.prompt_seconds) for item in chosen if item.prompt is not None
    ]
    return model.continue_(prompts, arm.seconds, texts, arm.sampling, seeds)


KINDS = ("real", "reconstruction")


def write_recordings(
    codec: NeuralCodec, rows: Sequence[Row], folder: Path, fingerprint: str, kinds: Sequence[str] = KINDS
) -> None:
    """The arms ``real`` and ``reconstruction``: recordings as they are, and through the codec and back."""
    for name in kinds:
        where = [[row.path, row.start, row.duration] for row in rows]
        plan = {"arm": {"name": name}, "rows": where} | ({"codec": fingerprint} if name != "real" else {})
        home = begin(folder / name, plan)
        if (home / "index.json").is_file():
            continue
        told = []
        for number, row in enumerate(tqdm(rows, desc=name, disable=None)):
            sound = fit(read(row.path, row.start, row.duration), codec.sample_rate, codec.channels)
            path = home / f"{number:04d}.flac"
            write(path, there_and_back(codec, sound) if name != "real" else sound)
            told.append({"path": path.name, "text": row.caption or "", "labels": [row.label or ""]})
        write_index(home, plan, told)


@torch.no_grad()
def there_and_back(codec: NeuralCodec, sound: Sound) -> Sound:
    """What is left of a sound after the codec, as long as it was."""
    length = sound.samples.shape[1]
    audio = codec.decode(codec.encode(sound.samples[None]))[0, :, :length]
    return Sound(audio.clamp(-1, 1), sound.sample_rate)


def begin(home: Path, plan: Entry) -> Path:
    """Take a folder for this plan or go on with it; one of another plan is begun anew."""
    plan, file = json.loads(json.dumps(plan)), home / "plan.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != plan:
        shutil.rmtree(home)
    elif not file.is_file() and home.is_dir() and any(home.iterdir()):
        raise ValueError(f"{home} holds something else: give a folder of its own for the sounds")
    write_bytes(file, json.dumps(plan).encode())
    return home


def write_index(home: Path, plan: Entry, told: list[Entry]) -> None:
    """Say that the arm is whole."""
    settings = {key: value for key, value in plan.items() if key not in ("items", "rows")}
    write_bytes(home / "index.json", json.dumps({"settings": settings, "sounds": told}, indent=1).encode())


def repeated(items: Iterable[Item], count: int) -> list[Item]:
    """The items in turn, over and over, until there are so many."""
    return list(itertools.islice(itertools.cycle(items), count))
