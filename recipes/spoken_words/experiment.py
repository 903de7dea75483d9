"""Write the sounds that are judged: digits or command words, real, through the codec, and said by each model.

    python experiment.py digits --out build/spoken_words --windows build/spoken_words/windows.jsonl

takes the models OUT/lm/spoken-SEED and OUT/scorer and writes OUT/sounds/digits/ARM/*.flac with an index.json each
(tools/sound_arms.py); what stands there already is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from sound_arms import asked_of, bringing, write_recordings, write_takes

from audiolm_kit import AudioGen, NeuralCodec, checkpoint
from audiolm_kit.data.layouts import DIGITS
from audiolm_kit.data.manifest import Row, read_manifest

SECONDS = 0.8


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    """Those of ``digits``, or of the other ``words``.

    Raises:
        ValueError: there are none.
    """
    found = [row for row in rows if row.caption and (row.label in DIGITS) == (kind == "digits")]
    if not found:
        raise ValueError(f"no held-out recording is of {kind}: give a manifest with label, caption and split of both")
    return found


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds that are judged.")
    parser.add_argument("kind", choices=["digits", "words"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--windows", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=250, help="sounds of each arm, default: %(default)s")
    given = parser.parse_args()
    try:
        rows = of_kind(read_manifest(given.windows, "valid"), given.kind)
        folder = given.out / "sounds" / given.kind
        codec = checkpoint.load(NeuralCodec, given.out / "codec").eval()
        write_recordings(codec, rows, folder, checkpoint.fingerprint(codec))
        for seed in given.seeds:
            model = bringing(AudioGen.load(given.out / "lm" / f"spoken-{seed}"), given.out / "scorer")
            write_takes(model, f"spoken-{seed}", asked_of(rows, given.count), folder, SECONDS, 1000 * seed)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
