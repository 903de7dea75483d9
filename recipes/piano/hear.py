"""Hear the notes in the sounds of an experiment's arms; each arm is heard once.

    python hear.py --judges FOLDER ARM [ARM ...]

runs in the judges' environment, as tools/judge_arms.py does, and writes ARM/notes.json: for each sound the rows of
FOLDER/judges.py's ``notes(path)``: onset and offset in seconds, and pitch as MIDI counts it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from measured import open_judges, write_json


def hear(judges: ModuleType, path: Path) -> list[list[float]]:
    """The notes of a sound in the order of their onsets, to the millisecond."""
    return sorted([round(float(value), 3) for value in note] for note in judges.notes(path))


def hear_arm(judges: ModuleType, arm: Path) -> None:
    """Write the notes of an arm, unless they stand there already."""
    index = json.loads((arm / "index.json").read_text(encoding="utf-8"))
    done, asked = arm / "notes.json", {"settings": index["settings"]}
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["asked"] == asked:
        return
    sounds = [sound | {"notes": hear(judges, arm / sound["path"])} for sound in index["sounds"]]
    write_json(done, {"asked": asked, "sounds": sounds})
    print(f"{arm.name}: {len(sounds)} sounds heard", flush=True)


def main() -> None:
    """Read the command line and hear all arms."""
    parser = argparse.ArgumentParser(description="Hear the notes in the sounds of an experiment's arms.")
    parser.add_argument("arms", type=Path, nargs="+", help="folders with an index.json")
    parser.add_argument("--judges", type=Path, required=True, help="folder with a judges.py")
    given = parser.parse_args()
    try:
        judges = open_judges(given.judges)
        for arm in given.arms:
            hear_arm(judges, arm)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
