"""Write the sounds of the experiment: what follows four seconds of pieces that no model has heard.

python experiment.py continuations --out build/piano --recordings build/piano/whole.jsonl
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from continuations import Experiment, main

from audiolm_kit import Sampling, StageSampling
from audiolm_kit.data.manifest import Row

SECONDS = 20.0


def side_by_side(row: Row) -> list[Row]:
    """Windows of a recording one behind the other; the piece, else the file's name, is the label."""
    piece = str(row.extra.get("piece") or Path(row.path).stem)
    starts = [round(row.start + number * SECONDS, 6) for number in range(int(round(row.duration / SECONDS, 6)))]
    return [replace(row, start=start, duration=SECONDS, label=piece) for start in starts]


# As the models have it: at the lower temperatures of speech, little models of music stay on one chord. Acoustic codes
# are led to what semantic ones say, by as much as in audiolm_digits.
SAMPLING = StageSampling.of(Sampling(prefix_guidance_scale=2.0), semantic=1.0, acoustic=1.0)
CONTINUATIONS = Experiment("continuations", "pieces", 4.0, SECONDS, 21, side_by_side, SAMPLING)

if __name__ == "__main__":
    main(CONTINUATIONS)
