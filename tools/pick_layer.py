"""Pick the layer whose semantic codes tell words apart best, by ABX on recordings that k-means has not seen.

    python tools/pick_layer.py MANIFEST --features FOLDER --layers 1 2 3 --codebook_size 100 -o layers.json

For each layer, centroids are fitted on the training rows (split train or none) and the recordings of another split are
compared in three ways: as features (angular distance of frames), as the centroids that stand for them (likewise), and
as bare codes (equal or not). Prints a Markdown table of error rates, lower is better and 50 % is chance, with the best
layer in bold: the one with the fewest errors across speakers, or within them where only that can be measured.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from audiolm_kit.audio import fit, read
from audiolm_kit.checkpoint import write_json
from audiolm_kit.data.manifest import Row, read_manifest, training_rows
from audiolm_kit.evaluation.abx import AbxScore, Item, abx, choose
from audiolm_kit.evaluation.warping import Distance
from audiolm_kit.semantic.fit import features_from, fit_tokenizer
from audiolm_kit.semantic.kmeans import assign
from audiolm_kit.semantic.spectrum import SpectrumOptions

KINDS: dict[str, Distance] = {"features": "angular", "centroids": "angular", "codes": "mismatch"}
"""What is compared, and by which distance."""


@dataclass(frozen=True)
class Options:
    """How layers are compared."""

    features: str
    codebook_size: int = 100
    category: str = "label"
    split: str = "valid"
    by: str = "codes"
    per_cell: int = 10
    fit_rows: int = 2000
    sample_rate: int | None = None
    frame_rate: float | None = None
    dynamic_range_db: float = 0.0
    standardised: bool = False
    context: int = 0
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("codebook_size", "per_cell", "fit_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}: give 1 or more")

    @property
    def spectrum(self) -> SpectrumOptions:
        """Of mel and mfcc: what their spectra become."""
        return SpectrumOptions(self.dynamic_range_db, self.standardised, self.context)


class Measured(NamedTuple):
    """One layer's scores by kind."""

    layer: int | None
    scores: dict[str, AbxScore]


def training(manifest: Path, options: Options) -> list[Row]:
    """Some rows to fit k-means on, in their order, no sound twice."""
    rows = once(training_rows(manifest)[0])
    if len(rows) <= options.fit_rows:
        return rows
    places = np.random.default_rng(options.seed).choice(len(rows), options.fit_rows, replace=False)
    return [rows[place] for place in sorted(places.tolist())]


def held_out(manifest: Path, options: Options) -> list[Row]:
    """The rows that are compared: those of the split that say what is heard and who is."""
    everything = read_manifest(manifest)
    rows = once([row for row in everything if row.split == options.split])
    if not rows:
        found = ", ".join(sorted({str(row.split) for row in everything})) or "none"
        raise ValueError(f"{manifest} has no rows of split {options.split!r} (it has {found}): give another --split")
    told = [row for row in rows if getattr(row, options.category) and row.speaker]
    if not told:
        lacking = "speaker" if any(getattr(row, options.category) for row in rows) else options.category
        raise ValueError(
            f"none of the {len(rows)} rows of split {options.split!r} in {manifest} has a {options.category} and a "
            f"speaker: ABX wants both, name the {lacking} in the manifest{other_category(rows, options)}"
        )
    if len(told) < len(rows):
        left = f"{len(rows) - len(told)} of {len(rows)} rows are left out"
        print(f"{left}: no {options.category} or speaker", file=sys.stderr)
    told.sort(key=lambda row: (row.path, row.start))
    return [told[place] for place in choose([cell(row, options) for row in told], options.per_cell, options.seed)]


def other_category(rows: list[Row], options: Options) -> str:
    """What else could tell the rows apart."""
    other = "transcript" if options.category == "label" else "label"
    return f", or give --category {other}" if any(getattr(row, other) for row in rows) else ""


def once(rows: list[Row]) -> list[Row]:
    """The rows without those that only put the same sound in other words."""
    return list({(row.path, row.start): row for row in reversed(rows)}.values())[::-1]


def cell(row: Row, options: Options) -> tuple[str, str]:
    """What is heard, and who says it."""
    return str(getattr(row, options.category)), str(row.speaker)


def waveforms(rows: list[Row], sample_rate: int) -> Iterator[Tensor]:
    """One after another, [L]."""
    for row in rows:
        yield fit(read(row.path, row.start, row.duration), sample_rate, 1).samples[0]


