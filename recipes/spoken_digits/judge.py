"""Judge the samples with recognisers that others have trained, and write what they say as JSON.

    python judge.py --judges FOLDER --samples SAMPLES -o results/main.json

runs in the judges' environment, not in the project's. FOLDER/judges.py has three functions: ``load16(path)`` gives mono
samples at 16 kHz, ``digit(samples)`` the spoken digit as a word, ``speaker(samples)`` the voice as a unit vector.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from measured import open_judges, record, ruled, score, shares, write_json

Entry = dict[str, Any]
WANTED = {"reconstruction": ("real", 0.95), "generated": ("reconstruction", 0.90)}
"""Which share of whose score a kind of sound has to reach."""
KEPT = 0.5
"""How far a voice has to stay on the way from another speaker's similarity (0) to the same speaker's (1)."""
DIGITS = {
    "real": "digit heard: real `valid` recordings (ceiling)",
    "reconstruction": "digit heard: their codec reconstructions",
    "generated": "digit heard: generations from their captions",
    "shuffled": "digit heard: the generations against shuffled captions (floor)",
}
VOICES = {
    "continuation": "prompt and its continuation",
    "same_speaker": "prompt and a real string of the same speaker (ceiling)",
    "same_speaker_reconstruction": "prompt and the codec reconstruction of that string",
    "other_speaker": "prompt and a real string of another speaker (floor)",
}
"""What is compared with the prompts, as the table says it."""
FRAME = 800
"""50 ms at 16 kHz: the loudness of a sound is looked at in pieces this long."""
QUIET = 10 ** (-30 / 20)
"""A piece 30 dB below the prompt's loudest one is taken for silence."""
SHORTEST = 4 * FRAME
"""A sound with less of it than 0.2 s is no voice to compare: it counts as silent."""


class Judges(NamedTuple):
    """What is asked of the folder of judges."""

    load: Callable[[Path], np.ndarray]
    digit: Callable[[np.ndarray], str]
    speaker: Callable[[np.ndarray], np.ndarray]


def judges_of(folder: Path) -> Judges:
    """The functions of FOLDER/judges.py."""
    module = open_judges(folder)
    return Judges(module.load16, module.digit, module.speaker)


# --- digits -----------------------------------------------------------------------------------------------------------


def judge_digits(judges: Judges, samples: Path, sounds: dict[str, list[Entry]]) -> Entry:
    """How many digits are heard as they are labelled, in each kind of sound; ``shuffled`` permutes the captions."""
    result, heard = {}, {}
    for kind, entries in sounds.items():
        heard[kind] = [judges.digit(judges.load(samples / entry["path"])) for entry in entries]
        result[kind] = judged_digits(heard[kind], entries)
    generator = np.random.default_rng(0)
    permuted = [sounds["generated"][place] for place in generator.permutation(len(sounds["generated"]))]
    result["shuffled"] = judged_digits(heard["generated"], permuted)
    for kind, (of, wanted) in WANTED.items():
        reached = result[kind]["value"] / max(result[of]["value"], 1e-9)
        result[kind]["rule"] = ruled(f"at least {100 * wanted:.0f} % of the {of}", reached, reached >= wanted)
    return result


def judged_digits(heard: list[str], entries: list[Entry]) -> Entry:
    """The score of one kind, and where it comes from."""
    right = np.array([word == entry["label"] for word, entry in zip(heard, entries, strict=True)])
    by = {f"by_{name}": shares(right, [entry[name] for entry in entries]) for name in ("label", "speaker")}
    return score(right) | {"right": int(right.sum())} | by


# --- voices -----------------------------------------------------------------------------------------------------------


def loudness(audio: np.ndarray) -> np.ndarray:
    """Root mean square of each piece, [L] -> [L / FRAME]."""
    whole = np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)
    return np.sqrt((whole**2).mean(1))


def sounding(audio: np.ndarray, quiet: float) -> np.ndarray:
    """A sound from its first to its last piece that is louder than ``quiet``; empty where none is."""
    loud = np.flatnonzero(loudness(audio) > quiet)
    return audio[loud[0] * FRAME : (loud[-1] + 1) * FRAME] if len(loud) else audio[:0]


