"""Count what the judges heard in the arms of an experiment, and write it as the JSON that README.md shows as a table.

    python results.py voices --judges FOLDER --sounds build/audiolm_digits/sounds -o results/voices.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import numpy as np
from measured import Entry, row, ruled, score, score_of_models
from verdicts import Heard, Voices, arms, count, differences, floor, heard, plain, read_arms
from verdicts import voices as voices_in

KEPT, CHANCE, SHARE = 0.4, 0.15, 0.8
"""By how much a continuation's speaker is to be heard more often than that of acoustic generation, how near the latter
is to be to chance, and what share of the reconstructions' digits is to be heard in it."""
UNLIKE = 0.05
"""How much less like its prompt's voice a continuation may be than another string of the same speaker."""
FEWER, WITHIN = 3.0, 0.03
"""How many times fewer steps the acoustic stage is to take than the flattened ones, and what that may cost."""


# --- voices -----------------------------------------------------------------------------------------------------------


def voices_of(folder: Path, pattern: str) -> list[Voices]:
    """The arms of all seeds in their order."""
    return read_arms(folder, pattern, "voices.json", voices_in)


def centroids(known: Voices) -> dict[str, np.ndarray]:
    """The mean voice of each speaker, of length 1."""
    names, found = np.array(known.labels), {}
    for name in sorted(set(known.labels)):
        mean = known.behind[names == name].mean(0)
        found[name] = mean / np.linalg.norm(mean)
    return found


def same(arm: Voices, centres: dict[str, np.ndarray], permuted: bool = False) -> np.ndarray:
    """Whether the nearest speaker is the right one (or, ``permuted``, another sound's), ``[N]``; silence is nobody."""
    names = list(centres)
    nearest = (arm.behind @ np.stack([centres[name] for name in names]).T).argmax(1)
    wanted = np.array(arm.labels)
    if permuted:
        wanted = wanted[np.random.default_rng(0).permutation(len(wanted))]
    return ((np.array(names)[nearest] == wanted) & (np.abs(arm.behind).sum(1) > 0)).astype(float)


