"""StreamLM.begin: codes that stand for nearly the same begin nearly the same, as large as they were."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.transformer import TransformerConfig

CONFIG = LMConfig(num_codebooks=2, codebook_size=32, transformer=TransformerConfig(dim=24, heads=2, layers=1))
FRONT = replace(CONFIG, prefix=Prefix(num_codebooks=1, codebook_size=16))


def entries(books: int, size: int) -> Tensor:
    """On a line: each code's neighbours are the numbers beside it."""
    line = torch.linspace(-1, 1, size)
    return torch.stack([torch.stack([line, line.square()], 1) * 5**-book for book in range(books)])


def made(config: LMConfig) -> StreamLM:
    torch.manual_seed(0)
    return StreamLM(config)


def nearest_are_beside(weights: Tensor) -> bool:
    """Whether each code's nearest other one, of [V, D], is next to it."""
    distances = torch.cdist(weights, weights) + 1e9 * torch.eye(len(weights))
    return bool(((distances.argmin(1) - torch.arange(len(weights))).abs() == 1).all())


def test_neighbours_begin_as_neighbours_in_embeddings_and_heads() -> None:
    lm = made(CONFIG)
    assert not nearest_are_beside(lm.heads.weight[:32])
    lm.begin(entries(2, 32))
    for weights in (lm.embedding.weight.view(2, 33, 24)[:, :32], lm.heads.weight.view(2, 32, 24)):
        assert all(nearest_are_beside(book) for book in weights)
        assert not torch.equal(weights[0], weights[1])


def test_weights_are_as_large_as_they_were_and_no_code_stays_what_it_was() -> None:
    lm, before = made(CONFIG), made(CONFIG)
    lm.begin(entries(2, 32))
    for book in range(2):  # small entries, of later codebooks, too
        one, other = (each.heads.weight.view(2, 32, 24)[book].std() for each in (lm, before))
        torch.testing.assert_close(one, other)
    none = [each.embedding.weight.view(2, 33, 24)[:, 32] for each in (lm, before)]
    assert torch.equal(*none)


def test_codes_in_front_have_entries_of_their_own() -> None:
    lm = made(FRONT)
    learned = lm.heads.weight.clone()
    lm.begin(None, entries(1, 16))
    assert torch.equal(lm.heads.weight, learned) and nearest_are_beside(lm.prefix_embedding.weight)
