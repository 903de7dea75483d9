"""Write the sounds that are judged: held-out recordings, what the codec leaves of them, generations and continuations.

    python evaluate.py CHECKPOINT --valid MANIFEST --prompts MANIFEST --references MANIFEST -o SAMPLES

writes SAMPLES/{real,reconstruction,generated,continuation,pairs}/*.wav and, last, SAMPLES/index.json that says what
each one is. A run that was stopped goes on where it was; samples of another checkpoint or other options are replaced.

--valid are recordings never trained on; --prompts and --references are strings of them (tools/join_recordings.py) whose
speakers take turns alike, so that reference i is of prompt i's speaker and reference i + 1 of another one.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from audiolm_kit import AudioGen, Sampling, Sound
from audiolm_kit.audio import fit, read, write, write_bytes
from audiolm_kit.data.manifest import Row, read_manifest

Entry = dict[str, Any]
BATCH = 50
"""Generations between two visits to the disk; what comes out does not depend on it."""


@dataclass(frozen=True)
class Counts:
    """How much is made."""

    generated: int = 2
    """Sounds for each caption."""
    seconds: float = 1.0
    """Of a generation."""
    continued_seconds: float = 1.5
    """Of a continuation, the prompt not included."""
    limit: int = 0
    """Only so many recordings and so many prompts, for a trial; 0 is all."""


@dataclass(frozen=True)
class Samples:
    """A model, and the folder for what it makes."""

    model: AudioGen
    folder: Path
    sampling: Sampling
    counts: Counts
    seed: int

    def settings(self) -> Entry:
        """All that decides what the sounds are, beside the manifests."""
        return {
            "fingerprints": self.model.fingerprints,
            "sampling": dataclasses.asdict(self.sampling),
            "counts": dataclasses.asdict(self.counts),
            "seed": self.seed,
        }

    def missing(self, kind: str, count: int) -> list[int]:
        """The numbers of the sounds of a kind that are not written yet."""
        return [number for number in range(count) if not self.path(kind, number).is_file()]

    def path(self, kind: str, number: int) -> Path:
        return self.folder / kind / f"{number:04d}.wav"

    def name(self, kind: str, number: int) -> str:
        """The path as the index says it."""
        return self.path(kind, number).relative_to(self.folder).as_posix()

    def there_and_back(self, sound: Sound) -> Sound:
        """What is left of a sound after the codec, as long as it was."""
        fitted = fit(sound, self.model.sample_rate, self.model.codec.channels)
        with torch.no_grad():
            codes = self.model.codec.encode(fitted.samples[None].to(self.model.device))
            audio = self.model.codec.decode(codes)[0, :, : fitted.samples.shape[1]].cpu()
        return Sound(audio.clamp(-1, 1), fitted.sample_rate)


def about(row: Row, path: str) -> Entry:
    return {"path": path, "label": row.label, "speaker": row.speaker, "caption": row.caption}


def read_row(row: Row) -> Sound:
    return read(row.path, row.start, row.duration)


# --- one function for each kind of sound ------------------------------------------------------------------------------


def write_recordings(samples: Samples, rows: list[Row]) -> dict[str, list[Entry]]:
    """The recordings as they are, and through the codec and back."""
    kinds: dict[str, Callable[[Sound], Sound]] = {"real": lambda sound: sound, "reconstruction": samples.there_and_back}
    for kind, change in kinds.items():
        for number in tqdm(samples.missing(kind, len(rows)), desc=kind, disable=None):
            write(samples.path(kind, number), change(read_row(rows[number])))
    return {
        kind: [about(row, samples.name(kind, number)) for number, row in enumerate(rows)]
        for kind in ("real", "reconstruction")
    }


def write_generations(samples: Samples, rows: list[Row]) -> list[Entry]:
    """Each caption several times, each time with a seed of its own."""
    asked = [row for _ in range(samples.counts.generated) for row in rows]
    todo = samples.missing("generated", len(asked))
    for first in tqdm(range(0, len(todo), BATCH), desc="generated", disable=None):
        batch = todo[first : first + BATCH]
        texts, seeds = [asked[number].caption or "" for number in batch], [samples.seed + number for number in batch]
        made = samples.model.generate(texts, samples.counts.seconds, sampling=samples.sampling, seed=seeds)
        for number, sound in zip(batch, made, strict=True):
            write(samples.path("generated", number), sound)
    return [
        about(row, samples.name("generated", number)) | {"seed": samples.seed + number}
        for number, row in enumerate(asked)
    ]


def write_continuations(samples: Samples, prompts: list[Row]) -> None:
    """Each prompt continued without text: ``continued`` is the whole, ``continuation`` what follows the prompt."""
    model = samples.model
    hop = round(model.sample_rate / model.codec.frame_rate)
    by_frames: dict[int, list[int]] = {}  # prompts of as many frames make a batch
    for number in samples.missing("continuation", len(prompts)):
        sound = fit(read_row(prompts[number]), model.sample_rate, model.codec.channels)
        by_frames.setdefault(sound.samples.shape[1] // hop, []).append(number)
    for frames, numbers in tqdm(by_frames.items(), desc="continuation", disable=None):
        sounds = [read_row(prompts[number]) for number in numbers]
        seconds = frames * hop / model.sample_rate + samples.counts.continued_seconds
        seeds = [samples.seed + number for number in numbers]
        made = model.continue_(sounds, seconds, sampling=samples.sampling, seed=seeds)
        for number, whole in zip(numbers, made, strict=True):
            write(samples.path("continued", number), whole)
            write(samples.path("continuation", number), Sound(whole.samples[:, frames * hop :], whole.sample_rate))


def write_pairs(samples: Samples, prompts: list[Row], references: list[Row]) -> list[Entry]:
    """What a continuation's voice is compared with: a real string of the prompt's speaker, and one of another's."""
    pairs = []
    for number, prompt in enumerate(prompts):
        same, other = partners(prompt, references, number)
        names = {"prompt": samples.name("pairs/prompt", number), "continuation": samples.name("continuation", number)}
        kinds = {"prompt": prompt, "same_speaker": same, "other_speaker": other}
        for kind, row in kinds.items():
            names[kind] = samples.name(f"pairs/{kind}", number)
            if not samples.path(f"pairs/{kind}", number).is_file():
                write(samples.path(f"pairs/{kind}", number), read_row(row))
        kind = "pairs/same_speaker_reconstruction"
        names["same_speaker_reconstruction"] = samples.name(kind, number)
        if not samples.path(kind, number).is_file():
            write(samples.path(kind, number), samples.there_and_back(read_row(same)))
        pairs.append(names | {"speaker": prompt.speaker, "other": other.speaker, "seed": samples.seed + number})
    return pairs


