"""Write the sounds of the experiment: what follows a few seconds of speakers whom no model has heard.

    python experiment.py voices --out build/audiolm_speech --recordings build/audiolm_speech/recordings.jsonl

takes the models OUT/audiolm-SEED and OUT/lm/only-SEED and writes OUT/sounds/voices/ARM/*.flac with an index.json each
(tools/sound_arms.py); what stands there already is kept. ``recordings`` writes the real sounds, and what the codec
leaves of them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from sound_arms import Arm, Item, Wordless, write_arm, write_recordings

from audiolm_kit import AudioGen, AudioLM, NeuralCodec, Sampling, StageSampling, checkpoint
from audiolm_kit.data.manifest import Row, read_manifest

PROMPT, SECONDS = 3.0, 6.0
"""Seconds that are given, and of the whole."""


def asked(rows: list[Row], count: int) -> list[Row]:
    """The beginnings of recordings that are long enough, speakers in turn; the speaker is the label."""
    by_speaker: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.path):
        if row.duration >= SECONDS and row.speaker:
            cut = replace(row, duration=SECONDS, label=row.speaker)
            by_speaker.setdefault(row.speaker, []).append(cut)
    if len(by_speaker) < 2:
        raise ValueError(f"{len(by_speaker)} speakers have held-out recordings of {SECONDS:g} s: at least 2 are wanted")
    turns = itertools.zip_longest(*(by_speaker[name] for name in sorted(by_speaker)))
    return [row for turn in turns for row in turn if row is not None][:count]


def voices(out: Path, rows: list[Row], seeds: list[int]) -> None:
    """The same prompts continued by each model."""
    items = [Item(Path(row.path).name, (row.label or "",), row) for row in rows]
    alone = Sampling(temperature=StageSampling().acoustic.temperature, guidance_scale=1.0)
    for seed in seeds:
        audiolm, only = AudioLM.load(out / f"audiolm-{seed}"), AudioGen.load(out / "lm" / f"only-{seed}")
        for name, model, sampling in (("audiolm", audiolm, StageSampling()), ("only", only, alone)):
            arm = Arm(f"{name}-{seed}", sampling, SECONDS, 1000 * seed, PROMPT)
            write_arm(Wordless(model), arm, items, out / "sounds" / "voices")


def recordings(out: Path, rows: list[Row]) -> None:
    """The same beginnings as they are, and what the codec leaves of them."""
    codec = checkpoint.load(NeuralCodec, out / "codec").eval()
    write_recordings(codec, rows, out / "sounds" / "recordings", checkpoint.fingerprint(codec))


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds of the experiment.")
    parser.add_argument("experiment", choices=["voices", "recordings"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--recordings", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=60, help="prompts at most, default: %(default)s")
    given = parser.parse_args()
    try:
        rows = asked(read_manifest(given.recordings, "valid"), given.count)
        if given.experiment == "recordings":
            recordings(given.out, rows)
        else:
            voices(given.out, rows, given.seeds)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
