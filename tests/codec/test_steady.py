"""Codes that stay: the least sum of distances and prices, and what is made of it."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from small_codecs import convnext
from torch import Tensor

from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig, ResidualQuantizer, nearest
from audiolm_kit.codec.steady import steadiest, steady_codes


def gaussian(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def changes(codes: Tensor) -> int:
    return int((codes[..., 1:] != codes[..., :-1]).sum())


def price(vectors: Tensor, entries: Tensor, path: tuple[int, ...], hold: float) -> float:
    distance = (vectors - entries[list(path)]).square().sum()
    return float(distance) + hold * sum(before != after for before, after in pairwise(path))


@pytest.mark.parametrize("hold", [0.0, 0.3, 1.0, 3.0, 100.0])
def test_no_other_sequence_costs_less(hold: float) -> None:
    entries = gaussian(3, 2)
    for seed in range(10):
        vectors = gaussian(1, 6, 2, seed=seed)
        found = steadiest(vectors, entries, hold)[0].tolist()
        least = min(product(range(3), repeat=6), key=lambda path: price(vectors[0], entries, path, hold))
        assert price(vectors[0], entries, tuple(found), hold) == pytest.approx(
            price(vectors[0], entries, least, hold), abs=1e-4
        )


def test_changes_are_rarer_the_more_they_cost_and_free_ones_are_the_nearest() -> None:
    vectors, entries = gaussian(4, 50, 3), gaussian(16, 3, seed=2)
    assert torch.equal(steadiest(vectors, entries, 0.0), nearest(vectors.flatten(0, 1), entries).view(4, 50))
    counts = [changes(steadiest(vectors, entries, hold)) for hold in (0.0, 0.5, 2.0, 1e6)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4 and counts[-1] == 0


def test_a_sound_that_changes_once_changes_its_codes_once_under_noise() -> None:
    quantizer = ResidualQuantizer(QuantizerConfig(num_codebooks=2, codebook_size=32, dim=4))
    torch.manual_seed(0)
    quantizer.begin(gaussian(8, 4, 100))
    wanted = torch.cat([quantizer.decode(torch.full((1, 2, 20), code)) for code in (3, 7)], 2)
    noisy = wanted + 0.3 * gaussian(1, 4, 40)
    assert changes(quantizer.encode(noisy)) > 20
    steady = quantizer.encode(noisy, hold=4.0)
    assert changes(steady) == 2 and torch.equal(steady[:, :, 19:21], steady[:, :, ::39])  # both books, where it does
    assert float((quantizer.decode(steady) - wanted).square().mean()) < 0.25 * float(wanted.square().mean())


def test_sweeps_lower_the_sum_that_books_one_after_another_leave() -> None:
    quantizer = ResidualQuantizer(QuantizerConfig(num_codebooks=3, codebook_size=16, dim=4))
    torch.manual_seed(0)
    latents = gaussian(4, 4, 50)
    quantizer.begin(latents)
    books = [book.embed for book in quantizer.books]
    left, once = latents.transpose(1, 2), []
    for entries in books:
        once.append(steadiest(left, entries, 0.5))
        left = left - entries[once[-1]]

    def cost(codes: Tensor) -> float:
        return float((quantizer.decode(codes) - latents).square().sum()) + 0.5 * changes(codes)

    assert cost(steady_codes(latents, books, 0.5)) < cost(torch.stack(once, 1))


def test_a_codec_says_them_of_each_sound_alone_and_of_any_length() -> None:
    torch.manual_seed(0)
    codec = NeuralCodec(convnext()).eval()
    audio = gaussian(3, 1, 4000) / 4
    codes = codec.encode_steady(audio, 0.05)
    assert codes.shape == codec.encode(audio).shape
    assert torch.equal(codec.encode_steady(audio[1:2], 0.05), codes[1:2])
    assert codec.decode(codes).shape == codec.decode(codec.encode(audio)).shape
    assert codec.encode_steady(audio[..., :10], 0.05).shape[2] == 1
    assert steadiest(gaussian(2, 0, 3), gaussian(4, 3), 1.0).shape == (2, 0)
    for hold in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"hold is {hold}, wanted a price of at least 0"):
            codec.encode_steady(audio, hold)
