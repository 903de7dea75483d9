"""Semantic codes as of another speaker: frames are converted by their nearest neighbours before they become codes.

B batch, L samples, T frames, D dimensions of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiolm_kit.semantic.kmeans import Sample, assign
from audiolm_kit.semantic.tokenizer import SemanticTokenizer

POOL = 6000
"""Frames that are kept of each speaker, drawn evenly: two minutes at 50 a second."""
AT_ONCE = 1024
"""Frames that are looked up at once: a table of so many by POOL distances takes 25 MB."""
SHRUNK = 0.05
"""Of the mean variance, added to each: directions in which a speaker's frames hardly differ are not blown up."""


class Spread(NamedTuple):
    """Where the frames of a speaker lie, and how widely."""

    mean: Tensor  # [D]
    root: Tensor  # [D, D], the square root of their covariance
    inverse: Tensor  # [D, D], of that

    @classmethod
    def of(cls, frames: Tensor) -> Spread:
        """Of frames [N, D]."""
        covariance = torch.cov(frames.T.double()).reshape(frames.shape[1], -1)
        variance = covariance.diagonal().mean().clamp(min=torch.finfo(frames.dtype).tiny)
        values, vectors = torch.linalg.eigh(covariance + SHRUNK * variance * torch.eye(len(covariance)).to(covariance))
        root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
        return cls(frames.mean(0), root.to(frames), inverse.to(frames))


class OtherVoices:
    """Codes of recordings, each frame replaced by the mean of those of one other speaker that are nearest to it.

    Codes that were found for few speakers tell who speaks. An acoustic stage that learns on codes which others lent
    cannot go by that: it has to take the voice from the acoustic prompt, and without one it makes one up. After the
    voice conversion of Baas et al. 2023 (arXiv:2305.18975), which goes on from such frames to sound; here they become
    codes. There the nearest are those at the smallest angle, here those at the smallest distance, by which codes are
    chosen too. And before it is looked at which are nearest, frames are moved to where the other speaker's lie, mean
    and covariance (Sun et al. 2016, arXiv:1511.05547): else the nearest are often those of a like voice, rather than
    those of the same sound.
    """

    def __init__(self, tokenizer: SemanticTokenizer, sounds: Iterable[tuple[str, Tensor]], neighbours: int) -> None:
        """Gather what speakers sound like.

        Args:
            sounds: speaker and samples [L], mono at the tokenizer's rate, of at least two speakers.
            neighbours: how many of the nearest frames a mean is of; 4 in the paper.

        Raises:
            ValueError: fewer than two speakers, one with fewer frames than ``neighbours``, or fewer neighbours than 1.
        """
        if neighbours < 1:
            raise ValueError(f"neighbours is {neighbours}: give 1 or more nearest frames")
        self.tokenizer, self.neighbours = tokenizer, neighbours
        device = tokenizer.centroids.device
        kept: dict[str, Sample] = {}
        for speaker, samples in sounds:
            frames = tokenizer.embed(samples[None, None].to(device))[0]
            kept.setdefault(speaker, Sample(POOL, 0)).add(frames.cpu().numpy())
        if len(kept) < 2:
            found = ", ".join(kept) or "nobody"
            raise ValueError(f"the recordings name {found}: other voices take two speakers or more, say who speaks")
        self.pools = {name: torch.tensor(kept[name].frames, device=device) for name in sorted(kept)}
        for name, pool in self.pools.items():
            if len(pool) < neighbours:
                raise ValueError(f"{name} has {len(pool)} frames, fewer than {neighbours} neighbours: ask for less")
        self._spreads = {name: Spread.of(pool) for name, pool in self.pools.items()}
        self._anyone = Spread.of(torch.cat(list(self.pools.values())))

    @torch.no_grad()
    def encode(self, audio: Tensor, speakers: Sequence[str], draws: Sequence[tuple[int, ...]]) -> Tensor:
        """Audio [B, 1, L] -> codes [B, 1, T], each item in the voice of a speaker other than its own.

        Args:
            speakers: of each item; one that nobody knows may get any voice.
            draws: decide for each item which voice that is.
        """
        with torch.autocast(audio.device.type, enabled=False):
            frames = self.tokenizer.embed(audio)
            lent = [self._lent(*each) for each in zip(frames, speakers, draws, strict=True)]
            return assign(torch.stack(lent), self.tokenizer.centroids)[:, None]

    def _lent(self, frames: Tensor, speaker: str, draw: tuple[int, ...]) -> Tensor:
        """Frames [T, D] of one speaker -> [T, D] in the voice of another."""
        others = [name for name in self.pools if name != speaker]
        other = others[int(np.random.default_rng(draw).integers(len(others)))]
        pool, own, wanted = self.pools[other], self._spreads.get(speaker, self._anyone), self._spreads[other]
        moved = (frames - own.mean) @ own.inverse @ wanted.root + wanted.mean
        found = []
        for piece in moved.split(AT_ONCE):
            nearest = torch.cdist(piece, pool).topk(self.neighbours, dim=1, largest=False).indices
            found.append(pool[nearest].mean(dim=1))
        return torch.cat(found)
