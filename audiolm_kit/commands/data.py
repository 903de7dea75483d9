"""The verbs that ready data: recordings into a manifest, a manifest into token shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from audiolm_kit.commands.given import checked_device

if TYPE_CHECKING:
    from torch import Tensor

    from audiolm_kit.codec.opening import AnyCodec
    from audiolm_kit.data.manifest import Row
    from audiolm_kit.data.tokenize import Revoice, TokenizeOptions
    from audiolm_kit.semantic.tokenizer import SemanticTokenizer

MOST_NAMED = 20  # rejected files on the screen; the file beside the manifest names all


def manifest(
    *source: str, output: str, layout: str = "auto", min_seconds: float = 0.05, without: tuple[str, ...] = ()
) -> None:
    """Make a manifest from folders of recordings, and say which files are left out and why.

    Args:
        source: A folder of sounds, or a manifest (.jsonl or .jsonl.gz), also one of audiocraft; or several of them.
        output: The manifest to write (JSON lines); its paths are relative to it.
        layout: Where captions and speakers stand; auto looks at the files, and a wrong name lists all layouts.
        min_seconds: Shorter sounds are left out.
        without: A word (or phrase); sounds whose caption, label or tags have it are left out.
    """
    from audiolm_kit.data.manifest import build_manifest

    kept, rejected = build_manifest(source, output, layout, min_seconds, without=without)
    for path, reason in rejected[:MOST_NAMED]:
        print(f"left out  {path}: {reason}")
    if len(rejected) > MOST_NAMED:
        print(f"left out  {len(rejected) - MOST_NAMED} more: see the .rejected.jsonl beside {output}")
    hours = sum(row.duration for row in kept) / 3600
    print(f"{output}: {len(kept)} sounds, {hours:.2f} h; {len(rejected)} left out")


def tokenize(codec: str, manifest: str, *, output: str, options: TokenizeOptions) -> None:
    """Encode the recordings of a manifest into token shards; a stopped run goes on where it was.

    Args:
        codec: The checkpoint folder of a codec, or of a semantic tokenizer (audiolm-kit kmeans); or its hub name.
        manifest: The manifest of the recordings (JSON lines).
        output: The folder for the shards.
    """
    from audiolm_kit import checkpoint, hub
    from audiolm_kit.codec.opening import open_codec
    from audiolm_kit.data.tokenize import SKIPPED
    from audiolm_kit.data.tokenize import tokenize as encode

    device = checked_device(options.device)
    model: AnyCodec | SemanticTokenizer
    folder = hub.checkpoint(codec)
    if checkpoint.kind_of(folder) == "SemanticTokenizer":
        from audiolm_kit.semantic.tokenizer import SemanticTokenizer

        model = checkpoint.load(SemanticTokenizer, folder)
    else:
        model = open_codec(folder)
    options = replace(options, device=device)
    revoice = other_voices(model, manifest, options) if options.other_voices else None
    report = encode(model, checkpoint.fingerprint(model), manifest, output, options, revoice)
    told = f"; {report.skipped} sounds skipped, see {SKIPPED}" if report.skipped else ""
    print(f"{output}: {report.rows} rows in {report.shards} shards{told}")


POOL_SECONDS = 300.0
"""Of each speaker's recordings, as many are listened to for what others may borrow."""
POOL_SPEAKERS = 100
"""As many lend their voices at most: what is kept of them stays in memory, 2.4 GB where a frame is 1024 numbers."""


def other_voices(tokenizer: AnyCodec | SemanticTokenizer, manifest: str, options: TokenizeOptions) -> Revoice:
    """What gives the codes of recordings in other voices of their manifest; it listens to those when first asked.

    Raises:
        ValueError: the tokenizer is a codec, or the manifest names fewer than two speakers.
    """
    from audiolm_kit.data.manifest import read_manifest
    from audiolm_kit.semantic.other_voices import OtherVoices
    from audiolm_kit.semantic.tokenizer import SemanticTokenizer

    if not isinstance(tokenizer, SemanticTokenizer):
        raise ValueError("other_voices is for semantic codes, and this is a codec: leave it out")
    rows = lenders(read_manifest(manifest, options.split), options.seed)
    if len(found := {row.speaker for row in rows}) < 2:
        named = ", ".join(map(str, found)) or "nobody"
        raise ValueError(f"{manifest} names {named}: other voices take two speakers or more, say who speaks")

    @cache
    def voices() -> OtherVoices:
        return OtherVoices(tokenizer.to(options.device), spoken(rows, tokenizer.sample_rate), options.other_voices)

    return lambda audio, speakers, draws: voices().encode(audio, speakers, draws)


def lenders(rows: list[Row], seed: int) -> list[Row]:
    """Recordings of at most so many speakers, and so many seconds of each, drawn by a seed; of nobody none."""
    import numpy as np

    draw = np.random.default_rng(seed)
    by_speaker: dict[str, list[Row]] = {}
    for place in draw.permutation(len(rows)).tolist():
        row = rows[place]
        if row.speaker:
            of_one = by_speaker.setdefault(row.speaker, [])
            if sum(each.duration for each in of_one) < POOL_SECONDS:
                of_one.append(row)
    known = sorted(by_speaker)
    if len(known) > POOL_SPEAKERS:
        known = sorted(draw.choice(known, POOL_SPEAKERS, replace=False).tolist())
    return [row for name in known for row in by_speaker[name]]


def spoken(rows: list[Row], sample_rate: int) -> Iterator[tuple[str, Tensor]]:
    """Who speaks, and samples [L] of each recording; one that cannot be read lends nothing.

    It is told of where its own codes are made, and left out there too.
    """
    from audiolm_kit import audio

    for row in rows:
        try:
            sound = audio.read(row.path, row.start, row.duration)
        except (OSError, ValueError):
            continue
        yield str(row.speaker), audio.fit(sound, sample_rate, 1).samples[0]