def measure(layer: int | None, train: list[Row], held: list[Row], options: Options) -> Measured:
    """Fit centroids to a layer, and compare what is held out."""
    features = features_from(options.features, layer, options.sample_rate, options.frame_rate, options.spectrum)
    sounds = waveforms(train, features.config.sample_rate)
    tokenizer = fit_tokenizer(features, sounds, options.codebook_size, seed=options.seed, device=options.device)
    tokenizer = tokenizer.to(options.device)
    items: dict[str, list[Item]] = {kind: [] for kind in KINDS}
    for row, waveform in zip(held, waveforms(held, tokenizer.sample_rate), strict=True):
        frames = tokenizer.embed(waveform[None, None].to(options.device))
        codes = assign(frames, tokenizer.centroids)
        for kind, shown in (("features", frames[0]), ("centroids", tokenizer.centroids[codes[0]]), ("codes", codes)):
            items[kind].append(Item(shown.cpu(), *cell(row, options)))
    scores = {
        kind: abx(items[kind], distance, per_cell=options.per_cell, seed=options.seed)
        for kind, distance in KINDS.items()
    }
    return Measured(layer, scores)


def pick(measured: list[Measured], by: str) -> Measured:
    """The one with the fewest errors across speakers; within, where those are equal or there are none."""

    def errors(one: Measured) -> tuple[float, float]:
        score = one.scores[by]
        return (0.0 if math.isnan(score.across) else score.across, 0.0 if math.isnan(score.within) else score.within)

    return min(measured, key=errors)


def table(measured: list[Measured], best: Measured) -> str:
    """A Markdown table, the best layer in bold."""
    heads = [f"{kind}, {place}" for kind in KINDS for place in ("within", "across")]
    lines = [f"| layer | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for one in measured:
        errors = [error for score in one.scores.values() for error in (score.within, score.across)]
        cells = [name(one.layer), *("none" if math.isnan(error) else f"{100 * error:.1f} %" for error in errors)]
        if one is best:
            cells = [f"**{each}**" for each in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def name(layer: int | None) -> str:
    return "none" if layer is None else str(layer)


def as_json(score: AbxScore) -> dict[str, Any]:
    """A score as numbers; what could not be measured is null."""
    told: dict[str, Any] = {"counts": score.counts._asdict()}
    for place, error, edges in (
        ("within", score.within, score.intervals.within),
        ("across", score.across, score.intervals.across),
    ):
        known = not math.isnan(error)
        told[place] = {"error": error if known else None, "interval": list(edges) if known else None}
    return told


def report(measured: list[Measured], best: Measured, options: Options) -> dict[str, Any]:
    """All that was measured."""
    layers = [{"layer": one.layer} | {kind: as_json(score) for kind, score in one.scores.items()} for one in measured]
    return {"best": best.layer, "options": asdict(options), "layers": layers}


def command_line() -> argparse.ArgumentParser:
    """What may be said."""
    parser = argparse.ArgumentParser(description="Pick the layer whose semantic codes tell words apart best.")
    parser.add_argument("manifest", type=Path, help="rows to fit on, and others with a label and a speaker")
    parser.add_argument(
        "--features", required=True, help="mel, mfcc, chroma, or a model: a folder, or a name on the hub"
    )
    parser.add_argument("--layers", type=int, nargs="+", help="of a model; mel, mfcc and chroma have none")
    parser.add_argument("--codebook_size", type=int, default=100, help="centroids; default: %(default)s")
    parser.add_argument("--category", choices=("label", "transcript"), default="label", help="what is told apart")
    parser.add_argument("--split", default="valid", help="of the rows that are compared; default: %(default)s")
    parser.add_argument("--by", choices=tuple(KINDS), default="codes", help="picks the best; default: %(default)s")
    parser.add_argument("--per_cell", type=int, default=10, help="recordings of one category by one speaker, at most")
    parser.add_argument("--fit_rows", type=int, default=2000, help="training rows for k-means, at most")
    parser.add_argument("--sample_rate", type=int, help="of mel, mfcc and chroma; models have their own")
    parser.add_argument("--frame_rate", type=float, help="frames a second of mel, mfcc and chroma, 50 unless said")
    parser.add_argument("--dynamic_range_db", type=float, default=0.0, help="of mel and mfcc; 0 is all")
    parser.add_argument("--standardised", action="store_true", help="mel or mfcc, each sound by itself")
    parser.add_argument(
        "--context", type=int, default=0, help="frames of mel and mfcc on each side, beside every frame"
    )
    parser.add_argument("--device", default="cpu", help="where features are made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for scores, intervals and counts")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure layer by layer, and tell."""
    parser = command_line()
    given = vars(parser.parse_args(arguments))
    manifest, layers, output = given.pop("manifest"), given.pop("layers"), given.pop("output")
    try:
        options = Options(**given)
        train, held = training(manifest, options), held_out(manifest, options)
        measured = [measure(layer, train, held, options) for layer in (sorted(set(layers)) if layers else [None])]
        best = pick(measured, options.by)
        if output:
            write_json(output, report(measured, best, options))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(table(measured, best))


if __name__ == "__main__":
    main()
