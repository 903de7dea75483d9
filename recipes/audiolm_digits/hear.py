"""Hear who speaks in the sounds of an experiment's arms; each arm is heard once.

    python hear.py --judges FOLDER ARM [ARM ...]

runs in the judges' environment, as tools/judge_arms.py does, and writes ARM/voices.npy: for each sound a vector of its
voice, from the second on that the index names (``from``), and ARM/voices.json. FOLDER/judges.py has ``load16(path)``
(mono samples at 16 kHz) and ``speaker(samples)`` (a vector; the more alike two voices, the higher their dot product).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from measured import open_judges, write_json

SAMPLE_RATE = 16000
LEVEL = 0.05
"""Root mean square that every sound is heard at: how loud somebody speaks is not who."""
VECTORS = "voices.npy"


def hear(judges: ModuleType, path: Path, start: float) -> np.ndarray:
    """The voice of a sound from ``start`` seconds on, [D]; of a silent one nothing, [0]."""
    audio = judges.load16(path)[round(start * SAMPLE_RATE) :]
    level = float(np.sqrt(np.mean(audio**2))) if len(audio) else 0.0
    if level == 0:
        return np.zeros(0, np.float32)
    return np.nan_to_num(judges.speaker((audio * (LEVEL / level)).astype(np.float32)))


def hear_arm(judges: ModuleType, arm: Path) -> None:
    """Write the voices of an arm, unless they stand there already."""
    index = json.loads((arm / "index.json").read_text(encoding="utf-8"))
    done, asked = arm / "voices.json", {"settings": index["settings"], "level": LEVEL}
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["asked"] == asked:
        return
    found = [hear(judges, arm / sound["path"], sound.get("from", 0.0)) for sound in index["sounds"]]
    np.save(arm / VECTORS, even(found))
    write_json(done, {"asked": asked, "speakers": [sound["labels"][0] for sound in index["sounds"]]})
    print(f"{arm.name}: {len(found)} voices heard", flush=True)


def even(vectors: list[np.ndarray]) -> np.ndarray:
    """Vectors as rows of one array [N, D]; those of silent sounds are zeros."""
    width = max(len(each) for each in vectors)
    return np.stack([each if len(each) else np.zeros(width) for each in vectors]).astype(np.float32)


def main() -> None:
    """Read the command line and hear all arms."""
    parser = argparse.ArgumentParser(description="Hear who speaks in the sounds of an experiment's arms.")
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
