"""The sounds of an experiment on continuations: held-out recordings, gone on with by AudioLM and by a baseline.

A recipe's experiment.py says what is cut from a recording, and calls ``main``. Out of the models OUT/audiolm-SEED and
OUT/lm/only-SEED (acoustic codes alone) come OUT/sounds/NAME/ARM/*.flac with an index.json each (sound_arms.py); what
stands there already is kept. ``recordings`` writes the real sounds, and what the codec leaves of them.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sound_arms import Arm, Item, Wordless, write_arm, write_recordings

from audiolm_kit import AudioGen, AudioLM, NeuralCodec, Sampling, StageSampling, checkpoint
from audiolm_kit.data.manifest import Row, read_manifest


@dataclass(frozen=True)
class Experiment:
    """What is asked of the models."""

    name: str
    groups: str
    """What recordings are of that take turns: speakers, pieces."""
    prompt: float
    """Seconds that are given."""
    seconds: float
    """Of the whole."""
    count: int
    """Prompts at most, unless the command line says otherwise."""
    windows: Callable[[Row], list[Row]]
    """Of a recording, those that are ``seconds`` long and labelled with their group."""
    sampling: StageSampling = StageSampling()
    """Of AudioLM's stages; acoustic codes alone are drawn as those of its acoustic stage are, but that nothing leads
    them; where something leads these, the arm ``free`` is AudioLM without that."""

    def asked(self, rows: list[Row], count: int) -> list[Row]:
        """The windows of all recordings, groups in turn."""
        groups: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: (row.path, row.start)):
            for window in self.windows(row):
                groups.setdefault(window.label or "", []).append(window)
        if len(groups) < 2:
            found = f"{len(groups)} {self.groups} have held-out recordings of {self.seconds:g} s"
            raise ValueError(f"{found}: at least 2 are wanted")
        turns = itertools.zip_longest(*(groups[name] for name in sorted(groups)))
        return [row for turn in turns for row in turn if row is not None][:count]


def write_continuations(experiment: Experiment, out: Path, rows: list[Row], seeds: list[int]) -> None:
    """The same prompts continued by each model."""
    items = [Item(f"{Path(row.path).name} from {row.start:g} s", (row.label or "",), row) for row in rows]
    sampling = experiment.sampling
    alone = replace(sampling.acoustic, prefix_guidance_scale=1.0)
    free = replace(sampling, acoustic=alone)  # not led either
    for seed in seeds:
        audiolm, only = AudioLM.load(out / f"audiolm-{seed}"), AudioGen.load(out / "lm" / f"only-{seed}")
        drawn: dict[str, tuple[AudioLM | AudioGen, StageSampling | Sampling]] = {
            "audiolm": (audiolm, sampling),
            "only": (only, alone),
        }
        if free != sampling:
            drawn["free"] = (audiolm, free)
        for name, (model, own) in drawn.items():
            arm = Arm(f"{name}-{seed}", own, experiment.seconds, 1000 * seed, experiment.prompt)
            write_arm(Wordless(model), arm, items, out / "sounds" / experiment.name)


def main(experiment: Experiment) -> None:
    """The command line of a recipe's experiment.py: write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds of the experiment.")
    parser.add_argument("experiment", choices=[experiment.name, "recordings"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--recordings", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=experiment.count, help="prompts at most, default: %(default)s")
    given = parser.parse_args()
    try:
        rows = experiment.asked(read_manifest(given.recordings, "valid"), given.count)
        if given.experiment == "recordings":
            codec = checkpoint.load(NeuralCodec, given.out / "codec").eval()
            write_recordings(codec, rows, given.out / "sounds" / "recordings", checkpoint.fingerprint(codec))
        else:
            write_continuations(experiment, given.out, rows, given.seeds)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
