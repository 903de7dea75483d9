"""Set out what generated sounds are compared with: held-out recordings, their reconstructions, and prompts.

    python tools/reference_sounds.py CODEC MANIFEST -o FOLDER

takes the first recordings of each label in a split and writes FOLDER/real/N.wav, FOLDER/reconstruction/N.wav (through
the codec and back), of a few FOLDER/prompt/N.wav (the beginning alone), a JSON file with text and label beside each,
and their texts, line by line, as FOLDER/texts.txt. `audiolm-kit generate` numbers its sounds for these texts alike.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from audiolm_kit import checkpoint
from audiolm_kit.audio import Sound, fit, read, write, write_bytes
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.data.manifest import Row, read_manifest


@dataclass(frozen=True)
class Prompts:
    """The beginnings of the first recordings, for a model to continue."""

    count: int
    seconds: float


def pick(rows: list[Row], per_label: int) -> list[Row]:
    """The first ``per_label`` rows of each label, labels in the order of the alphabet."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label or "", []).append(row)
    return [row for label in sorted(by_label) for row in by_label[label][:per_label]]


def there_and_back(codec: AnyCodec, sound: Sound) -> Sound:
    """What is left of a sound after the codec, as long as it was."""
    samples = codec.decode(codec.encode(sound.samples[None]))[0, :, : sound.samples.shape[-1]]
    return Sound(samples.clamp(-1, 1), sound.sample_rate)


def write_references(codec: AnyCodec, rows: list[Row], folder: Path, prompts: Prompts) -> None:
    """Write the sounds of every row, numbered from 1, then the list of texts."""
    texts = []
    for number, row in enumerate(rows, start=1):
        real = fit(read(row.path, row.start, row.duration), codec.sample_rate, codec.channels)
        sounds = {"real": real, "reconstruction": there_and_back(codec, real)}
        if number <= prompts.count:
            sounds["prompt"] = Sound(real.samples[:, : round(prompts.seconds * real.sample_rate)], real.sample_rate)
        text = row.caption or row.transcript or row.label or ""
        about = {"text": text, "label": row.label, "name": Path(row.path).stem}
        for role, sound in sounds.items():
            path = folder / role / f"{number}.wav"
            write(path, sound)
            checkpoint.write_json(path.with_suffix(".json"), about)
        texts.append(text)
    write_bytes(folder / "texts.txt", "".join(f"{text}\n" for text in texts).encode())


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the sounds."""
    parser = argparse.ArgumentParser(
        description="Set out what generated sounds are compared with.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("codec", type=Path, help="checkpoint folder of a codec")
    parser.add_argument("manifest", type=Path, help="manifest of the recordings")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the sounds")
    parser.add_argument("--split", default="valid", help="of the manifest")
    parser.add_argument("--per-label", type=int, default=1, help="recordings of each label")
    parser.add_argument("--prompts", type=int, default=4, help="how many recordings are cut to prompts too")
    parser.add_argument("--prompt-seconds", type=float, default=0.5, help="length of a prompt")
    options = parser.parse_args(arguments)
    try:
        prompts = Prompts(options.prompts, options.prompt_seconds)
        if options.per_label < 1 or prompts.count < 0 or not prompts.seconds > 0:
            raise ValueError(f"{options.per_label} per label, {prompts.count} prompts of {prompts.seconds} s: too few")
        rows = pick(read_manifest(options.manifest, options.split), options.per_label)
        if not rows:
            raise ValueError(f"{options.manifest} has no rows of split {options.split!r}: name another with --split")
        write_references(open_codec(options.codec), rows, options.output, prompts)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{len(rows)} recordings and their reconstructions: {options.output}")


if __name__ == "__main__":
    main()
