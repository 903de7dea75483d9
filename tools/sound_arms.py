"""The sounds of an experiment's arms: each arm is one model under one setting, written once, resumed where it stopped.

A recipe's experiment.py says which arms there are; tools/judge_arms.py hears them. An arm's folder holds its sounds,
``plan.json`` (all that decides what they are) and, last of all, ``index.json`` (what each one is).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from audiolm_kit import AudioGen, AudioLM, NeuralCodec, Sampling, Sound, StageSampling
from audiolm_kit.audio import fit, read, write, write_bytes
from audiolm_kit.data.manifest import Row
from audiolm_kit.evaluation.contrastive import ContrastiveScorer

Entry = dict[str, Any]
Maker = Callable[[Sequence[int]], list[Sound]]
"""The sounds of some items, by their numbers."""
BATCH = 32
"""Generations between two visits to the disk; what comes out does not depend on it."""
BOLD = Sampling(guidance_scale=3.0, temperature=0.8)
"""The usual guidance, and fewer of the unlikely codes: little models give those too much."""
SETTINGS = (*(Sampling(guidance_scale=scale) for scale in (1.0, 2.0, 3.0, 5.0)), BOLD)
"""What an experiment on guidance compares."""
TAKES = 4
"""And the best of so many takes under the last of them."""
SEVERAL = (4, 8)
"""Of a model that brings a scorer, the best of so many."""
OWN_CHOICE = ("scorer", "self")


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
    sampling: Any
    """A ``Sampling``; of an AudioLM a ``StageSampling``."""
    seconds: float
    seed: int = 0
    """Item i is drawn with seed + i."""
    prompt_seconds: float = 0.0
    """How much of each prompt is given; the sound is ``seconds`` long, the prompt included."""
    candidates: int = 1
    """Takes of each sound, of which one is chosen."""
    scorer: str = "self"
    """By what: the model itself, or where it is empty the scorer that the model brings."""

    @property
    def told(self) -> Entry:
        """All that decides what its sounds are; one take of each needs no word, nor does a model's own choice."""
        told = dataclasses.asdict(self)
        return {name: value for name, value in told.items() if (name, value) not in (("candidates", 1), OWN_CHOICE)}


def setting(sampling: Sampling, candidates: int = 1, scorer: str = "self") -> str:
    """How an arm of guidance is called: its scale, and where they are not 1 its temperature and its takes.

    Behind takes stands who chooses, where that is not the model itself.
    """
    temperature = "" if sampling.temperature == 1 else f"-temperature-{sampling.temperature:g}"
    takes = "" if candidates == 1 else f"-takes-{candidates}{'' if scorer else '-scorer'}"
    return f"scale-{sampling.guidance_scale:g}{temperature}{takes}"


def guided(model: str, seconds: float, seed: int) -> list[Arm]:
    """A model's arms of an experiment on guidance."""
    compared = [(sampling, 1) for sampling in SETTINGS] + [(BOLD, TAKES)]
    return [
        Arm(f"{model}-{setting(sampling, takes)}", sampling, seconds, seed, candidates=takes)
        for sampling, takes in compared
    ]


def chosen(model: str, seconds: float, seed: int, takes: int = TAKES) -> Arm:
    """The best of several takes by the scorer that the model brings, beside those of ``guided``."""
    return Arm(f"{model}-{setting(BOLD, takes, '')}", BOLD, seconds, seed, candidates=takes, scorer="")


def write_takes(model: AudioGen, name: str, items: Sequence[Item], folder: Path, seconds: float, seed: int) -> None:
    """The same items by a model that brings a scorer: one take of each, and the best of several by the scorer."""
    single = Arm(f"{name}-{setting(BOLD)}", BOLD, seconds, seed)
    for arm in (single, *(chosen(name, seconds, seed, takes) for takes in SEVERAL)):
        write_arm(model, arm, items, folder)


