"""The table of a guidance experiment: adherence under each scale, and its price (in the judges' environment)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
from measured import Entry, diversity, row, ruled, score, score_of_models
from verdicts import Heard, arms, differences, floor, heard, plain, rights

GAIN = 0.05
"""How many points guidance 3 has to add to guidance 1."""


def guidance_table(judges: ModuleType, sounds: Path, prefix: str, what: str, share: float) -> list[Entry]:
    """Adherence, diversity and distance to real sounds of the arms ``guidance/PREFIX-SEED-scale-SCALE``.

    Args:
        sounds: has ``recordings/real`` and ``recordings/reconstruction`` too, the ceilings.
        what: is heard, for the table: "digit" or "event".
        share: of the reconstructions' score that the best scale has to reach.
    """
    real, remade = (heard(sounds / "recordings" / kind) for kind in ("real", "reconstruction"))
    names = {path.name.rpartition("-")[2] for path in (sounds / "guidance").glob(f"{prefix}-*-scale-*")}
    by_scale = {
        scale: arms(sounds / "guidance", f"{prefix}-*-scale-{scale}")
        for scale in sorted(names, key=lambda name: float(name))
    }
    rows = [
        row(f"{what} heard: real `valid` recordings (ceiling)", score(real.right())),
        row(f"{what} heard: their codec reconstructions (ceiling)", score(remade.right())),
    ]
    scores = {scale: score_of_models(rights(found)) for scale, found in by_scale.items()}
    best = max(scores, key=lambda scale: scores[scale]["value"])
    reached = scores[best]["value"] / remade.right().mean()
    scores[best]["rule"] = ruled(f"at least {100 * share:.0f} % of the reconstruction", reached, reached >= share)
    rows += [row(f"{what} heard: guidance {scale}", found) for scale, found in scores.items()]
    gain = score_of_models(differences(rights(by_scale["1"]), rights(by_scale["3"])))
    gain["rule"] = ruled(f"at least {100 * GAIN:.0f} points", gain["value"], gain["value"] >= GAIN)
    rows.append(row("gain: guidance 3 less guidance 1, same captions and seeds", gain))
    rows.append(row("guidance 3 against shuffled captions (floor)", floor(by_scale["3"])))
    return rows + price(judges, real, remade, by_scale)


def price(judges: ModuleType, real: Heard, remade: Heard, by_scale: dict[str, list[Heard]]) -> list[Entry]:
    """Diversity and kernel audio distance of each scale, means over the models."""
    rows = [plain("diversity within a class: real recordings", diversity(real.vectors, real.groups()))]
    for scale, found in by_scale.items():
        each = [diversity(arm.vectors, arm.groups()) for arm in found]
        rows.append(plain(f"diversity within a class: guidance {scale}", np.mean(each)))
    rows.append(plain("KAD to the real recordings: reconstructions", judges.kad(real.vectors, remade.vectors)))
    for scale, found in by_scale.items():
        each = [judges.kad(real.vectors, arm.vectors) for arm in found]
        rows.append(plain(f"KAD to the real recordings: guidance {scale}", np.mean(each)))
    return rows
