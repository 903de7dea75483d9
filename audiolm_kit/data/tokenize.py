"""Manifest to token shards: each finished shard is a file, so a killed run goes on where it was.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from audiolm_kit import audio as sounds
from audiolm_kit.audio import Sound
from audiolm_kit.checkpoint import read_json, replacing, write_json
from audiolm_kit.data.augment import VariationRanges, draw_variation, pad_end, vary
from audiolm_kit.data.manifest import Row, read_manifest
from audiolm_kit.data.mixing import Distinct, Mix, Mixing, Partners, draw_mix, mix, mixed_row
from audiolm_kit.data.shards import Part, Skipped, TokenFormat, TokenRow, part_path, read_part, write_part
from audiolm_kit.protocols import AudioTokenizer, SteadyTokenizer

PLAN = "tokens.json"
SKIPPED = "skipped.jsonl"
HELD_SAMPLES = 2**26  # a shard's clips are gathered by length, yet no more than 256 MB of them at once


@dataclass(frozen=True)
class TokenizeOptions:
    """How recordings become rows of codes."""

    split: str | None = None
    """Only rows of this split; None takes all."""
    batch_size: int = 16
    """Clips of equal length that are encoded at once."""
    variants: int = 1
    """Rows per clip: the clip itself, then seeded mild variations of it."""
    tempo: tuple[float, float] = VariationRanges.tempo
    """Variants are also played faster or slower at their own pitch, by a factor of this range: 0.75,1.33."""
    semitones: int = VariationRanges.semitones
    """Variants of music are so many whole semitones higher or lower at most, as fast as that makes them: they stay in
    tune, which those of any mild speed (0) do not."""
    mixes: int = 0
    """Further rows per clip, each a mixture of it with another clip of its split, both mildly varied."""
    mix_joiner: str = Mixing.joiner
    """Stands between the captions of a mixture."""
    mix_distinct: Distinct = Mixing.distinct
    """What the other clip of a mixture must have of its own: row is any other recording."""
    mix_snr_db: tuple[float, float] = Mixing.snr_db
    """The clip's level over the other's, drawn from this range."""
    other_voices: int = 0
    """Of semantic codes, 4 for example: each frame becomes the mean of so many that are nearest to it of another of the
    manifest's speakers, so that a stage which stands on these codes cannot go by the voice in them. 0 leaves them as
    they are, and what is held out should stay as it is."""
    hold: float = 0.0
    """What a change of a code from one frame to the next costs, in squared distance of the codec's latents: codes then
    change where it pays, and repeat more often (``codec.steady``). 0 looks at each frame alone."""
    pad: float = 0.0
    """Clips get trailing silence up to this many seconds before they are encoded, so that a model learns to end."""
    rows_per_shard: int = 1024
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "variants", "rows_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted at least 1")
        for name, unit in (("pad", "seconds"), ("hold", "a price")):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}, wanted {unit} of at least 0")
        for name in ("mixes", "other_voices"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted at least 0 (none)")
        if self.mixes and self.other_voices:
            raise ValueError("mixes and other_voices are both given, wanted one: a mixture has no single voice")
        _ = self.mixing, self.ranges  # they refuse what cannot be

    @property
    def ranges(self) -> VariationRanges:
        """What variants are drawn from."""
        return VariationRanges(tempo=self.tempo, semitones=self.semitones)

    @property
    def mixing(self) -> Mixing:
        """How the mixtures are made."""
        return Mixing(snr_db=self.mix_snr_db, joiner=self.mix_joiner, distinct=self.mix_distinct)


Revoice = Callable[[Tensor, Sequence[str], Sequence[tuple[int, ...]]], Tensor]
"""Audio [B, 1, L], the speaker of each item and what its voice is drawn by -> codes [B, 1, T] in other voices."""


class TokenizeReport(NamedTuple):
    """What a run of ``tokenize`` leaves in its folder."""

    rows: int
    """Rows in all shards, also those of earlier runs."""
    shards: int
    skipped: int
    """Rows left out; ``skipped.jsonl`` says why."""
    seconds: float
    """Wall time of this run."""


class _Job(NamedTuple):
    """One row to be: which clip, and which variation of it or which mixture with another."""

    number: int
    row: Row
    variant: int
    mix: Mix | None = None
    partner: Row | None = None


class _Clip(NamedTuple):
    """A job's waveform, ready for the codec."""

    job: _Job
    audio: Tensor  # [C, L], whole frames
    seconds: float  # before padding


