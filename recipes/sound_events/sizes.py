"""What codecs of other sizes leave of held-out recordings and of two at once, and how much chance is in their codes.

    python sizes.py --out build/sound_events --windows build/sound_events/windows.jsonl --codecs base frames-25

takes the codecs OUT/codecs/NAME and writes OUT/sounds/codecs/NAME/*.flac with an index.json each (tools/sound_arms.py),
the sounds of the first one also without its codebooks, pairs of recordings in NAME-mixed (and in real as they are), and
OUT/sounds/codecs/codes.json; what stands there already is kept. With ``--experiment noise`` recordings alone, as they
are in OUT/sounds/noise/real, and of codes that hold in NAME-held.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import torch
from experiment import mixed_rows
from sound_arms import Entry, heard, there_and_back, write_recordings, write_sounds
from torch import Tensor

from audiolm_kit import NeuralCodec, Sound, checkpoint
from audiolm_kit.audio import write_bytes
from audiolm_kit.data.manifest import Row, read_manifest

UNQUANTIZED = "unquantized"
"""The arm of the first codec's latents, decoded as they are."""


@torch.no_grad()
def past_the_codebooks(codec: NeuralCodec, sound: Sound) -> Sound:
    """What is left of a sound when its latents are decoded as they are, as long as it was."""
    audio = codec(codec.scaled(sound.samples[None]), quantize=False).audio[0]
    return Sound(audio.clamp(-1, 1), sound.sample_rate)


def write_arm(home: Path, codec: NeuralCodec, rows: Sequence[Row], hold: float = 0.0) -> None:
    """Each recording behind the codec."""
    leave = past_the_codebooks if home.name == UNQUANTIZED else partial(there_and_back, hold=hold)

    def make(numbers: Sequence[int]) -> list[Sound]:
        return [leave(codec, heard(codec, rows[number], "real")) for number in numbers]

    where = [[row.path, row.start, row.duration] for row in rows]
    plan = {"arm": {"name": home.name}, "codec": checkpoint.fingerprint(codec), "rows": where} | (
        {"hold": hold} if hold else {}
    )
    told = [{"text": row.caption or "", "labels": [row.label or ""]} for row in rows]
    write_sounds(home, plan, told, make)


@torch.no_grad()
def codes_of(codec: NeuralCodec, rows: Sequence[Row], hold: float = 0.0) -> list[Tensor]:
    """The codes of each recording, ``[K, T]``."""
    encode = partial(codec.encode_steady, hold=hold) if hold else codec.encode
    return [encode(heard(codec, row, "real").samples[None])[0] for row in rows]


def chance(codes: Sequence[Tensor], size: int) -> Entry:
    """Of each codebook, its entropy in bits a code, and the share of frames in which it says what it said before.

    Args:
        codes: of each recording, ``[K, T]``.
        size: of a codebook.
    """
    counts = torch.stack([torch.bincount(book, minlength=size) for book in torch.cat(list(codes), 1)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    bits = -torch.xlogy(shares, shares).sum(1) / torch.tensor(2.0).log()
    again = torch.cat([(each[:, 1:] == each[:, :-1]).double() for each in codes], 1).mean(1)
    return {"bits": [round(float(each), 3) for each in bits], "again": [round(float(each), 4) for each in again]}


def sizes(given: argparse.Namespace, rows: list[Row], home: Path) -> Entry:
    """The sounds of ``codecs``, and what is said of each codec's codes."""
    mixed, found = mixed_rows(home, rows, given.mixtures), {}
    for name in given.codecs:
        codec = checkpoint.load(NeuralCodec, given.out / "codecs" / name).eval()
        for arm in [name, UNQUANTIZED] if name == given.codecs[0] else [name]:
            write_arm(home / arm, codec, rows)
        write_arm(home / f"{name}-mixed", codec, mixed)
        write_recordings(codec, mixed, home, "", ["real"])
        found[name] = {"frame_rate": codec.frame_rate} | chance(codes_of(codec, rows), codec.codebook_size)
    return found


def noise(given: argparse.Namespace, rows: list[Row], home: Path) -> Entry:
    """The sounds of ``noise``, and what is said of each codec's codes; of white noise of which less is drawn, also of
    codes that hold."""
    found = {}
    for name in given.codecs:
        codec = checkpoint.load(NeuralCodec, given.out / "codecs" / name).eval()
        write_recordings(codec, rows, home, "", ["real"])
        prices = [0.0, given.hold] if codec.config.convnext.tonal else [0.0]
        for arm, hold in zip((name, f"{name}-held"), prices, strict=False):
            write_arm(home / arm, codec, rows, hold)
            found[arm] = {"frame_rate": codec.frame_rate} | chance(codes_of(codec, rows, hold), codec.codebook_size)
    return found


EXPERIMENTS = {"codecs": sizes, "noise": noise}


def main() -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(description="Write what codecs leave of held-out recordings.")
    parser.add_argument("--experiment", choices=[*EXPERIMENTS], default="codecs", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe, with codecs/NAME")
    parser.add_argument("--windows", type=Path, required=True, help="manifest; its valid rows are held out")
    parser.add_argument(
        "--codecs", nargs="+", required=True, help="their names; of `codecs` the first also unquantised"
    )
    parser.add_argument("--hold", type=float, default=0.5, help="what a change costs, default: %(default)s")
    parser.add_argument("--mixtures", type=int, default=200, help="how many pairs, default: %(default)s")
    given = parser.parse_args()
    try:
        rows, home = read_manifest(given.windows, "valid"), given.out / "sounds" / given.experiment
        found = EXPERIMENTS[given.experiment](given, rows, home)
        write_bytes(home / "codes.json", json.dumps(found, indent=1).encode())
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(home)


if __name__ == "__main__":
    main()
