"""Hear the sounds of an experiment's arms with recognisers that others have trained; each arm is heard once.

    python judge_arms.py --judges FOLDER --judge event ARM [ARM ...]

runs in the judges' environment, not in the project's, and writes ARM/verdicts.json: for each sound what was heard, and
a vector (for distances of sets). FOLDER/judges.py has ``load16(path)`` (mono samples at 16 kHz), ``yamnet(samples)``
(scores and embeddings [N, ...] of windows), and for --judge event ``event_scores(samples)`` (a score for each class),
for --judge digit ``digit(samples)`` (the spoken digit as a word).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from measured import open_judges, write_json

SAMPLE_RATE = 16000
VECTORS = "vectors.npy"


def hear(judges: ModuleType, judge: str, path: Path, last_seconds: float) -> tuple[Any, np.ndarray]:
    """What one judge says about a sound (or its last seconds), and the sound's mean embedding."""
    audio = judges.load16(path)
    if last_seconds:
        audio = audio[-round(last_seconds * SAMPLE_RATE) :]
    said = judges.digit(audio) if judge == "digit" else rounded(judges.event_scores(audio))
    return said, judges.yamnet(audio)[1].mean(0)


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(score, 5) for name, score in scores.items()}


def judge_arm(judges: ModuleType, judge: str, arm: Path, last_seconds: float) -> None:
    """Write what is heard in an arm, unless that stands there already."""
    index = json.loads((arm / "index.json").read_text(encoding="utf-8"))
    asked = {"judge": judge, "last_seconds": last_seconds, "settings": index["settings"]}
    done = arm / "verdicts.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["asked"] == asked:
        return
    heard = [hear(judges, judge, arm / sound["path"], last_seconds) for sound in index["sounds"]]
    np.save(arm / VECTORS, np.stack([vector for _, vector in heard]).astype(np.float32))
    sounds = [sound | {"heard": said} for sound, (said, _) in zip(index["sounds"], heard, strict=True)]
    write_json(done, {"asked": asked, "sounds": sounds})
    print(f"{arm.name}: {len(sounds)} sounds heard", flush=True)


def main() -> None:
    """Read the command line and hear all arms."""
    parser = argparse.ArgumentParser(description="Hear the sounds of an experiment's arms.")
    parser.add_argument("arms", type=Path, nargs="+", help="folders with an index.json")
    parser.add_argument("--judges", type=Path, required=True, help="folder with a judges.py")
    parser.add_argument("--judge", choices=("digit", "event"), required=True)
    parser.add_argument("--last_seconds", type=float, default=0.0, help="hear only the end of each sound; 0 is all")
    given = parser.parse_args()
    try:
        judges = open_judges(given.judges)
        for arm in given.arms:
            judge_arm(judges, given.judge, arm, given.last_seconds)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