def tokenize(
    codec: AudioTokenizer,
    fingerprint: str,
    manifest: str | Path,
    output: str | Path,
    options: TokenizeOptions = TokenizeOptions(),
    revoice: Revoice | None = None,
) -> TokenizeReport:
    """Encode a manifest's clips into the shards of ``output``; finished shards of an earlier run are kept.

    Args:
        codec: what encodes; a module is put into evaluation mode on ``options.device``.
        fingerprint: names the codec in every shard, so that no model trains on another's codes.
        revoice: encodes in the codec's place where ``options.other_voices`` asks for that.

    Raises:
        ValueError: ``output`` was begun with another manifest, codec or options, the manifest has no rows, or nothing
            can give the voices, or codes that hold, which the options ask for.
    """
    began = time.perf_counter()
    if bool(options.other_voices) != (revoice is not None):
        raise ValueError(f"other_voices is {options.other_voices}, and revoice is {revoice}: give both, or neither")
    if options.hold and not isinstance(codec, SteadyTokenizer):
        raise ValueError(f"hold is {options.hold}, and this tokenizer knows no price of a change: leave it 0")
    rows = _rows(manifest, options.split)
    output, root = Path(output), Path(manifest).resolve().parent
    token_format = TokenFormat(
        fingerprint, codec.num_codebooks, codec.codebook_size, codec.frame_rate, codec.sample_rate
    )
    jobs = list(_jobs(rows, options))
    _begin(output, _plan(rows, root, token_format, options))
    if isinstance(codec, nn.Module):
        codec.eval().to(options.device)
    encode = partial(_codes, codec, revoice, options)
    groups = [jobs[first : first + options.rows_per_shard] for first in range(0, len(jobs), options.rows_per_shard)]
    with tqdm(total=len(jobs), unit="clip", desc="tokenize", disable=not sys.stderr.isatty()) as progress:
        for number, group in enumerate(groups):
            if _is_done(output, Part(number, len(groups)), token_format):
                progress.update(len(group))
                continue
            written, skipped = _encode_group(codec, _watched(group, progress), root, options, encode)
            write_part(output, Part(number, len(groups), tuple(skipped)), written, token_format)
    return _finish(output, len(groups), began)


def _rows(manifest: str | Path, split: str | None) -> list[Row]:
    rows = read_manifest(manifest, split)
    if not rows:
        wanted = "rows" if split is None else f"rows of split {split!r}"
        raise ValueError(f"{manifest} has no {wanted}: nothing to tokenize")
    return rows


def _jobs(rows: list[Row], options: TokenizeOptions) -> Iterator[_Job]:
    """Clip after clip: its variants, then its mixtures, which go on counting."""
    partners = Partners(rows, options.mix_distinct) if options.mixes else None
    for number, row in enumerate(rows):
        yield from (_Job(number, row, variant) for variant in range(options.variants))
        for count in range(options.mixes):
            assert partners is not None
            drawn = draw_mix(options.seed, number, count, partners, options.mixing)
            yield _Job(number, row, options.variants + count, drawn, rows[drawn.partner])


# --- resuming ---------------------------------------------------------------------------------------------------------


