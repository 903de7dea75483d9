"""Residual vector quantiser with moving-average codebooks that agree across ranks.

van den Oord et al. 2017 (appendix A.1) for the moving averages; Zeghidour et al. 2021 (SoundStream, sections III-C and
III-D) for the residual stack, the k-means start, the revival of dead codes and quantizer dropout.
B batch, D width, T frames, K codebooks, V codebook size, N vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from audiolm_kit.codec.steady import steady_codes


@dataclass(frozen=True)
class QuantizerConfig:
    """Sizes and moving averages of a residual quantiser."""

    num_codebooks: int = 8
    codebook_size: int = 1024
    dim: int = 128
    """The width of the latents."""
    decay: float = 0.99
    """Of the codebooks' moving averages, per training step."""
    kmeans_iterations: int = 10
    """Of the start on the first batch."""
    revive_below: float = 0.05
    """A code chosen less often than this share of the mean code is replaced by a latent of the batch (0: never).

    A share and not a count (EnCodec counts 2 in its batch of 64), so that it holds for every batch size and rank count.
    """

    beam: int = 1
    """How many partial sums ``encode`` follows from book to book.

    1 takes the nearest entry each time, as EnCodec does and as training does. More find a nearer sum of entries at the
    same bitrate, because the best first entry need not begin the best sum.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.beam <= self.codebook_size:
            raise ValueError(f"beam is {self.beam}, wanted 1 to codebook_size, {self.codebook_size}")
        if min(self.num_codebooks, self.codebook_size, self.dim) < 1:
            raise ValueError(f"a quantiser needs at least 1 codebook, code and dimension, got {self}")
        if self.codebook_size > 65536:
            raise ValueError(f"codebook_size is {self.codebook_size}: shards hold 16-bit codes, at most 65536")


class Quantized(NamedTuple):
    """What comes out of the quantiser."""

    latents: Tensor
    """[B, D, T], the sum of the chosen entries; gradients pass straight through to the input."""
    codes: Tensor
    """[B, K, T]."""
    commitment: Tensor
    """[], the mean squared distance of each residual to its entry."""


class Codebook(nn.Module):
    """V entries that follow the moving average of the vectors they are chosen for."""

    embed: Tensor
    embed_sum: Tensor
    cluster_size: Tensor
    inited: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.dim
        # Before the k-means start the entries are random, so that an untrained codec still has distinct codes.
        entries = torch.empty(size, dim)
        nn.init.kaiming_uniform_(entries)
        self.register_buffer("embed", entries)
        self.register_buffer("embed_sum", entries.clone())
        self.register_buffer("cluster_size", torch.ones(size))
        self.register_buffer("inited", torch.zeros(1))

    def encode(self, vectors: Tensor) -> Tensor:
        """The nearest entry of each vector, [..., D] -> [...]."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        # In full precision also under autocast, or training would choose other entries than the finished codec.
        with torch.autocast(vectors.device.type, enabled=False):
            return nearest(flat, self.embed).view(vectors.shape[:-1])

    def extend(self, residuals: Tensor, beam: int) -> tuple[Tensor, Tensor]:
        """The ``beam`` best next steps of W partial sums, nearest first.

        Args:
            residuals: [N, W, D], what each partial sum has left over.

        Returns:
            Which partial sum each step goes on from and the code it takes, [N, beam] each.
        """
        with torch.autocast(residuals.device.type, enabled=False):  # as in encode
            flat = torch.addmm(self.embed.pow(2).sum(1), residuals.flatten(0, 1), self.embed.t(), alpha=-2)
        if residuals.shape[1] == beam == 1:  # the first of the nearest, found sooner than by topk
            chosen = flat.min(1, keepdim=True).indices
            return torch.zeros_like(chosen), chosen
        distances = flat.view(*residuals.shape[:2], -1)  # [N, W, V]
        if residuals.shape[1] > 1:  # |x|^2 matters only between partial sums
            distances += residuals.pow(2).sum(-1, keepdim=True)
        steps = distances.flatten(1).topk(beam, largest=False).indices
        return steps // len(self.embed), steps % len(self.embed)

    def decode(self, codes: Tensor) -> Tensor:
        """The entries of codes, [...] -> [..., D]."""
        return F.embedding(codes, self.embed)

    @torch.no_grad()
    def learn(self, vectors: Tensor, used: Tensor) -> None:
        """Begin at the k-means of the first vectors; after that, follow the moving averages.

        Every rank calls it in every step, also with nothing used, so that the collective calls inside meet. What no
        rank uses stays as it is.

        Args:
            vectors: [N, D].
            used: [N], 1 for the vectors to learn from, 0 for those that do not reach this codebook.
        """
        if not bool(_over_ranks(used.sum())):
            return
        if not bool(self.inited):
            self.start(vectors[used > 0] if bool(used.any()) else vectors)
        codes, size, decay = self.encode(vectors), self.config.codebook_size, self.config.decay
        counts = torch.zeros_like(self.cluster_size).index_add_(0, codes, used)
        sums = torch.zeros_like(self.embed_sum).index_add_(0, codes, vectors * used[:, None])
        self.cluster_size.mul_(decay).add_(_over_ranks(counts), alpha=1 - decay)
        self.embed_sum.mul_(decay).add_(_over_ranks(sums), alpha=1 - decay)
        self._revive(vectors, used)
        # Laplace smoothing keeps the division finite for codes that nobody chose.
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + 1e-5) / (total + size * 1e-5) * total
        self.embed.copy_(self.embed_sum / smoothed[:, None])

    def start(self, vectors: Tensor) -> None:
        """Begin at the k-means of vectors [N, D]."""
        entries, counts = kmeans(vectors, self.config.codebook_size, self.config.kmeans_iterations)
        self.embed.copy_(_from_rank_0(entries))
        self.cluster_size.copy_(_from_rank_0(counts))
        self.embed_sum.copy_(self.embed * self.cluster_size[:, None])
        self.inited.fill_(1)

    def _revive(self, vectors: Tensor, used: Tensor) -> None:
        """Give codes that have died out a vector of this batch, drawn on rank 0 for all, and a mean code's weight."""
        mean = self.cluster_size.mean()
        dead = self.cluster_size < self.config.revive_below * mean
        weights = used if bool(used.any()) else torch.ones_like(used)
        drawn = torch.multinomial(weights, self.config.codebook_size, replacement=True)
        fresh = _from_rank_0(vectors[drawn])
        self.cluster_size.copy_(torch.where(dead, mean, self.cluster_size))
        self.embed_sum.copy_(torch.where(dead[:, None], fresh * mean, self.embed_sum))


