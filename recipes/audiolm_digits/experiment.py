"""Write the sounds of one experiment: voices, structure or steps; or measure without judges: tradeoff, times.

    python experiment.py voices --out build/audiolm_digits --strings build/audiolm_digits/strings.jsonl

takes the models OUT/{audiolm,flat}-SEED and OUT/lm/only-SEED, and writes OUT/sounds/EXPERIMENT/ARM/*.flac, and in
OUT/sounds/EXPERIMENT.digits/ARM/ the single digits that are cut from them, with an index.json each
(tools/sound_arms.py); what stands there already is kept. Item i of seed s is drawn with 1000 s + i.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from cuts import cut, prompt_seconds, words
from sound_arms import Entry, Maker, heard, write_sounds
from strings import DIGITS
from tradeoff import measure

from audiolm_kit import AudioGen, AudioLM, NeuralCodec, Sampling, Sound, StageSampling, checkpoint
from audiolm_kit.audio import read, write_bytes
from audiolm_kit.data.manifest import Row, read_manifest

GIVEN = 2
"""Digits of a prompt."""
VOICED, FOLLOWED = 2.0, 0.9
"""Seconds that are made behind a prompt: about as long as a string, for its voice; about a digit, for the next one."""
TRAINING = 200
"""Strings of the training split by which voices are known."""
SAMPLING = StageSampling.of(acoustic=(0.8, 0.8, 0.6, 0.6))
"""The paper's temperatures: 0.6 for semantic codes, 0.8 for the coarse half of the acoustic ones, 0.6 for the fine."""
GUIDED = StageSampling.of(Sampling(prefix_guidance_scale=2.0), acoustic=(0.8, 0.8, 0.6, 0.6))
"""The same where a string is said anew, but that semantic codes are followed more closely than by chance."""
TIMED = {"seconds": 2.0, "batch": 4, "repeats": 3}


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    out: Path
    rows: list[Row]
    """Of all strings."""
    recordings: Path
    seeds: list[int]
    count: int

    @property
    def sounds(self) -> Path:
        return self.out / "sounds"

    def held_out(self, label: str = "", least: int = 0) -> list[Row]:
        """The first strings that nothing was trained on, or those that keep the rule or break it."""
        rows = [row for row in self.rows if row.split == "valid" and label in ("", row.label)]
        if len(rows) < least:
            raise ValueError(
                f"{len(rows)} held-out strings {label}, {least} were asked for: write more, or ask for less"
            )
        return rows[: self.count]

    def codec(self) -> NeuralCodec:
        return checkpoint.load(NeuralCodec, self.out / "codec").eval()


# --- arms -------------------------------------------------------------------------------------------------------------


def write_arm(home: Path, plan: Entry, told: list[Entry], make: Maker) -> None:
    """Write the sounds of an arm, unless they stand there; those of prompts of one length are made side by side."""
    plan = {"arm": plan | {"name": home.name}, "items": told}
    write_sounds(home, plan, told, make, rank=lambda number: told[number].get("prompt", 0.0))


Piece = tuple[Entry, Sound]
"""What the index says of a word, and the word."""


def write_digits(whole: Path, digits_of: Callable[[Entry, Sound], list[Piece]]) -> None:
    """Write the words of an arm's sounds as an arm of their own, in a folder of the same name beside its own."""
    index = json.loads((whole / "index.json").read_text(encoding="utf-8"))
    cuts = [each for told in index["sounds"] for each in digits_of(told, read(whole / told["path"]))]
    home = whole.parent.with_name(f"{whole.parent.name}.digits") / whole.name
    write_arm(home, {"of": index["settings"]}, [told for told, _ in cuts], lambda batch: [cuts[i][1] for i in batch])


def told_of(row: Row, **more: Any) -> Entry:
    """What the index says of a string."""
    return {"string": Path(row.path).name, "text": row.transcript, "labels": [row.speaker], "rule": row.label} | more


def all_digits(told: Entry, sound: Sound) -> list[Piece]:
    """The words of a string as they come; where nothing is said, a little silence that says so."""
    found = words(sound)
    return [(about(told, empty=False), piece(sound, word)) for word in found] or [
        (about(told, empty=True), piece(sound))
    ]


