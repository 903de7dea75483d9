"""Count how near continuations come to the real ones in pitches and rhythm, as the JSON that README.md shows.

    python results.py continuations --judges FOLDER --sounds build/piano/sounds -o results/continuations.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from measured import Entry, row, score, score_of_models
from music import STATISTICS, chroma, chroma_distance, rhythm, rhythm_distance
from verdicts import count, differences, prompted, read_arms

PROMPT, SECONDS = 4.0, 20.0
"""Seconds that were given, and of the whole (experiment.py)."""
WHAT = {"audiolm": "AudioLM", "free": "AudioLM without guidance", "only": "acoustic codes alone"}
Distance = Callable[[np.ndarray, np.ndarray], float]


class Played(NamedTuple):
    """What follows the prompts of one arm."""

    chromas: np.ndarray  # [N, 12]
    rhythms: np.ndarray  # [N, 3]
    labels: list[str]
    """The pieces."""


def heard(arm: Path) -> Played:
    """One arm, judged."""
    sounds = json.loads((arm / "notes.json").read_text(encoding="utf-8"))["sounds"]
    notes = [np.array(sound["notes"], float).reshape(-1, 3) for sound in sounds]
    chromas = np.stack([chroma(each, PROMPT, SECONDS) for each in notes])
    rhythms = np.stack([rhythm(each, PROMPT, SECONDS) for each in notes])
    return Played(chromas, rhythms, [sound["labels"][0] for sound in sounds])


def apart(distance: Distance, real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """How far each continuation is from the real one of its prompt, [N]."""
    return np.array([distance(a, b) for a, b in zip(real, made, strict=True)])


def astray(distance: Distance, real: np.ndarray, pieces: list[str]) -> np.ndarray:
    """How far each real continuation is from those of other pieces, in the mean, [N]."""
    names = np.array(pieces)
    return np.array([np.mean([distance(real[i], b) for b in real[names != names[i]]]) for i in range(len(real))])


def continuations(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Distances from the real continuations: of the codec, of other pieces, and of the models; and plain statistics."""
    real, remade = (heard(sounds / "recordings" / name) for name in ("real", "reconstruction"))
    folder = sounds / "continuations"
    found = {name: prompted(read_arms(folder, f"{name}-*", "notes.json", heard), real) for name in WHAT}
    spread = real.rhythms.std(0).clip(1e-6)

    def rhythms_apart(a: np.ndarray, b: np.ndarray) -> float:
        return rhythm_distance(a, b, spread)

    measures: dict[str, tuple[str, Distance]] = {
        "pitch classes": ("chromas", chroma_distance),
        "onsets": ("rhythms", rhythms_apart),
    }
    rows = []
    for what, (field, distance) in measures.items():
        truth, pieces = getattr(real, field), real.labels
        rows.append(
            plain(f"{what}: its codec reconstruction (ceiling)", apart(distance, truth, getattr(remade, field)))
        )
        rows.append(plain(f"{what}: real continuations in other pieces (floor)", astray(distance, truth, pieces)))
        far = {name: [apart(distance, truth, getattr(arm, field)) for arm in each] for name, each in found.items()}
        rows += [row(f"{what}: {WHAT[name]}", score_of_models(each), percent=False) for name, each in far.items()]
        for name in ("audiolm", "free"):
            nearer = score_of_models(differences(far[name], far["only"]))
            if name == "audiolm":
                nearer["rule"] = {"wanted": "interval above 0", "passed": nearer["interval"][0] > 0}
            said = f"{what}: how much nearer {WHAT[name]} is than acoustic codes alone"
            rows.append(row(said, nearer, percent=False))
    for place, name in enumerate(STATISTICS):
        rows.append(plain(f"{name}: real continuations", real.rhythms[:, place]))
        for arm, each in found.items():
            values = score_of_models([one.rhythms[:, place] for one in each])
            rows.append(row(f"{name}: {WHAT[arm]}", values, percent=False))
    return rows


def plain(what: str, values: np.ndarray) -> Entry:
    """A row of recordings, which no seed has made."""
    return row(what, score(values), percent=False)


if __name__ == "__main__":
    count({"continuations": continuations})
