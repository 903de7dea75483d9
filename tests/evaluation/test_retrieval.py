"""Retrieval: ranks by hand, ties, captions of several sounds, and torchmetrics' recall."""

from __future__ import annotations

import pytest
import torch

from audiolm_kit.evaluation.retrieval import ranks, recall


def test_sounds_at_their_captions_are_always_found() -> None:
    found = ranks(torch.eye(4), torch.eye(4), range(4))
    assert found.of_texts.tolist() == found.of_sounds.tolist() == [0] * 4
    assert recall(found.of_texts, 1) == [1.0] * 4


def test_ranks_count_what_stands_before() -> None:
    sounds = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    texts = torch.tensor([[0.9, 0.1], [1.0, 0.2], [0.0, 1.0]])
    found = ranks(sounds, texts, [0, 2])
    assert found.of_texts.tolist() == [0, 2] and found.of_sounds.tolist()[::2] == [0, 0]
    assert recall(found.of_texts, 2) == [1.0, 0.0] and recall(found.of_texts, 3) == [1.0, 1.0]


def test_a_caption_is_found_by_the_best_of_its_sounds() -> None:
    sounds = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    found = ranks(sounds, torch.eye(2), [0, 1, 0])
    assert found.of_sounds.tolist() == [0, 0] and found.of_texts.tolist() == [0, 0, 0.5]


def test_ties_are_half_and_lengths_do_not_count() -> None:
    found = ranks(torch.ones(3, 2), torch.ones(3, 2), range(3))
    assert found.of_texts.tolist() == [1, 1, 1]
    sounds, texts = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.equal(ranks(sounds, 3 * texts, range(5)).of_texts, ranks(0.1 * sounds, texts, range(5)).of_texts)


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_recall_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.retrieval").retrieval_recall
    generator = torch.Generator().manual_seed(0)
    sounds, texts = (torch.randn(9, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    fit = torch.nn.functional.normalize(sounds, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    fit = fit + 2  # theirs finds nothing at 0 or below
    for count in (1, 3, 5):
        wanted = [float(theirs(row, torch.arange(9) == place, top_k=count)) for place, row in enumerate(fit)]
        assert recall(ranks(sounds, texts, range(9)).of_texts, count) == wanted


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one owner for each sound"):
        ranks(torch.eye(3), torch.eye(3), [0, 1])