class ResidualQuantizer(nn.Module):
    """K codebooks in a row, each for what the ones before it left over."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.books = nn.ModuleList(Codebook(config) for _ in range(config.num_codebooks))

    def forward(self, latents: Tensor, num_codebooks: Tensor | None = None) -> Quantized:
        """Quantise latents [B, D, T]; in training mode the codebooks learn from them.

        Args:
            num_codebooks: [B], how many codebooks each item uses (quantizer dropout); all K where None. Codes of
                unused codebooks are still given, but add nothing to the latents, the commitment or the averages.
        """
        target = rearrange(latents, "b d t -> b t d").float()
        residual, quantized = target, torch.zeros_like(target)
        codes, commitments = [], []
        for index, book in enumerate(self._first(None)):
            used = self._used(index, num_codebooks, target)
            if self.training:
                book.learn(residual.detach().flatten(0, 1), used.expand(-1, target.shape[1]).flatten())
            chosen = book.encode(residual.detach())
            entries = book.decode(chosen)
            distance = ((residual - entries).pow(2).mean(-1) * used).sum()
            commitments.append(distance / (used.sum().clamp_min(1) * target.shape[1]))
            quantized = quantized + entries * used[..., None]
            residual = residual - entries * used[..., None]
            codes.append(chosen)
        straight = target + (quantized - target).detach()
        return Quantized(rearrange(straight, "b t d -> b d t"), torch.stack(codes, 1), torch.stack(commitments).mean())

    @torch.no_grad()
    def begin(self, latents: Tensor) -> None:
        """Start all codebooks as the k-means of latents [B, D, T], each of what the ones before it leave over.

        For finished encoders: from the first batch of a training alone, or from moving averages over batches of a few
        hundred vectors, large codebooks come out worse.
        """
        residuals = rearrange(latents, "b d t -> (b t) d").float()
        for book in self._first(None):
            book.start(residuals)
            residuals = residuals - book.decode(book.encode(residuals))

    def _first(self, num_codebooks: int | None) -> list[Codebook]:
        """The first codebooks; None for all."""
        return cast("list[Codebook]", list(self.books)[:num_codebooks])

    @staticmethod
    def _used(index: int, num_codebooks: Tensor | None, like: Tensor) -> Tensor:
        """1 for items that use codebook ``index``, else 0, [B, 1]."""
        if num_codebooks is None:
            return like.new_ones(len(like), 1)
        return (num_codebooks > index).to(like)[:, None]

    def encode(self, latents: Tensor, num_codebooks: int | None = None, hold: float = 0.0) -> Tensor:
        """Latents [B, D, T] -> codes [B, K, T], the best that ``config.beam`` partial sums lead to.

        With ``hold``, of whole sounds, those that change where it pays (``codec.steady``); there is then no beam.
        """
        if hold:
            return steady_codes(latents, [book.embed for book in self._first(num_codebooks)], hold)
        residuals = rearrange(latents, "b d t -> (b t) 1 d")  # [N, W, D], W partial sums for each vector
        codes = residuals.new_zeros(*residuals.shape[:2], 0, dtype=torch.long)  # [N, W, K so far]
        for book in self._first(num_codebooks):
            parents, chosen = book.extend(residuals, self.config.beam)
            codes = torch.cat([_taken(codes, parents), chosen[..., None]], -1)
            residuals = _taken(residuals, parents) - book.decode(chosen)
        return rearrange(codes[:, 0], "(b t) k -> b k t", b=len(latents))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] of the first K' <= K codebooks -> latents [B, D, T]."""
        books = self._first(codes.shape[1])
        latents = torch.stack([book.decode(stream) for book, stream in zip(books, codes.unbind(1), strict=True)]).sum(0)
        return rearrange(latents, "b t d -> b d t")


