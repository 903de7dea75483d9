"""Judge the samples with recognisers that others have trained, and write what they say as JSON.

    python judge.py --judges FOLDER --samples SAMPLES -o results/main.json

runs in the judges' environment, not in the project's. FOLDER/judges.py has three functions: ``load16(path)`` gives mono
samples at 16 kHz, ``digit(samples)`` the spoken digit as a word, ``speaker(samples)`` the voice as a unit vector.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Entry = dict[str, Any]
WANTED = {"reconstruction": ("real", 0.95), "generated": ("reconstruction", 0.90)}
"""What has to reach which share of what."""
FRAME = 800
"""50 ms at 16 kHz: the loudness of a sound is looked at in pieces this long."""
QUIET = 10 ** (-30 / 20)
"""A piece 30 dB below the prompt's loudest one is taken for silence."""
SHORTEST = 4 * FRAME
"""A sound with less of it than 0.2 s is no voice to compare: it counts as silent."""
VOICES = ("continuation", "same_speaker", "same_speaker_reconstruction", "other_speaker")


class Judges(NamedTuple):
    """What is asked of the folder of judges."""

    load: Callable[[Path], np.ndarray]
    digit: Callable[[np.ndarray], str]
    speaker: Callable[[np.ndarray], np.ndarray]


def open_judges(folder: Path) -> Judges:
    """The functions of FOLDER/judges.py."""
    file = folder / "judges.py"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: give a folder with a judges.py (see README.md)")
    spec = importlib.util.spec_from_file_location("judges", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["judges"] = module
    spec.loader.exec_module(module)
    return Judges(module.load16, module.digit, module.speaker)


# --- numbers ----------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray, draws: int = 2000) -> list[float]:
    """The middle 95 % of the means of so many samples drawn from the values with replacement."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (draws, len(values)))].mean(1)
    return [round(float(edge), 4) for edge in np.quantile(means, (0.025, 0.975))]


def score(values: list[float] | np.ndarray) -> Entry:
    """A mean, its interval and how many values are behind it."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return {"value": None, "interval": None, "count": 0}
    return {"value": round(float(values.mean()), 4), "interval": interval(values), "count": len(values)}


def shares(right: np.ndarray, groups: list[str]) -> dict[str, float]:
    """The share of right answers in each group."""
    names = np.array(groups)
    return {name: round(float(right[names == name].mean()), 4) for name in sorted(set(groups))}


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

    Silence at both ends is cut off all sounds alike, and a real string is cut to the length of the continuation that it
    stands beside: short sounds are less alike. Pairs whose continuation is silent are counted and left out of every row.
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
    result: Entry = {"pairs": len(pairs), "silent": len(pairs) - len(kept)}
    for kind in VOICES:
        similarity = np.array([a @ b for a, b in zip(prompts, vectors[kind], strict=True)])
        named = [pair["other"] for pair in kept] if kind == "other_speaker" else speakers
        found = [nearest(vector, place, prompts, speakers) for place, vector in enumerate(vectors[kind])]
        result[kind] = score(similarity) | {"by_speaker": shares(similarity, speakers)}
        result[kind]["speaker_found"] = score([a == b for a, b in zip(found, named, strict=True)])
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


def rules(digits: Entry, voices: Entry) -> list[Entry]:
    """What was wanted, what came out, and whether that is enough."""
    found = []
    for kind, (of, wanted) in WANTED.items():
        ratio = round(digits[kind]["value"] / max(digits[of]["value"], 1e-9), 4)
        found.append({"rule": f"{kind} / {of}", "value": ratio, "wanted": wanted, "passed": ratio >= wanted})
    same, other, own = (voices[kind]["value"] for kind in ("same_speaker", "other_speaker", "continuation"))
    if own is not None:
        kept = round((own - other) / max(same - other, 1e-9), 4)
        found.append(
            {
                "rule": "voice kept (0 other speaker, 1 same speaker)",
                "value": kept,
                "wanted": 0.5,
                "passed": kept >= 0.5,
            }
        )
    return found


def table(digits: Entry, voices: Entry, checked: list[Entry]) -> list[Entry]:
    """The rows of the README's table (tools/results_table.py)."""
    share = {rule["rule"].split(" / ")[0]: rule for rule in checked}
    names = {
        "real": "real `valid` recordings (ceiling)",
        "reconstruction": "their codec reconstructions",
        "generated": "generations from their captions",
        "shuffled": "the same against shuffled captions (floor)",
    }
    rows = []
    for kind, name in names.items():
        row = {"what": f"digit heard: {name}", "percent": True} | {
            key: digits[kind][key] for key in ("value", "interval", "count")
        }
        if kind in share:
            rule = share[kind]
            row |= {
                "wanted": f"{rule['wanted']:.0%} of {WANTED[kind][0]}",
                "reached": f"{rule['value']:.1%}",
                "passed": rule["passed"],
            }
        rows.append(row)
    names = {
        "continuation": "prompt and its continuation",
        "same_speaker": "prompt and a real string of the same speaker (ceiling)",
        "same_speaker_reconstruction": "prompt and that string's codec reconstruction",
        "other_speaker": "prompt and a real string of another speaker (floor)",
    }
    for kind, name in names.items():
        rows.append(
            {"what": f"voice alike: {name}", "percent": False}
            | {key: voices[kind][key] for key in ("value", "interval", "count")}
        )
    for rule in checked[len(WANTED) :]:
        rows[len(digits)] |= {
            "wanted": f"{rule['wanted']:.0%} of the way from floor to ceiling",
            "reached": f"{rule['value']:.1%}",
            "passed": rule["passed"],
        }
    for kind, name in names.items():
        rows.append({"what": f"own speaker found: {name}", "percent": True} | voices[kind]["speaker_found"])
    rows.append(
        {
            "what": "continuations that are silent",
            "percent": True,
            "value": voices["silent"] / max(1, voices["pairs"]),
            "count": voices["pairs"],
        }
    )
    return rows
