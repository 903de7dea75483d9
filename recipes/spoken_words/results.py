"""Count what the judges heard of digits and command words, and write it as the JSON that README.md shows as a table.

    python results.py words --judges FOLDER --sounds build/spoken_words/sounds -o results/words.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from guidance_table import published, told
from measured import Entry, diversity, row, score, score_of_models
from verdicts import arms, count, floor, heard, plain, rights

SPEAKS = 0.95
"""Of the published model's digits, what has to be heard right."""
SINGLE = "3-temperature-0.8"
"""One take of each text."""
BEST = {takes: f"{SINGLE}-takes-{takes}-scorer" for takes in (4, 8)}
"""The best of several by the scorer."""
ASKED = 4
"""As many takes does the published model make in `make demo`."""


def words(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Digits and command words heard, real, through the codec and said by the models."""
    return [*kind(judges, sounds / "digits", "digit"), *kind(judges, sounds / "words", "word")]


def kind(judges: ModuleType, folder: Path, what: str) -> list[Entry]:
    """The rows of digits, or of command words: ceilings, models, floor, the published model, variety and distance."""
    real, remade = (heard(folder / name) for name in ("real", "reconstruction"))
    found = {name: arms(folder, f"spoken-*-scale-{name}") for name in (SINGLE, *BEST.values())}
    rows = [
        row(f"{what} heard: real `valid` recordings (ceiling)", score(real.right())),
        row(f"{what} heard: their codec reconstructions (ceiling)", score(remade.right())),
        *(row(f"{what} heard: {told(name)}", score_of_models(rights(models))) for name, models in found.items()),
        row(f"{what} heard: the best of {ASKED} against shuffled captions (floor)", floor(found[BEST[ASKED]])),
        published(folder / f"spoken-0-scale-{BEST[ASKED]}", what, SPEAKS if what == "digit" else None),
        plain(f"diversity within a {what}: real recordings", diversity(real.vectors, real.groups())),
    ]
    for name, models in found.items():
        apart = [diversity(arm.vectors, arm.groups()) for arm in models]
        rows.append(plain(f"diversity within a {what}: {told(name)}", sum(apart) / len(apart)))
    rows.append(
        plain(f"{what}s: KAD to the real recordings: reconstructions", judges.kad(real.vectors, remade.vectors))
    )
    for name, models in found.items():
        distances = [judges.kad(real.vectors, arm.vectors) for arm in models]
        rows.append(plain(f"{what}s: KAD to the real recordings: {told(name)}", sum(distances) / len(distances)))
    return rows


if __name__ == "__main__":
    count({"words": words})
