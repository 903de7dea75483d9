"""Count what the judges heard of digits and command words, and write it as the JSON that README.md shows as a table.

    python results.py words --judges FOLDER --sounds build/spoken_words/sounds -o results/words.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from guidance_table import takes_table
from measured import Entry
from verdicts import count

SPEAKS = 0.95
"""Of the published model's digits, what has to be heard right."""


def words(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Digits and command words heard, real, through the codec and said by the models."""
    digits = takes_table(judges, sounds / "digits", "spoken", "digit", SPEAKS)
    return [*digits, *takes_table(judges, sounds / "words", "spoken", "word")]


if __name__ == "__main__":
    count({"words": words})