def _taken(sums: Tensor, parents: Tensor) -> Tensor:
    """The rows of [N, W, ...] that go on, [N, W']: [N, W', ...]."""
    if sums.shape[1] == parents.shape[1] == 1:
        return sums
    return sums.gather(1, parents[..., None].expand(-1, -1, sums.shape[2]))


def nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """The index of each vector's nearest entry, [N, D] and [V, D] -> [N]."""
    # |x - e|^2 without |x|^2, which is the same for every entry.
    return (entries.pow(2).sum(1) - 2 * vectors @ entries.t()).argmin(1)


def kmeans(vectors: Tensor, num_clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means of [N, D] -> centroids [V, D] and how many vectors each took [V].

    A cluster that loses all its vectors is put onto a random one.
    """
    centroids = vectors[_sample(len(vectors), num_clusters, vectors.device)]
    counts = torch.ones(num_clusters, device=vectors.device)
    for _ in range(iterations):
        chosen = nearest(vectors, centroids)
        counts = torch.bincount(chosen, minlength=num_clusters).to(vectors.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, chosen, vectors)
        fresh = vectors[_sample(len(vectors), num_clusters, vectors.device)]
        centroids = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), fresh)
    return centroids, counts


def _sample(num: int, size: int, device: torch.device) -> Tensor:
    """``size`` indices below ``num``, without repeats where that is possible."""
    if num >= size:
        return torch.randperm(num, device=device)[:size]
    return torch.randint(num, (size,), device=device)


def _over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def _from_rank_0(tensor: Tensor) -> Tensor:
    """Rank 0's value, on every rank."""
    if distributed.is_available() and distributed.is_initialized():
        tensor = tensor.contiguous()
        distributed.broadcast(tensor, src=0)
    return tensor
