"""Hear the sounds of an experiment's arms with recognisers that others have trained; each arm is heard once.

    python judge_arms.py --judges FOLDER --judge event ARM [ARM ...]

runs in the judges' environment, not in the project's, and writes into ARM what each sound was heard to be:

- digit, word, event: verdicts.json, and vectors.npy [N, D] (for distances of sets);
- voice: voices.json, and voices.npy [N, 2, D], the voices before and behind the second that the index names (``from``;
  else --from), zeros where nothing is said;
- notes: notes.json, rows of onset and offset in seconds and pitch as MIDI counts it.

FOLDER/judges.py has ``load16(path)`` (mono samples at 16 kHz) and, for digit, word and event, ``yamnet(samples)``
(scores and embeddings [N, ...] of windows); ``digit(samples)`` (the spoken digit as a word; which other word of an
arm's labels is said, word_judge.py hears); ``event_scores(samples)`` (a score for each class); ``speaker(samples)`` (a
vector of length 1; the more alike two voices, the higher their dot product); ``notes(path)``. D dimensions of a vector.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from measured import Entry, open_judges, write_json
from word_judge import word

SAMPLE_RATE = 16000
LEVEL = 0.05
"""Root mean square that every voice is heard at: how loud somebody speaks is not who."""


class Heard(NamedTuple):
    """What is written of one sound."""

    told: Entry
    vectors: list[np.ndarray] | None = None


# --- judges -----------------------------------------------------------------------------------------------------------


def word_or_event(judges: ModuleType, path: Path, sound: Entry, asked: Entry) -> Heard:
    """What a sound (or its last seconds) is heard to be, and its mean embedding."""
    audio = judges.load16(path)
    if asked["last_seconds"]:
        audio = audio[-round(asked["last_seconds"] * SAMPLE_RATE) :]
    said: Any
    if asked["judge"] == "word":
        said = word(audio, asked["words"])
    else:
        said = judges.digit(audio) if asked["judge"] == "digit" else rounded(judges.event_scores(audio))
    return Heard({"heard": said}, [judges.yamnet(audio)[1].mean(0)])


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(score, 5) for name, score in scores.items()}


def voices(judges: ModuleType, path: Path, sound: Entry, asked: Entry) -> Heard:
    """The voice up to the end of the prompt, and the one behind it."""
    begins: float = sound["from"] if "from" in sound else asked["from"]
    audio, cut = judges.load16(path), round(begins * SAMPLE_RATE)
    return Heard({}, [voice(judges, audio[:cut]), voice(judges, audio[cut:])])


def voice(judges: ModuleType, audio: np.ndarray) -> np.ndarray:
    """A voice, [D]; of silence nothing, [0]."""
    level = float(np.sqrt(np.mean(audio**2))) if len(audio) else 0.0
    if level == 0:
        return np.zeros(0, np.float32)
    found: np.ndarray = np.nan_to_num(judges.speaker((audio * (LEVEL / level)).astype(np.float32)))
    return found


def notes(judges: ModuleType, path: Path, sound: Entry, asked: Entry) -> Heard:
    """The notes in the order of their onsets, to the millisecond."""
    return Heard({"notes": sorted([round(float(value), 3) for value in note] for note in judges.notes(path))})


class Ear(NamedTuple):
    """How one judge hears, and where that is written."""

    hear: Callable[[ModuleType, Path, Entry, Entry], Heard]
    """The judges, a sound's file, what the index says of it, and what is asked."""
    verdicts: str
    vectors: str = ""


EARS = {
    "digit": Ear(word_or_event, "verdicts.json", "vectors.npy"),
    "word": Ear(word_or_event, "verdicts.json", "vectors.npy"),
    "event": Ear(word_or_event, "verdicts.json", "vectors.npy"),
    "voice": Ear(voices, "voices.json", "voices.npy"),
    "notes": Ear(notes, "notes.json"),
}


# --- arms -------------------------------------------------------------------------------------------------------------


def judge_arm(judges: ModuleType, arm: Path, asked: Entry) -> None:
    """Write what is heard in an arm, unless that stands there already; ``asked`` has the judge and its options."""
    index, ear = json.loads((arm / "index.json").read_text(encoding="utf-8")), EARS[asked["judge"]]
    done, asked = arm / ear.verdicts, asked | {"settings": index["settings"]}
    if asked["judge"] == "word":
        asked["words"] = sorted({sound["labels"][0] for sound in index["sounds"]})
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["asked"] == asked:
        return
    heard = [ear.hear(judges, arm / sound["path"], sound, asked) for sound in index["sounds"]]
    if ear.vectors:
        found = even([each.vectors or [] for each in heard])
        np.save(arm / ear.vectors, found if asked["judge"] == "voice" else found[:, 0])
    sounds = [sound | each.told for sound, each in zip(index["sounds"], heard, strict=True)]
    write_json(done, {"asked": asked, "sounds": sounds})
    print(f"{arm.name}: {len(sounds)} sounds heard", flush=True)


def even(vectors: list[list[np.ndarray]]) -> np.ndarray:
    """As many vectors for each sound, as one array [N, M, D]; those of nothing are zeros, which are like nobody's."""
    width = max(len(each) for own in vectors for each in own)
    return np.array([[each if len(each) else np.zeros(width) for each in own] for own in vectors], np.float32)


def main() -> None:
    """Read the command line and hear all arms."""
    parser = argparse.ArgumentParser(description="Hear the sounds of an experiment's arms.")
    parser.add_argument("arms", type=Path, nargs="+", help="folders with an index.json")
    parser.add_argument("--judges", type=Path, required=True, help="folder with a judges.py")
    parser.add_argument("--judge", choices=tuple(EARS), required=True)
    parser.add_argument("--last_seconds", type=float, default=0.0, help="hear only the end of each sound; 0 is all")
    parser.add_argument("--from", type=float, default=0.0, help="of voices: the second at which another begins")
    given = vars(parser.parse_args())
    options = {"voice": ("from",), "notes": ()}.get(given["judge"], ("last_seconds",))
    asked = {name: given[name] for name in ("judge", *options)} | ({"level": LEVEL} if "from" in options else {})
    try:
        judges = open_judges(given["judges"])
        for arm in given["arms"]:
            judge_arm(judges, arm, asked)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
