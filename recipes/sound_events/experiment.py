"""Write the sounds of one experiment: guidance, mixing, prompts against texts, or the models of 16 kHz.

    python experiment.py guidance --out build/sound_events --windows build/sound_events/windows.jsonl

takes the models OUT/lm/{single,mixed}-SEED and writes OUT/sounds/EXPERIMENT/ARM/*.flac with an index.json each
(tools/sound_arms.py); what stands there already is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from sound_arms import (
    BOLD,
    Arm,
    Item,
    bringing,
    chosen,
    guided,
    repeated,
    setting,
    write_arm,
    write_recordings,
    write_takes,
)

from audiolm_kit import AudioGen, NeuralCodec, Sound, checkpoint
from audiolm_kit.audio import read, write, write_bytes
from audiolm_kit.data.manifest import Row, read_manifest
from audiolm_kit.data.mixing import Mix, mix

PROMPTS = (0.5, 1.0, 2.0)
"""Seconds of the prompt."""
GUIDED = "guided"
"""Another class's text once more, at the usual guidance; all other prompts and texts stand beside each other at 1, as
guidance strengthens the text alone."""
SECONDS = 3.0
JOINER = " and "
# Mixing pairs sounds inside each half alone (Makefile): pairs across the halves are heard in no training example.
HALVES = (
    ("dog", "rain", "crying_baby", "clock_tick", "helicopter"),
    ("rooster", "sea_waves", "sneezing", "crackling_fire", "chainsaw"),
)


def captions(rows: list[Row]) -> dict[str, str]:
    """The caption of each label."""
    return {row.label or "": row.caption or "" for row in rows}


def singles(said: dict[str, str], count: int) -> list[Item]:
    """Each caption in turn."""
    return repeated([Item(text, (label,)) for label, text in sorted(said.items())], count)


def pairs(said: dict[str, str], across: bool) -> list[Item]:
    """Pairs of captions, both ways around: those across the halves, or those inside them."""
    named = [half for half in ([label for label in half if label in said] for half in HALVES) if half]
    found: list[tuple[str, str]]
    if across:
        found = [(a, b) for a in named[0] for b in named[-1]]
    else:
        found = [pair for half in named for pair in itertools.combinations(half, 2)]
    turned = found + [(b, a) for a, b in found]
    return [Item(JOINER.join((said[a], said[b])), (a, b)) for a, b in turned]


def guidance(folder: Path, models: Iterator[tuple[str, int, AudioGen]], rows: list[Row], count: int) -> None:
    """The same captions and seeds under several settings."""
    items = singles(captions(rows), count)
    for kind, seed, model in models:
        name, first = f"{kind}-{seed}", 1000 * seed
        mixed = Arm(f"{name}-{setting(BOLD)}", BOLD, SECONDS, first)
        for arm in guided(name, SECONDS, first) if kind == "single" else [mixed]:
            write_arm(model, arm, items, folder)
        if kind == "single":
            write_arm(bringing(model, folder.parents[1] / "scorer"), chosen(name, SECONDS, first), items, folder)


def wide(folder: Path, models: Iterator[tuple[str, int, AudioGen]], rows: list[Row], count: int) -> None:
    """Models of 16 kHz and their scorer, the held-out recordings at that rate, and what the codec leaves of them."""
    for kind, seed, model in models:
        items = singles(captions(rows), count)
        if not (folder / "reconstruction/index.json").is_file():
            write_recordings(model.codec, rows, folder, model.fingerprints["codec"])
        scored = bringing(model, folder.parents[1] / "wide" / "scorer")
        write_takes(scored, f"{kind}-{seed}", items, folder, SECONDS, 1000 * seed)


def mixing(folder: Path, models: Iterator[tuple[str, int, AudioGen]], rows: list[Row], count: int) -> None:
    """Two captions at once, and real sounds mixed that way, before and after the codec."""
    said = captions(rows)
    for kind, seed, model in models:
        for across in (True, False):
            items = repeated(pairs(said, across), count)
            name = f"{kind}-{seed}-{'across' if across else 'inside'}"
            write_arm(model, Arm(name, BOLD, SECONDS, 1000 * seed), items, folder)
        if not (folder / "reconstruction/index.json").is_file():
            write_recordings(model.codec, mixed_rows(folder, rows, count), folder, model.fingerprints["codec"])


def mixed_rows(folder: Path, rows: list[Row], count: int) -> list[Row]:
    """Real recordings of each pair, mixed at equal loudness."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label or "", []).append(row)
    made = []
    for number, item in enumerate(repeated(pairs(captions(rows), True), count)):
        a, b = (by_label[label][number // 7 % len(by_label[label])] for label in item.labels)
        first, second = (read(row.path, row.start, row.duration) for row in (a, b))
        path = folder / "recordings" / f"{number:04d}.flac"
        sound: Sound = mix(first, second, Mix(partner=0, snr_db=0.0, place=0.5, level_db=None, variants=(0, 0)))
        write(path, sound)
        seconds = sound.samples.shape[1] / sound.sample_rate
        made.append(Row(str(path), seconds, caption=item.text, label="+".join(item.labels)))
    return made


def prompts(folder: Path, models: Iterator[tuple[str, int, AudioGen]], rows: list[Row], count: int) -> None:
    """A recording of one class and no text, its own text, or another class's; and the recordings themselves."""
    said = captions(rows)
    labels, given = sorted(said), [row for row in rows if row.duration >= max(PROMPTS)]
    for kind, seed, model in models:
        if kind != "mixed":
            continue
        for text in ("none", "same", "other", GUIDED):
            items = []
            for number, row in enumerate(repeated_rows(given, count)):
                others = [label for label in labels if label != row.label]
                wanted = {"none": "", "same": row.label or ""}.get(text, others[number % len(others)])
                items.append(Item(said.get(wanted, ""), (wanted,) if wanted else (), prompt=row))
            sampling = BOLD if text == GUIDED else dataclasses.replace(BOLD, guidance_scale=1.0)
            for seconds in PROMPTS:
                arm = Arm(f"{seed}-{text}-{seconds:g}", sampling, SECONDS, 1000 * seed, seconds)
                write_arm(model, arm, items, folder)
        if not (folder / "reconstruction/index.json").is_file():
            write_recordings(model.codec, given, folder, model.fingerprints["codec"])


def repeated_rows(rows: list[Row], count: int) -> list[Row]:
    """Rows of all labels in turn: a manifest lists label after label."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label or "", []).append(row)
    turns = [list(each) for each in itertools.zip_longest(*by_label.values())]
    flat = [row for turn in turns for row in turn if row is not None]
    return list(itertools.islice(itertools.cycle(flat), count))


def write_real(given: argparse.Namespace, folder: Path) -> None:
    """The held-out recordings and what the codec leaves of them, or training recordings, which thresholds come from."""
    held_out = given.experiment == "recordings"
    rows = read_manifest(given.windows, "valid" if held_out else "train")
    kinds = ("real", "reconstruction") if held_out else ("real",)
    codec = checkpoint.load(NeuralCodec, given.out / "codec")
    write_recordings(codec, rows, folder, checkpoint.fingerprint(codec), kinds)


def listening(sounds: Path, seed: int) -> list[dict[str, str]]:
    """Some of the sounds for tools/listening_page.py: each class real, reconstructed and generated, and a few pairs."""
    found, items = {}, []
    for role, arm in (
        ("real", "recordings/real"),
        ("reconstruction", "recordings/reconstruction"),
        ("generated", f"guidance/single-{seed}-{setting(BOLD)}"),
        ("without mixing", f"mixing/single-{seed}-across"),
        ("with mixing", f"mixing/mixed-{seed}-across"),
    ):
        if (sounds / arm / "index.json").is_file():
            told = json.loads((sounds / arm / "index.json").read_text(encoding="utf-8"))["sounds"]
            found[role] = {sound["text"]: f"{arm}/{sound['path']}" for sound in reversed(told)}
    for text in sorted(found.get("generated", {})):
        roles = [role for role in ("real", "reconstruction", "generated") if text in found.get(role, {})]
        items += [{"path": found[role][text], "text": text, "role": role} for role in roles]
    for text in list(found.get("with mixing", {}))[:8]:
        roles = [role for role in ("without mixing", "with mixing") if text in found.get(role, {})]
        items += [{"path": found[role][text], "text": text, "role": role} for role in roles]
    return items


EXPERIMENTS = {"guidance": guidance, "mixing": mixing, "prompts": prompts, "wide": wide}


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds of one experiment.")
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "recordings", "calibration", "listen"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--windows", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", default=["single", "mixed"], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=200, help="sounds of each arm, default: %(default)s")
    given = parser.parse_args()
    try:
        rows, folder = read_manifest(given.windows, "valid"), given.out / "sounds" / given.experiment
        if given.experiment == "listen":
            items = listening(given.out / "sounds", given.seeds[0])
            write_bytes(given.out / "sounds" / "listen.json", json.dumps(items, indent=1).encode())
            return
        names = [(kind, seed) for seed in given.seeds for kind in given.kinds]
        models = ((kind, seed, AudioGen.load(given.out / "lm" / f"{kind}-{seed}")) for kind, seed in names)
        if given.experiment in ("recordings", "calibration"):
            write_real(given, folder)
        else:
            EXPERIMENTS[given.experiment](folder, models, rows, given.count)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(folder)


if __name__ == "__main__":
    main()