def digit_behind(told: Entry, sound: Sound) -> list[Piece]:
    """The first word behind the prompt; where nothing is said, a little silence that says so."""
    found = words(sound, told["prompt"])[:1]
    return [(about(told, empty=not found, labels=[told["wanted"]]), piece(sound, *found))]


def about(told: Entry, **more: Any) -> Entry:
    """What the index says of a word: the sound that it was cut from, and whether it is one."""
    return {"of": told["path"]} | more


def piece(sound: Sound, word: slice | None = None) -> Sound:
    """A word, or a tenth of a second of silence."""
    silence = sound.samples.new_zeros(sound.samples.shape[0], sound.sample_rate // 10)
    return Sound(sound.samples[:, word] if word else silence, sound.sample_rate)


def whole(row: Row) -> Sound:
    return read(row.path, row.start, row.duration)


# --- models -----------------------------------------------------------------------------------------------------------


def resynthesis(model: AudioLM, rows: list[Row], seed: int, home: Path) -> None:
    """What strings say, said anew; and the digits of it."""
    plan = {"fingerprints": model.fingerprints, "seed": seed, "sampling": dataclasses.asdict(GUIDED)}
    seeds = [1000 * seed + number for number in range(len(rows))]

    def make(batch: Sequence[int]) -> list[Sound]:
        return model.resynthesize([whole(rows[i]) for i in batch], GUIDED, seed=[seeds[i] for i in batch])

    write_arm(home, plan, [told_of(row) for row in rows], make)
    write_digits(home, all_digits)


class Prompt(NamedTuple):
    """The first digits of a string, and what the index says of it."""

    row: Row
    told: Entry

    @property
    def seconds(self) -> float:
        seconds: float = self.told["prompt"]
        return seconds

    def read(self) -> Sound:
        return read(self.row.path, self.row.start, self.seconds)


def continuation(
    model: AudioLM | AudioGen,
    prompts: list[Prompt],
    more: float,
    seed: int,
    home: Path,
    sampling: Sampling | StageSampling = SAMPLING,
) -> None:
    """Each prompt and ``more`` seconds behind it."""
    plan = {"fingerprints": model.fingerprints, "seed": seed, "more": more, "sampling": dataclasses.asdict(sampling)}
    options: Entry = {"sampling": sampling}

    def make(batch: Sequence[int]) -> list[Sound]:
        given, seconds = [prompts[i].read() for i in batch], [prompts[i].seconds + more for i in batch]
        return model.continue_(given, seconds, seed=[1000 * seed + i for i in batch], **options)

    write_arm(home, plan, [prompt.told for prompt in prompts], make)


def prompted(rows: list[Row], codec: NeuralCodec) -> list[Prompt]:
    """The first digits of each string; what is wanted behind them is what the rule says of the last one."""
    found = []
    for row in rows:
        seconds = prompt_seconds(row.extra["ends"], GIVEN, codec.frame_rate)
        wanted = DIGITS[(row.extra["digits"][GIVEN - 1] + 1) % 10]
        found.append(Prompt(row, told_of(row, prompt=seconds, wanted=wanted)))
    return found


# --- experiments ------------------------------------------------------------------------------------------------------


def recordings(given: Given) -> None:
    """Held-out strings, what the codec leaves of them, and training strings by which voices are known."""
    codec, home = given.codec(), given.sounds / "recordings"
    rows = given.held_out(least=given.count)
    write_real(codec, rows, [told_of(row) for row in rows], home)
    for kind in ("real", "reconstruction"):
        write_digits(home / kind, all_digits)
    known = [row for row in given.rows if row.split == "train"][:TRAINING]
    write_arm(home / "training", {}, [told_of(row) for row in known], lambda batch: [whole(known[i]) for i in batch])


def write_real(
    codec: NeuralCodec, rows: list[Row], told: list[Entry], home: Path, kept: Callable[[int], float] | None = None
) -> None:
    """Strings as they are and through the codec, all of them or up to a time."""
    plans: dict[str, Entry] = {"real": {}, "reconstruction": {"codec": checkpoint.fingerprint(codec)}}
    for kind, plan in plans.items():

        def make(batch: Sequence[int], kind: str = kind) -> list[Sound]:
            return [cut(heard(codec, rows[i], kind), 0.0, kept(i) if kept else rows[i].duration) for i in batch]

        write_arm(home / kind, plan, told, make)


def voices(given: Given) -> None:
    """The same strings said anew, and gone on with behind their first digits."""
    rows = given.held_out(least=given.count)
    for seed in given.seeds:
        model = AudioLM.load(given.out / f"audiolm-{seed}")
        resynthesis(model, rows, seed, given.sounds / "voices" / f"resynthesis-{seed}")
        # Who is heard is asked of what follows the prompt alone (tools/judge_arms.py).
        prompts = [Prompt(row, told | {"from": told["prompt"]}) for row, told in prompted(rows, model.codec)]
        continuation(model, prompts, VOICED, seed, given.sounds / "voices" / f"continuation-{seed}")


def structure(given: Given) -> None:
    """The digit that follows two of a string, with the rule and without, by AudioLM and by acoustic codes alone."""
    codec, home = given.codec(), given.sounds / "structure"
    rows = given.held_out("rule", least=given.count)
    ruled, free = prompted(rows, codec), prompted(given.held_out("free", least=given.count), codec)
    told = [prompt.told for prompt in ruled]
    write_real(codec, rows, told, home, lambda number: ruled[number].seconds + FOLLOWED)
    for seed in given.seeds:
        model = AudioLM.load(given.out / f"audiolm-{seed}")
        continuation(model, ruled, FOLLOWED, seed, home / f"audiolm-{seed}")
        continuation(model, free, FOLLOWED, seed, home / f"free-{seed}")
        only = AudioGen.load(given.out / "lm" / f"only-{seed}")
        # As wild as AudioLM draws its acoustic codes, and as bold as it draws its semantic ones.
        for name, temperature in (("only", SAMPLING.acoustic.temperature), ("bold", SAMPLING.semantic.temperature)):
            sampling = Sampling(temperature=temperature, guidance_scale=1.0)
            continuation(only, ruled, FOLLOWED, seed, home / f"{name}-{seed}", sampling)
    for arm in sorted(home.glob("*/index.json")):
        write_digits(arm.parent, digit_behind)


def steps(given: Given) -> None:
    """What ``voices`` says anew, by the flattened stages."""
    for seed in given.seeds:
        model = AudioLM.load(given.out / f"flat-{seed}")
        resynthesis(model, given.held_out(least=given.count), seed, given.sounds / "steps" / f"flat-{seed}")


def times(given: Given) -> None:
    """Steps, and seconds that both kinds of stages take for the same sounds: in turn, several times over."""
    models = {name: AudioLM.load(given.out / f"{name}-{given.seeds[0]}") for name in ("audiolm", "flat")}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(int(TIMED["repeats"]) + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model.generate(int(TIMED["batch"]), TIMED["seconds"])
            if repeat:  # the first is a rehearsal
                taken[name].append(time.perf_counter() - began)
    told = {
        name: {"seconds": round(statistics.median(each), 3), "steps": models[name].steps_for(TIMED["seconds"])}
        for name, each in taken.items()
    }
    content = json.dumps({"settings": TIMED, "models": told}, indent=1)
    write_bytes(given.sounds / "times.json", content.encode())


def tradeoff(given: Given) -> None:
    """What codes tell apart, and how near to a recording they lead."""
    found = measure(given.out, read_manifest(given.recordings, "valid"), given.seeds)
    write_bytes(given.sounds / "tradeoff.json", json.dumps(found, indent=1).encode())


EXPERIMENTS: dict[str, Callable[[Given], None]] = {
    each.__name__: each for each in (recordings, voices, structure, steps, times, tradeoff)
}


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds of one experiment, or measure without judges.")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--strings", type=Path, required=True, help="manifest of strings; its valid rows are held out")
    parser.add_argument("--recordings", type=Path, required=True, help="manifest of single digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=200, help="sounds of each arm, default: %(default)s")
    said = parser.parse_args()
    try:
        given = Given(said.out, read_manifest(said.strings), said.recordings, said.seeds, said.count)
        EXPERIMENTS[said.experiment](given)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
