"""Semantic codes and when they are heard: of recordings, of the semantic stage, and how likely that stage finds them.

B batch, P known codes, N codes, V codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.inference.items import BATCH, OVERLAP
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling, draw
from audiolm_kit.protocols import AudioTokenizer
from audiolm_kit.repeats import deduplicate
from audiolm_kit.stages import Stage

SLACK = 1e-6
"""Seconds by which rounding may miss the border between two frames."""


class Track(NamedTuple):
    """Semantic codes of one sound and their places in time, on the CPU."""

    codes: Tensor
    """``[N]``."""
    times: Tensor
    """``[N]`` float64, seconds: where a recording's frame begins; for a code that was made, where its piece does."""

    @classmethod
    def empty(cls) -> Track:
        return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64))

    def between(self, start: float, stop: float) -> Track:
        """What is heard from ``start`` to before ``stop``."""
        inside = (self.times > start - SLACK) & (self.times < stop - SLACK)
        return Track(self.codes[inside], self.times[inside])

    def read(self, deduplicated: bool) -> Tensor:
        """The codes ``[n]`` as a stage reads them. A piece is cut out first, and then loses its repeats, as in data."""
        return deduplicate(self.codes[None]).codes[0] if deduplicated else self.codes

    def runs(self) -> Track:
        """Without repeats, each code where its run begins."""
        codes, lengths = deduplicate(self.codes[None])
        return Track(codes[0], self.times[lengths.cumsum(0) - lengths])

    def then(self, codes: Tensor, time: float) -> Track:
        """With codes ``[n]`` behind it, which share one place in time."""
        times = torch.full((len(codes),), time, dtype=torch.float64)
        return Track(torch.cat([self.codes, codes.cpu()]), torch.cat([self.times, times]))

    def joined(self, other: Track, seconds: float) -> Track:
        """With another one behind it, which begins at ``seconds``."""
        return Track(torch.cat([self.codes, other.codes]), torch.cat([self.times, other.times + seconds]))


def track_of(
    tokenizer: AudioTokenizer, sound: Sound, device: torch.device | str = "cpu", seconds: float | None = None
) -> Track:
    """The semantic codes of a recording, frame by frame, repeats included.

    Args:
        device: where the tokenizer computes.
        seconds: how much of the beginning is meant; then a last frame that it does not fill is left out, as the silence
            that would fill it up were continued as a pause. None: all, the last frame filled up as in data.

    Raises:
        ValueError: the recording is empty, or holds NaN or infinite samples.
    """
    audio.checked(sound.samples, "the recording")
    samples = audio.fit(sound, tokenizer.sample_rate, tokenizer.channels).samples
    count = None
    if seconds is not None:
        length = min(samples.shape[1], int((seconds + SLACK) * tokenizer.sample_rate))
        samples, count = samples[:, :length], int((length / tokenizer.sample_rate + SLACK) * tokenizer.frame_rate)
        if not count:
            return Track.empty()
    codes = tokenizer.encode(samples[None].to(device))[0, 0, :count].cpu()
    return Track(codes, torch.arange(len(codes), dtype=torch.float64) / tokenizer.frame_rate)


@torch.no_grad()
def extend(
    lm: StreamLM,
    known: Sequence[Tensor],
    count: int | Sequence[int],
    sampling: Sampling,
    seeds: Sequence[int],
    distinct: bool = False,
) -> list[Tensor]:
    """``count`` new codes ``[N]`` for each row, behind its own known ones ``[P]``, of which rows have unequal numbers.

    Rows go side by side: one whose known codes are not all read yet takes the next of them in the place of a drawn one.
    So a row depends on its own codes and seed alone.

    Args:
        lm: A semantic stage: one codebook, nothing in front.
        count: How many for all rows, or for each.
        seeds: One for each row.
        distinct: A code never equals the one before it, as where repeats are taken out.
    """
    lengths = torch.tensor([len(codes) for codes in known])
    counts = torch.tensor([count] * len(known) if isinstance(count, int) else list(count))
    most = int(counts.max())
    if not most:
        return [codes[:0] for codes in known]
    least, steps = int(lengths[counts > 0].min()), int((lengths + counts)[counts > 0].max())
    sequence = torch.full((len(known), 1, 1 + steps), lm.special)
    for row, codes in enumerate(known):
        sequence[row, 0, 1 : 1 + len(codes)] = codes[:steps]
    device = lm.embedding.weight.device
    sequence = sequence.to(device)
    uniforms = torch.stack([torch.rand(most, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    cache, read = lm.new_cache(len(known), steps), 0
    for step in range(1 + least, 1 + steps):
        logits = lm.predict(lm.read(sequence[:, :, read:step], cache=cache)[:, -1:])[:, :, 0]  # [B, 1, V]
        if distinct and lm.special > 1:
            before = sequence[:, :, step - 1, None]
            repeats = torch.arange(lm.special, device=device) == before  # none where the special code stands
            logits = logits.masked_fill(repeats, -torch.inf)
        new = step - 1 - lengths
        own = uniforms.gather(1, new.clamp(0, most - 1)[:, None]).to(device)
        drawn = draw(logits, sampling, own)
        sequence[:, :, step] = torch.where((new >= 0).to(device)[:, None], drawn, sequence[:, :, step])
        read = step
    ends = zip(lengths.tolist(), counts.tolist(), strict=True)
    return [sequence[row, 0, 1 + begin : 1 + begin + number].cpu() for row, (begin, number) in enumerate(ends)]


class Likelihood(NamedTuple):
    """How likely a stage finds the codes of a recording."""

    nats: float
    """The sum of the logarithms of their probabilities."""
    codes: int

    @property
    def per_code(self) -> float:
        return self.nats / self.codes if self.codes else math.nan


class _Piece(NamedTuple):
    row: int
    codes: Tensor  # [N]
    sign: int


def likelihoods(lm: StreamLM, stage: Stage, tracks: Sequence[Track]) -> list[Likelihood]:
    """What the semantic stage thinks of each recording; every code counts once.

    One that is longer than the stage's pieces is read piece after piece, each beginning with the last 0.3 of the one
    before, which are read again and not counted again.
    """
    read = [track.runs() if stage.deduplicated else track for track in tracks]
    pieces = [piece for row, track in enumerate(read) for piece in _pieces(row, track, stage.seconds)]
    pieces.sort(key=lambda piece: len(piece.codes))  # so that little is padded
    nats, device = [0.0] * len(tracks), lm.embedding.weight.device
    for first in range(0, len(pieces), BATCH):
        batch = pieces[first : first + BATCH]
        codes = pad_sequence([piece.codes for piece in batch], batch_first=True, padding_value=lm.special)[:, None]
        with torch.no_grad():
            found = lm.log_likelihood(codes.to(device), (codes[:, 0] != lm.special).to(device)).tolist()
        for piece, value in zip(batch, found, strict=True):
            nats[piece.row] += piece.sign * value
    return [Likelihood(total, len(track.codes)) for total, track in zip(nats, read, strict=True)]


def _pieces(row: int, track: Track, seconds: float) -> Iterator[_Piece]:
    """Windows of a recording and, to be taken off, the parts of them that have been counted before.

    By the chain rule what is left is the new codes' own, given those before them.
    """
    start, counted, last = 0.0, 0.0, float(track.times[-1]) if len(track.times) else -1.0
    while counted <= last + SLACK:
        window, again = track.between(start, start + seconds).codes, track.between(start, counted).codes
        if len(again) < len(window):
            yield _Piece(row, window, 1)
            if len(again):
                yield _Piece(row, again, -1)
        counted = start + seconds
        start = counted - OVERLAP * seconds