def _plan(rows: list[Row], root: Path, token_format: TokenFormat, options: TokenizeOptions) -> dict[str, Any]:
    """Everything that decides what the shards will hold, small enough to keep beside them."""
    digest = hashlib.sha256()
    for row in rows:
        what = (_relative(row.path, root), row.start, row.duration, row.caption, row.speaker, row.label, row.split)
        digest.update(json.dumps(what).encode())
    left_out = ["batch_size", "device"]
    if not options.mixes:  # nor is there a word of them in folders that were begun before mixtures came
        left_out += ["mixes", "mix_joiner", "mix_distinct", "mix_snr_db"]
    left_out += [name for name in ("other_voices", "hold") if not getattr(options, name)]
    left_out += [name for name in ("tempo", "semitones") if getattr(options, name) == getattr(VariationRanges, name)]
    chosen = {name: value for name, value in asdict(options).items() if name not in left_out}
    return {
        "format": 1,
        "manifest": digest.hexdigest()[:16],
        "codec": token_format.fingerprint,
        "options": json.loads(json.dumps(chosen)),  # as it is read back: tuples are lists
        "rows": len(rows),
    }


def _begin(output: Path, plan: dict[str, Any]) -> None:
    """Take the folder for this plan, or go on with it; a folder of another plan is refused."""
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob(".part-*"):  # what a killed run was writing
        shutil.rmtree(leftover, ignore_errors=True)
    if not (output / PLAN).exists():
        if any(output.glob("part-*.parquet")):
            raise ValueError(f"{output} holds shards but no {PLAN}: give another output folder, or delete this one")
        write_json(output / PLAN, plan)
        return
    begun = read_json(output / PLAN)
    for name, wanted in plan.items():
        if begun.get(name) != wanted:
            raise ValueError(
                f"{output} was begun with {name} {begun.get(name)}, now it is {wanted}: "
                "give another output folder, or delete this one"
            )


def _is_done(output: Path, wanted: Part, token_format: TokenFormat) -> bool:
    """Whether a whole part of this plan stands there already."""
    path = part_path(output, wanted.number)
    if not path.exists():
        return False
    found_format, found, _ = read_part(path)
    return found_format == token_format and found[:2] == wanted[:2]


def _watched(jobs: list[_Job], progress: tqdm[Any]) -> Iterator[_Job]:
    """The jobs, each counted once it has been taken."""
    for job in jobs:
        yield job
        progress.update(1)


def _finish(output: Path, total: int, began: float) -> TokenizeReport:
    """Gather what the parts say about themselves into the report and ``skipped.jsonl``."""
    rows = 0
    skipped: list[Skipped] = []
    for number in range(total):
        _, part, num_rows = read_part(part_path(output, number))
        rows += num_rows
        skipped += part.skipped
    if not rows:
        first = f"the first: {skipped[0].path}: {skipped[0].reason}" if skipped else "there are none"
        raise ValueError(f"no recording of {output / PLAN} could be encoded ({first}): see `audiolm-kit manifest`")
    if skipped:
        with replacing(output / SKIPPED) as draft:
            draft.write_text(
                "".join(json.dumps(each._asdict(), ensure_ascii=False) + "\n" for each in skipped), encoding="utf-8"
            )
    return TokenizeReport(rows, total, len(skipped), time.perf_counter() - began)


# --- encoding ---------------------------------------------------------------------------------------------------------


_Encode = Callable[[Tensor, "list[_Job]"], Tensor]


def _codes(
    codec: AudioTokenizer, revoice: Revoice | None, options: TokenizeOptions, audio: Tensor, jobs: list[_Job]
) -> Tensor:
    """The codes of one batch, [B, C, L] -> [B, K, T]."""
    audio = audio.to(options.device)
    if revoice is None:
        if options.hold and isinstance(codec, SteadyTokenizer):
            return codec.encode_steady(audio, options.hold).cpu()
        return codec.encode(audio).cpu()
    draws = [(options.seed, job.number, job.variant) for job in jobs]
    return revoice(audio, [job.row.speaker or "" for job in jobs], draws).cpu()