def judge_voices(judges: Judges, samples: Path, pairs: list[Entry]) -> Entry:
    """The similarity of prompts with what follows them, and with real strings of the same and of another speaker.

    Silence at both ends is cut off all sounds alike, and a real string is cut to the length of the continuation that
    it stands beside: short sounds are less alike. Pairs with a silent continuation are counted, and in no other row.
    """
    prompts, vectors, kept = [], {kind: [] for kind in VOICES}, []
    for pair in pairs:
        audio = {kind: judges.load(samples / pair[kind]) for kind in ("prompt", *VOICES)}
        prompt_quiet = QUIET * loudness(audio["prompt"]).max()
        continued = sounding(audio["continuation"], prompt_quiet)
        if len(continued) < SHORTEST:
            continue
        kept.append(pair)
        prompts.append(judges.speaker(sounding(audio["prompt"], prompt_quiet)))
        for kind in VOICES:
            quiet = prompt_quiet if kind == "continuation" else QUIET * loudness(audio[kind]).max()
            vectors[kind].append(judges.speaker(sounding(audio[kind], quiet)[: len(continued)]))
    speakers = [pair["speaker"] for pair in kept]
    silent = score([pair not in kept for pair in pairs])
    result: Entry = {"speakers": sorted(set(speakers)), "silence": silent}
    for kind in VOICES:
        similarity = np.array([a @ b for a, b in zip(prompts, vectors[kind], strict=True)])
        named = [pair["other"] for pair in kept] if kind == "other_speaker" else speakers
        found = [nearest(vector, place, prompts, speakers) for place, vector in enumerate(vectors[kind])]
        result[kind] = score(similarity) | {"by_speaker": shares(similarity, speakers)}
        result[kind]["speaker_found"] = score([a == b for a, b in zip(found, named, strict=True)])
    if kept:
        own, same, other = (result[kind]["value"] for kind in ("continuation", "same_speaker", "other_speaker"))
        reached = (own - other) / max(same - other, 1e-9)
        wanted = f"at least {100 * KEPT:.0f} % of the way from floor to ceiling"
        result["continuation"]["rule"] = ruled(wanted, reached, reached >= KEPT)
    return result


def nearest(vector: np.ndarray, place: int, prompts: list[np.ndarray], speakers: list[str]) -> str:
    """The speaker whose mean voice over the prompts, without the one at ``place``, is most like the given one."""
    others = [
        (speaker, prompt) for at, (speaker, prompt) in enumerate(zip(speakers, prompts, strict=True)) if at != place
    ]
    names = sorted({speaker for speaker, _ in others})
    means = [np.mean([prompt for speaker, prompt in others if speaker == name], axis=0) for name in names]
    return names[int(np.argmax([vector @ mean / np.linalg.norm(mean) for mean in means]))] if names else ""


# --- report -----------------------------------------------------------------------------------------------------------


def table(digits: Entry, voices: Entry) -> list[Entry]:
    """The rows of the README's table (tools/results.py)."""
    found = f"right speaker of {len(voices['speakers'])} found"
    rows = [(what, digits[kind], True) for kind, what in DIGITS.items()]
    rows += [(f"voice alike: {what}", voices[kind], False) for kind, what in VOICES.items()]
    rows += [(f"{found}: {what}", voices[kind]["speaker_found"], True) for kind, what in VOICES.items()]
    rows += [("continuations that are silent", voices["silence"], True)]
    keys = ("value", "interval", "count", "rule")
    return [
        {"what": what, "percent": percent} | {key: scored[key] for key in keys if key in scored}
        for what, scored, percent in rows
    ]


def main() -> None:
    """Read the command line, judge and write."""
    parser = argparse.ArgumentParser(description="Judge the samples with recognisers that others have trained.")
    parser.add_argument("--judges", type=Path, required=True, help="folder with a judges.py")
    parser.add_argument("--samples", type=Path, required=True, help="folder that evaluate.py has written")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--times", type=Path, help="folder with the seconds of each stage")
    parser.add_argument("--command", default="", help="how the recipe was run, for the record")
    given = parser.parse_args()
    try:
        judges = judges_of(given.judges)
        index = json.loads((given.samples / "index.json").read_text(encoding="utf-8"))
        digits = judge_digits(judges, given.samples, index["sounds"])
        voices = judge_voices(judges, given.samples, index["pairs"])
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    about = record(given.command, given.times) | {"settings": index["settings"]}
    rows = table(digits, voices)
    write_json(given.output, {"about": about, "table": rows, "digits": digits, "voices": voices})
    print(f"{given.output}: {sum(row['rule']['passed'] for row in rows if 'rule' in row)} of 3 rules are met")


if __name__ == "__main__":
    main()
