"""Count how alike voices are before and behind the end of a prompt, and write it as the JSON that README.md shows.

    python results.py voices --judges FOLDER --sounds build/audiolm_speech/sounds -o results/voices.json

runs in the judges' environment, after hear.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from measured import Entry, row, score, score_of_models
from verdicts import count, differences

WHAT = {"audiolm": "AudioLM", "only": "acoustic codes alone"}


class Voices(NamedTuple):
    """The voices of one arm."""

    before: np.ndarray  # [N, D], of length 1
    behind: np.ndarray  # [N, D]
    speakers: list[str]


def heard(arm: Path) -> Voices:
    """One arm, judged."""
    told = json.loads((arm / "voices.json").read_text(encoding="utf-8"))["sounds"]
    both = np.load(arm / "voices.npy").astype(float)
    return Voices(both[:, 0], both[:, 1], [sound["labels"][0] for sound in told])


def own(prompts: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """How like each prompt what follows it is, [N]."""
    return (prompts * behind).sum(1)


def others(prompts: np.ndarray, behind: np.ndarray, speakers: list[str], same: bool) -> np.ndarray:
    """How like each prompt what follows other prompts is, in the mean over those of its own speaker or of all others.

    A prompt without such others is not counted: at most [N].
    """
    names, alike = np.array(speakers), prompts @ behind.T
    chosen = (names[:, None] == names) == same
    np.fill_diagonal(chosen, False)
    counted = chosen.any(1)
    return (alike * chosen).sum(1)[counted] / chosen.sum(1)[counted]


def voices(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Whose voice goes on behind the prompt: levels of real recordings, then the models."""
    real, remade = (heard(sounds / "recordings" / name) for name in ("real", "reconstruction"))
    other = others(real.before, real.behind, real.speakers, same=False)
    rows = [
        likeness("real recording, as it goes on (ceiling)", score(own(real.before, real.behind))),
        likeness("its codec reconstruction (ceiling)", score(own(real.before, remade.behind))),
        likeness("another recording of the speaker", score(others(real.before, real.behind, real.speakers, same=True))),
        likeness("recordings of the other speakers (floor)", score(other)),
    ]
    found = {name: arms(sounds / "voices", name, real.speakers) for name in WHAT}
    kept = {name: [own(real.before, arm.behind) for arm in each] for name, each in found.items()}
    for name, what in WHAT.items():
        rows.append(likeness(f"{what}, its continuation", score_of_models(kept[name])))
        strange = [others(real.before, arm.behind, real.speakers, same=False) for arm in found[name]]
        rows.append(likeness(f"{what}, its continuations of other speakers", score_of_models(strange)))
        above = score_of_models([each - other for each in kept[name]])
        if name == "audiolm":
            above["rule"] = {"wanted": "interval above 0", "passed": above["interval"][0] > 0}
        rows.append(likeness(f"{what}, its continuation less real recordings of the other speakers", above))
        apart = score_of_models(differences(strange, kept[name]))
        rows.append(likeness(f"{what}, its continuation less its continuations of other speakers", apart))
    gain = score_of_models(differences(kept["only"], kept["audiolm"]))
    return [*rows, likeness("AudioLM less acoustic codes alone", gain)]


def arms(folder: Path, name: str, speakers: list[str]) -> list[Voices]:
    """The arms of all seeds in their order; they have the prompts of the real recordings."""
    found = [heard(path.parent) for path in sorted(folder.glob(f"{name}-*/voices.json"))]
    if not found:
        raise ValueError(f"{folder} has no arm {name}-SEED: write and judge the sounds first")
    for arm in found:
        if arm.speakers != speakers:
            raise ValueError(f"the arms {name} of {folder} have other prompts than the recordings: write both anew")
    return found


def likeness(what: str, scored: Entry) -> Entry:
    """A row of cosines, which are no shares."""
    return row(f"likeness to the voice of the prompt: {what}", scored, percent=False)


if __name__ == "__main__":
    count({"voices": voices})