def bringing(model: AudioGen, scorer: Path) -> AudioGen:
    """The model, bringing the scorer of a folder."""
    return AudioGen(model.codec, model.lm, model.conditioner, ContrastiveScorer.load(scorer))


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
        "arm": arm.told,
        "items": [[item.text, item.labels, item.prompt and item.prompt.path] for item in items],
    }
    told = [
        {"text": item.text, "labels": list(item.labels), "seed": arm.seed + number}
        | ({"prompt": Path(item.prompt.path).name, "prompt_label": item.prompt.label} if item.prompt else {})
        for number, item in enumerate(items)
    ]
    write_sounds(folder / arm.name, plan, told, lambda numbers: make(model, arm, items, numbers))


def write_sounds(
    home: Path, plan: Entry, told: Sequence[Entry], make: Maker, rank: Callable[[int], float] | None = None
) -> None:
    """Write the sounds of an arm and what each one is; those that stand there already are kept.

    Args:
        home: folder of the arm.
        plan: all that decides what the sounds are; of another one the arm is begun anew.
        told: what the index says of each sound.
        make: makes sounds by their numbers, up to BATCH at once.
        rank: by which of an item's numbers those that are made at once are chosen; None: as they come.
    """
    begin(home, plan)
    if (home / "index.json").is_file():
        return
    paths = [home / f"{number:04d}.flac" for number in range(len(told))]
    todo = sorted((number for number, path in enumerate(paths) if not path.is_file()), key=rank)
    for first in tqdm(range(0, len(todo), BATCH), desc=home.name, disable=None):
        batch = todo[first : first + BATCH]
        for number, sound in zip(batch, make(batch), strict=True):
            write(paths[number], sound)
    write_index(home, plan, [{"path": path.name} | each for path, each in zip(paths, told, strict=True)])


def make(model: AudioGen | Wordless, arm: Arm, items: Sequence[Item], numbers: Sequence[int]) -> list[Sound]:
    """The sounds of these items."""
    asked, seeds = [items[number] for number in numbers], [arm.seed + number for number in numbers]
    texts = [item.text for item in asked]
    if not arm.prompt_seconds:
        assert not isinstance(model, Wordless), "without words there is a prompt"
        judged: Entry = {"candidates": arm.candidates, "scorer": arm.scorer or None} if arm.candidates > 1 else {}
        return model.generate(texts, arm.seconds, arm.sampling, seeds, **judged)
    prompts = [
        read(item.prompt.path, item.prompt.start, arm.prompt_seconds) for item in asked if item.prompt is not None
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
        told = [{"text": row.caption or "", "labels": [row.label or ""]} for row in rows]
        write_sounds(folder / name, plan, told, partial(some_heard, codec, rows, name))


def some_heard(codec: NeuralCodec, rows: Sequence[Row], kind: str, numbers: Sequence[int]) -> list[Sound]:
    """Of the rows those with these numbers."""
    return [heard(codec, rows[number], kind) for number in numbers]


def heard(codec: NeuralCodec, row: Row, kind: str) -> Sound:
    """A recording at the codec's rate: ``real``, or what the codec leaves of it."""
    sound = fit(read(row.path, row.start, row.duration), codec.sample_rate, codec.channels)
    return sound if kind == "real" else there_and_back(codec, sound)


@torch.no_grad()
def there_and_back(codec: NeuralCodec, sound: Sound, hold: float = 0.0) -> Sound:
    """What is left of a sound after the codec, as long as it was; with ``hold``, of codes that hold."""
    length, given = sound.samples.shape[1], sound.samples[None]
    codes = codec.encode_steady(given, hold) if hold else codec.encode(given)
    audio = codec.decode(codes)[0, :, :length]
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


def asked_of(rows: Iterable[Row], count: int) -> list[Item]:
    """The captions of held-out recordings, as often as they come: so what real sounds reach is the ceiling."""
    items = sorted((Item(row.caption or "", (row.label or "",)) for row in rows), key=lambda item: item.text)
    return [items[number * len(items) // count] for number in range(count)]
