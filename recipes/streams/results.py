"""Count what the judges heard in the arms of an experiment, and write it as the JSON that README.md shows as a table.

    python results.py guidance --judges FOLDER --sounds build/streams/sounds -o results/guidance.json

runs in the judges' environment, after tools/judge_arms.py. Every interval draws models, then their sounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from guidance_table import guidance_table
from measured import Entry, row, ruled, score, score_of_models
from verdicts import arms, count, differences, floor, heard, plain, rights

SHARE = 0.97
"""Of the reconstructions' score, what the best setting has to reach."""
LOST = 0.01
"""What quantised weights may cost."""
FASTER = {2: 1.8, 4: 3.3}
"""How many times faster so many streams have to be than one."""
WHAT = {
    "flatten4": "4 streams, flatten",
    "delay4": "4 streams, delay",
    "parallel4": "4 streams, parallel heads",
    "delay2": "2 streams, delay",
    "parallel2": "2 streams, parallel heads",
    "flatten1": "1 stream",
}


def guidance(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Adherence, diversity and distance to real sounds under each scale."""
    return guidance_table(judges, sounds, "guided", "digit", SHARE)


def streams(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Digits heard by pattern and number of streams, and how long the same sound takes."""
    rows = []
    rows.append(row("digit heard: real `valid` recordings (ceiling)", score(heard(sounds / "recordings/real").right())))
    for number, folder in ((1, "recordings1"), (2, "recordings2"), (4, "recordings")):
        remade = heard(sounds / folder / "reconstruction")
        rows.append(row(f"digit heard: reconstructions, {number} stream{'s'[: number > 1]}", score(remade.right())))
    found = {name: arms(sounds / "streams", f"{name}-*") for name in WHAT}
    rows += [row(f"digit heard: {what}", score_of_models(rights(found[name]))) for name, what in WHAT.items()]
    loss = differences(rights(found["parallel4"]), rights(found["flatten4"]))
    rows.append(row("4 streams: what parallel heads lose against flatten", score_of_models(loss)))
    recovered = score_of_models(differences(rights(found["parallel4"]), rights(found["delay4"])))
    recovered["rule"] = ruled("interval above 0", recovered["value"], recovered["interval"][0] > 0)
    rows.append(row("4 streams: what delay recovers of it", recovered))
    rows.append(row("4 streams, delay, against shuffled captions (floor)", floor(found["delay4"])))
    return rows + speed(json.loads((sounds / "times.json").read_text(encoding="utf-8")))


def quantized(judges: ModuleType, sounds: Path) -> list[Entry]:
    """Digits heard of the same models with matrices in fewer bits."""
    plain_arms = arms(sounds / "quantized", "float32-*")
    rows = [row("digit heard: float32 (ceiling)", score_of_models(rights(plain_arms)))]
    for bits in ("int8", "int4"):
        found = arms(sounds / "quantized", f"{bits}-*")
        rows.append(row(f"digit heard: {bits}", score_of_models(rights(found))))
        change = score_of_models(differences(rights(plain_arms), rights(found)))
        change["rule"] = ruled(f"at most {100 * LOST:.0f} point less", change["value"], change["value"] >= -LOST)
        rows.append(row(f"{bits} less float32, same captions and seeds", change))
    return [*rows, row("float32 against shuffled captions (floor)", floor(plain_arms))]


def speed(times: Entry) -> list[Entry]:
    """Steps and wall time of the same length of sound; the ratio is that of two medians of one run."""
    models, asked, rows = times["models"], times["settings"], []
    for name, what in WHAT.items():
        scored: Entry = {"value": models[name]["seconds"]}
        streams_of = int(name[-1])
        if name.startswith("parallel"):
            ratio = models["flatten1"]["seconds"] / models[name]["seconds"]
            wanted = f"at least {FASTER[streams_of]} times as fast as 1 stream"
            scored["rule"] = ruled(wanted, ratio, ratio >= FASTER[streams_of])
        told = f"{asked['batch']} sounds of {asked['seconds']:g} s: {what}, {models[name]['steps']} steps, seconds"
        rows.append(row(told, scored, percent=False))
    ratio = models["flatten1"]["steps"] / models["parallel4"]["steps"]
    return [*rows, plain("steps of 1 stream for each step of 4", ratio)]


if __name__ == "__main__":
    count({"guidance": guidance, "streams": streams, "quantized": quantized})
