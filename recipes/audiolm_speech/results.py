"""Count how alike voices are before and behind the end of a prompt, and write it as the JSON that README.md shows.

    python results.py voices --judges FOLDER --sounds build/audiolm_speech/sounds -o results/voices.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds. N sounds of
an arm, D dimensions of a voice.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
import verdicts
from measured import Entry, row, score, score_of_models
from verdicts import count, differences, prompted, read_arms

WHAT = {"audiolm": "AudioLM", "only": "acoustic codes alone"}


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
    real, remade = (verdicts.voices(sounds / "recordings" / name) for name in ("real", "reconstruction"))
    other = others(real.before, real.behind, real.labels, same=False)
    rows = [
        likeness("real recording, as it goes on (ceiling)", score(own(real.before, real.behind))),
        likeness("its codec reconstruction (ceiling)", score(own(real.before, remade.behind))),
        likeness("another recording of the speaker", score(others(real.before, real.behind, real.labels, same=True))),
        likeness("recordings of the other speakers (floor)", score(other)),
    ]
    found = {
        name: prompted(read_arms(sounds / "voices", f"{name}-*", "voices.json", verdicts.voices), real) for name in WHAT
    }
    kept = {name: [own(real.before, arm.behind) for arm in each] for name, each in found.items()}
    for name, what in WHAT.items():
        rows.append(likeness(f"{what}, its continuation", score_of_models(kept[name])))
        strange = [others(real.before, arm.behind, real.labels, same=False) for arm in found[name]]
        rows.append(likeness(f"{what}, its continuations of other speakers", score_of_models(strange)))
        above = score_of_models([each - other for each in kept[name]])
        if name == "audiolm":
            above["rule"] = {"wanted": "interval above 0", "passed": above["interval"][0] > 0}
        rows.append(likeness(f"{what}, its continuation less real recordings of the other speakers", above))
        apart = score_of_models(differences(strange, kept[name]))
        rows.append(likeness(f"{what}, its continuation less its continuations of other speakers", apart))
    gain = score_of_models(differences(kept["only"], kept["audiolm"]))
    return [*rows, likeness("AudioLM less acoustic codes alone", gain)]


def likeness(what: str, scored: Entry) -> Entry:
    """A row of cosines, which are no shares."""
    return row(f"likeness to the voice of the prompt: {what}", scored, percent=False)


if __name__ == "__main__":
    count({"voices": voices})
