"""Count what the judges heard in the arms of an experiment, and write it as the JSON that README.md shows as a table.

    python results.py guidance --judges FOLDER --sounds build/sound_events/sounds -o results/guidance.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from guidance_table import SINGLE, guidance_table, takes_table
from measured import Entry, row, ruled, score, score_of_models
from verdicts import Heard, arms, count, differences, heard, plain, rights

SHARE, LOSS = 0.85, 0.03
"""What is wanted of the best setting beside the codec, and how much mixing may cost."""
SOUNDS = 0.80
"""Of the published model's sounds, what has to be heard right."""
PUBLISHED = 1
"""The seed of the published model: of other draws of the three its sounds were heard most often (README.md)."""
PROMPTED = {
    "none": "no text",
    "same": "the prompt's own text",
    "other": "another class's text",
    "guided": "another class's text, guidance 3",
}


def guidance(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Adherence, diversity and distance to real sounds under each scale, of the models without mixing."""
    return guidance_table(judges, sounds, "single", "event", SHARE)


def wide(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Models of 16 kHz, one take and the best of several; single takes of the model PUBLISHED are what is published."""
    return takes_table(judges, sounds / "wide", "wide", "event", SOUNDS, PUBLISHED, SINGLE)


# --- codecs -----------------------------------------------------------------------------------------------------------

SIZES = {
    "base": "50 frames a second, windows of 40 ms, 64 principal components, 4 codebooks",
    "window-30": "windows of 30 ms instead of 40",
    "frames-25": "25 frames a second instead of 50",
    "dims-24": "24 principal components instead of 64",
    "books-2": "2 codebooks instead of 4",
    "books-8": "8 codebooks instead of 4",
    "rounds-0": "no rounds of Griffin and Lim",
    "both": "windows of 30 ms, 25 frames a second",
    "both-dims-128": "the same, 128 principal components",
    "both-books-3": "the same, 3 codebooks",
    "both-books-6": "the same, 6 codebooks",
    "noise": "25 frames a second, noise drawn where codes leave it out",
    "noise-50": "noise drawn, 50 frames a second",
    "noise-books-8": "noise drawn, 50 frames a second, 8 codebooks",
    "frames-25-books-8": "25 frames a second, 8 codebooks",
    "frames-25-drawn": "25 frames a second, a postfilter",
    "frames-25-books-8-drawn": "25 frames a second, 8 codebooks, a postfilter",
    "books-8-drawn": "50 frames a second, 8 codebooks, a postfilter",
    "unquantized": "its components as they are, without codebooks",
}


def codecs(judges: ModuleType, sounds: Path) -> list[Entry]:
    """What codecs of other sizes let through, and what their codes say that could have been foreseen."""
    folder = sounds / "codecs"
    codes = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
    rows = [row("event heard: real `valid` recordings (ceiling)", score(heard(sounds / "recordings/real").right()))]
    base = heard(folder / "base").right()
    for name, what in SIZES.items():
        if (folder / name / "verdicts.json").is_file():
            own = heard(folder / name).right()
            rows.append(row(f"event heard: {what}", score(own)))
            if name != "base":
                rows.append(row(f"less the first codec: {what}", score(own - base)))
    for name, told in codes.items():
        rate, bits = told["frame_rate"], told["bits"]
        each = " + ".join(f"{book:.1f}" for book in bits)
        rows.append(plain(f"bits a second: {SIZES.get(name, name)} ({rate:g} frames of {each})", rate * sum(bits)))
    for place, share in enumerate(codes["base"]["again"], 1):
        rows.append(row(f"codes that repeat the one before: codebook {place} of the first codec", {"value": share}))
    return rows + mixtures(sounds)


def mixtures(sounds: Path) -> list[Entry]:
    """Of two real sounds at once, how often codecs of the same sizes let both through."""
    least, rows = thresholds(heard(sounds / "calibration" / "real")), []
    real = both(pairs(sounds / "codecs" / "real"), least)
    rows.append(row("both heard: two real recordings, mixed (ceiling)", score(real)))
    for name, what in SIZES.items():
        if (sounds / "codecs" / f"{name}-mixed" / "verdicts.json").is_file():
            rows.append(row(f"both heard: {what}", score(both(pairs(sounds / "codecs" / f"{name}-mixed"), least))))
    return rows


DRAWN = {
    "wide": "4 codebooks of 64 components, begun on crops, nothing drawn",
    "wide-noise": "the same, noise drawn apart for each frame",
    "wide-white": "the same, white noise",
    "wide-tonal": "the same, more of it tonal",
    "wide-tonal-held": "of these, codes that hold",
    "six": "6 codebooks of 96 components, begun on windows, nothing drawn",
    "six-tonal": "of these, white noise, more of it tonal",
    "six-tonal-held": "of these 6, codes that hold",
}
GAINS = {
    ("wide-noise", "wide"): "noise, drawn apart for each frame",
    ("wide-white", "wide-noise"): "noise that is white instead",
    ("wide-tonal", "wide-white"): "more of that being tonal",
    ("wide-tonal-held", "wide-tonal"): "codes that hold",
    ("six-tonal", "six"): "white noise, more of it tonal, behind 6 codebooks",
    ("six-tonal-held", "six-tonal"): "codes that hold, of 6 codebooks",
}
HELD = {
    "wide-tonal": "4 codebooks, white noise",
    "wide-tonal-held": "4 codebooks that hold",
    "six-tonal": "6 codebooks, white noise",
    "six-tonal-held": "6 codebooks that hold",
}


def noise(judges: ModuleType, sounds: Path) -> list[Entry]:
    """What is heard behind begun codecs of 16 kHz that draw noise in one way or another, and what their codes say."""
    folder = sounds / "noise"
    codes = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
    rows = [row("event heard: real `valid` recordings (ceiling)", score(heard(folder / "real").right()))]
    own = {name: heard(folder / name).right() for name in DRAWN}
    rows += [row(f"event heard: {what}", score(own[name])) for name, what in DRAWN.items()]
    for (name, other), what in GAINS.items():
        rows.append(row(f"gain by {what}", score(own[name] - own[other])))
    for name, what in HELD.items():
        told = codes[name]
        stay = " ".join(f"{100 * share:.0f}" for share in told["again"])
        what = f"bits a second, each code counted alone: {what} (repeated: {stay} %)"
        rows.append(plain(what, told["frame_rate"] * sum(told["bits"])))
    return rows


# --- mixing -----------------------------------------------------------------------------------------------------------


def mixing(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Whether both sounds of a pair are heard, with and without mixing in training."""
    least = thresholds(heard(sounds / "calibration" / "real"))
    folder, rows = sounds / "mixing", []
    for kind, what in (("real", "real recordings, mixed (ceiling)"), ("reconstruction", "the codec's reconstructions")):
        rows.append(row(f"both heard: {what}", score(both(pairs(folder / kind), least))))
    for place, what in (("across", "pairs never mixed in training"), ("inside", "pairs mixed in training")):
        found = {kind: [both(arm, least) for arm in arms(folder, f"{kind}-*-{place}")] for kind in ("single", "mixed")}
        rows.append(row(f"both heard: {what}, model without mixing", score_of_models(found["single"])))
        rows.append(row(f"both heard: {what}, model with mixing", score_of_models(found["mixed"])))
        gain = score_of_models(differences(found["single"], found["mixed"]))
        if place == "across":
            gain["rule"] = ruled("interval above 0", gain["value"], gain["interval"][0] > 0)
        rows.append(row(f"gain by mixing: {what}", gain))
    floor = [both(arm, least, permuted=True) for arm in arms(folder, "mixed-*-across")]
    rows.append(row("both heard: model with mixing, against shuffled captions (floor)", score_of_models(floor)))
    alone = {kind: arms(sounds / "guidance", f"{kind}-*-scale-3-temperature-0.8") for kind in ("single", "mixed")}
    for kind, what in (("single", "without"), ("mixed", "with")):
        own = score_of_models(rights(alone[kind]))
        rows.append(row(f"single captions, event heard: model {what} mixing", own))
    change = score_of_models(differences(rights(alone["single"]), rights(alone["mixed"])))
    change["rule"] = ruled(f"at most -{100 * LOSS:.0f} points", change["value"], change["value"] >= -LOSS)
    return [*rows, row("single captions: change by mixing", change)]


def pairs(folder: Path) -> Heard:
    """An arm of two recordings at once, whose label names both."""
    arm = heard(folder)
    return arm._replace(sounds=[sound | {"labels": sound["labels"][0].split("+")} for sound in arm.sounds])


def thresholds(real: Heard) -> dict[str, float]:
    """For each class the score that best tells real training recordings of it from all others (Youden's J)."""
    least = {}
    for name in sorted({label for sound in real.sounds for label in sound["labels"]}):
        own = np.array([name in sound["labels"] for sound in real.sounds])
        scores = np.array([sound["heard"][name] for sound in real.sounds])
        edges = np.unique(scores)
        gains = [(scores[own] >= edge).mean() - (scores[~own] >= edge).mean() for edge in edges]
        least[name] = float(edges[int(np.argmax(gains))])
    return least


def both(arm: Heard, least: dict[str, float], permuted: bool = False) -> np.ndarray:
    """Whether every class that was asked for is over its threshold."""
    wanted = [sound["labels"] for sound in arm.sounds]
    if permuted:
        wanted = [wanted[place] for place in np.random.default_rng(0).permutation(len(wanted))]
    return np.array(
        [
            all(sound["heard"][name] >= least[name] for name in names)
            for sound, names in zip(arm.sounds, wanted, strict=True)
        ],
        float,
    )


# --- prompts ----------------------------------------------------------------------------------------------------------


def prompts(judges: ModuleType, sounds: Path) -> list[Entry]:
    """What is heard in the last second of a continuation: the prompt's class, or the text's."""
    folder, rows, rates = sounds / "prompts", [], {}
    names = {path.name.rpartition("-")[2] for path in folder.glob("*-other-*")}
    lengths = sorted(names, key=lambda name: float(name))
    for kind, what in (("real", "real recordings, their last second (ceiling)"), ("reconstruction", "reconstructions")):
        rows.append(
            row(f"{what}: class heard", score_of_models([class_rate(arm, "text") for arm in arms(folder, kind)]))
        )
    for text, what in PROMPTED.items():
        for length in lengths:
            found = arms(folder, f"*-{text}-{length}")
            for class_of in ("prompt", "text") if text in ("other", "guided") else ("prompt",):
                rates[text, class_of, length] = [class_rate(arm, class_of) for arm in found]
                scored = score_of_models(rates[text, class_of, length])
                rows.append(row(f"{what}, prompt of {length} s: class of the {class_of} heard", scored))
    short, long = lengths[0], lengths[-1]
    for class_of, first, second in (("text", short, long), ("prompt", long, short)):
        change = score_of_models(differences(rates["other", class_of, second], rates["other", class_of, first]))
        change["rule"] = ruled("interval above 0", change["value"], change["interval"][0] > 0)
        rows.append(row(f"class of the {class_of}: {first} s less {second} s", change))
    return rows


def class_rate(arm: Heard, class_of: str) -> np.ndarray:
    """Whether the class of the prompt or that of the text scores highest."""
    wanted = [sound["prompt_label"] if class_of == "prompt" else sound["labels"][0] for sound in arm.sounds]
    return np.array([a == b for a, b in zip(arm.best(), wanted, strict=True)], float)


if __name__ == "__main__":
    count({"codecs": codecs, "guidance": guidance, "mixing": mixing, "prompts": prompts, "wide": wide, "noise": noise})
