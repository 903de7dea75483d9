"""Hear whose voice is in the sounds of an experiment's arms, before and behind the end of the prompt; each arm once.

    python hear.py --judges FOLDER ARM [ARM ...]

runs in the judges' environment, as tools/judge_arms.py does, and writes ARM/voices.npy, two vectors for each sound
[N, 2, D], and ARM/voices.json. FOLDER/judges.py has ``load16(path)`` (mono samples at 16 kHz) and ``speaker(samples)``
(a vector of length 1; the more alike two voices, the higher their dot product).
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
PROMPT = 3.0
"""Seconds that were given (experiment.py)."""
LEVEL = 0.05
"""Root mean square that every sound is heard at: how loud somebody speaks is not who."""
VECTORS = "voices.npy"


def hear(judges: ModuleType, audio: np.ndarray) -> np.ndarray:
    """A voice, [D]; of silence nothing, [0]."""
    level = float(np.sqrt(np.mean(audio**2))) if len(audio) else 0.0
    if level == 0:
        return np.zeros(0, np.float32)
    return np.nan_to_num(judges.speaker((audio * (LEVEL / level)).astype(np.float32)))


def hear_both(judges: ModuleType, path: Path) -> list[np.ndarray]:
    """The voice up to the end of the prompt, and the one behind it."""
    audio, cut = judges.load16(path), round(PROMPT * SAMPLE_RATE)
    return [hear(judges, audio[:cut]), hear(judges, audio[cut:])]


def hear_arm(judges: ModuleType, arm: Path) -> None:
    """Write the voices of an arm, unless they stand there already."""
    index = json.loads((arm / "index.json").read_text(encoding="utf-8"))
    done, asked = arm / "voices.json", {"settings": index["settings"], "prompt": PROMPT, "level": LEVEL}
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["asked"] == asked:
        return
    found = [hear_both(judges, arm / sound["path"]) for sound in index["sounds"]]
    np.save(arm / VECTORS, even(found))
    write_json(done, {"asked": asked, "sounds": index["sounds"]})
    print(f"{arm.name}: {len(found)} sounds heard", flush=True)


def even(pairs: list[list[np.ndarray]]) -> np.ndarray:
    """Pairs of vectors as one array [N, 2, D]; those of silence are zeros, which are like nobody's."""
    width = max(len(each) for pair in pairs for each in pair)
    return np.array([[each if len(each) else np.zeros(width) for each in pair] for pair in pairs], np.float32)


def main() -> None:
    """Read the command line and hear all arms."""
    parser = argparse.ArgumentParser(description="Hear whose voice is in the sounds of an experiment's arms.")
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