def _encode_group(
    codec: AudioTokenizer, jobs: Iterable[_Job], root: Path, options: TokenizeOptions, encode: _Encode
) -> tuple[list[TokenRow], list[Skipped]]:
    """The rows of one shard in the order of its jobs, and the clips that gave none."""
    rows: list[TokenRow] = []
    skipped: list[Skipped] = []
    clips: list[_Clip] = []
    held, recordings = 0, _Recordings(codec, options.ranges)
    for job in jobs:
        try:
            clips.append(_prepare(recordings, job, options))
            held += clips[-1].audio.numel()
        except (OSError, ValueError) as error:
            mixed = f"mixed with {_relative(job.partner.path, root)}: " if job.partner else ""
            skipped.append(Skipped(_relative(job.row.path, root), mixed + str(error).replace("\n", " ")))
        if held > HELD_SAMPLES:
            rows += _encode(encode, clips, root, options)
            clips, held = [], 0
    return rows + _encode(encode, clips, root, options), skipped


def _encode(encode: _Encode, clips: list[_Clip], root: Path, options: TokenizeOptions) -> list[TokenRow]:
    """The rows of clips, in their order, though they are encoded by length."""
    codes: dict[int, Tensor] = {}
    for batch in _equal_lengths(clips, options.batch_size):
        audio = torch.stack([clips[place].audio for place in batch])
        with torch.no_grad():
            codes.update(zip(batch, encode(audio, [clips[place].job for place in batch]), strict=True))
    return [_row(clip, codes[place], root, options.mix_joiner) for place, clip in enumerate(clips)]


class _Recordings:
    """Clips as the codec takes them; the last one stays, since its variations follow one another."""

    def __init__(self, codec: AudioTokenizer, ranges: VariationRanges) -> None:
        self.ranges, self.sample_rate, self.channels = ranges, codec.sample_rate, codec.channels
        self.frame = round(codec.sample_rate / codec.frame_rate)
        self._last: tuple[Row, Sound] | None = None

    def varied(self, row: Row, drawn: tuple[int, int, int]) -> Sound:
        """A clip in the variation of (seed, row, variant)."""
        return vary(self._read(row), draw_variation(*drawn, self.sample_rate, self.frame, self.ranges))

    def _read(self, row: Row) -> Sound:
        if self._last is None or self._last[0] is not row:
            sound = sounds.fit(sounds.read(row.path, row.start, row.duration), self.sample_rate, self.channels)
            sounds.checked(sound.samples, row.path)
            self._last = row, sound
        return self._last[1]


def _prepare(recordings: _Recordings, job: _Job, options: TokenizeOptions) -> _Clip:
    """Read, fit, vary, mix and pad one clip.

    It ends on a whole frame, so clips of equally many frames make a batch without padding each other: a padded batch
    would change the codes of the short ones.
    """
    rate, frame = recordings.sample_rate, recordings.frame
    if job.mix is None or job.partner is None:
        sound = recordings.varied(job.row, (options.seed, job.number, job.variant))
    else:
        one, other = job.mix.variants
        sound = mix(
            recordings.varied(job.row, (options.seed, job.number, one)),
            recordings.varied(job.partner, (options.seed, job.mix.partner, other)),
            job.mix,
            options.mixing,
        )
    length = max(sound.samples.shape[1], round(options.pad * rate))
    return _Clip(job, pad_end(sound.samples, math.ceil(length / frame) * frame), sound.samples.shape[1] / rate)


def _equal_lengths(clips: list[_Clip], batch_size: int) -> Iterator[list[int]]:
    """The places of clips in batches whose clips are all equally long."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        by_length[clip.audio.shape[1]].append(place)
    for places in by_length.values():
        yield from (places[first : first + batch_size] for first in range(0, len(places), batch_size))


def _row(clip: _Clip, codes: Tensor, root: Path, joiner: str) -> TokenRow:
    row, partner = clip.job.row, clip.job.partner
    if partner is not None:
        row = mixed_row(row, partner, joiner)
    return TokenRow(
        codes=codes.long(),
        text=row.caption or "",
        path=_relative(row.path, root),
        variant=clip.job.variant,
        start=row.start,
        seconds=clip.seconds,
        speaker=row.speaker or "",
        label=row.label or "",
        split=row.split or "",
        mixed_with="" if partner is None else _relative(partner.path, root),
    )


def _relative(path: str | Path, root: Path) -> str:
    """The path as the manifest says it, so that shards name no machine's folders; outside it, in full."""
    path = Path(path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
