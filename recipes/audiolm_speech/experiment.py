"""Write the sounds of the experiment: what follows a few seconds of speakers whom no model has heard.

python experiment.py voices --out build/audiolm_speech --recordings build/audiolm_speech/recordings.jsonl
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from continuations import Experiment, main

from audiolm_kit.data.manifest import Row

SECONDS = 6.0


def beginning(row: Row) -> list[Row]:
    """That of a recording that is long enough; the speaker is the label."""
    known = row.speaker and row.duration >= SECONDS
    return [replace(row, duration=SECONDS, label=row.speaker)] if known else []


VOICES = Experiment("voices", "speakers", prompt=3.0, seconds=SECONDS, count=60, windows=beginning)

if __name__ == "__main__":
    main(VOICES)
