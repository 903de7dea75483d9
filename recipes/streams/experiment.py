"""Write the sounds of one experiment: guidance, streams in each pattern, or quantised weights; or time them.

    python experiment.py streams --out build/streams --recordings build/streams/recordings.jsonl

takes the models OUT/lm/NAME-SEED (NAMES below) and writes OUT/sounds/EXPERIMENT/ARM/*.flac with an index.json each
(tools/sound_arms.py); what stands there already is kept. ``times`` writes OUT/sounds/times.json instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from sound_arms import BOLD, Arm, asked_of, bringing, chosen, guided, write_arm, write_recordings

from audiolm_kit import AudioGen, NeuralCodec, Sampling, checkpoint
from audiolm_kit.audio import write_bytes
from audiolm_kit.data.manifest import Row, read_manifest

SECONDS = 0.8
GUIDED = "guided"
"""The model whose guidance is looked at: four streams by delay, trained longer than those of NAMES."""
NAMES = {"flatten4": 4, "parallel4": 4, "delay4": 4, "parallel2": 2, "delay2": 2, "flatten1": 1}
"""Pattern and number of streams of each model; the number names its codec."""
PRECISIONS: tuple[Literal["float32", "int8", "int4"], ...] = ("float32", "int8", "int4")
TIMED = {"seconds": 10.0, "batch": 4, "repeats": 5}


def codec_folder(out: Path, streams: int) -> Path:
    """Where the codec of so many streams lies."""
    return out / ("codec" if streams == 4 else f"codec{streams}")


def recordings(out: Path, rows: list[Row]) -> None:
    """Held-out recordings, and what each codec leaves of them."""
    for streams in (4, 2, 1):
        if (codec_folder(out, streams) / "config.json").is_file():
            codec = checkpoint.load(NeuralCodec, codec_folder(out, streams)).eval()
            folder = out / "sounds" / ("recordings" if streams == 4 else f"recordings{streams}")
            write_recordings(codec, rows, folder, checkpoint.fingerprint(codec))


def guidance(out: Path, rows: list[Row], seeds: list[int], count: int) -> None:
    """The same captions and seeds under several settings."""
    for seed in seeds:
        model = AudioGen.load(out / "lm" / f"{GUIDED}-{seed}")
        for arm in guided(f"{GUIDED}-{seed}", SECONDS, 1000 * seed):
            write_arm(model, arm, asked_of(rows, count), out / "sounds" / "guidance")
        arm = chosen(f"{GUIDED}-{seed}", SECONDS, 1000 * seed)
        write_arm(bringing(model, out / "scorer"), arm, asked_of(rows, count), out / "sounds" / "guidance")


def streams(out: Path, rows: list[Row], seeds: list[int], count: int) -> None:
    """The same captions and seeds by each model."""
    for name in NAMES:
        for seed in seeds:
            model = AudioGen.load(out / "lm" / f"{name}-{seed}")
            arm = Arm(f"{name}-{seed}", Sampling(), SECONDS, 1000 * seed)
            write_arm(model, arm, asked_of(rows, count), out / "sounds" / "streams")


def quantized(out: Path, rows: list[Row], seeds: list[int], count: int) -> None:
    """The same captions and seeds by the same model, its matrices as they are and in fewer bits."""
    for name in PRECISIONS:
        for seed in seeds:
            model = AudioGen.load(out / "lm" / f"{GUIDED}-{seed}", quantize=None if name == "float32" else name)
            write_arm(
                model,
                Arm(f"{name}-{seed}", BOLD, SECONDS, 1000 * seed),
                asked_of(rows, count),
                out / "sounds" / "quantized",
            )


def times(out: Path, rows: list[Row], seeds: list[int], count: int) -> None:
    """Seconds that each model takes for the same length of sound: in turn, several times over, codes to waveform."""
    models = {name: AudioGen.load(out / "lm" / f"{name}-{seeds[0]}") for name in NAMES}
    texts = [item.text for item in asked_of(rows, int(TIMED["batch"]))]
    taken: dict[str, list[float]] = {name: [] for name in NAMES}
    for repeat in range(int(TIMED["repeats"]) + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model.generate(texts, float(TIMED["seconds"]))
            if repeat:  # the first is a rehearsal
                taken[name].append(time.perf_counter() - began)
    told = {
        name: {
            "seconds": round(statistics.median(each), 3),
            "steps": models[name].lm.pattern.num_steps(round(float(TIMED["seconds"]) * models[name].codec.frame_rate)),
        }
        for name, each in taken.items()
    }
    write_bytes(out / "sounds" / "times.json", json.dumps({"settings": TIMED, "models": told}, indent=1).encode())


EXPERIMENTS = {"guidance": guidance, "streams": streams, "quantized": quantized, "times": times}


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write the sounds of one experiment, or time its models.")
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "recordings"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe's models and sounds")
    parser.add_argument("--recordings", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=250, help="sounds of each arm, default: %(default)s")
    given = parser.parse_args()
    try:
        rows = read_manifest(given.recordings, "valid")
        if given.experiment == "recordings":
            recordings(given.out, rows)
        else:
            EXPERIMENTS[given.experiment](given.out, rows, given.seeds, given.count)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