def partners(prompt: Row, references: list[Row], number: int) -> tuple[Row, Row]:
    """The next string of the prompt's speaker that shares no recording with it, and the next of another speaker."""
    turn = references[number % len(references) :] + references[: number % len(references)]
    used = {Path(part).name for part in prompt.extra.get("parts", [])}
    same = [
        row for row in turn if row.speaker == prompt.speaker and not used & {Path(p).name for p in row.extra["parts"]}
    ]
    others = [row for row in turn if row.speaker != prompt.speaker]
    if not same or not others:
        raise ValueError(f"no two strings to compare {prompt.path} with: --references must have more of them")
    return same[0], others[0]


# --- all of it --------------------------------------------------------------------------------------------------------


def begin(samples: Samples, rows: dict[str, list[Row]]) -> Entry:
    """Take the folder for these samples, or go on with it."""
    manifests = {name: [[row.path, row.caption, row.speaker] for row in each] for name, each in rows.items()}
    plan = json.loads(json.dumps(samples.settings() | {"manifests": manifests}))
    file = samples.folder / "plan.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != plan:
        shutil.rmtree(samples.folder)
    elif not file.is_file() and samples.folder.is_dir() and any(samples.folder.iterdir()):
        raise ValueError(f"{samples.folder} holds something else: give a folder of its own for the samples")
    write_bytes(file, json.dumps(plan).encode())
    return samples.settings()


def listening(samples: Samples, rows: list[Row], num_pairs: int) -> list[Entry]:
    """A few of the sounds for tools/listening_page.py: one of each label, and a few prompts with what follows them."""
    first: dict[str | None, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.label, number)
    items = [
        {"path": samples.name(kind, number), "text": rows[number].caption, "role": kind}
        for number in first.values()
        for kind in ("real", "reconstruction", "generated")
    ]
    kinds = {"prompt": "pairs/prompt", "continuation": "continued"}
    pairs = [(number, role, kind) for number in range(min(5, num_pairs)) for role, kind in kinds.items()]
    return items + [{"path": samples.name(kind, n), "text": f"prompt {n + 1}", "role": role} for n, role, kind in pairs]


def write_samples(samples: Samples, rows: dict[str, list[Row]]) -> None:
    """Everything, the index last."""
    settings = begin(samples, rows)
    (samples.folder / "index.json").unlink(missing_ok=True)
    sounds = write_recordings(samples, rows["valid"])
    sounds["generated"] = write_generations(samples, rows["valid"])
    write_continuations(samples, rows["prompts"])
    pairs = write_pairs(samples, rows["prompts"], rows["references"])
    page = listening(samples, rows["valid"], len(pairs))
    write_bytes(samples.folder / "listen.json", json.dumps(page, indent=1).encode())
    index = {"settings": settings, "sounds": sounds, "pairs": pairs}
    write_bytes(samples.folder / "index.json", json.dumps(index, indent=1).encode())


def value(text: str) -> Any:
    """An option as it is typed: 0.9, a list such as 0.9,0.8 with one number for each codebook, or a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    """Read the command line and write the samples."""
    parser = argparse.ArgumentParser(description="Write the sounds that are judged.")
    parser.add_argument("checkpoint", type=Path, help="folder of a trained model")
    for name in ("valid", "prompts", "references"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="manifest (JSON lines)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the samples")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    for options in (Sampling(), Counts()):
        for field in fields(options):
            default = getattr(options, field.name)
            parser.add_argument(f"--{field.name}", type=value, default=default, help="default: %(default)s")
    given = parser.parse_args()
    try:
        sampling = Sampling(**{field.name: getattr(given, field.name) for field in fields(Sampling)})
        counts = Counts(**{field.name: getattr(given, field.name) for field in fields(Counts)})
        rows = {name: read_manifest(getattr(given, name), "valid") for name in ("valid", "prompts", "references")}
        if empty := [name for name, each in rows.items() if not each]:
            raise ValueError(f"--{empty[0]}: the manifest has no rows of split 'valid'")
        for name in ("valid", "prompts"):
            rows[name] = rows[name][: counts.limit or None]
        model = AudioGen.load(given.checkpoint, given.device)
        write_samples(Samples(model, given.output, sampling, counts, given.seed), rows)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(given.output / "index.json")


if __name__ == "__main__":
    main()