def voices(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Words in the semantic codes, voice in the acoustic ones: who and what is heard with and without a prompt."""
    centres = centroids(voices_in(sounds / "recordings/training"))
    kinds = {name: voices_of(sounds / "voices", f"{name}-*") for name in ("continuation", "resynthesis")}
    found = {name: [same(arm, centres) for arm in each] for name, each in kinds.items()}
    rows = []
    for name, what in (("real", "held-out strings"), ("reconstruction", "their codec reconstructions")):
        heard_there = same(voices_in(sounds / "recordings" / name), centres)
        rows.append(row(f"speaker heard: {what} (ceiling)", score(heard_there)))
    rows.append(row("speaker heard: continuations", score_of_models(found["continuation"])))
    generated = score_of_models(found["resynthesis"])
    apart = generated["value"] - 1 / len(centres)
    generated["rule"] = ruled(f"within {100 * CHANCE:.0f} points of chance", apart, abs(apart) <= CHANCE)
    rows.append(row("speaker heard: acoustic generations", generated))
    rows.append(row(f"speaker heard: chance, {len(centres)} speakers (floor)", {"value": 1 / len(centres)}))
    shuffled = score_of_models([same(arm, centres, permuted=True) for arm in kinds["continuation"]])
    rows.append(row("speaker heard: continuation, against shuffled prompts (floor)", shuffled))
    kept = score_of_models(differences(found["resynthesis"], found["continuation"]))
    kept["rule"] = ruled(f"at least {100 * KEPT:.0f} points", kept["value"], kept["value"] >= KEPT)
    rows.append(row("speaker heard: continuation less acoustic generation", kept))
    return rows + likeness(voices_in(sounds / "recordings/real"), kinds["continuation"]) + words(sounds)


def likeness(real: Voices, found: list[Voices]) -> list[Entry]:
    """How like its prompt's voice what follows is, beside other strings of the same speaker and of others: cosines."""
    prompts, names = found[0].before, np.array(found[0].labels)
    cosines = prompts @ real.behind.T
    alike = names[:, None] == np.array(real.labels)
    np.fill_diagonal(alike, False)  # the string that the prompt is taken from
    own = float(np.median(cosines[alike]))
    others = float(np.median(cosines[names[:, None] != np.array(real.labels)]))
    after = score_of_models([(arm.before * arm.behind).sum(1) for arm in found], np.median)
    least = own - UNLIKE
    after["rule"] = ruled(f"at least {least:.3f}: same speaker less {UNLIKE}", after["value"], after["value"] >= least)
    what = "likeness to the prompt's voice, median"
    return [
        plain(f"{what}: another string of the speaker", own),
        plain(f"{what}: strings of others (floor)", others),
        row(f"{what}: continuation", after, percent=False),
    ]


# --- words ------------------------------------------------------------------------------------------------------------


def right_words(wanted: list[str], said: list[str]) -> list[bool]:
    """Which wanted words are among those that are said, where the two are aligned by as few changes as can be.

    Of alignments with equally few changes (Levenshtein) the one with most words right counts.
    """
    # best[i][j]: changes, less the words that are right as a fraction, and which are, of the first i and j words.
    best: list[list[tuple[float, tuple[bool, ...]]]] = [[(float(j), ()) for j in range(len(said) + 1)]]
    for i, word in enumerate(wanted):
        line = [(i + 1.0, (False,) * (i + 1))]
        for j, other in enumerate(said):
            same_word = word == other
            aligned = best[i][j][0] + (-1 / (len(wanted) + 1) if same_word else 1), (*best[i][j][1], same_word)
            missing = best[i][j + 1][0] + 1, (*best[i][j + 1][1], False)
            added = line[j][0] + 1, line[j][1]
            line.append(min(aligned, missing, added, key=lambda each: each[0]))
        best.append(line)
    return list(best[-1][-1][1])


def said_in(arm: Path, permuted: bool = False) -> np.ndarray:
    """Of each digit of an arm's strings (or, ``permuted``, of another string's) whether it is said, ``[N]``."""
    index = json.loads((arm / "index.json").read_text(encoding="utf-8"))["sounds"]
    said: dict[str, list[str]] = {sound["path"]: [] for sound in index}
    for word in heard(arm.parent.with_name(f"{arm.parent.name}.digits") / arm.name).sounds:
        if not word["empty"]:
            said[word["of"]].append(word["heard"])
    wanted = [sound["text"].split() for sound in index]
    if permuted:
        wanted = [wanted[place] for place in np.random.default_rng(0).permutation(len(wanted))]
    rights = [right_words(asked, own) for asked, own in zip(wanted, said.values(), strict=True)]
    return np.array([right for each in rights for right in each], float)


def strings_said(folder: Path, pattern: str, permuted: bool = False) -> list[np.ndarray]:
    """The same of all seeds in their order."""
    return read_arms(folder, pattern, "index.json", lambda arm: said_in(arm, permuted))


def words(sounds: Path) -> list[Entry]:
    """The digits of acoustic generation beside those of recordings."""
    rows = []
    for name, what in (("real", "held-out strings"), ("reconstruction", "their codec reconstructions")):
        rows.append(row(f"digit heard: {what} (ceiling)", score(said_in(sounds / "recordings" / name))))
    said = score_of_models(strings_said(sounds / "voices", "resynthesis-*"))
    share = said["value"] / max(rows[-1]["value"], 1e-4)
    said["rule"] = ruled(f"at least {100 * SHARE:.0f} % of the reconstruction", share, share >= SHARE)
    rows.append(row("digit heard: acoustic generations", said))
    shuffled = score_of_models(strings_said(sounds / "voices", "resynthesis-*", permuted=True))
    return [*rows, row("digit heard: acoustic generation, against shuffled strings (floor)", shuffled)]


# --- structure --------------------------------------------------------------------------------------------------------


def followed(arm: Heard) -> np.ndarray:
    """Whether the digit behind the prompt is what the rule says; silence is not, ``[N]``."""
    return arm.right() * np.array([not sound["empty"] for sound in arm.sounds])


def silent(arm: Heard) -> np.ndarray:
    """Whether nothing is said behind the prompt, ``[N]``."""
    return np.array([sound["empty"] for sound in arm.sounds], float)


def structure(judges: ModuleType, sounds: Path) -> list[Entry]:
    """How often a continuation keeps the rule of the string that it goes on with."""
    folder = sounds / "structure.digits"
    found = {name: arms(folder, f"{name}-*") for name in ("audiolm", "only", "bold", "free")}
    kept = {name: [followed(arm) for arm in each] for name, each in found.items()}
    rows = []
    for name, what in (("real", "the real next digit"), ("reconstruction", "that, through the codec")):
        rows.append(row(f"rule kept: {what} (ceiling)", score(followed(heard(folder / name)))))
    rows.append(row("rule kept: by AudioLM", score_of_models(kept["audiolm"])))
    whats = {"only": "acoustic codes alone, temperatures 0.8 and 0.6", "bold": "acoustic codes alone, temperature 0.6"}
    rows += [row(f"rule kept: by {what}", score_of_models(kept[name])) for name, what in whats.items()]
    rows.append(row("rule kept: AudioLM behind strings without the rule (floor)", score_of_models(kept["free"])))
    rows.append(row("rule kept: AudioLM, against shuffled prompts (floor)", floor(found["audiolm"])))
    for name, what in whats.items():
        gain = score_of_models(differences(kept[name], kept["audiolm"]))
        gain["rule"] = ruled("interval above 0", gain["value"], gain["interval"][0] > 0)
        rows.append(row(f"AudioLM less {what}", gain))
    for name, what in (("audiolm", "AudioLM"), *whats.items()):
        rows.append(
            row(f"nothing said behind the prompt: {what}", score_of_models([silent(arm) for arm in found[name]]))
        )
    return rows


# --- tradeoff ---------------------------------------------------------------------------------------------------------

CODES = {
    "semantic": "semantic codes",
    "acoustic": "acoustic codes, all codebooks",
    "first": "acoustic codes, the first",
}
MEASURES = {"si_sdr": ("SI-SDR", 1), "mel_distance": ("mel distance", -1)}
"""What is measured in decibels, and whether more of it is better."""


def tradeoff(judges: ModuleType, sounds: Path) -> list[Entry]:
    """ABX errors of both kinds of codes, and how near to a recording each kind leads."""
    return tradeoff_table(json.loads((sounds / "tradeoff.json").read_text(encoding="utf-8")))


def tradeoff_table(found: Entry) -> list[Entry]:
    """The rows of what tradeoff.py has measured."""
    rows = []
    for side in ("within", "across"):
        for name, what in CODES.items():
            rows.append(row(f"ABX error {side} speakers: {what}", found["errors"][name][side]))
        for name in ("acoustic", "first"):
            more = dict(found["above"][f"{name} {side}"])
            if side == "across":
                more["rule"] = ruled("interval above 0", more["value"], more["interval"][0] > 0)
            rows.append(row(f"ABX error {side} speakers: {CODES[name]} less semantic", more))
    for name, (what, sign) in MEASURES.items():
        kept = np.array(found["reconstruction"][name])
        made = [np.array(each[name]) for each in found["resynthesis"]]
        rows.append(row(f"{what}, dB: reconstruction from acoustic codes", score(kept), percent=False))
        rows.append(row(f"{what}, dB: generation from semantic codes", score_of_models(made), percent=False))
        gain = score_of_models([sign * (kept - each) for each in made])
        # The value says by how much; of decibels the rule's column, which is of shares, says by which part of them.
        better = float(np.mean([(sign * (kept - each) > 0).mean() for each in made]))
        gain["rule"] = ruled("interval above 0 (reached: sounds for which)", better, gain["interval"][0] > 0)
        rows.append(row(f"{what}, dB: acoustic codes better by", gain, percent=False))
    return rows


# --- steps ------------------------------------------------------------------------------------------------------------


def steps(judges: ModuleType, sounds: Path) -> list[Entry]:
    """All codebooks at once by delay against one after the other: steps, time, and what is heard."""
    rows = speed(json.loads((sounds / "times.json").read_text(encoding="utf-8")))
    flat = strings_said(sounds / "steps", "flat-*")
    streams = strings_said(sounds / "voices", "resynthesis-*")
    rows += compared("digit heard", flat, streams, worse_only=True)
    centres = centroids(voices_in(sounds / "recordings/training"))
    flat = [same(arm, centres) for arm in voices_of(sounds / "steps", "flat-*")]
    streams = [same(arm, centres) for arm in voices_of(sounds / "voices", "resynthesis-*")]
    return rows + compared("speaker heard", flat, streams, worse_only=False)


def speed(times: Entry) -> list[Entry]:
    """Decoding steps and wall time of the same length of sound; the ratios are of one model each."""
    flat, streams = times["models"]["flat"], times["models"]["audiolm"]
    asked = times["settings"]
    sizes = {"coarse + fine": flat["steps"]["coarse"] + flat["steps"]["fine"], "acoustic": streams["steps"]["acoustic"]}
    rows = [plain(f"steps for {asked['seconds']:g} s: {name}", each) for name, each in sizes.items()]
    ratio = sizes["coarse + fine"] / sizes["acoustic"]
    fewer: Entry = {"value": round(ratio, 4), "rule": ruled(f"at least {FEWER:g} times fewer", ratio, ratio >= FEWER)}
    rows.append(row("steps of coarse and fine for each step of acoustic", fewer, percent=False))
    what = f"{asked['batch']} sounds of {asked['seconds']:g} s, seconds"
    rows.append(plain(f"{what}: semantic, coarse, fine", flat["seconds"]))
    return [*rows, plain(f"{what}: semantic, acoustic", streams["seconds"])]


def compared(what: str, flat: list[np.ndarray], streams: list[np.ndarray], worse_only: bool) -> list[Entry]:
    """Both, and that they are as good: no more than so many points worse or, of what is neither, apart."""
    rows = [row(f"{what}: coarse and fine, flattened", score_of_models(flat))]
    rows.append(row(f"{what}: acoustic, by delay", score_of_models(streams)))
    change = score_of_models(differences(flat, streams))
    lost = -change["value"] if worse_only else abs(change["value"])
    wanted = f"at most {100 * WITHIN:.0f} points {'fewer' if worse_only else 'apart'}"
    change["rule"] = ruled(wanted, change["value"], lost <= WITHIN)
    return [*rows, row(f"{what}: by delay less flattened", change)]


if __name__ == "__main__":
    count({"voices": voices, "structure": structure, "tradeoff": tradeoff, "steps": steps})
