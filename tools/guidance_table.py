"""The table of a guidance experiment: adherence under each scale, and its price (in the judges' environment)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
from measured import Entry, diversity, row, ruled, score, score_of_models
from verdicts import Heard, arms, differences, floor, heard, plain, rights

GAIN = 0.05
"""How many points guidance 3 has to add to guidance 1."""
CHOOSERS = {"": "the model itself", "scorer": "its scorer"}
"""Who chooses among takes."""


def guidance_table(judges: ModuleType, sounds: Path, prefix: str, what: str, share: float) -> list[Entry]:
    """Adherence, diversity and distance to real sounds of the arms ``guidance/PREFIX-SEED-scale-SETTING``.

    A setting is a scale, as 3, with a temperature, as 3-temperature-0.8, and with takes, as 3-temperature-0.8-takes-4
    or 3-temperature-0.8-takes-4-scorer (``sound_arms.setting``).

    Args:
        sounds: has ``recordings/real`` and ``recordings/reconstruction`` too, the ceilings.
        what: is heard, for the table: "digit" or "event".
        share: of the reconstructions' score that the best setting has to reach.
    """
    real, remade = (heard(sounds / "recordings" / kind) for kind in ("real", "reconstruction"))
    names = {path.name.partition("-scale-")[2] for path in (sounds / "guidance").glob(f"{prefix}-*-scale-*")}
    found = {name: arms(sounds / "guidance", f"{prefix}-*-scale-{name}") for name in sorted(names, key=numbers)}
    rows = [
        row(f"{what} heard: real `valid` recordings (ceiling)", score(real.right())),
        row(f"{what} heard: their codec reconstructions (ceiling)", score(remade.right())),
    ]
    scores = {name: score_of_models(rights(models)) for name, models in found.items()}
    best = max(scores, key=lambda name: scores[name]["value"])
    reached = scores[best]["value"] / remade.right().mean()
    scores[best]["rule"] = ruled(f"at least {100 * share:.0f} % of the reconstruction", reached, reached >= share)
    rows += [row(f"{what} heard: {told(name)}", scored) for name, scored in scores.items()]
    gain = score_of_models(differences(rights(found["1"]), rights(found["3"])))
    gain["rule"] = ruled(f"at least {100 * GAIN:.0f} points", gain["value"], gain["value"] >= GAIN)
    rows.append(row("gain: guidance 3 less guidance 1, same captions and seeds", gain))
    rows.append(row("guidance 3 against shuffled captions (floor)", floor(found["3"])))
    return rows + price(judges, real, remade, found)


SINGLE = "3-temperature-0.8"
"""One take of each text."""
BEST = {takes: f"{SINGLE}-takes-{takes}-scorer" for takes in (4, 8)}
"""The best of several by the scorer."""
ASKED = 8
"""As many takes does a published model make in `make demo`."""


def takes_table(
    judges: ModuleType,
    folder: Path,
    prefix: str,
    what: str,
    share: float | None = None,
    seed: int = 0,
    setting: str = BEST[ASKED],
) -> list[Entry]:
    """One take of each text and the best of several by the scorer, of the models ``PREFIX-SEED``: what is published.

    Args:
        folder: has ``real`` and ``reconstruction`` too, the ceilings (``sound_arms.write_takes``).
        what: is heard, for the table: "digit", "word" or "event".
        share: of the published model's sounds that has to be heard right, if any.
        seed: of the published model, and ``setting`` how it is asked.
    """
    real, remade = (heard(folder / name) for name in ("real", "reconstruction"))
    found = {name: arms(folder, f"{prefix}-*-scale-{name}") for name in (SINGLE, *BEST.values())}
    rows = [
        row(f"{what} heard: real `valid` recordings (ceiling)", score(real.right())),
        row(f"{what} heard: their codec reconstructions (ceiling)", score(remade.right())),
        *(row(f"{what} heard: {told(name)}", score_of_models(rights(models))) for name, models in found.items()),
        row(f"{what} heard: against shuffled captions, {told(setting)} (floor)", floor(found[setting])),
        published(folder / f"{prefix}-{seed}-scale-{setting}", what, share, seed),
    ]
    return rows + price(judges, real, remade, found, what, f"{what}s: ")


def published(arm: Path, what: str, share: float | None, seed: int = 0) -> Entry:
    """The row of the model that comes with the package, and the share of its sounds that have to be heard right."""
    scored = score(heard(arm).right())
    if share is not None:
        scored["rule"] = ruled(f"at least {100 * share:.0f} %", scored["value"], scored["value"] >= share)
    return row(f"{what} heard: the model of seed {seed}, which is published, as `make demo` asks it", scored)


def numbers(name: str) -> tuple[float, int, str, float]:
    """A setting's temperature, takes, who chooses and scale: by these they are sorted, the usual temperature first."""
    rest, _, takes = name.partition("-takes-")
    count, _, chooser = takes.partition("-")
    scale, _, temperature = rest.partition("-temperature-")
    return -float(temperature or 1), int(count or 1), chooser, float(scale)


def told(name: str) -> str:
    """A setting as the table says it."""
    rest, _, takes = name.partition("-takes-")
    count, _, chooser = takes.partition("-")
    best = f"the best of {count} takes by {CHOOSERS[chooser]}, " if takes else ""
    return f"{best}guidance {rest.replace('-temperature-', ', temperature ')}"


def price(
    judges: ModuleType, real: Heard, remade: Heard, found: dict[str, list[Heard]], group: str = "class", of: str = ""
) -> list[Entry]:
    """Diversity and kernel audio distance of each setting, means over the models.

    Args:
        group: what the sounds of one label are, for the table.
        of: put before the rows of distances, where a table has several kinds of sounds.
    """
    article = "an" if group[0] in "aeiou" else "a"
    varied, far = f"diversity within {article} {group}", f"{of}KAD to the real recordings"
    rows = [plain(f"{varied}: real recordings", diversity(real.vectors, real.groups()))]
    for name, models in found.items():
        each = [diversity(arm.vectors, arm.groups()) for arm in models]
        rows.append(plain(f"{varied}: {told(name)}", float(np.mean(each))))
    rows.append(plain(f"{far}: reconstructions", judges.kad(real.vectors, remade.vectors)))
    for name, models in found.items():
        each = [judges.kad(real.vectors, arm.vectors) for arm in models]
        rows.append(plain(f"{far}: {told(name)}", float(np.mean(each))))
    return rows
